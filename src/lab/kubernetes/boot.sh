# Makes the process that runs it the first of a machine: file systems, kernel variables and host name of its own. Started
# inside new mount, process, UTS and cgroup namespaces; see machine.ts.
#
#   boot.sh DISK HOSTNAME PROGRAMS PROJECT INIT HIERARCHY...
#
# DISK holds what the machine keeps; PROGRAMS and PROJECT appear in /opt/kubernetes and /opt/weft. HIERARCHY is a cgroup
# hierarchy as /proc/self/cgroup names it: `cpu,cpuacct`, `name=systemd`, or `unified`.
set -eu
disk=$1 name=$2 programs=$3 project=$4 init=$5
shift 5

mount --make-rprivate /
hostname "$name"
mount -t proc proc /proc

# What a kubelet would set for all of this machine's machines reads as set, and is a file.
for variable in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  [ -e "/proc/sys/${variable%%=*}" ] || continue
  file=$disk/sysctl/$(echo "${variable%%=*}" | tr / .)
  echo "${variable#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${variable%%=*}"
done

mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for hierarchy in "$@"; do
  mkdir "/sys/fs/cgroup/${hierarchy#name=}"
  case $hierarchy in
    unified) mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
    name=*) mount -t cgroup -o "none,$hierarchy" cgroup "/sys/fs/cgroup/${hierarchy#name=}" ;;
    *) mount -t cgroup -o "$hierarchy" cgroup "/sys/fs/cgroup/$hierarchy" ;;
  esac
  case $hierarchy in
    *,*) for one in $(echo "$hierarchy" | tr , ' '); do ln -s "$hierarchy" "/sys/fs/cgroup/$one"; done ;;
  esac
done

# /opt keeps what is there and gains the programs; the other folders are the machine's own.
for folder in /opt/*/; do
  [ -d "$folder" ] || continue
  case $folder in /opt/cni/ | /opt/kubernetes/ | /opt/weft/) continue ;; esac
  mkdir -p "$disk$folder"
  mount --rbind "$folder" "$disk$folder"
done
mount --rbind "$programs" "$disk/opt/kubernetes"
mount --rbind "$project" "$disk/opt/weft"
mkdir -p "$disk/run/netns" "$disk/run/lock"
for folder in /opt /etc /run /var/log; do mount --rbind "$disk$folder" "$folder"; done
mount --rbind "$disk/var/lib" /var/lib
# Bidirectional mounts of pods need it; the machine outside sees none of it.
mount --make-rshared /
touch /run/booted
cd /
exec "$init" pause
