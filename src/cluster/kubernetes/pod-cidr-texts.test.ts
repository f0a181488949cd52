import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseNode, projectNode } from './annotations.ts'

const PREFIX = 'flannel.alpha.coreos.com'

function nodeOf(annotations: Readonly<Record<string, string>>, podCIDRs: readonly string[] = ['10.244.1.0/24']) {
  const metadata = { name: 'n1', annotations }
  const { node, problems } = parseNode(projectNode({ metadata, spec: { podCIDRs } }, PREFIX), PREFIX)
  return { cidrs: node.podCidrs.map(String).join(), problems: problems.map(({ key }) => key) }
}

test("a node's blocks are those of kube-router's annotations, one before several, and else of its spec", () => {
  const one = { 'kube-router.io/pod-cidr': '10.1.0.0/24' }
  const several = { 'kube-router.io/pod-cidrs': '10.2.0.0/24,fd00:2::/64' }
  assert.deepEqual(nodeOf({}), { cidrs: '10.244.1.0/24', problems: [] })
  assert.deepEqual(nodeOf(several), { cidrs: '10.2.0.0/24,fd00:2::/64', problems: [] })
  assert.deepEqual(nodeOf({ ...several, ...one }), { cidrs: '10.1.0.0/24', problems: [] })
  assert.deepEqual(nodeOf({ 'kube-router.io/pod-cidr': '', 'kube-router.io/pod-cidrs': '' }).cidrs, '10.244.1.0/24')
  assert.equal(nodeOf({ 'kube-router.io/pod-cidr': '10.1.0.9/24' }).cidrs, '10.1.0.0/24', 'by any address of it')
})

test('what cannot be read in them is left out and named', () => {
  const bad = { 'kube-router.io/pod-cidr': '10.1.0.0' }
  assert.deepEqual(nodeOf(bad), { cidrs: '10.244.1.0/24', problems: ['kube-router.io/pod-cidr'] })
  assert.deepEqual(nodeOf({ ...bad, 'kube-router.io/pod-cidrs': '10.2.0.0/24, fd00:2::/64,10.9.0.0/33' }), {
    cidrs: '10.2.0.0/24',
    problems: ['kube-router.io/pod-cidr', 'kube-router.io/pod-cidrs', 'kube-router.io/pod-cidrs'],
  })
  assert.equal(nodeOf({ 'kube-router.io/pod-cidrs': 'none' }).cidrs, '', 'a list counts whatever is in it')
})

test('a list without end is cut', () => {
  const text = Array.from({ length: 20_000 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`).join()
  assert.ok(nodeOf({ 'kube-router.io/pod-cidrs': text }).cidrs.split(',').length <= 8)
})
