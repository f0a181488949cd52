/**
 * Streams into pods: logs, exec, attach, port-forward; over WebSocket and, for older clients, SPDY.
 * Sources: Kubernetes API reference, Pod v1 core (log, exec, attach, portforward).
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { ApiError, badRequest, notFound } from '../api-error.ts'
import { flagOption, integerOption, type ResourcePath } from '../http/request.ts'
import type { ResourceHandler } from '../http/resource-handler.ts'
import type { Exchange } from '../http/respond.ts'
import type { KubeObject, LogOptions, PodRuntime, TokenUser } from '../interfaces.ts'
import type { Resources } from '../resources.ts'
import { PortForwarder, portForwardProtocol } from './port-forward.ts'
import { runSession, type Session, type StreamChoice } from './session.ts'
import { SpdyConnection, type SpdyStream } from './spdy.ts'
import { spdyProtocols, spdySession } from './spdy-session.ts'
import { acceptSpdy, acceptWebsocket, isWebsocket } from './upgrade.ts'
import { channelProtocols, websocketSession } from './websocket-session.ts'
import { tunnelProtocol, websocketTunnel } from './websocket-tunnel.ts'

/** Which of a pod's containers a request means. Throws 400 as kubectl's users know it. */
export function chooseContainer(pod: KubeObject, wanted: string | null): string {
  const names: string[] = [...(pod.spec.initContainers ?? []), ...pod.spec.containers].map((c) => c.name)
  const { name } = pod.metadata
  if (wanted) {
    if (names.includes(wanted)) return wanted
    throw badRequest(`container ${wanted} is not valid for pod ${name}`)
  }
  if (pod.spec.containers.length === 1) return pod.spec.containers[0].name
  throw badRequest(`a container name must be specified for pod ${name}, choose one of: [${names.join(' ')}]`)
}

export class PodStreams {
  readonly #resources: Resources
  readonly #handler: ResourceHandler
  readonly #runtime: PodRuntime | undefined

  constructor(resources: Resources, handler: ResourceHandler, runtime: PodRuntime | undefined) {
    this.#resources = resources
    this.#handler = handler
    this.#runtime = runtime
  }

  async sendLog(exchange: Exchange, user: TokenUser, path: ResourcePath, query: URLSearchParams): Promise<void> {
    const { pod, runtime } = this.#podOf(user, 'get', path)
    const container = chooseContainer(pod, query.get('container'))
    const { response } = exchange
    const aborted = new AbortController()
    response.on('close', () => aborted.abort())
    const sinceSeconds = integerOption(query, 'sinceSeconds')
    const tailLines = integerOption(query, 'tailLines')
    const limitBytes = integerOption(query, 'limitBytes')
    const sinceTime = query.get('sinceTime')
    const options: LogOptions = {
      follow: flagOption(query, 'follow'),
      previous: flagOption(query, 'previous'),
      timestamps: flagOption(query, 'timestamps'),
      ...(sinceSeconds !== undefined && { sinceSeconds }),
      ...(sinceTime && { sinceTime }),
      ...(tailLines !== undefined && { tailLines }),
      ...(limitBytes !== undefined && { limitBytes }),
      signal: aborted.signal,
    }
    let started = false
    for await (const chunk of runtime.logs(pod, container, options)) {
      if (aborted.signal.aborted) return
      if (!started) startText(exchange)
      started = true
      if (!response.write(chunk)) await drained(exchange, aborted.signal)
    }
    if (!started) startText(exchange)
    response.end()
  }

  /** Answers an upgrade request for exec, attach or port-forward. Throws before anything was answered. */
  async upgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    user: TokenUser,
    path: ResourcePath,
    query: URLSearchParams,
  ): Promise<void> {
    const { pod, runtime } = this.#podOf(user, 'create', path)
    const { subresource } = path
    if (subresource === 'portforward') {
      const forwarder = new PortForwarder((port) => runtime.portForward(pod, port))
      const take = (stream: SpdyStream) => forwarder.take(stream)
      if (isWebsocket(request)) {
        const websocket = await acceptWebsocket(request, socket, head, [tunnelProtocol])
        new SpdyConnection(websocketTunnel(websocket), Buffer.alloc(0), take)
      } else {
        acceptSpdy(request, socket, [portForwardProtocol])
        new SpdyConnection(socket, head, take)
      }
      return
    }
    if (subresource !== 'exec' && subresource !== 'attach') throw badRequest('Upgrade request required')
    const container = chooseContainer(pod, query.get('container'))
    const choice: StreamChoice = {
      stdin: flagOption(query, 'stdin'),
      stdout: flagOption(query, 'stdout'),
      stderr: flagOption(query, 'stderr'),
      tty: flagOption(query, 'tty'),
    }
    const argv = query.getAll('command')
    if (subresource === 'exec' && argv.length === 0)
      throw badRequest('you must specify at least one command for the container')
    if (!choice.stdin && !choice.stdout && !choice.stderr)
      throw badRequest('you must specify at least 1 of stdin, stdout, stderr')
    const session = isWebsocket(request)
      ? websocketSession(await acceptWebsocket(request, socket, head, channelProtocols), choice)
      : await this.#spdySession(request, socket, head, choice)
    await runSession(session, choice.tty, (streams) =>
      subresource === 'exec' ? runtime.exec(pod, container, argv, streams) : runtime.attach(pod, container, streams),
    )
  }

  async #spdySession(request: IncomingMessage, socket: Duplex, head: Buffer, choice: StreamChoice): Promise<Session> {
    const protocol = acceptSpdy(request, socket, spdyProtocols)
    const streams = new Map<string, SpdyStream>()
    let arrived = (): void => {}
    const connection = new SpdyConnection(socket, head, (stream) => {
      const type = stream.headers.get('streamtype') ?? ''
      if (streams.has(type)) stream.destroy()
      else streams.set(type, stream)
      arrived()
    })
    try {
      return await spdySession(connection, streams, choice, protocol, (listener) => {
        arrived = listener
      })
    } catch (error) {
      connection.close()
      throw error
    }
  }

  #podOf(user: TokenUser, verb: string, path: ResourcePath): { pod: KubeObject; runtime: PodRuntime } {
    const kind = this.#handler.admit(user, verb, path)
    if (kind.storage !== 'pods' || !path.namespace || !path.name) throw notFound(kind, path.name ?? '')
    const pod = this.#resources.get(kind, path.namespace, path.name)
    if (!this.#runtime) throw new ApiError(501, 'NotImplemented', 'this server runs no pods')
    if (!pod.spec.nodeName) throw badRequest(`pod ${path.name} does not have a host assigned`)
    return { pod, runtime: this.#runtime }
  }
}

function startText({ response }: Exchange): void {
  response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-cache, private' })
}

const drained = ({ response }: Exchange, signal: AbortSignal): Promise<void> =>
  new Promise((done) => {
    if (signal.aborted) return done()
    response.once('drain', done)
    signal.addEventListener('abort', () => done(), { once: true })
  })
