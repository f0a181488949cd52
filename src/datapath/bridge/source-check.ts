/**
 * Keeps pods to their own hardware address: a frame that comes from a guarded port under another sender is dropped, on the
 * port, before the bridge learns from it. In a table of the bridge family, there only while a pod wants it, as its hook
 * costs every frame of every bridge.
 *
 *   table bridge weft
 *     set guarded-ports   { "veth5a3e0f91" }
 *     set port-addresses  { "veth5a3e0f91" . 0a:58:0a:f4:01:07 }
 *     chain source-check  iifname @guarded-ports iifname . ether saddr != @port-addresses counter name "spoofed" drop
 *
 * Sources: nft(8) "BRIDGE ADDRESS FAMILY"; documentation of the reference bridge plugin (macspoofchk).
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { NftElement } from '../../model/nft.ts'
import type { Mac } from '../../net/mac.ts'

const inTable = { family: 'bridge', table: 'weft' } as const
const ports = 'guarded-ports'
const addresses = 'port-addresses'
const counter = 'spoofed'

/** Before every other chain of the hook. */
const priority = -300

/** What the check of one port wants: the table with its one rule, the same for every port, and the port's own elements. */
export function planSourceCheck(port: string, mac: Mac): KernelObject[] {
  const name = `"${port}"`
  return [
    { kind: 'nft-table', family: 'bridge', name: 'weft' },
    { kind: 'nft-set', ...inTable, name: ports, type: ['ifname'] },
    { kind: 'nft-set', ...inTable, name: addresses, type: ['ifname', 'ether_addr'] },
    { kind: 'nft-counter', ...inTable, name: counter },
    {
      kind: 'nft-chain',
      ...inTable,
      name: 'source-check',
      base: { type: 'filter', hook: 'prerouting', priority },
      rules: [
        {
          comment: 'a pod sends under its own hardware address',
          statements: [
            { match: ['meta iifname'], right: `@${ports}` },
            { match: ['meta iifname', 'ether saddr'], op: '!=', right: `@${addresses}` },
            { counter },
            { verdict: 'drop' },
          ],
        },
      ],
    },
    { kind: 'nft-element', ...inTable, set: ports, key: name },
    { kind: 'nft-element', ...inTable, set: addresses, key: `${name} . ${mac}` },
  ]
}

/** The hardware address that a port is kept to, as the kernel tells it; undefined for a port that is not checked. */
export function sourceAddressOf(port: string, elements: readonly NftElement[]): string | undefined {
  const own = elements.filter(({ family, table }) => family === inTable.family && table === inTable.table)
  const name = `"${port}"`
  if (!own.some(({ set, key }) => set === ports && key === name)) return undefined
  return own.find(({ set, key }) => set === addresses && key.startsWith(`${name} . `))?.key.slice(name.length + 3)
}
