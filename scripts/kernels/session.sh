#!/bin/bash
# What a guest does from its first process to its end: makes the usual mounts, runs one command at the root of the checkout and
# powers off. Everything it writes lies on file systems of its own memory, but for /report, which it shares with the runner.
#
#   session.sh CHECKOUT KERNEL-FOLDER "MODULE…" COMMAND…     the modules named are kept from loading
checkout=$1 kernel=$2 kept_out=$3
shift 3
export PATH=$checkout:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts /dev/net
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
ln -s /proc/self/fd /dev/fd
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
mount -t tmpfs run /run
mkdir -p /var/lib/weft
mount -t tmpfs weft /var/lib/weft
mount -t cgroup2 cgroup /sys/fs/cgroup
release=$(uname -r)
mkdir -p /lib/modules
ln -sfn "$kernel/lib/modules/$release" "/lib/modules/$release"
mkdir -p /etc/modprobe.d
for module in $kept_out; do echo "install $module /bin/false" >>/etc/modprobe.d/weft-kept-out.conf; done
hostname guest
ip link set lo up

cd "$checkout" || exit 1
"$@"
echo $? >/report/status
echo o >/proc/sysrq-trigger
sleep 60
