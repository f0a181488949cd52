/**
 * The other speakers, each told in its own language what a test wants of it, and asked in its own way what it has.
 */
import type { Bench, Program } from './bench.ts'
import { until } from './bench.ts'

export interface DaemonWish {
  readonly asn: number
  readonly weftAsn: number
  readonly password?: string
  /** Prefixes that it originates. */
  readonly routes: readonly string[]
  readonly gracefulRestart?: boolean
  /** Takes and sends several paths of IPv4 prefixes. */
  readonly addPath?: boolean
  readonly reflectorClient?: boolean
}

export interface RunningDaemon {
  readonly program: Program
  /** What it has from us, as it prints it. */
  show(prefix: string): string
  /** Ends our session, with a text (RFC 9003) where it knows how; undefined where it cannot. */
  readonly shutdown?: ((text: string) => void) | undefined
  /** All that it has told of us; undefined where it keeps the text of a shutdown to itself. */
  readonly heard?: () => string
  /** Lines of its log that are more than news. */
  complaints(): string[]
  stop(signal?: NodeJS.Signals): Promise<void>
}

export interface Daemon {
  readonly name: string
  /** Programs that must be there. */
  readonly needs: readonly string[]
  /** Keeps our routes while we restart. */
  readonly helps: boolean
  /** Says why it ends a session. */
  readonly saysWhy: boolean
  start(bench: Bench, wish: DaemonWish): Promise<RunningDaemon>
}

const isV6 = (prefix: string): boolean => prefix.includes(':')

export const gobgpd: Daemon = {
  name: 'gobgpd',
  needs: ['gobgpd', 'gobgp'],
  helps: true,
  saysWhy: false,
  async start(bench, { asn, weftAsn, password, routes, gracefulRestart, addPath, reflectorClient }) {
    const restart = (line: string) => (gracefulRestart ? line : '')
    const family = (name: string) => `
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "${name}"
    ${restart('[neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true')}
    ${addPath && name.startsWith('ipv4') ? '[neighbors.afi-safis.add-paths.config]\n      receive = true\n      send-max = 4' : ''}`
    const file = bench.write(
      'gobgpd.toml',
      `[global.config]
  as = ${asn}
  router-id = "10.0.0.2"
[[neighbors]]
  [neighbors.config]
    neighbor-address = "10.0.0.1"
    peer-as = ${weftAsn}
    ${password ? `auth-password = "${password}"` : ''}
  [neighbors.timers.config]
    connect-retry = 1
    idle-hold-time-after-reset = 1
  ${reflectorClient ? '[neighbors.route-reflector.config]\n    route-reflector-client = true\n    route-reflector-cluster-id = "10.0.0.2"' : ''}
  ${restart('[neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = 60\n    notification-enabled = true')}
  ${family('ipv4-unicast')}
  ${family('ipv6-unicast')}
`,
    )
    const program = bench.run(bench.other, 'gobgpd', [
      'gobgpd',
      '-f',
      file,
      '-l',
      'debug',
      ...(gracefulRestart ? ['-r'] : []),
    ])
    const gobgp = (command: string) => bench.other.run(`gobgp ${command}`)
    await until(
      'gobgpd answers',
      () => bench.other.succeeds('gobgp global'),
      () => program.log,
    )
    for (const prefix of routes)
      gobgp(
        `global rib add ${prefix} ${isV6(prefix) ? '-a ipv6 nexthop fd00::2' : 'nexthop 10.0.0.2'} community ${asn}:7 large-community ${asn}:7:8`,
      )
    return {
      program,
      show: (prefix) => gobgp(`global rib ${prefix} ${isV6(prefix) ? '-a ipv6' : ''}`),
      shutdown: (text) => void gobgp(`neighbor 10.0.0.1 disable --reason "${text}"`),
      heard: () => program.log,
      complaints: () => program.log.split('\n').filter((line) => /"level":"(warning|error|fatal)"/.test(line)),
      stop: (signal) => program.stop(signal),
    }
  },
}

export const bird: Daemon = {
  name: 'bird',
  needs: ['bird', 'birdc'],
  helps: true,
  saysWhy: true,
  async start(bench, { asn, weftAsn, password, routes, gracefulRestart, addPath, reflectorClient }) {
    const statics = (v6: boolean) =>
      routes
        .filter((prefix) => isV6(prefix) === v6)
        .map(
          (prefix) =>
            `  route ${prefix} blackhole { bgp_community.add((${asn}, 7)); bgp_large_community.add((${asn}, 7, 8)); };`,
        )
        .join('\n')
    const channel = (name: string) => `  ${name} {
    import all;
    export where source = RTS_STATIC || source = RTS_BGP;
    next hop self;
    ${addPath ? 'add paths on;' : ''}
  };`
    const file = bench.write(
      'bird.conf',
      `log "${bench.path('bird.log')}" all;
debug protocols { states, events };
router id 10.0.0.2;
protocol device { }
protocol direct { ipv4; ipv6; }
protocol static s4 { ipv4;
${statics(false)}
}
protocol static s6 { ipv6;
${statics(true)}
}
protocol bgp weft {
  local 10.0.0.2 as ${asn};
  neighbor 10.0.0.1 as ${weftAsn};
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 4;
  ${password ? `password "${password}";` : ''}
  ${reflectorClient ? 'rr client;' : ''}
  ${gracefulRestart ? 'graceful restart on; graceful restart time 60; long lived graceful restart on;' : ''}
  enable extended messages on;
  ${channel('ipv4')}
  ${channel('ipv6')}
}
`,
    )
    const socket = bench.path('bird.ctl')
    const recover = gracefulRestart ? ['-R'] : []
    const program = bench.run(bench.other, 'bird', [
      'bird',
      '-f',
      '-c',
      file,
      '-s',
      socket,
      '-P',
      bench.path('bird.pid'),
      ...recover,
    ])
    const birdc = (command: string) => bench.other.run(`/usr/sbin/birdc -s ${socket} '${command}'`)
    await until(
      'bird answers',
      () => bench.other.succeeds(`/usr/sbin/birdc -s ${socket} 'show status'`),
      () => program.log,
    )
    const log = () => bench.other.run(`cat ${bench.path('bird.log')}`)
    return {
      program,
      show: (prefix) => birdc(`show route for ${prefix} all`),
      shutdown: (text) => void birdc(`disable weft "${text}"`),
      heard: log,
      complaints: () =>
        [...log().split('\n'), ...program.log.split('\n')].filter((line) =>
          /<(WARN|ERR|FATAL|BUG|RMT|AUTH)>/.test(line),
        ),
      stop: (signal) => program.stop(signal),
    }
  },
}

export const exabgp: Daemon = {
  name: 'exabgp',
  needs: ['exabgp'],
  helps: false,
  saysWhy: false,
  async start(bench, { asn, weftAsn, password, routes, gracefulRestart, addPath }) {
    const received = bench.path('exabgp.received')
    const reader = bench.write(
      'exabgp-reader.sh',
      `#!/bin/sh\n# Its own output stays open: at its end ExaBGP would start it again.\ncat >> ${received}\n`,
    )
    bench.write('exabgp.received', '')
    // It gives up root, and so do the programs that it runs.
    bench.other.run(`chmod 755 ${bench.folder} && chmod 666 ${received}`)
    const list = (v6: boolean) =>
      routes
        .filter((prefix) => isV6(prefix) === v6)
        .map(
          (prefix) =>
            `unicast ${prefix} next-hop ${v6 ? 'fd00::2' : '10.0.0.2'} community [${asn}:7] large-community [${asn}:7:8];`,
        )
        .join('\n      ')
    const file = bench.write(
      'exabgp.conf',
      `process reader {
  run /bin/sh ${reader};
  encoder json;
}
neighbor 10.0.0.1 {
  router-id 10.0.0.2;
  local-address 10.0.0.2;
  local-as ${asn};
  peer-as ${weftAsn};
  ${password ? `md5-password "${password}";` : ''}
  capability {
    asn4 enable;
    route-refresh enable;
    extended-message enable;
    ${gracefulRestart ? 'graceful-restart 60;' : ''}
    ${addPath ? 'add-path send/receive;' : ''}
  }
  family { ipv4 unicast; ipv6 unicast; }
  ${addPath ? 'add-path { ipv4 unicast; }' : ''}
  api {
    processes [ reader ];
    neighbor-changes;
    receive { parsed; update; }
  }
  announce {
    ipv4 {
      ${list(false)}
    }
    ipv6 {
      ${list(true)}
    }
  }
}
`,
    )
    const program = bench.run(bench.other, 'exabgp', ['exabgp', file], {
      exabgp_log_level: 'INFO',
      exabgp_log_destination: 'stdout',
      exabgp_api_cli: 'false',
      exabgp_tcp_bind: '',
    })
    return {
      program,
      show: (prefix) =>
        bench.other
          .run(`cat ${received}`)
          .split('\n')
          .filter((line) => line.includes(prefix))
          .join('\n'),
      complaints: () => program.log.split('\n').filter((line) => /\b(WARNING|ERROR|CRITICAL)\b/i.test(line)),
      stop: (signal) => program.stop(signal),
    }
  },
}

export const frr: Daemon = {
  name: 'frr',
  needs: ['bgpd', 'zebra', 'vtysh'],
  helps: true,
  saysWhy: true,
  async start(bench, { asn, weftAsn, password, routes, gracefulRestart, addPath, reflectorClient }) {
    const networks = (v6: boolean) =>
      routes
        .filter((prefix) => isV6(prefix) === v6)
        .map((prefix) => `  network ${prefix} route-map mark`)
        .join('\n')
    const perFamily = (v6: boolean) => `  neighbor 10.0.0.1 activate
  ${reflectorClient ? 'neighbor 10.0.0.1 route-reflector-client' : ''}
  ${addPath && !v6 ? 'neighbor 10.0.0.1 addpath-tx-all-paths' : ''}
${networks(v6)}`
    return startFrr(
      bench,
      `frr version 8.4.4
log file ${bench.path('frr/bgpd.log')} informational
router bgp ${asn}
 bgp router-id 10.0.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 ${gracefulRestart ? 'bgp graceful-restart\n bgp graceful-restart restart-time 60' : ''}
 neighbor 10.0.0.1 remote-as ${weftAsn}
 neighbor 10.0.0.1 timers connect 1
 neighbor 10.0.0.1 capability extended-nexthop
 ${password ? `neighbor 10.0.0.1 password ${password}` : ''}
 address-family ipv4 unicast
${perFamily(false)}
 exit-address-family
 address-family ipv6 unicast
${perFamily(true)}
 exit-address-family
exit
route-map mark permit 10
 set community ${asn}:7
 set large-community ${asn}:7:8
exit
`,
    )
  },
}

/** zebra and bgpd with a configuration, in folders of their own. */
export async function startFrr(bench: Bench, config: string): Promise<RunningDaemon> {
  const folder = bench.path('frr')
  // They give up root for their own user, who needs a folder for sockets and logs.
  bench.other.run(`chmod 755 ${bench.folder} && install -d -o frr -g frr ${folder}`)
  const file = bench.write('frr/bgpd.conf', config)
  const zebraFile = bench.write('frr/zebra.conf', `log file ${bench.path('frr/zebra.log')} informational\n`)
  const common = ['--vty_socket', folder, '-z', `${folder}/zserv.api`, '-P', '0']
  const zebra = bench.run(bench.other, 'zebra', [
    '/usr/lib/frr/zebra',
    ...common,
    '-f',
    zebraFile,
    '-i',
    `${folder}/zebra.pid`,
  ])
  await until(
    'zebra answers',
    () => bench.other.succeeds(`test -S ${folder}/zserv.api`),
    () => zebra.log,
  )
  const program = bench.run(bench.other, 'bgpd', [
    '/usr/lib/frr/bgpd',
    ...common,
    '-f',
    file,
    '-i',
    `${folder}/bgpd.pid`,
  ])
  const vtysh = (command: string) => bench.other.run(`vtysh --vty_socket ${folder} -d bgpd ${command}`)
  await until(
    'bgpd answers',
    () => bench.other.succeeds(`vtysh --vty_socket ${folder} -d bgpd -c 'show version'`),
    () => program.log,
  )
  const log = () => bench.other.run(`cat ${bench.path('frr/bgpd.log')} 2>/dev/null || true`)
  return {
    program,
    show: (prefix) => vtysh(`-c 'show bgp ${isV6(prefix) ? 'ipv6' : 'ipv4'} unicast ${prefix}'`),
    shutdown: (text) =>
      void vtysh(`-c 'configure terminal' -c 'router bgp' -c 'neighbor 10.0.0.1 shutdown message ${text}'`),
    complaints: () =>
      log()
        .split('\n')
        .filter((line) => /\b(warning|error|err)\b|%NOTIFICATION|\[EC /i.test(line)),
    stop: async (signal) => {
      await program.stop(signal)
      await zebra.stop(signal)
    },
  }
}
