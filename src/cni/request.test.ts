import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CniError } from './error.ts'
import { type AttachmentRequest, parseArgs, parseRequest, splitBody, versionForErrors } from './request.ts'

const environment = (more: Record<string, string> = {}) =>
  new Map(
    Object.entries({
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: 'c1',
      CNI_IFNAME: 'eth0',
      CNI_NETNS: '/run/netns/x',
      ...more,
    }),
  )
const parse = (config: object, more?: Record<string, string>) =>
  parseRequest(environment(more), Buffer.from(JSON.stringify(config))) as AttachmentRequest
const base = { cniVersion: '1.0.0', name: 'weft', type: 'weft' }

test('without ipam the node gives addresses and is the gateway', () => {
  const { config } = parse(base)
  assert.deepEqual(
    [config.ipam.type, config.isGateway, config.isDefaultGateway, config.bridge, config.hairpin],
    ['node', true, true, undefined, undefined],
  )
  assert.equal(parse({ ...base, isDefaultGateway: false }).config.isDefaultGateway, false)
  assert.equal(parse({ ...base, ipam: null }).config.ipam.type, 'node')
})

test("host-local's keys: ranges, the old single range, runtime ranges first", () => {
  const { config } = parse({
    ...base,
    ipam: {
      type: 'host-local',
      subnet: '10.1.0.0/24',
      rangeStart: '10.1.0.20',
      ranges: [[{ subnet: 'fd00::/64' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
    runtimeConfig: { ipRanges: [[{ subnet: '10.2.0.0/24' }]] },
  })
  assert.ok(config.ipam.type === 'host-local')
  assert.deepEqual(
    config.ipam.sets.map((set) => `${set[0]!.subnet} ${set[0]!.first}`),
    ['10.2.0.0/24 10.2.0.1', '10.1.0.0/24 10.1.0.20', 'fd00::/64 fd00::1'],
  )
  assert.equal(config.isGateway, false)
})

test('capabilities: ports without a host port are dropped, any address is no address, bursts may be huge', () => {
  const { runtime } = parse({
    ...base,
    runtimeConfig: {
      ips: ['10.1.0.9/24', 'fd00::9'],
      mac: '02:00:00:00:00:07',
      portMappings: [
        { hostPort: 8080, containerPort: 80, protocol: 'TCP', hostIP: '0.0.0.0' },
        { hostPort: 0, containerPort: 80 },
        { hostPort: 53, containerPort: 53, protocol: 'udp', hostIP: '::1' },
      ],
      bandwidth: { ingressRate: 1000000, ingressBurst: 2 ** 63 },
      aliases: ['ignored'],
    },
  }).config
  assert.deepEqual(JSON.parse(JSON.stringify(runtime)), {
    ips: [{ ip: '10.1.0.9', prefixLength: 24 }, { ip: 'fd00::9' }],
    mac: '02:00:00:00:00:07',
    portMappings: [
      { protocol: 'tcp', hostPort: 8080, containerPort: 80 },
      { protocol: 'udp', hostPort: 53, containerPort: 53, hostIp: '::1' },
    ],
    bandwidth: { ingressRate: 1000000, ingressBurst: 2 ** 63, egressRate: 0, egressBurst: 0 },
  })
})

test('CNI_ARGS: known keys, unknown ones only with IgnoreUnknown', () => {
  const args = parseArgs(
    'IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u;Z=1',
  )
  assert.deepEqual(args, { ips: [], podName: 'web-0', podNamespace: 'ns', podUid: 'u' })
  assert.deepEqual(parseArgs('IP=10.1.0.9/24,fd00::9;MAC=02:00:00:00:00:07').ips.map(String), ['10.1.0.9', 'fd00::9'])
  for (const bad of ['Z=1', 'IP', '=1', 'IP=x', 'MAC=01:00:00:00:00:00', 'IgnoreUnknown=maybe;Z=1', 'A='.repeat(5000)])
    assert.throws(
      () => parseArgs(bad),
      (error) => error instanceof CniError && error.code === 4,
      bad,
    )
})

test('GC without its list asks for nothing; an empty list may be null', () => {
  const gc = (more: object) =>
    parseRequest(
      environment({ CNI_COMMAND: 'GC' }),
      Buffer.from(JSON.stringify({ ...base, cniVersion: '1.1.0', ...more })),
    )
  const valid = (config: object) => (gc(config) as { valid?: unknown }).valid
  assert.equal(valid({}), undefined)
  assert.deepEqual(valid({ 'cni.dev/valid-attachments': null }), [])
  assert.deepEqual(gc({ 'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth0' }] }).command, 'GC')
  assert.throws(() => gc({ 'cni.dev/valid-attachments': [{ containerID: '/', ifname: 'eth0' }] }), /containerID/)
})

test('the body splits into environment and standard input, whatever the bytes', () => {
  const { environment: read, stdin } = splitBody(Buffer.from('CNI_COMMAND=ADD\0CNI_ARGS=A=1;B=2\0\0{"x":"\0"}'))
  assert.deepEqual(
    [...read],
    [
      ['CNI_COMMAND', 'ADD'],
      ['CNI_ARGS', 'A=1;B=2'],
    ],
  )
  assert.equal(Buffer.from(stdin).toString(), '{"x":"\0"}')
  for (const bad of ['', 'CNI_COMMAND=ADD', 'CNI_COMMAND=ADD\0'])
    assert.throws(() => splitBody(Buffer.from(bad)), /ends within/)
  assert.throws(
    () => splitBody(Buffer.from(`${Array.from({ length: 100 }, (_, n) => `CNI_${n}=1\0`).join('')}\0`)),
    /More than 64/,
  )
})

test('errors are printed in the version that was asked for, when it is known', () => {
  assert.equal(versionForErrors(Buffer.from('{"cniVersion":"0.3.1","mtu":"x"}')), '0.3.1')
  assert.equal(versionForErrors(Buffer.from('{"cniVersion":"3.0.0"}')), '1.1.0')
  assert.equal(versionForErrors(Buffer.from('{')), '1.1.0')
})

test('random damage to a good request is refused with a code, never with a crash', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31)
  let state = seed
  const random = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
    return (state >>> 8) % n
  }
  const good = JSON.stringify({
    ...base,
    ipam: {
      type: 'host-local',
      ranges: [[{ subnet: '10.0.0.0/24', gateway: '10.0.0.1' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
    runtimeConfig: { ips: ['10.0.0.9'], portMappings: [{ hostPort: 1, containerPort: 2, protocol: 'tcp' }] },
    prevResult: { ips: [{ address: '10.0.0.9/24', interface: 0 }], interfaces: [{ name: 'eth0' }] },
    dns: { nameservers: ['10.0.0.2'] },
  })
  const pieces = ['null', '[]', '{}', '-1', '1e999', '"x"', '', '\u0000', '9'.repeat(400), '"__proto__":', ',']
  for (let i = 0; i < 3000; i++) {
    const at = random(good.length)
    const text = good.slice(0, at) + pieces[random(pieces.length)] + good.slice(at + random(12))
    try {
      parseRequest(environment(), Buffer.from(text))
    } catch (error) {
      assert.ok(
        error instanceof CniError && error.code >= 1 && error.code <= 7,
        `seed ${seed}: ${text}: ${(error as Error).stack}`,
      )
    }
  }
})

test('VLANs: single ones and ranges in order, each once, the untagged one apart; half a range is refused', () => {
  const own = { type: 'host-local', ranges: [[{ subnet: '10.0.0.0/24' }]] }
  const vlans = (more: object) => parse({ ...base, ipam: own, ...more }).config.vlans
  assert.equal(vlans({ vlan: 0, vlanTrunk: [] }), undefined)
  assert.deepEqual(vlans({ vlan: 100 }), { access: 100, trunk: [], keepDefault: true })
  const vlanTrunk = [{ minID: 99, maxID: 102 }, { id: 101 }, { id: 7 }, { minID: 4094, maxID: 4094, id: 8 }]
  assert.deepEqual(vlans({ vlan: 100, vlanTrunk, preserveDefaultVlan: false }), {
    access: 100,
    trunk: [
      [7, 8],
      [99, 99],
      [101, 102],
      [4094, 4094],
    ],
    keepDefault: false,
  })
  for (const [bad, says] of [
    [{ vlan: 4095 }, /vlan: must be 0 to 4094/],
    [{ vlanTrunk: [{ minID: 2 }] }, /vlanTrunk\[0\]\.maxID: is missing/],
    [{ vlanTrunk: [{ maxID: 2 }] }, /vlanTrunk\[0\]\.minID: is missing/],
    [{ vlanTrunk: [{ minID: 3, maxID: 2 }] }, /maxID: is less than minID 3/],
    [{ vlanTrunk: [{ id: 0 }] }, /id: must be 1 to 4094/],
    [{ vlan: 1000, isGateway: true, bridge: 'twelve-chars' }, /bridge: is too long/],
  ] as const)
    assert.throws(() => vlans(bad), says)
  assert.throws(() => parse({ ...base, vlan: 5 }), /vlan: needs addresses of its own/)
  assert.deepEqual(parse({ ...base, vlanTrunk: [{ id: 5 }] }).config.vlans?.trunk, [[5, 5]])
})
