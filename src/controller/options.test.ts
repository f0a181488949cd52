import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../model/errors.ts'
import { parseControllerOptions, parseDuration } from './options.ts'

test('defaults are those of Kubernetes’ components', () => {
  const options = parseControllerOptions({ 'cluster-cidr': '10.244.0.0/16,fd00::/48' })
  assert.deepEqual(options.election?.timing, { leaseDuration: 15_000, renewDeadline: 10_000, retryPeriod: 2000 })
  assert.ok('pools' in options.network)
  assert.deepEqual(
    options.network.pools.map(({ network, length }) => `${network} ${length}`),
    ['10.244.0.0/16 24', 'fd00::/48 64'],
  )
  assert.deepEqual(parseControllerOptions({}).network, { namespace: 'kube-flannel', name: 'kube-flannel-cfg' })
})

test('the command line comes before the environment, and that before the default', () => {
  const env = { WEFT_CONTROLLER_CLUSTER_CIDR: '10.1.0.0/16', WEFT_CONTROLLER_LEADER_ELECT: 'false' }
  const options = parseControllerOptions({ 'cluster-cidr': '10.2.0.0/16' }, env)
  assert.ok('pools' in options.network)
  assert.equal(String(options.network.pools[0]!.network), '10.2.0.0/16')
  assert.equal(options.election, undefined)
})

test('durations are Go’s', () => {
  for (const [text, milliseconds] of [
    ['0', 0],
    ['15s', 15_000],
    ['1m30s', 90_000],
    ['1.5h', 5_400_000],
    ['250ms', 250],
  ] as const)
    assert.equal(parseDuration('--x', text), milliseconds)
  for (const text of ['', '15', 's', '1 s', '-1s', '1s,2s', '1d', '9999999h'])
    assert.throws(() => parseDuration('--x', text), ConfigError, text)
})

test('what cannot be is refused by the name of its flag', () => {
  const refused: [Record<string, string | boolean>, string][] = [
    [{ 'cluster-cidr': '10.244.0.1/16' }, '--cluster-cidr'],
    [{ 'cluster-cidr': '10.0.0.0/16,10.1.0.0/16' }, '--cluster-cidr'],
    [{ 'cluster-cidr': '10.0.0.0/16', 'net-config': '/x' }, '--net-config'],
    [{ 'cluster-cidr': '10.0.0.0/16', 'node-cidr-mask-size': '12' }, '--node-cidr-mask-size'],
    [{ 'cluster-cidr': '10.0.0.0/16', 'node-cidr-mask-size-ipv4': '31' }, '--node-cidr-mask-size-ipv4'],
    [{ 'cluster-cidr': '10.0.0.0/16,fd00::/48', 'node-cidr-mask-size': '24' }, '--node-cidr-mask-size'],
    [{ 'node-cidr-mask-size-ipv6': '64' }, '--node-cidr-mask-size-ipv6'],
    [{ 'net-config-map': 'x' }, '--net-config-map'],
    [{ 'leader-elect-lease-duration': '10s' }, '--leader-elect-lease-duration'],
    [{ 'leader-elect-renew-deadline': '2.4s' }, '--leader-elect-renew-deadline'],
    [{ 'leader-elect': 'maybe' }, '--leader-elect'],
    [{ 'agent-pods': 'app=weft' }, '--agent-pods'],
    [{ 'healthz-port': '70000' }, '--healthz-port'],
    [{ 'log-level': 'loud' }, '--log-level'],
  ]
  for (const [given, flag] of refused)
    assert.throws(
      () => parseControllerOptions(given),
      (error) => error instanceof ConfigError && error.message.includes(`${flag}`),
      JSON.stringify(given),
    )
})
