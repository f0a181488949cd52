/**
 * The keys `vlan`, `vlanTrunk` and `preserveDefaultVlan` of a configuration.
 *
 * Sources: documentation of the reference bridge plugin.
 */
import type { PortVlans, VlanRange } from '../datapath/bridge/vlan.ts'
import type { FieldReader } from './fields.ts'

const highest = 4094

/** Undefined when no VLAN is asked for. Throws CniError 7. */
export function parsePortVlans(fields: FieldReader): PortVlans | undefined {
  const access = fields.optionalInteger('vlan', 0, highest) || undefined
  const keepDefault = fields.flag('preserveDefaultVlan', true)
  const ranges = fields.objects('vlanTrunk', highest).flatMap(parseTrunkEntry)
  if (access === undefined && ranges.length === 0) return undefined
  return { ...(access === undefined ? {} : { access }), trunk: mergeRanges(ranges, access), keepDefault }
}

/** `{ id }`, `{ minID, maxID }`, or both in one. */
function parseTrunkEntry(field: FieldReader): VlanRange[] {
  const [first, last, id] = ['minID', 'maxID', 'id'].map((key) => field.optionalInteger(key, 1, highest))
  if (first === undefined && last !== undefined) throw field.problem('minID', 'is missing beside maxID')
  if (first !== undefined && last === undefined) throw field.problem('maxID', 'is missing beside minID')
  if (first !== undefined && last! < first) throw field.problem('maxID', `is less than minID ${first}`)
  return [...(first === undefined ? [] : [[first, last!] as const]), ...(id === undefined ? [] : [[id, id] as const])]
}

/** In order, each VLAN once, without the one whose frames go untagged. */
function mergeRanges(ranges: readonly VlanRange[], access = 0): VlanRange[] {
  const parts = ranges.flatMap(([first, last]): VlanRange[] => [
    [first, Math.min(last, access - 1)],
    [Math.max(first, access + 1), last],
  ])
  const merged: [first: number, last: number][] = []
  for (const [first, last] of parts.filter(([from, to]) => from <= to).sort((a, b) => a[0] - b[0])) {
    const before = merged.at(-1)
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last)
    else merged.push([first, last])
  }
  return merged
}
