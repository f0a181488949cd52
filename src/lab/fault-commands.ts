/**
 * The faults that `weft lab fault …` makes: those of the underlay through faults.ts, those of agents by signals, those of
 * whole nodes by the daemon.
 */
import type { ControlRequest } from './control.ts'
import { type ActiveFaults, type Faults, requireNetem } from './faults.ts'
import type { LabSpec, NodeSpec } from './layout.ts'

/** What of a lab's daemon faults are made on. */
export interface FaultTarget {
  readonly started: Promise<void>
  readonly spec: LabSpec
  readonly faults: Faults
  /** Throws when there is no such node. */
  node(name: string): {
    readonly spec: NodeSpec
    readonly agent: {
      kill(signal: 'SIGKILL', keepDown: boolean): Promise<void>
      /** False when none runs. */
      freeze(frozen: boolean): boolean
      raise(): void
    }
  }
  addNode(wish: { readonly name?: string; readonly subnet?: number }): Promise<NodeSpec>
  rebootNode(name: string): Promise<void>
  dropNode(name: string): Promise<void>
}

/** Makes the fault that a request names and resolves with what it did, for people. */
export async function fault(daemon: FaultTarget, request: ControlRequest): Promise<string> {
  await daemon.started
  const change = (edit: (faults: ActiveFaults) => void) => daemon.faults.change(daemon.spec, edit)
  const name = String(request.node ?? '')
  const live = () => daemon.node(name)
  switch (request.kind) {
    case 'kill-agent':
      await live().agent.kill('SIGKILL', request.keepDown === true)
      return `agent of ${name} killed${request.keepDown ? '; it stays down until: weft lab fault start-agent' : '; it is started again'}`
    case 'stop-agent':
      if (!live().agent.freeze(true)) throw new Error(`no agent runs on ${name}`)
      return `agent of ${name} is frozen (SIGSTOP)`
    case 'start-agent':
      live().agent.freeze(false)
      live().agent.raise()
      return `agent of ${name} runs`
    case 'partition': {
      live()
      if (request.other) {
        const other = daemon.node(String(request.other)).spec.name
        if (other === name) throw new Error(`${name} cannot be cut off from itself`)
        await change((faults) => {
          faults.split = faults.split.filter((pair) => !(pair.includes(name) && pair.includes(other)))
          faults.split.push([name, other])
        })
        return `${name} and ${other} cannot reach each other`
      }
      await change((faults) => {
        faults.isolated = [...new Set([...faults.isolated, name])]
      })
      return `${name} is cut off from everything`
    }
    case 'loss': {
      live()
      const percent = percentage(request.percent)
      await change((faults) => {
        faults.loss[name] = percent
      })
      return `${percent}% of the packets from and to ${name} are lost`
    }
    case 'delay': {
      live()
      const milliseconds = delayMilliseconds(request.milliseconds)
      await requireNetem(daemon.spec.name)
      await change((faults) => {
        faults.delay[name] = milliseconds
      })
      return `packets to ${name} take ${milliseconds} ms longer`
    }
    case 'api-down':
      await change((faults) => {
        faults.apiDown = true
      })
      return 'the API server refuses connections of nodes'
    case 'heal':
      await daemon.faults.clear(daemon.spec)
      return 'partitions, losses, delays and api-down are gone'
    case 'add-node': {
      const node = await daemon.addNode({
        ...(name ? { name } : {}),
        ...(request.subnet === undefined ? {} : { subnet: Number(request.subnet) }),
      })
      return `node ${node.name} joined on net${node.subnet}`
    }
    case 'reboot-node':
      await daemon.rebootNode(name)
      return `${name} was switched off and on: its pods and its agent start again`
    case 'drop-node':
      await daemon.dropNode(name)
      return `node ${name} is gone`
    default:
      throw new Error(`there is no fault ${JSON.stringify(request.kind)}`)
  }
}

function percentage(value: unknown): number {
  const percent = Number(value)
  if (!(percent > 0 && percent <= 100)) throw new Error(`a loss is more than 0 and at most 100 percent, not ${value}`)
  return percent
}

function delayMilliseconds(value: unknown): number {
  const milliseconds = Number(value)
  if (!(milliseconds > 0 && milliseconds <= 60_000))
    throw new Error(`a delay is more than 0 and at most 60000 milliseconds, not ${value}`)
  return milliseconds
}
