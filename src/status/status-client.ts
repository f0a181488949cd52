/**
 * Asks the status socket of a program that runs on this machine.
 */
import { request } from 'node:http'

const TIMEOUT_MS = 5000

/**
 * The body of the answer to GET, or to PUT when there is something to put. Throws an Error with the answer's own words when it
 * is no success, and one that names the socket when nobody answers.
 */
export function askStatus(socketPath: string, path: string, put?: string): Promise<string> {
  const method = put === undefined ? 'GET' : 'PUT'
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path, method, timeout: TIMEOUT_MS, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text)
        else reject(new Error(`${socketPath}: ${method} ${path}: ${text.trim()} (${response.statusCode})`))
      })
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer for ${TIMEOUT_MS / 1000} s`)))
    outgoing.on('error', (cause) => reject(new Error(`Nobody answers at ${socketPath}`, { cause })))
    outgoing.end(put)
  })
}
