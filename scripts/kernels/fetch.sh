#!/usr/bin/env bash
# Fetches the distribution's own kernel package and unpacks what a guest needs of it into .cache/kernels/<release>/:
# the kernel image, and the modules of networking, of virtio and of the file systems that make its root. Nothing of it is
# installed on the machine. Prints nothing and ends at once when it is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

kernels=.cache/kernels

# The kernel image as it lies in memory, unpacked here once: an emulated processor takes seconds for it at every boot. QEMU
# starts it by its PVH note. Where a distribution packs it otherwise, guests boot the packed one.
#   Sources: the kernel's Documentation/x86/boot.rst (payload_offset, payload_length); qemu(1).
unpack_image() { # folder with boot/vmlinuz-RELEASE, release
  local packed=$1/boot/vmlinuz-$2 image=$1/boot/vmlinux-$2 start length
  [ ! -e "$image" ] || return 0
  number() { od -An -v -t "u$2" -j "$1" -N "$2" "$packed" | tr -d ' '; }
  start=$((($(number 497 1) + 1) * 512 + $(number 584 4)))
  length=$(number 588 4)
  [ "$(od -An -t x1 -j "$start" -N 6 "$packed" | tr -d ' ')" = fd377a585a00 ] || return 0
  # The last four bytes are the length of the image.
  dd if="$packed" bs=64K iflag=skip_bytes,count_bytes skip="$start" count=$((length - 4)) status=none | xz -dc >"$image.part"
  mv "$image.part" "$image"
}

for ready in "$kernels"/*/ready; do
  [ -e "$ready" ] || continue
  release=$(basename "$(dirname "$ready")")
  unpack_image "$kernels/$release" "$release"
  exit 0
done

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
unpack_image "$work" "$release"
rm -rf "${kernels:?}/$release"
mv "$work" "$kernels/$release"
touch "$kernels/$release/ready"
