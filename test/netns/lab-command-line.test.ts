import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { program, TestLab } from './test-lab.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-test-command-line-'))
after(() => rmSync(folder, { recursive: true, force: true }))

/** Exit code and standard error of a command. */
function refusal(...argv: readonly string[]): Promise<{ code: unknown; text: string }> {
  return new Promise((resolve) => {
    execFile(program, argv, { timeout: 30_000 }, (error, _stdout, stderr) =>
      resolve({ code: error?.code ?? 0, text: stderr }),
    )
  })
}

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const up = (...options: readonly string[]) => ['lab', 'up', '--name', 'wrong', ...options]

for (const [what, argv, said] of [
  ['an unknown command', ['lba'], /unknown command 'lba'[\s\S]*lab/],
  ['an unknown option', up('--node', '3'), /unknown option '--node'[\s\S]*--nodes/],
  ['a lab name with a slash', ['lab', 'up', '--name', '../x'], /--name: "\.\.\/x"/],
  ['a data path misspelt', up('--backend', 'vxlna'), /--backend: vxlna: is not one of vxlan,/],
  ['too many nodes', up('--nodes', '9999'), /--nodes: must be a whole number from 1 to 200/],
  ['no file', up('--net-config', '/nowhere'), /--net-config: \/nowhere: cannot be read: ENOENT/],
  ['a folder for a file', up('--net-config', folder), /--net-config: .*: cannot be read: EISDIR/],
  ['a file without end', up('--net-config', '/dev/zero'), /--net-config: \/dev\/zero: is longer than 65536 bytes/],
  ['bytes that are no text', up('--net-config', file('bytes', Uint8Array.of(0xff, 0xfe, 0x80))), /is not UTF-8 text/],
  ['text that is no JSON', up('--net-config', file('text', '{"Network":')), /net-conf\.json: \(whole\): is not JSON/],
  [
    'a wrong value',
    up('--net-config', file('value', '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":"x"}}')),
    /Backend\.VNI: must be a whole number/,
  ],
] as const)
  test(`${what} is refused with exit code 2, by name, without a stack`, async () => {
    const { code, text } = await refusal(...argv)
    assert.equal(code, 2, text)
    assert.match(text, said)
    assert.doesNotMatch(text, /^ +at /m)
  })

test('two at once bring up one lab; a third says what counts no more; nodes are asked for by name, programs are there and get no files of the daemon', async () => {
  const lab = new TestLab()
  await Promise.all([lab.up('--nodes', '2'), lab.up('--nodes', '2')])
  const { nodes } = JSON.parse(await lab.weft('status', '--json')) as { nodes: { ready: boolean }[] }
  assert.deepEqual(
    nodes.map((node) => node.ready),
    [true, true],
  )
  assert.match(await lab.weft('up', '--nodes', '3'), /stays as it was made: --nodes/)
  await assert.rejects(lab.weft('run', 'a', '--node', 'n9'), /has no node "n9"; it has n1, n2/)
  await assert.rejects(lab.weft('node', 'exec', 'n9', '--', 'true'), /has no node "n9"; it has n1, n2/)
  await assert.rejects(
    lab.weft('run', 'b', '--', '/nosuch'),
    /container main cannot be started \(StartError\): exec: "\/nosuch": not found on this machine/,
  )
  // Three standard ones, and the listing's own.
  await lab.weft('run', 'c', '--restart', 'Never', '--', 'ls', '/proc/self/fd')
  assert.equal((await lab.weft('logs', 'c')).trim().split('\n').length, 4)
  await assert.rejects(lab.weft('run', 'c'), /has a pod "c" already, made otherwise: kubectl delete pod c/)
  await assert.rejects(lab.weft('load', '/nowhere'), /has no images/)
  await lab.down()
})
