import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { BfdState, decodeBfdPacket, encodeBfdPacket } from './packet.ts'

const captured = JSON.parse(readFileSync(new URL('testdata/captured.json', import.meta.url), 'utf8')) as {
  from: string
  bytes: string
}[]

test('packets of bird and frr come out as they went in, with and without keyed SHA1', () => {
  const kinds = new Set<string>()
  for (const { from, bytes } of captured) {
    const packet = decodeBfdPacket(new Uint8Array(Buffer.from(bytes, 'hex')))
    kinds.add(
      `${from} ${packet.state}${packet.poll ? ' poll' : ''}${packet.final ? ' final' : ''} ${packet.authentication?.type ?? 0}`,
    )
    assert.equal(Buffer.from(encodeBfdPacket(packet)).toString('hex'), bytes, from)
  }
  for (const kind of [
    `bird 2.0.12 ${BfdState.Down} 4`,
    `bird 2.0.12 ${BfdState.Init} 0`,
    `bird 2.0.12 ${BfdState.Up} final 0`,
    `frr 8.4.4 ${BfdState.Down} 0`,
    `frr 8.4.4 ${BfdState.Up} poll 0`,
  ])
    assert(kinds.has(kind), `${kind} in ${[...kinds].join(', ')}`)
})
