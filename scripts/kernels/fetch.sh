#!/usr/bin/env bash
# Fetches the distribution's own kernel package and unpacks what a guest needs of it into .cache/kernels/<release>/:
# the kernel image, and the modules of networking, of virtio and of the file systems that make its root. Nothing of it is
# installed on the machine. Prints nothing and ends at once when it is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

kernels=.cache/kernels
for ready in "$kernels"/*/ready; do [ -e "$ready" ] && exit 0; done

meta=linux-image-$(dpkg --print-architecture)
find_package() { apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1; }
package=$(find_package)
[ -n "$package" ] || { apt-get update >/dev/null 2>&1 || true; package=$(find_package); }
[ -n "$package" ] || fail "apt knows no $meta"
release=${package#linux-image-}

say "fetching $package for the guests of test:kernels"
mkdir -p "$kernels"
work=$(mktemp -d "$kernels/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
(
  cd "$work"
  apt-get download "$package" >log 2>&1 || { apt-get update && apt-get download "$package"; } >log 2>&1 \
    || { tail -n 5 log >&2; fail "apt-get could not download $package"; }
  dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x --wildcards \
    --exclude='*/drivers/net/ethernet' --exclude='*/drivers/net/wireless' --exclude='*/drivers/net/can' \
    './boot/vmlinuz-*' './lib/modules/*/modules.*' './lib/modules/*/kernel/net' './lib/modules/*/kernel/lib' \
    './lib/modules/*/kernel/crypto' './lib/modules/*/kernel/arch' './lib/modules/*/kernel/drivers/net' \
    './lib/modules/*/kernel/drivers/virtio' './lib/modules/*/kernel/fs/9p' './lib/modules/*/kernel/fs/netfs' \
    './lib/modules/*/kernel/fs/fscache' './lib/modules/*/kernel/fs/overlayfs' 2>tar.log || true
  [ -e "lib/modules/$release/kernel/fs/9p" ] || { tail -n 5 tar.log >&2; fail "$package does not look as expected"; }
  rm -f ./*.deb ./*log
)
PATH="$PATH:/usr/sbin:/sbin" depmod -b "$work" "$release"
rm -rf "${kernels:?}/$release"
mv "$work" "$kernels/$release"
touch "$kernels/$release/ready"
