#!/usr/bin/env bash
# Builds native/ into dist/native/. Does nothing when neither the sources nor the compiler changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binaries="weft-cni weft-tunnel weft-pod weft-udp-loop"
stamp=dist/native/.stamp
key="$({ find native -path native/target -prune -o -type f ! -path '*/tests/*' -print0 | sort -z | xargs -0 sha256sum
  rustc --version; } | sha256sum | cut -c1-32)"
fresh=yes
[ "$(cat $stamp 2>/dev/null)" = "$key" ] || fresh=no
for name in $binaries; do [ -x "dist/native/$name" ] || fresh=no; done
[ $fresh = no ] || exit 0

echo "build: compiling native/"
mkdir -p dist/native
# Two of these at once must not mix their outputs.
exec 9>dist/native/.lock
flock 9
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The flags live in native/.cargo/config.toml, which cargo finds from its working directory.
(cd native && cargo build --release --locked) >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
for name in $binaries; do
  # Renamed into place: a running binary cannot be written over.
  cp "native/target/release/$name" "dist/native/.$name.new"
  mv -f "dist/native/.$name.new" "dist/native/$name"
done
echo "$key" >$stamp
