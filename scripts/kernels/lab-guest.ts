/**
 * A command, or a shell, of this checkout in a guest with the distribution's kernel: labs there have what the machine's own
 * kernel lacks, such as tunl0. What is written there dies with the guest.
 *
 *   npm run lab:guest                                                 a shell; `exit` ends the guest, Ctrl-a x a dead one
 *   npm run lab:guest -- weft lab demo --backend calico-ipip --nodes 2
 *   npm run lab:guest -- 'weft lab up && weft lab status'             one word is a line of shell
 */
import { Guests } from './guest.ts'

const CAP_SECONDS = 24 * 3600
const words = process.argv.slice(2)
const argv = words.length === 0 ? ['bash', '-i'] : words.length === 1 ? ['bash', '-c', words[0]!] : words

const { stdin, stdout } = process
const interactive = stdin.isTTY && stdout.isTTY
if (words.length === 0 && !interactive) {
  console.error('a shell needs a terminal; give a command: npm run lab:guest -- weft lab demo')
  process.exit(2)
}
const guests = await Guests.open()
if (typeof guests === 'string') {
  console.error(guests)
  process.exit(1)
}
process.once('exit', () => guests.close())
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
console.error(`Linux ${guests.release}, emulated: everything takes five to ten times as long`)
const { exitCode } = await guests.command({
  argv,
  cpus: 2,
  capSeconds: CAP_SECONDS,
  env: { TERM: process.env.TERM ?? 'dumb' },
  ...(interactive ? { terminal: { rows: stdout.rows, columns: stdout.columns } } : {}),
})
process.exit(exitCode)
