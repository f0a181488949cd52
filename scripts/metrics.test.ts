/**
 * Holds four texts together: the registry of metrics, its page in both languages, the dashboard and the alerts.
 *
 * Sources: Prometheus "Metric and label naming" and the rules of `promtool check metrics`; Grafana "Dashboard JSON model".
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { AgentMetrics } from '../src/agent/metrics.ts'
import { ControllerMetrics } from '../src/controller/metrics.ts'

interface Described {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly labelNames: readonly string[]
}

const read = (path: string) => readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), 'utf8')
const described = [new AgentMetrics('0'), new ControllerMetrics()].flatMap(
  ({ registry }) => registry.getMetricsAsArray() as unknown as readonly Described[],
)
const registered = [...new Map(described.map((each) => [each.name, each])).values()]

/** Calico's names are kept as they are, beyond Prometheus' own conventions. */
const WITHOUT_TOTAL = new Set(['felix_int_dataplane_failures', 'ipam_allocations_gc_reclamations'])
const PREFIXES = /^(weft|process|nodejs|rest_client|kubernetes|felix|ipam|leader_election|node_ipam_controller)_/
/** Kubernetes' own spelling of a label. */
const KEPT_LABELS = new Set(['clusterCIDR'])
const OTHER_UNITS = /_(milliseconds|microseconds|nanoseconds|minutes|ms|kilobytes|kb|mb|percent)(_|$)/
const RESERVED_LABELS = new Set(['le', 'quantile', 'job', 'instance'])

function problemsOf({ name, help, type, labelNames }: Described): string[] {
  const problems: string[] = []
  const check = (ok: boolean, problem: string) => {
    if (!ok) problems.push(`${name}: ${problem}`)
  }
  check(/^[a-z][a-z0-9_]*$/.test(name) && !name.includes('__'), 'is not snake_case (colons are for recording rules)')
  check(PREFIXES.test(name), 'has no known prefix')
  check(!OTHER_UNITS.test(name), 'is not in base units')
  check(help.length >= 10 && !help.endsWith('.') && /^[A-Z1]/.test(help), `has a poor help text: ${help}`)
  check((type === 'counter') === name.endsWith('_total') || WITHOUT_TOTAL.has(name), '_total is for counters')
  check(!/_(count|sum|bucket)$/.test(name), 'ends as a part of a histogram')
  check(!new RegExp(`_(${type})(_|$)`).test(name), 'has its type in its name')
  if (type === 'histogram') check(/_(seconds|bytes)$/.test(name), 'is a histogram without a unit')
  for (const label of labelNames) {
    check((/^[a-z][a-z0-9_]*$/.test(label) || KEPT_LABELS.has(label)) && !RESERVED_LABELS.has(label), `label ${label}`)
    const isTwice = name.split('_').includes(label) && !name.startsWith('ipam_') && !name.endsWith(`_by_${label}`)
    check(!isTwice, `label ${label} is in the name already`)
  }
  check(labelNames.length <= 3, 'has many labels')
  return problems
}

/** Rows of the tables whose first cell is a metric: name, type and labels. */
function tableOf(page: string): string[] {
  const rows = read(page).matchAll(/^\| `([a-z_]+)` \| (counter|gauge|histogram|summary) \|([^|]*)\| (.+) \|$/gm)
  return [...rows].map(([, name, type, labels]) => `${name} ${type} ${labels!.replace(/[`\s]/g, '')}`).sort()
}

/** Names in a PromQL expression that are those of metrics, without a histogram's endings. */
function metricsIn(expression: string): string[] {
  const bare = expression.replace(/"[^"]*"/g, '').replace(/\{[^}]*\}/g, '')
  const names = bare
    .replace(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, '')
    .match(/[a-z][a-z0-9]*(_[a-z0-9]+)+/g)
  return (names ?? []).filter((name) => PREFIXES.test(name)).map((name) => name.replace(/_(bucket|sum|count)$/, ''))
}

const names = new Set(registered.map(({ name }) => name))
const unknownIn = (expression: string) => metricsIn(expression).filter((name) => !names.has(name))

describe('metrics', () => {
  test('are named and described by Prometheus’ conventions', () => {
    assert.ok(registered.length > 40)
    assert.deepEqual(registered.flatMap(problemsOf), [])
  })

  test('the check finds what it is for', () => {
    const poor = { name: 'weft_pods_ms', help: 'pods', type: 'counter', labelNames: ['pods', 'job'] }
    assert.equal(problemsOf(poor).length, 5)
    assert.deepEqual(unknownIn('sum by (weft_x) (rate(weft_nothing_total{a="weft_b"}[5m]))'), ['weft_nothing_total'])
  })

  test('the page in both languages has every one of them, with type and labels', () => {
    const wanted = registered.map(({ name, type, labelNames }) => `${name} ${type} ${labelNames.join(',')}`).sort()
    for (const page of ['docs/metrics.md', 'docs/zh/metrics.md']) assert.deepEqual(tableOf(page), wanted, page)
  })
})

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly labels: { readonly severity: string }
  readonly annotations: { readonly summary: string }
}

describe('alerts', () => {
  const { apiVersion, kind, spec } = parse(read('deploy/dashboard/alerts.yaml'))
  const rules: Rule[] = spec.groups.flatMap((group: { rules: Rule[] }) => group.rules)

  test('are a PrometheusRule over metrics that exist', () => {
    assert.deepEqual([apiVersion, kind], ['monitoring.coreos.com/v1', 'PrometheusRule'])
    assert.ok(rules.length > 10)
    for (const { alert, expr, labels, annotations } of rules) {
      assert.ok(metricsIn(expr).length > 0, alert)
      assert.deepEqual(unknownIn(expr), [], alert)
      assert.match(labels.severity, /^(critical|warning|info)$/, alert)
      assert.ok(annotations.summary.length > 20, alert)
    }
  })

  test('each has a line of what to do in both languages', () => {
    for (const page of ['docs/metrics.md', 'docs/zh/metrics.md']) {
      const lines = [...read(page).matchAll(/^\| `(Weft\w+)` \| .+ \| .+ \|$/gm)].map(([, alert]) => alert)
      assert.deepEqual(
        lines,
        rules.map(({ alert }) => alert),
        page,
      )
    }
  })
})

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number }
  readonly datasource?: { readonly uid: string }
  readonly targets?: readonly { readonly refId: string; readonly expr: string }[]
}

describe('the dashboard', () => {
  const dashboard = JSON.parse(read('deploy/dashboard/weft.json'))
  const panels: readonly Panel[] = dashboard.panels
  const shown = panels.filter(({ type }) => type !== 'row')

  test('is one that Grafana takes: version, variables, panels on a grid of 24 columns without overlaps', () => {
    assert.ok(dashboard.schemaVersion >= 36 && dashboard.title === 'weft' && dashboard.uid)
    const variables = dashboard.templating.list.map(({ name }: { name: string }) => name)
    assert.deepEqual(variables, ['datasource', 'job', 'instance'])
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length)
    const taken = new Map<string, string>()
    for (const { title, gridPos } of panels) {
      assert.ok(gridPos.x >= 0 && gridPos.x + gridPos.w <= 24, title)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.equal(taken.get(`${x} ${y}`), undefined, `${title} lies on another panel`)
          taken.set(`${x} ${y}`, title)
        }
    }
  })

  test('shows metrics that exist, from the chosen source, job and nodes', () => {
    assert.ok(shown.length > 20)
    for (const { title, description, datasource, targets = [] } of shown) {
      assert.ok(description, title)
      assert.match(datasource?.uid ?? '', /^\$\{datasource\}$/, title)
      assert.ok(targets.length > 0, title)
      assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length, title)
      for (const { expr } of targets) {
        assert.deepEqual(unknownIn(expr), [], title)
        assert.match(expr, /job=~"\$job",instance=~"\$instance"/, title)
      }
    }
  })
})
