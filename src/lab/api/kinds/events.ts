/**
 * Events, as two views of the same objects: v1 (involvedObject, message) and events.k8s.io/v1 (regarding, note).
 * Sources: Kubernetes API reference, Event v1 core and Event v1 events.k8s.io.
 */
import type { KubeObject } from '../interfaces.ts'
import type { Schema } from '../schema/schema.ts'
import { ageOf, type Column, defineKind, type Kind, text, wide } from './kind.ts'

/** Field of v1 → field of events.k8s.io/v1, where they differ. */
const renamed: readonly (readonly [core: string, events: string])[] = [
  ['involvedObject', 'regarding'],
  ['message', 'note'],
  ['source', 'deprecatedSource'],
  ['firstTimestamp', 'deprecatedFirstTimestamp'],
  ['lastTimestamp', 'deprecatedLastTimestamp'],
  ['count', 'deprecatedCount'],
  ['reportingComponent', 'reportingController'],
]

function rename(object: KubeObject, apiVersion: string, from: 0 | 1): KubeObject {
  const result: KubeObject = { ...object, apiVersion }
  for (const pair of renamed) {
    const [before, after] = from === 0 ? pair : [pair[1], pair[0]]
    if (!(before in result)) continue
    result[after] = result[before]
    delete result[before]
  }
  return result
}

const lastSeen = (event: KubeObject): unknown =>
  event.series?.lastObservedTime ??
  event.lastTimestamp ??
  event.eventTime ??
  event.firstTimestamp ??
  event.metadata.creationTimestamp
const firstSeen = (event: KubeObject): unknown =>
  event.firstTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp
const times = (event: KubeObject): number => event.series?.count ?? event.count ?? 1

function source(event: KubeObject): string {
  const component = event.source?.component || event.reportingComponent || ''
  const host = event.source?.host || event.reportingInstance || ''
  return host ? `${component}, ${host}` : component
}

const columns: readonly Column[] = [
  text('Last Seen', 'Time since it was seen last.', (event, now) => ageOf(lastSeen(event), now)),
  text('Type', 'Normal or Warning.', (event) => event.type ?? ''),
  text('Reason', 'Machine-readable reason.', (event) => event.reason ?? ''),
  text('Object', 'What it is about.', (event) => {
    const about = event.involvedObject ?? {}
    return about.name
      ? `${String(about.kind ?? '').toLowerCase()}/${about.name}`
      : String(about.kind ?? '').toLowerCase()
  }),
  wide('Subobject', 'Part of the object.', (event) => event.involvedObject?.fieldPath ?? ''),
  wide('Source', 'Who reported it.', source),
  text('Message', 'What happened.', (event) => String(event.message ?? '').trim()),
  wide('First Seen', 'Time since it was seen first.', (event, now) => ageOf(firstSeen(event), now)),
  wide('Count', 'How often it was seen.', (event) => String(times(event))),
  wide('Name', 'Name of the event.', (event) => event.metadata.name ?? ''),
]

/** Columns are written for the v1 view. */
const asCore = (column: Column): Column => ({
  ...column,
  cell: (object, now) => column.cell(rename(object, 'v1', 1), now),
})

const aboutFields = ['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath']

export const eventKinds = (model: (name: string) => Schema): Kind[] => {
  const shared = {
    kind: 'Event',
    version: 'v1',
    plural: 'events',
    shortNames: ['ev'],
    storage: 'events',
    unmanaged: true,
  }
  return [
    defineKind({
      ...shared,
      group: '',
      schema: model('CoreV1Event'),
      selectable: [
        ...aboutFields.map((field) => `involvedObject.${field}`),
        'reason',
        'reportingComponent',
        'source',
        'type',
      ],
      columns,
    }),
    defineKind({
      ...shared,
      group: 'events.k8s.io',
      schema: model('EventsV1Event'),
      selectable: [...aboutFields.map((field) => `regarding.${field}`), 'reason', 'reportingController', 'type'],
      columns: columns.map(asCore),
      toStorage: (object) => rename(object, 'v1', 1),
      fromStorage: (object) => rename(object, 'events.k8s.io/v1', 0),
    }),
  ]
}
