import assert from 'node:assert/strict'
import { test } from 'node:test'
import { STATUS_ANNOTATION } from '../cluster/kubernetes/annotations.ts'
import { type AgentSight, judgeAgainIn, judgeNode, type NodeStateSettings } from './node-state.ts'
import type { WatchedNode } from './objects.ts'

const settings: NodeStateSettings = {
  markNew: true,
  agents: { namespace: 'x', selector: 'a=b' },
  missedAfter: 100,
  forgetAfter: 1000,
}
const node = (mark: string | undefined, weft = true, more: Partial<WatchedNode> = {}): WatchedNode => {
  const [status = '', reason = ''] = (mark ?? '').split(' ')
  return {
    name: 'n',
    version: '1',
    leaving: false,
    addresses: [],
    podCidrs: [],
    labels: {},
    annotations: weft ? { [STATUS_ANNOTATION]: '{}' } : {},
    ...(mark === undefined ? {} : { networkUnavailable: { status, reason } }),
    ...more,
  }
}
const missing = (ms: number): AgentSight => ({ ready: false, missing: ms })
const ready: AgentSight = { ready: true, missing: 0 }

test('every case of a node and its agent', () => {
  const cases: [string, WatchedNode, AgentSight | undefined, string[]][] = [
    ['new', node(undefined, false), undefined, ['mark-new']],
    ['spoken for, without a condition', node(undefined), ready, []],
    ['leaving', node(undefined, false, { leaving: true }), undefined, []],
    ['agents are not known', node('False WeftIsUp'), undefined, []],
    ['not weft’s', node('False FlannelIsUp', false), missing(5000), []],
    ['well', node('False WeftIsUp'), ready, []],
    ['missed, not for long', node('False WeftIsUp'), missing(99), []],
    ['missed', node('False WeftIsUp'), missing(100), ['mark-gone']],
    ['missed and marked', node('True WeftAgentGone'), missing(999), []],
    ['missed for very long', node('True WeftAgentGone'), missing(1000), ['forget']],
    ['first seen when missed for very long', node('False WeftIsUp'), missing(1000), ['mark-gone', 'forget']],
    ['back', node('True WeftAgentGone'), ready, ['unmark']],
    ['marked by somebody else', node('True NoRouteCreated'), ready, []],
    ['new still, its agent has the word', node('True NoWeftYet'), ready, []],
  ]
  for (const [name, each, sight, duties] of cases) assert.deepEqual(judgeNode(each, sight, settings), duties, name)
  assert.deepEqual(judgeNode(node(undefined, false), undefined, { ...settings, markNew: false }), [])
  assert.deepEqual(judgeNode(node('True WeftAgentGone'), missing(1e9), { ...settings, forgetAfter: undefined }), [])
})

test('a node is judged again when its next limit is reached', () => {
  assert.equal(judgeAgainIn(node('False WeftIsUp'), missing(40), settings), 60)
  assert.equal(judgeAgainIn(node('True WeftAgentGone'), missing(400), settings), 600)
  assert.equal(judgeAgainIn(node('True WeftAgentGone'), missing(1400), settings), undefined)
  assert.equal(judgeAgainIn(node('False WeftIsUp'), ready, settings), undefined)
})
