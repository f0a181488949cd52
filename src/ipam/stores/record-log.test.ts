import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32, RecordLog } from './record-log.ts'

function inFolder(run: (path: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'weft-log-'))
  try {
    run(join(folder, 'journal'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('the checksum is CRC-32', () => {
  assert.equal(crc32(Buffer.from('123456789')), 0xcbf43926)
})

test('cut at every byte, the file gives exactly the records written whole, and goes on', () => {
  inFolder((path) => {
    const { log } = RecordLog.open(path)
    const records = Array.from({ length: 5 }, (_, n) => ({ n, text: 'ü'.repeat(n * 3) }))
    const ends = records.map((record) => {
      log.append(record)
      return log.bytes
    })
    log.close()
    const whole = readFileSync(path)
    for (let cut = 0; cut <= whole.length; cut++) {
      writeFileSync(path, whole.subarray(0, cut))
      const { log: again, reading } = RecordLog.open(path)
      const count = ends.filter((end) => end <= cut).length
      assert.deepEqual(reading.records, records.slice(0, count), `cut at ${cut}`)
      assert.equal(reading.damagedLines, 0)
      assert.equal(reading.tornBytes, cut - (ends[count - 1] ?? 0))
      again.append({ after: cut })
      again.close()
      const last = RecordLog.open(path)
      assert.deepEqual(last.reading.records, [...records.slice(0, count), { after: cut }])
      last.log.close()
    }
  })
})

test('a damaged line in the middle costs that record alone and leaves a copy', () => {
  inFolder((path) => {
    const { log } = RecordLog.open(path)
    for (let n = 0; n < 3; n++) log.append({ n })
    log.close()
    const bytes = readFileSync(path)
    const lines = bytes.toString().split('\n')
    writeFileSync(path, [lines[0], lines[1]!.replace('1}', '7}'), lines[2], ''].join('\n'))
    const { log: again, reading } = RecordLog.open(path)
    assert.deepEqual(reading.records, [{ n: 0 }, { n: 2 }])
    assert.equal(reading.damagedLines, 1)
    assert.match(readFileSync(`${path}.damaged`, 'utf8'), /"n":7/)
    again.close()
  })
})

test('compaction replaces the file at once, and appending goes on in the new one', () => {
  inFolder((path) => {
    const { log } = RecordLog.open(path)
    for (let n = 0; n < 100; n++) log.append({ n })
    log.compact([{ kept: 1 }])
    log.append({ kept: 2 })
    log.close()
    const { log: again, reading } = RecordLog.open(path)
    assert.deepEqual(reading.records, [{ kept: 1 }, { kept: 2 }])
    again.close()
  })
})
