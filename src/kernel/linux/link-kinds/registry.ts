/**
 * The device kinds that weft can create. A new kind is a file and a row.
 */
import type { LinkKind } from '../../../model/link.ts'
import { bridgeKind } from './bridge.ts'
import { geneveKind } from './geneve.ts'
import { greKind } from './gre.ts'
import { ip6tnlKind, ipipKind } from './ip-tunnel.ts'
import { ipvlanKind } from './ipvlan.ts'
import type { LinkKindRow } from './link-kind.ts'
import { macvlanKind } from './macvlan.ts'
import { dummyKind, ifbKind } from './plain.ts'
import { tunKind } from './tun.ts'
import { vethKind } from './veth.ts'
import { vlanKind } from './vlan.ts'
import { vrfKind } from './vrf.ts'
import { vxlanKind } from './vxlan.ts'

const rows: { readonly [K in LinkKind]: LinkKindRow<K> } = {
  veth: vethKind,
  bridge: bridgeKind,
  vxlan: vxlanKind,
  geneve: geneveKind,
  ipip: ipipKind,
  ip6tnl: ip6tnlKind,
  gre: greKind,
  tun: tunKind,
  vlan: vlanKind,
  macvlan: macvlanKind,
  ipvlan: ipvlanKind,
  vrf: vrfKind,
  ifb: ifbKind,
  dummy: dummyKind,
}

/** A row with the link between its kind and its settings forgotten, for callers that hold both as one value. */
export type AnyLinkKindRow = Pick<LinkKindRow<LinkKind>, 'kind' | 'changesWhole'> & {
  readonly changeable?: readonly string[]
  encode(
    settings: unknown,
    context: Parameters<LinkKindRow<LinkKind>['encode']>[1],
    was?: unknown,
  ): object | Uint8Array | undefined
  lower?(settings: unknown): string | undefined
  decode(data: object, name: (index: number) => string, link: number | undefined): object
}

/** The row of an IFLA_INFO_KIND; undefined for kinds that weft cannot create. */
export function linkKindRow(kind: string): AnyLinkKindRow | undefined {
  return Object.hasOwn(rows, kind) ? (rows[kind as LinkKind] as unknown as AnyLinkKindRow) : undefined
}
