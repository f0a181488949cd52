/**
 * Brings one pod to what the API says, and the API to what the pod is. One worker per pod; its steps never overlap.
 *
 *   none ─► creating ─► ready ─────────► down        the sandbox (sandbox.ts)
 *   ready: init containers one after the other, then the containers; an ended one again as restartPolicy says
 *   deletion: SIGTERM, grace, SIGKILL ─► CNI DEL ─► namespace gone ─► object removed
 *
 * Before anything is made the record on disk says so; a daemon that was killed in between finds it and goes on.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { LocalClient } from '../api/interfaces.ts'
import { isNotFound, nameOf } from '../informer.ts'
import { markEnded, nowText, waitBeforeStart } from './back-off.ts'
import { ContainerProcess, START_FAILED_CODE } from './container.ts'
import { ContainerProbes } from './container-probes.ts'
import { type JoinTarget, runJoined } from './exec.ts'
import { argvOf } from './image.ts'
import type { AttachTarget } from './input.ts'
import { type ContainerSpec, environmentOf, type Pod } from './pod-spec.ts'
import type { ContainerRecord, PodRecord, PodRecords } from './record.ts'
import { Sandbox, type SandboxContext } from './sandbox.ts'
import { isRunning, phaseOf, podStatus } from './status.ts'

/** What the workers of one node share. */
export interface WorkerContext extends SandboxContext {
  readonly nodeName: string
  readonly logFolder: string
  readonly client: LocalClient
  readonly records: PodRecords
  /** Environment of everything that runs on the node. */
  readonly env: NodeJS.ProcessEnv
  recordEvent(pod: Pod, type: 'Normal' | 'Warning', reason: string, message: string): void
}

interface Live {
  process: ContainerProcess
  probes?: ContainerProbes
  ready: boolean
  started: boolean
}

export class PodWorker {
  readonly record: PodRecord
  #pod: Pod
  #gone = false
  #running = false
  #dirty = false
  #removed = false
  #timer: NodeJS.Timeout | undefined
  #lastStatus = ''
  readonly #context: WorkerContext
  readonly #sandbox: Sandbox
  readonly #live = new Map<string, Live>()
  readonly #waiting = new Map<string, { reason: string; message?: string }>()
  readonly #onRemoved: () => void

  constructor(context: WorkerContext, pod: Pod, record: PodRecord | undefined, onRemoved: () => void) {
    this.#context = context
    this.#pod = pod
    this.#onRemoved = onRemoved
    this.record = record ?? {
      uid: pod.metadata.uid!,
      namespace: pod.metadata.namespace ?? 'default',
      name: pod.metadata.name!,
      sandbox: 'none',
      attempt: 0,
      hostNetwork: pod.spec.hostNetwork === true,
      ips: [],
      startedAt: nowText(),
      containers: {},
    }
    this.#sandbox = new Sandbox(context, this.record, () => this.#save())
    if (record) this.#adopt()
    this.wake()
  }

  get pod(): Pod {
    return this.#pod
  }

  update(pod: Pod): void {
    this.#pod = pod
    this.wake()
  }

  /** The running process of a container, and what programs beside it start with. Throws when it does not run. */
  containerOf(name: string): Omit<JoinTarget, 'argv'> {
    const live = this.#live.get(name)
    const spec = this.#specOf(name)
    if (!live || !spec) throw new Error(`container ${name} in pod ${this.record.name} is not running`)
    return { pid: live.process.identity.pid, env: this.#environment(spec), netnsPath: this.record.netnsPath! }
  }

  /** A running container, to be attached to. Throws when it does not run. */
  attachTarget(name: string): AttachTarget {
    const live = this.#live.get(name)
    const container = this.#specOf(name)
    const logPath = this.record.containers[name]?.logPath
    if (!live || !container || !logPath) throw new Error(`container ${name} in pod ${this.record.name} is not running`)
    return { container, logPath, exited: live.process.exited }
  }

  /** The object is gone from the API: end what is left, without grace. */
  vanish(): void {
    this.#gone = true
    this.wake()
  }

  /** Writes the whole status again at the next step. */
  resync(): void {
    this.#lastStatus = ''
    this.wake()
  }

  /** Stops looking after the pod without ending it. */
  abandon(): void {
    this.#removed = true
    clearTimeout(this.#timer)
    for (const name of [...this.#live.keys()]) this.#closeProbes(name)
  }

  wake(): void {
    this.#dirty = true
    if (!this.#running && !this.#removed) void this.#run()
  }

  async #run(): Promise<void> {
    this.#running = true
    while (this.#dirty && !this.#removed) {
      this.#dirty = false
      try {
        await this.#step()
      } catch (error) {
        this.#context.log.error({ err: error, pod: this.record.name }, 'pod step failed')
        this.#wakeAfter(1000)
      }
    }
    this.#running = false
  }

  #wakeAfter(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.wake(), ms)
  }

  #save(): void {
    if (!this.#removed) this.#context.records.write(this.record)
  }

  async #step(): Promise<void> {
    if (this.#gone || this.#pod.metadata.deletionTimestamp) return this.#terminate()
    const phase = phaseOf(this.#pod, this.record)
    if (phase === 'Succeeded' || phase === 'Failed') {
      if (this.record.sandbox !== 'down') await this.#sandbox.remove('down')
    } else if (await this.#ensureSandbox()) {
      await this.#ensureContainers()
    }
    await this.#pushStatus()
  }

  async #ensureSandbox(): Promise<boolean> {
    const failure = await this.#sandbox.ensure(this.#pod)
    if (!failure) return true
    for (const { name } of this.#pod.spec.containers) this.#waiting.set(name, { reason: 'ContainerCreating' })
    const message = `Failed to create pod sandbox: ${failure.message}`
    if (!failure.again || failure.failures > 3)
      this.#context.recordEvent(this.#pod, 'Warning', 'FailedCreatePodSandBox', message)
    this.#wakeAfter(failure.waitMs)
    return false
  }

  // ── containers ─────────────────────────────────────────────────────────────────────────────────────────

  #adopt(): void {
    for (const [name, record] of Object.entries(this.record.containers)) {
      if (!record.process || record.ended) continue
      const spec = this.#specOf(name)
      const process = ContainerProcess.adopt(record.process)
      if (process && spec) this.#follow(spec, record, process)
      else
        markEnded(record, {
          exitCode: 137,
          reason: 'ContainerStatusUnknown',
          message: 'The container ended while no one waited for it',
        })
    }
  }

  #specOf(name: string): ContainerSpec | undefined {
    return [...(this.#pod.spec.initContainers ?? []), ...this.#pod.spec.containers].find((c) => c.name === name)
  }

  async #ensureContainers(): Promise<void> {
    for (const init of this.#pod.spec.initContainers ?? []) {
      const record = this.record.containers[init.name]
      if (record?.ended?.exitCode === 0) continue
      if (!isRunning(record))
        await this.#maybeStart(init, this.#pod.spec.restartPolicy === 'Never' ? 'Never' : 'OnFailure')
      if (this.record.containers[init.name]?.ended?.exitCode !== 0) {
        for (const { name } of this.#pod.spec.containers) this.#waiting.set(name, { reason: 'PodInitializing' })
        return
      }
    }
    await Promise.all(
      this.#pod.spec.containers.map((container) =>
        isRunning(this.record.containers[container.name])
          ? undefined
          : this.#maybeStart(container, this.#pod.spec.restartPolicy ?? 'Always'),
      ),
    )
  }

  async #maybeStart(container: ContainerSpec, policy: string): Promise<void> {
    const record = this.record.containers[container.name] ?? { restartCount: 0 }
    this.record.containers[container.name] = record
    if (record.ended) {
      if (policy === 'Never' || (policy === 'OnFailure' && record.ended.exitCode === 0)) {
        this.#waiting.delete(container.name)
        return
      }
      const wait = waitBeforeStart(record)
      if (wait > 0) {
        const message = `back-off ${Math.ceil((record.backOffMs ?? 0) / 1000)}s restarting failed container=${container.name}`
        this.#waiting.set(container.name, { reason: 'CrashLoopBackOff', message })
        this.#wakeAfter(wait + 1)
        return
      }
      record.restartCount++
    }
    await this.#start(container, record)
  }

  async #start(container: ContainerSpec, record: ContainerRecord): Promise<void> {
    const containerId = `weft://${createHash('sha256').update(`${this.record.uid}/${container.name}/${record.restartCount}`).digest('hex')}`
    if (record.ended) record.last = record.ended
    if (record.logPath) record.lastLogPath = record.logPath
    delete record.ended
    record.containerId = containerId
    record.startedAt = nowText()
    record.logPath = join(this.#logFolder, container.name, `${record.restartCount}.log`)
    try {
      const env = this.#environment(container)
      const process = await ContainerProcess.start({
        argv: argvOf(container, env, this.record.netnsPath!, this.#pod),
        env: container.tty ? { TERM: 'xterm', ...env } : env,
        logPath: record.logPath,
        container,
      })
      record.process = process.identity
      this.#waiting.delete(container.name)
      this.#context.recordEvent(this.#pod, 'Normal', 'Started', `Started container ${container.name}`)
      this.#follow(container, record, process)
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      record.process = { pid: 0, startTicks: 0 }
      markEnded(record, { exitCode: START_FAILED_CODE, reason: 'StartError', message })
      this.#context.recordEvent(this.#pod, 'Warning', 'Failed', `Error: ${message}`)
    }
    this.#save()
  }

  get #logFolder(): string {
    return join(this.#context.logFolder, `${this.record.namespace}_${this.record.name}_${this.record.uid}`)
  }

  #environment(container: ContainerSpec): Record<string, string> {
    const base = Object.fromEntries(
      Object.entries(this.#context.env).filter((e): e is [string, string] => e[1] !== undefined),
    )
    const hostname = this.record.hostNetwork ? this.#context.nodeName : (this.#pod.spec.hostname ?? this.record.name)
    return { ...base, HOSTNAME: hostname, ...environmentOf(this.#pod, container, this.record.ips) }
  }

  #follow(container: ContainerSpec, record: ContainerRecord, process: ContainerProcess): void {
    const { name } = container
    const isMain = this.#pod.spec.containers.some((c) => c.name === name)
    const live: Live = { process, ready: false, started: false }
    this.#live.set(name, live)
    live.probes = new ContainerProbes(
      container,
      {
        fromNetns: this.#context.nodeNetns,
        podIp: this.record.ips[0] ?? '127.0.0.1',
        container,
        exec: (command, timeoutMs) => runJoined({ argv: command, ...this.containerOf(name) }, timeoutMs),
      },
      isMain,
      {
        started: () => {
          live.started = true
          this.wake()
        },
        ready: (ready) => {
          live.ready = ready
          this.wake()
        },
        event: (type, reason, message) => this.#context.recordEvent(this.#pod, type, reason, message),
        restart: () => void process.terminate((this.#pod.spec.terminationGracePeriodSeconds ?? 30) * 1000),
      },
    )
    void process.exited.then((report) => {
      if (this.#removed || this.#live.get(name) !== live) return
      this.#closeProbes(name)
      this.#live.delete(name)
      markEnded(record, report)
      this.#save()
      this.wake()
    })
  }

  #closeProbes(name: string): void {
    this.#live.get(name)?.probes?.close()
  }

  // ── end and status ─────────────────────────────────────────────────────────────────────────────────────

  async #terminate(): Promise<void> {
    const grace = this.#gone ? 0 : (this.#pod.metadata.deletionGracePeriodSeconds ?? 30)
    for (const live of this.#live.values()) live.ready = false
    for (const name of this.#live.keys()) this.#closeProbes(name)
    if (!this.#gone && this.#live.size > 0) await this.#pushStatus()
    await Promise.all([...this.#live.values()].map((live) => live.process.terminate(grace * 1000)))
    if (this.#sandbox.isMade) {
      try {
        await this.#sandbox.remove('down')
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error)
        this.#context.recordEvent(this.#pod, 'Warning', 'FailedKillPod', `error killing pod: ${message}`)
        this.#wakeAfter(this.#sandbox.nextRemovalMs())
        return
      }
    }
    if (!this.#gone) {
      try {
        await this.#context.client.delete('pods', nameOf(this.#pod), {
          gracePeriodSeconds: 0,
          preconditions: { uid: this.record.uid },
        })
      } catch (error) {
        if (!isNotFound(error) && (error as { code?: number }).code !== 409) throw error
      }
    }
    this.#context.records.remove(this.record.uid)
    this.abandon()
    this.#onRemoved()
  }

  async #pushStatus(): Promise<void> {
    const ready = new Set<string>()
    const started = new Set<string>()
    for (const [name, live] of this.#live) {
      if (live.ready) ready.add(name)
      if (live.started) started.add(name)
    }
    const status = podStatus(
      this.#pod,
      this.record,
      {
        hostIps: this.#context.hostIps,
        ready,
        started,
        waiting: this.#waiting,
        terminating: this.#pod.metadata.deletionTimestamp !== undefined,
      },
      nowText(),
    )
    const text = JSON.stringify(status)
    if (text === this.#lastStatus) return
    try {
      await this.#context.client.patch('pods', nameOf(this.#pod), { status }, { subresource: 'status' })
      this.#lastStatus = text
    } catch (error) {
      if (!isNotFound(error)) throw error
    }
  }
}
