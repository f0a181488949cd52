import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { TestNamespace } from './namespace.ts'
import { native } from './tunnel-pair.ts'

const pod = native('weft-pod')

describe('weft-pod', () => {
  let client: TestNamespace
  let server: TestNamespace
  let serving: ChildProcess
  before(async () => {
    client = new TestNamespace()
    server = new TestNamespace()
    client.run(`ip link add v0 type veth peer name v0 netns ${server.name}`)
    for (const [end, n] of [
      [client, 1],
      [server, 2],
    ] as const) {
      end.run(`ip link set v0 up; ip addr add 10.0.0.${n}/24 dev v0; ip addr add 10.0.0.1${n}/24 dev v0`)
      end.run(`ip addr add fd00::${n}/64 dev v0 nodad`)
    }
    const args = ['run', '--netns', server.path, '--hostname', 'web-1', '--mount-ns', '--', pod, 'serve']
    serving = spawn(pod, args, { stdio: 'inherit' })
    while (!server.succeeds('ss -Hltn sport = 9000 | grep -q 9000')) await new Promise(setImmediate)
  })
  after(() => {
    serving.kill('SIGKILL')
    client.delete()
    server.delete()
  })

  test('serve answers over HTTP on both families, in a row and to garbage', () => {
    assert.equal(client.run('curl -s http://10.0.0.2:8080/hostname'), 'web-1')
    assert.match(client.run('curl -s -g "http://[fd00::2]:8080/clientip"'), /^\[fd00::1\]:\d+$/)
    assert.match(client.run('curl -s http://10.0.0.2:8080/clientip'), /^10\.0\.0\.1:\d+$/)
    assert.equal(client.run('curl -s "http://10.0.0.2:8080/echo?msg=a%20b" http://10.0.0.2:8080/healthz'), 'a bok')
    assert.equal(client.run('curl -s -o /dev/null -w "%{http_code}" http://10.0.0.2:8080/nothing'), '404')
    assert.match(client.run('head -c 20000 /dev/zero | nc -w 2 10.0.0.2 8080 | head -1 || true'), /^(HTTP\/1\.1 431|$)/)
    assert.equal(client.run('curl -s http://10.0.0.2:8080/hostname'), 'web-1')
  })

  test('serve answers commands and echoes over TCP', () => {
    assert.match(client.run('printf "hostname\\nclientip\\n" | nc -N 10.0.0.2 9000'), /^web-1\n10\.0\.0\.1:\d+\n$/)
    assert.equal(client.run('printf "no command" | nc -N fd00::2 9000'), 'no command')
  })

  test('serve answers datagrams from the address that was asked', () => {
    const ask = (to: string, text: string) =>
      client.run(`printf '${text}' | socat -t 2 STDIO UDP:${to}:9001,connect-timeout=2`)
    assert.equal(ask('10.0.0.12', 'hostname'), 'web-1')
    assert.equal(ask('10.0.0.2', 'echo hello'), 'hello')
    assert.match(ask('[fd00::2]', 'clientip'), /^\[fd00::1\]:\d+$/)
  })

  test('serve needs little memory', () => {
    const status = readFileSync(`/proc/${serving.pid}/status`, 'utf8')
    assert.ok(Number(/VmRSS:\s+(\d+)/.exec(status)![1]) <= 1536, status)
  })

  test('ping1k counts what is answered, by every way and family', () => {
    for (const to of ['10.0.0.12', 'fd00::2']) {
      for (const way of ['--icmp', '--udp 9001', '--tcp 9000']) {
        const { sent, received, lost, reordered, broken } = JSON.parse(
          client.run(`${pod} ping1k --to ${to} ${way} --duration-ms 200 2>/dev/null`),
        )
        assert.ok(sent > 20, `${to} ${way}: ${sent} sent`)
        assert.deepEqual([received, lost, reordered, broken], [sent, 0, 0, false])
      }
    }
  })

  test('ping1k counts what is lost, and ends on SIGTERM', async () => {
    const command = ['netns', 'exec', client.name, pod, 'ping1k', '--to', '10.0.0.2', '--wait-ms', '50']
    const pinging = spawn('ip', command, { stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    pinging.stdout.on('data', (chunk) => {
      text += chunk
    })
    await once(pinging.stderr, 'data')
    server.run('ip link set v0 down')
    client.run(`ping -c 20 -i 0.005 -W 0.1 10.0.0.2 >/dev/null || true`)
    server.run('ip link set v0 up')
    const closed = once(pinging, 'close')
    pinging.kill('SIGTERM')
    await closed
    const { sent, received, lost, longestLoss } = JSON.parse(text)
    assert.equal(received + lost, sent)
    assert.ok(lost >= 5 && longestLoss >= 5 && received > 0, text)
  })

  test('run isolates what it is asked to, and passes the end of the command on', () => {
    const run = (...args: string[]) => spawnSync(pod, ['run', ...args], { encoding: 'utf8' })
    const isolated = ['--netns', server.path, '--hostname', 'p', '--pid-ns', '--bind', '/etc/passwd:/etc/hosts']
    const script = 'hostname; echo $$; ls /sys/class/net; head -c 4 /etc/hosts; exit 7'
    const { status, stdout } = run(...isolated, '--setenv', 'A=1', '--cwd', '/tmp', '--', 'sh', '-c', script)
    assert.equal(status, 7)
    assert.equal(stdout, 'p\n1\nlo\nv0\nroot')
    assert.equal(run('--clear-env', '--setenv', 'A=1', '--', '/usr/bin/env').stdout, 'A=1\n')
    assert.equal(run('--join', String(serving.pid), '--', 'hostname').stdout, 'web-1\n')
    assert.equal(run('--', '/does/not/exist').status, 127)
    assert.equal(run('--', '/etc/passwd').status, 126)
    assert.equal(run('--netns', '/run/netns/none', '--', 'true').status, 125)
    assert.match(run('--nonsense', '--', 'true').stderr, /no option --nonsense/)
  })

  test('pause and serve end on SIGTERM', async () => {
    for (const args of [['pause'], ['serve', '--udp', '9055']]) {
      const child = spawn(pod, ['run', '--netns', server.path, '--pid-ns', '--', pod, ...args], { stdio: 'inherit' })
      while (!readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')) await new Promise(setImmediate)
      const closed = once(child, 'close')
      // The first process of a process namespace gets no signal before it has said that it wants them.
      const again = setInterval(() => child.kill('SIGTERM'), 20)
      const [code] = await closed
      clearInterval(again)
      assert.equal(code, 0)
    }
  })
})
