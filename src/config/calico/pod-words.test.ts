import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../../model/errors.ts'
import { Ip } from '../../net/ip.ts'
import { formatPodAnnotations, parsePodWords } from './pod-words.ts'

const P = 'cni.projectcalico.org/'
const parse = (own: Record<string, string>, inherited: Record<string, string> = {}) => {
  const prefixed = (words: Record<string, string>) =>
    Object.fromEntries(Object.entries(words).map(([key, value]) => [P + key, value]))
  return parsePodWords(prefixed(own), prefixed(inherited), 'Pod default/web-0')
}

test('a pod that says nothing asks for nothing', () => {
  assert.deepEqual(parsePodWords({ 'kubernetes.io/x': '[' }, {}, 'Pod a/b'), {})
  assert.deepEqual(parse({ ipAddrs: '', ipv4pools: '[]', hwAddr: '', floatingIPs: 'null' }), {})
})

test('everything that can be asked for', () => {
  const words = parse({
    ipAddrs: '["172.26.0.9", "fd00::9"]',
    ipv4pools: '["pool-a", "172.26.0.0/16"]',
    ipv6pools: '["fd00::/48"]',
    ipFamilies: '["IPv6", "IPv4", "IPv6"]',
    hwAddr: '1C-0C-0A-C0-FF-EE',
    allowedSourcePrefixes: '["203.0.113.7/24", "fd01::1"]',
    floatingIPs: '["203.0.113.7"]',
  })
  assert.deepEqual(words.ipAddrs?.map(String), ['172.26.0.9', 'fd00::9'])
  assert.deepEqual(words.ipv4Pools, ['pool-a', '172.26.0.0/16'])
  assert.deepEqual(words.ipv6Pools, ['fd00::/48'])
  assert.deepEqual(words.families, [6, 4])
  assert.equal(`${words.hwAddr}`, '1c:0c:0a:c0:ff:ee')
  assert.deepEqual(words.allowedSourcePrefixes?.map(String), ['203.0.113.0/24', 'fd01::1/128'])
  assert.deepEqual(words.floatingIps?.map(String), ['203.0.113.7'])
  assert.deepEqual(parse({ ipAddrsNoIpam: '["10.0.0.1"]' }).ipAddrsNoIpam?.map(String), ['10.0.0.1'])
})

test('a namespace speaks for pools and families alone, where its pod does not', () => {
  const namespace = {
    ipv4pools: '["ns"]',
    ipFamilies: '["IPv4"]',
    ipAddrs: '["10.0.0.1"]',
    hwAddr: '02:00:00:00:00:01',
  }
  assert.deepEqual(parse({}, namespace), { ipv4Pools: ['ns'], families: [4] })
  assert.deepEqual(parse({ ipv4pools: '["own"]', ipFamilies: '["IPv6"]' }, namespace), {
    ipv4Pools: ['own'],
    families: [6],
  })
})

const refused: readonly (readonly [key: string, value: string, says: RegExp])[] = [
  ['ipAddrs', '172.26.0.9', /is not JSON/],
  ['ipAddrs', '"172.26.0.9"', /must be a JSON list of texts/],
  ['ipAddrs', '[]', /names no address/],
  ['ipAddrs', '[7]', /must be a JSON list of texts/],
  ['ipAddrs', '["10.0.0.1", "10.0.0.2"]', /more than one IPv4 address/],
  ['ipAddrs', '["fd00::1", "fd00::2"]', /more than one IPv6 address/],
  ['ipAddrs', '["10.0.0.0/24"]', /no address that a pod can have/],
  ['ipAddrsNoIpam', '["127.0.0.1"]', /no address that a pod can have/],
  ['ipAddrsNoIpam', '["169.254.1.1"]', /no address that a pod can have/],
  ['ipv4pools', '["Pool A"]', /neither the name of a pool nor its IPv4 CIDR/],
  ['ipv4pools', '["fd00::/48"]', /nor its IPv4 CIDR/],
  ['ipv6pools', '["10.0.0.0/8"]', /nor its IPv6 CIDR/],
  ['ipFamilies', '["ipv4"]', /must be IPv4 or IPv6/],
  ['ipFamilies', '[]', /names no family/],
  ['hwAddr', '1c:0c:0a:c0:ff', /Ethernet address/],
  ['hwAddr', '01:00:00:00:00:01', /Ethernet address/],
  ['hwAddr', '00:00:00:00:00:00', /Ethernet address/],
  ['allowedSourcePrefixes', '["10.0.0.0/33"]', /is no CIDR/],
  ['floatingIPs', '["::"]', /no address/],
  ['floatingIPs', JSON.stringify(new Array(65).fill('10.0.0.1')), /has 65 items/],
  ['ipv4pools', JSON.stringify(['x'.repeat(5000)]), /longer than 4096/],
]

for (const [key, value, says] of refused)
  test(`${key} ${value.slice(0, 40)} is refused by name`, () => {
    assert.throws(
      () => parse({ [key]: value }),
      (error: ConfigError) => {
        assert.ok(error instanceof ConfigError)
        assert.deepEqual([error.object, error.key], ['Pod default/web-0', P + key])
        assert.match(error.message, says)
        return error.message.length < 300
      },
    )
  })

test('addresses with IPAM and without are not asked for at once', () => {
  assert.throws(
    () => parse({ ipAddrs: '["10.0.0.1"]', ipAddrsNoIpam: '["10.0.0.1"]' }),
    /ipAddrsNoIpam: cannot stand beside ipAddrs/,
  )
})

test('a namespace that says it wrong is named as one', () => {
  assert.throws(
    () => parse({}, { ipv4pools: 'x' }),
    /^ConfigError: Pod default\/web-0: its namespace: cni\.projectcalico\.org\/ipv4pools/,
  )
})

test('what is written on a wired pod, and on one that goes', () => {
  const ips = ['172.26.0.9', 'fd00::9'].map((text) => Ip.parse(text))
  assert.deepEqual(formatPodAnnotations({ ips, containerId: '0f' }), {
    [`${P}podIP`]: '172.26.0.9/32',
    [`${P}podIPs`]: '172.26.0.9/32,fd00::9/128',
    [`${P}containerID`]: '0f',
  })
  assert.deepEqual(Object.values(formatPodAnnotations(null)), ['', '', ''])
})
