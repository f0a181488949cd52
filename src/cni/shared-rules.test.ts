/** CHECK and recovery by the node's shared table, over the kernel's twin. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { planFirewallSkeleton } from '../datapath/firewall/firewall.ts'
import { FakeKernel } from '../kernel/fake/fake-kernel.ts'
import type { NftElement } from '../model/nft.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { attachmentFragment } from './attachment-fragment.ts'
import { checkAttachment } from './check.ts'
import type { PortMapping } from './config.ts'
import type { CniError } from './error.ts'
import type { Attachment } from './journal.ts'
import { parseRequest } from './request.ts'
import { hostPortsOf } from './shared-rules.ts'
import { add, remove, throwFirst } from './wiring.ts'

const portMappings: PortMapping[] = [
  { protocol: 'tcp', hostPort: 8080, containerPort: 80 },
  { protocol: 'udp', hostPort: 8053, containerPort: 53, hostIp: Ip.parse('192.0.2.1') },
]
const attachment: Attachment = {
  id: 1,
  role: 'chained',
  network: 'weft',
  containerId: 'c1',
  ifname: 'eth0',
  netnsPath: '/run/netns/none',
  pool: '',
  ips: [
    { ip: Ip.parse('10.1.0.7'), prefixLength: 24 },
    { ip: Ip.parse('fd00:1::7'), prefixLength: 64 },
  ],
  hostDevice: '',
  portMappings,
}

async function nodeWithHostPorts(): Promise<FakeKernel> {
  const kernel = FakeKernel.create()
  const skeleton = planFirewallSkeleton({
    clusterCidrs: [Cidr.parse('10.0.0.0/8')],
    localCidrs: [Cidr.parse('10.1.0.0/24')],
    masquerade: true,
    tunnels: [],
  })
  throwFirst(await kernel.execute(skeleton.map(add)))
  throwFirst(await kernel.execute(elementsOf(attachment).map(add)))
  return kernel
}

const elementsOf = (of: Attachment): NftElement[] =>
  attachmentFragment(of)!.objects.filter((object) => object.kind === 'nft-element')

const check = (kernel: FakeKernel) => {
  const environment = new Map([
    ['CNI_COMMAND', 'CHECK'],
    ['CNI_CONTAINERID', 'c1'],
    ['CNI_IFNAME', 'eth0'],
    ['CNI_NETNS', '/run/netns/none'],
  ])
  const config = { cniVersion: '1.0.0', name: 'weft', type: 'weft', prevResult: { cniVersion: '1.0.0' } }
  const request = parseRequest(environment, Buffer.from(JSON.stringify(config)))
  assert.ok(request.command === 'CHECK')
  return checkAttachment(kernel, request, [{ attachment, state: 'up' }])
}

test('CHECK names the host port that another hand took away, or led elsewhere', async () => {
  const kernel = await nodeWithHostPorts()
  await check(kernel)
  const all = elementsOf(attachment)
  assert.equal(all.length, 3)
  for (const element of all) {
    throwFirst(await kernel.execute([remove(element)]))
    const lost = (error: CniError) =>
      error.code === 103 && error.message.includes(`${element.key} of ${element.set} is`)
    await assert.rejects(check(kernel), lost)
    const { value } = element
    throwFirst(await kernel.execute([add({ ...element, value: value!.replace('7 .', '8 .') })]))
    await assert.rejects(
      check(kernel),
      (error: CniError) => error.code === 103 && /leads to .*8 \./.test(error.message),
    )
    throwFirst(await kernel.execute([remove(element)]))
    throwFirst(await kernel.execute([add(element)]))
    await check(kernel)
  }
})

test('the host ports of an attachment are known again from the table', async () => {
  const kernel = await nodeWithHostPorts()
  const others = elementsOf({
    ...attachment,
    ips: [{ ip: Ip.parse('10.1.0.70'), prefixLength: 24 }],
    portMappings: [{ protocol: 'sctp', hostPort: 1, containerPort: 2 }],
  })
  throwFirst(await kernel.execute(others.map(add)))
  const elements = await kernel.read('nft-element')
  const known = hostPortsOf(
    elements,
    attachment.ips.map(({ ip }) => ip),
  )
  assert.deepEqual(
    elementsOf({ ...attachment, portMappings: known })
      .map(({ set, key, value }) => `${set} ${key} ${value}`)
      .sort(),
    elementsOf(attachment)
      .map(({ set, key, value }) => `${set} ${key} ${value}`)
      .sort(),
  )
  assert.equal(known.length, portMappings.length)
  assert.deepEqual(hostPortsOf(elements, [Ip.parse('10.1.0.9')]), [])
})
