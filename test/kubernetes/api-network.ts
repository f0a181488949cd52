/**
 * A real API server and machines that reach it: a bridge in a namespace of its own, the API server behind it, and one namespace
 * for each machine. No kubelets: who runs on a machine is the test's affair.
 *
 *   fabric: br0 172.30.0.1/16, kube-apiserver, etcd ── eth0 172.30.x.y machine, … one each
 */
import { TestNamespace } from '../netns/namespace.ts'
import { type ApiServerWish, RealApiServer } from './api-server.ts'

export const API_ADDRESS = '172.30.0.1'

export class ApiNetwork {
  readonly fabric: TestNamespace
  readonly api: RealApiServer
  readonly #machines = new Set<TestNamespace>()

  private constructor(fabric: TestNamespace, api: RealApiServer) {
    this.fabric = fabric
    this.api = api
  }

  static async start(wish: Omit<ApiServerWish, 'place'> = {}): Promise<ApiNetwork> {
    const fabric = new TestNamespace()
    try {
      fabric.run(`ip link add br0 type bridge && ip link set br0 up && ip address add ${API_ADDRESS}/16 dev br0`)
      const api = await RealApiServer.start({ ...wish, place: { netns: fabric.path, address: API_ADDRESS } })
      return new ApiNetwork(fabric, api)
    } catch (error) {
      fabric.delete()
      throw error
    }
  }

  /** A new machine with `eth0` on the bridge. */
  addMachine(address: string): TestNamespace {
    const machine = new TestNamespace()
    this.#machines.add(machine)
    const port = `m${machine.name.split('-').at(-1)}`
    this.fabric.run(
      `ip link add ${port} type veth peer name eth0 netns ${machine.name} && ip link set ${port} master br0 up`,
    )
    machine.run(
      `ip address add ${address}/16 dev eth0 && ip link set eth0 up && ip route add default via ${API_ADDRESS}`,
    )
    return machine
  }

  removeMachine(machine: TestNamespace): void {
    this.#machines.delete(machine)
    machine.delete()
  }

  async close(): Promise<void> {
    await this.api.close()
    for (const machine of this.#machines) machine.delete()
    this.fabric.delete()
  }
}
