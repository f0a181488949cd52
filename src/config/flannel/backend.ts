/**
 * The Backend object of net-conf.json: which data path, and its settings with flannel's defaults. Beside flannel's there is
 * `kube-router`, whose keys are kube-router's flags: with it a file says for the whole cluster what flags say for one node.
 *
 * Sources: flannel Documentation/backends.md; pkg/backend/{vxlan,udp,ipip}; pkg/subnet/config.go (parseBackendType).
 */
import type { BackendConfig } from '../../model/backend.ts'
import { OVERLAY_KEYS, readOverlay } from '../kube-router/overlay.ts'
import type { JsonObject } from './json-object.ts'

/** Backends of flannel that weft knows and does not have. */
const missing: Readonly<Record<string, string>> = {
  alloc: 'it moves no packets',
  wireguard: 'packets would not be encrypted by any other',
  ipsec: 'packets would not be encrypted by any other',
  extension: 'weft runs no commands of a configuration',
  'tencent-vpc': 'it belongs to one cloud',
  'aws-vpc': 'it belongs to one cloud',
  gce: 'it belongs to one cloud',
  'ali-vpc': 'it belongs to one cloud',
}

const keysOf = {
  'host-gw': [],
  vxlan: ['VNI', 'Port', 'MTU', 'GBP', 'Learning', 'DirectRouting', 'MacPrefix'],
  udp: ['Port'],
  ipip: ['DirectRouting'],
  'kube-router': OVERLAY_KEYS,
} as const
const names = Object.keys(keysOf).join(', ')

/** Settings of a data path from a checked object. Throws ConfigError. */
export function readBackend(backend: JsonObject): BackendConfig {
  const type = backend.text('Type')
  if (type === undefined) throw backend.error('Type', `is missing; it is one of ${names}`)
  if (!Object.hasOwn(keysOf, type)) {
    const reason = Object.hasOwn(missing, type)
      ? `weft does not have this backend (${missing[type]})`
      : 'no such backend'
    throw backend.error('Type', `${JSON.stringify(type.slice(0, 40))}: ${reason}; it is one of ${names}`)
  }
  const known = type as BackendConfig['type']
  backend.refuseOthers(['Type', ...keysOf[known]], `backend ${type}`)
  switch (known) {
    case 'host-gw':
      return { type: known }
    case 'udp':
      return { type: known, port: backend.integer('Port', 0, 65535) || 8285 }
    case 'vxlan':
      return readVxlan(backend)
    case 'ipip':
      return { type: known, directRouting: backend.flag('DirectRouting') ?? false }
    case 'kube-router':
      return readOverlay(backend)
  }
}

function readVxlan(backend: JsonObject): BackendConfig {
  const mtu = backend.integer('MTU', 0, 65535)
  if (mtu && mtu < 1280 + 70)
    throw backend.error('MTU', `${mtu} leaves less than 1280 bytes inside the tunnel; the least is 1350`)
  if (backend.get('MacPrefix') !== undefined) backend.warn('MacPrefix', 'only Windows nodes use it; ignored')
  return {
    type: 'vxlan',
    vni: backend.integer('VNI', 0, 0xffffff) ?? 1,
    // 0 is flannel's word for the kernel's own default, which is not IANA's 4789.
    port: backend.integer('Port', 0, 65535) || 8472,
    ...(mtu && { mtuBytes: mtu }),
    gbp: backend.flag('GBP') ?? false,
    learning: backend.flag('Learning') ?? false,
    directRouting: backend.flag('DirectRouting') ?? false,
  }
}
