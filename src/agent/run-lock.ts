/**
 * One agent in a network namespace, one in a run directory. The first is a socket in the kernel's abstract namespace,
 * which belongs to the network namespace and goes with its process, however that ends; the second is a file that names
 * its process, believed only while that very process lives.
 *
 * Sources: unix(7) "Abstract sockets", proc(5) (starttime, field 22 of stat).
 */
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { ConfigError } from '../model/errors.ts'

const SOCKET = '\0weft-agent'

export class RunLock {
  readonly #path: string
  readonly #server: Server

  private constructor(path: string, server: Server) {
    this.#path = path
    this.#server = server
  }

  /** Takes both locks. Throws ConfigError naming the process that has one. */
  static async take(runDir: string): Promise<RunLock> {
    mkdirSync(runDir, { recursive: true })
    const path = `${runDir}/agent.lock`
    takeFile(path, runDir)
    try {
      return new RunLock(path, await listen(runDir))
    } catch (error) {
      rmSync(path, { force: true })
      throw error
    }
  }

  release(): void {
    this.#server.close()
    rmSync(this.#path, { force: true })
  }
}

function takeFile(path: string, runDir: string): void {
  const mine = `${path}.${process.pid}`
  writeFileSync(mine, identityOf(process.pid)!)
  try {
    for (let attempt = 0; attempt < 10; attempt++) {
      try {
        linkSync(mine, path)
        return
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      }
      const holder = readText(path)
      const pid = Number(holder?.split(' ')[0])
      if (holder !== undefined && pid > 0 && identityOf(pid) === holder && pid !== process.pid)
        throw new ConfigError('--run-dir', runDir, `another weft agent uses it: process ${pid}`)
      rmSync(path, { force: true })
    }
    throw new ConfigError('--run-dir', runDir, 'its lock file cannot be taken: others take it at the same time')
  } finally {
    rmSync(mine, { force: true })
  }
}

/** `<pid> <start time>`: a process of the same number that began later is another one. */
function identityOf(pid: number): string | undefined {
  const stat = readText(`/proc/${pid}/stat`)
  if (stat === undefined) return undefined
  return `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** Whoever connects is told the process id. */
function listen(runDir: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.end(String(process.pid))
    })
    server.unref()
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EADDRINUSE') return reject(error)
      askHolder().then((pid) =>
        reject(
          new ConfigError(
            '--run-dir',
            runDir,
            `another weft agent runs in this network namespace${pid ? `: process ${pid}` : ''}`,
          ),
        ),
      )
    })
    server.listen({ path: SOCKET }, () => resolve(server))
  })
}

function askHolder(): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    const socket = connect({ path: SOCKET })
    socket.setTimeout(1000, () => socket.destroy())
    socket.on('data', (chunk) => {
      text += chunk
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(/^\d{1,10}$/.test(text) ? text : ''))
  })
}
