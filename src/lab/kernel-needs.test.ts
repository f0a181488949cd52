import assert from 'node:assert/strict'
import { test } from 'node:test'
import { kindsNeeded } from './kernel-needs.ts'
import { backendNames, wordsFor } from './spec.ts'

test('what each data path needs of the kernel', () => {
  const needing = backendNames.filter(
    (backend) => kindsNeeded(wordsFor(backend, { ipv6: false, subnets: 1 })).join() === 'ipip',
  )
  assert.deepEqual(needing.sort(), [
    'calico-ipip',
    'calico-ipip-cross',
    'ipip',
    'ipip-direct',
    'kube-router',
    'kube-router-fou',
    'kube-router-subnet',
  ])
  for (const backend of backendNames.filter((name) => !needing.includes(name)))
    assert.deepEqual(kindsNeeded(wordsFor(backend, { ipv6: true, subnets: 2 })), [], backend)
})
