#!/usr/bin/env bash
# Sets up what a fresh Debian machine with Node and root misses: Debian packages, npm modules, the native
# build and the bundle. Runs again in well under a second when nothing changed: everything is cached by content.
#
#   scripts/setup.sh               what the lab needs
#   scripts/setup.sh --tests       also what the tests and benches compare with
#   scripts/setup.sh --kernels     also QEMU and the distribution's kernel, unpacked into .cache/, for the guests of test:kernels
#   scripts/setup.sh --peers       also other callers of CNI and BGP speakers, for test:peers; it says when Go is missing
#   scripts/setup.sh --kubernetes  also containerd, runc and etcd, for clusters of Kubernetes' own programs; likewise
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

with_tests=no with_peers=no with_kernels=no with_kubernetes=no
case "${1:-}" in
  '') ;;
  --tests) with_tests=yes ;;
  --peers) with_tests=yes with_peers=yes ;;
  --kernels) with_tests=yes with_kernels=yes ;;
  --kubernetes) with_tests=yes with_kubernetes=yes ;;
  *) echo "usage: scripts/setup.sh [--tests|--peers|--kernels|--kubernetes]" >&2; exit 2 ;;
esac

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "the lab makes network namespaces and needs root; run it with sudo"
command -v node >/dev/null || fail "Node 20 or newer is missing; install Debian's nodejs and npm, or Node's own build"
command -v npm >/dev/null || fail "npm is missing; install Debian's npm, or Node's own build, which brings it"
node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major === 20 && minor >= 11) ? 0 : 1)' \
  || fail "Node $(node --version) is too old; weft needs 20.11 or newer"
case $(uname -m) in
  x86_64 | aarch64) ;;
  *) say "$(uname -m) was never tried: weft is built and tested on x86_64" ;;
esac

# --- Debian packages: a command or file that must exist, and the package that brings it ---
wanted="ip:iproute2 nft:nftables tcpdump:tcpdump ping:iputils-ping openssl:openssl nsenter:util-linux kubectl:kubernetes-client"
# What the pages in docs/ run in a lab.
wanted="$wanted curl:curl socat:socat conntrack:conntrack ps:procps"
command -v cargo >/dev/null || wanted="$wanted cargo:cargo rustc:rustc"
command -v cc >/dev/null || wanted="$wanted cc:gcc"
wanted="$wanted /usr/include/stdlib.h:libc6-dev"
if [ $with_tests = yes ]; then
  wanted="$wanted etcd:etcd-server etcdctl:etcd-client iperf3:iperf3 tshark:tshark ethtool:ethtool"
  # The oldest compiler that must do is tried beside the one in PATH.
  wanted="$wanted /usr/bin/cargo:cargo /usr/bin/rustc:rustc"
  wanted="$wanted bird:bird2 jq:jq nc:netcat-openbsd strace:strace /usr/lib/cni/bridge:containernetworking-plugins"
fi
[ $with_peers = no ] || wanted="$wanted podman:podman runc:runc iptables:iptables findmnt:util-linux"
# Other BGP speakers.
[ $with_peers = no ] || wanted="$wanted gobgpd:gobgpd bird:bird2 /usr/lib/frr/bgpd:frr exabgp:exabgp"
if [ $with_kernels = yes ] && [ "$(uname -m)" != x86_64 ]; then
  say "the guests of test:kernels need x86_64; that tier will be skipped"
  with_kernels=no
fi
[ $with_kubernetes = no ] || wanted="$wanted containerd:containerd runc:runc busybox:busybox-static iptables:iptables"
[ $with_kernels = no ] || wanted="$wanted qemu-system-x86_64:qemu-system-x86 depmod:kmod xz:xz-utils"
missing=""
for entry in $wanted; do
  what=${entry%%:*}
  PATH="$PATH:/usr/sbin:/sbin" command -v "$what" >/dev/null 2>&1 || [ -e "$what" ] || case "$missing " in
    *" ${entry#*:} "*) ;;
    *) missing="$missing ${entry#*:}" ;;
  esac
done
if [ -n "$missing" ]; then
  command -v apt-get >/dev/null || fail "missing, and this is no Debian:$missing"
  say "installing Debian packages:$missing"
  # The tests start daemons of their own; a package that starts its service on install must not.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  # shellcheck disable=SC2086
  { apt-get install -y --no-install-recommends $missing || { apt-get update && apt-get install -y --no-install-recommends $missing; }; } \
    >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "apt-get could not install:$missing"; }
  rm -f "$log"
fi

# --- Go is nobody's package here: Debian's is too old ---
check_go() { # go.mod, tier
  local wanted found
  wanted=$(sed -n 's/^go //p' "$1")
  found=$(cd / && PATH="$PATH:/usr/local/go/bin" go env GOVERSION 2>/dev/null) \
    || { say "there is no Go: $2 will be skipped; it builds other projects' programs with $wanted or newer, from go.dev"; return; }
  [ "$(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -n 1)" = "$wanted" ] \
    || say "Go ${found#go} is too old: $2 will be skipped; it needs $wanted or newer"
}
[ $with_peers = no ] || check_go test/peers/go.mod "most of test:peers"
[ $with_kubernetes = no ] || check_go test/kubernetes/go.mod test:kubernetes
[ $with_kubernetes = no ] || [ -e /sys/fs/cgroup/cpu ] || say "no controllers of cgroup v1 in /sys/fs/cgroup: test:kubernetes will be skipped"

[ $with_kernels = no ] || bash scripts/kernels/fetch.sh || say "no kernel for the guests; test:kernels will be skipped"

# --- npm modules: the lock file, the Node ABI and the machine decide ---
digest() { sha256sum "$@" | sha256sum | cut -c1-32; }
stamp=node_modules/.weft-stamp
key="$(digest package-lock.json)-$(node -p 'process.versions.modules + process.arch')"
if [ "$(cat $stamp 2>/dev/null)" != "$key" ]; then
  say "installing npm modules"
  log=$(mktemp)
  # Not `npm ci`: it refuses a lock file without the optional binaries of other platforms, which a mirror may not carry.
  npm install --no-save --ignore-scripts --no-audit --no-fund >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "npm install failed"; }
  rm -f "$log"
  echo "$key" >$stamp
fi

# --- native binaries and the bundle ---
bash scripts/build-native.sh
key="$(find bin src scripts/build.ts package-lock.json -type f ! -name '*.test.ts' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32)"
if [ "$(cat dist/.bundle-stamp 2>/dev/null)" != "$key" ]; then
  built=$(node_modules/.bin/tsx scripts/build.ts) || fail "the bundle could not be built"
  say "$built"
  echo "$key" >dist/.bundle-stamp
fi
say "ready"
