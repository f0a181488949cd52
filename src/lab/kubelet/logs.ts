/**
 * A container's output file as `kubectl logs` asks for it: tail, limit, follow. The file holds what the program wrote and
 * nothing else, so that a pod's output survives the lab's daemon; times of single lines are not known.
 */
import { watch } from 'node:fs'
import { open } from 'node:fs/promises'
import type { LogOptions } from '../api/interfaces.ts'

const CHUNK_BYTES = 64 << 10

/** Where the last `lines` lines begin, in bytes. */
async function tailStart(file: Awaited<ReturnType<typeof open>>, lines: number): Promise<number> {
  let end = (await file.stat()).size
  let missing = lines
  const chunk = Buffer.alloc(CHUNK_BYTES)
  const size = end
  while (end > 0) {
    const from = Math.max(0, end - CHUNK_BYTES)
    await file.read(chunk, 0, end - from, from)
    for (let i = end - from - 1; i >= 0; i--) {
      if (chunk[i] !== 10 || from + i === size - 1) continue
      if (--missing === 0) return from + i + 1
    }
    end = from
  }
  return 0
}

/**
 * Yields the file's bytes, from `startBytes` on where it is given instead of `tailLines`; with `follow`, goes on until aborted
 * or `ended()` holds and everything was read.
 */
export async function* readLog(
  path: string,
  options: LogOptions & { readonly startBytes?: number },
  ended: () => boolean,
): AsyncGenerator<Buffer> {
  const file = await open(path, 'r')
  let wake = () => {}
  const watcher = options.follow ? watch(path, () => wake()) : undefined
  const onAbort = () => wake()
  options.signal.addEventListener('abort', onAbort)
  try {
    let at =
      options.tailLines === undefined
        ? (options.startBytes ?? 0)
        : options.tailLines === 0
          ? (await file.stat()).size
          : await tailStart(file, options.tailLines)
    let left = options.limitBytes ?? Number.POSITIVE_INFINITY
    while (left > 0 && !options.signal.aborted) {
      const finished = ended()
      const buffer = Buffer.alloc(Math.min(CHUNK_BYTES, left))
      const changed = new Promise<void>((resolve) => {
        wake = resolve
      })
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
      if (bytesRead > 0) {
        at += bytesRead
        left -= bytesRead
        yield buffer.subarray(0, bytesRead)
        continue
      }
      if (!options.follow || finished) return
      // The end of the program is not an event of the file: look again now and then.
      await Promise.race([changed, new Promise((resolve) => setTimeout(resolve, 500))])
    }
  } finally {
    options.signal.removeEventListener('abort', onAbort)
    watcher?.close()
    await file.close()
  }
}
