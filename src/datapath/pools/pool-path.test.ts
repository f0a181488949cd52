import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deviceOfPoolPath, formatPoolPath, parsePoolPath, poolPaths } from './pool-path.ts'

const ids = [
  'calico/plain',
  'calico/ipip',
  'calico/vxlan/4096/4789',
  'calico/vxlan-v6/0/65535',
  'calico/vxlan/16777215/1/detour',
  'calico/geneve/4096/6081',
]

test('path ids name what both ends must agree on, and nothing else is one', () => {
  for (const id of ids) assert.equal(formatPoolPath(parsePoolPath(id)!), id)
  for (const bad of [
    '',
    'calico',
    'calico/',
    'calico/plain/',
    'calico/ipip/4',
    'calico/vxlan',
    'calico/vxlan/1',
    'calico/vxlan/16777216/1',
    'calico/vxlan/01/4789',
    'calico/vxlan/1/0',
    'calico/vxlan/1/65536',
    'calico/vxlan-v4/1/4789',
    'calico/geneve/1/6081/detour',
    'vxlan/1/8472',
    'host-gw',
    ' calico/plain',
  ])
    assert.equal(parsePoolPath(bad), undefined, bad)
})

test('no two paths that may stand side by side have one device, and names fit in the kernel', () => {
  const all = [
    ...ids,
    'calico/vxlan/7/4789',
    'calico/vxlan/4096/4790',
    'calico/vxlan-v6/7/4789/detour',
    'calico/geneve/1/1',
  ]
  for (const a of all)
    for (const b of all) {
      const devices = [a, b].map((id) => deviceOfPoolPath(parsePoolPath(id)!))
      assert.equal(poolPaths.exclude(a, b), poolPaths.exclude(b, a), `${a} ${b}`)
      if (a !== b && devices[0] !== undefined && devices[0] === devices[1])
        assert.ok(poolPaths.exclude(a, b), `${a} ${b}`)
    }
  for (const id of all) assert.ok((deviceOfPoolPath(parsePoolPath(id)!) ?? '').length <= 15, id)
  assert.ok(!poolPaths.exclude('calico/vxlan/1/4789', 'calico/vxlan-v6/1/4789'))
  assert.ok(poolPaths.exclude('calico/vxlan/1/6081', 'calico/geneve/2/6081'))
})

test('the way round stands beside what was and what is to be', () => {
  const [old, goal] = ['calico/vxlan/4096/4789', 'calico/vxlan/4096/4790']
  const detour = poolPaths.detourOf(goal)!
  assert.ok(poolPaths.exclude(old, goal))
  assert.ok(!poolPaths.exclude(old, detour) && !poolPaths.exclude(goal, detour))
  assert.match(detour, /^calico\/vxlan\/\d+\/4790\/detour$/)
  for (const id of [detour, 'calico/plain', 'calico/ipip', 'calico/geneve/4096/6081'])
    assert.equal(poolPaths.detourOf(id), undefined, id)
})
