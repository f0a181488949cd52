/** Asks the control socket of a speaker that runs on this machine. */
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

/** The items of an answer as they come. Throws an Error with the speaker's words, or one that names the socket. */
export async function* askSpeaker<T>(path: string, request: Readonly<Record<string, unknown>>): AsyncGenerator<T> {
  const socket = connect(path)
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', (cause) => reject(new Error(`No BGP speaker answers at ${path}`, { cause })))
  })
  socket.on('error', () => {})
  socket.write(`${JSON.stringify(request)}\n`)
  try {
    for await (const line of createInterface({ input: socket })) {
      const answer = JSON.parse(line) as { readonly item?: T; readonly error?: string; readonly done?: boolean }
      if (answer.error !== undefined) throw new Error(answer.error)
      if (answer.done) return
      yield answer.item as T
    }
  } finally {
    socket.destroy()
  }
  throw new Error(`The BGP speaker at ${path} ended before it had answered`)
}
