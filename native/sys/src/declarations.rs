//! Types, constants and functions as the kernel and the C library have them. Names are theirs.

use std::ffi::c_void;
use std::os::raw::{c_char, c_int, c_long, c_short, c_uint, c_ulong, c_ushort};

pub type socklen_t = u32;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct iovec {
    pub iov_base: *mut c_void,
    pub iov_len: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct msghdr {
    pub msg_name: *mut c_void,
    pub msg_namelen: socklen_t,
    pub msg_iov: *mut iovec,
    pub msg_iovlen: usize,
    pub msg_control: *mut c_void,
    pub msg_controllen: usize,
    pub msg_flags: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmsghdr {
    pub msg_hdr: msghdr,
    pub msg_len: c_uint,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cmsghdr {
    pub cmsg_len: usize,
    pub cmsg_level: c_int,
    pub cmsg_type: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pollfd {
    pub fd: c_int,
    pub events: c_short,
    pub revents: c_short,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct timespec {
    pub tv_sec: i64,
    pub tv_nsec: c_long,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct sockaddr_un {
    pub sun_family: c_ushort,
    pub sun_path: [u8; 108],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct sockaddr_in {
    pub sin_family: c_ushort,
    /// Network byte order.
    pub sin_port: u16,
    pub sin_addr: [u8; 4],
    pub sin_zero: [u8; 8],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct sockaddr_in6 {
    pub sin6_family: c_ushort,
    /// Network byte order.
    pub sin6_port: u16,
    pub sin6_flowinfo: u32,
    pub sin6_addr: [u8; 16],
    pub sin6_scope_id: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct in6_pktinfo {
    pub ipi6_addr: [u8; 16],
    pub ipi6_ifindex: c_uint,
}

/// `struct ifreq` with the members that TUN devices and MTU readings use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ifreq {
    pub ifr_name: [u8; 16],
    pub ifr_ifru: [u8; 24],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct signalfd_siginfo {
    pub ssi_signo: u32,
    pub rest: [u8; 124],
}

/// The C library's 1024-bit signal set.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sigset_t {
    pub bits: [c_ulong; 16],
}

pub const EIO: c_int = 5;
pub const EBUSY: c_int = 16;
pub const EINVAL: c_int = 22;
pub const ENOSYS: c_int = 38;
pub const EMSGSIZE: c_int = 90;
pub const EOPNOTSUPP: c_int = 95;
pub const EADDRINUSE: c_int = 98;
pub const ENETDOWN: c_int = 100;
pub const ENETUNREACH: c_int = 101;
pub const ECONNREFUSED: c_int = 111;
pub const EHOSTUNREACH: c_int = 113;
pub const EINPROGRESS: c_int = 115;

pub const AF_UNIX: c_int = 1;
pub const AF_INET: c_int = 2;
pub const AF_INET6: c_int = 10;
pub const SOCK_STREAM: c_int = 1;
pub const SOCK_DGRAM: c_int = 2;
pub const SOCK_RAW: c_int = 3;
pub const SOCK_CLOEXEC: c_int = 0o2000000;
pub const SOCK_NONBLOCK: c_int = 0o4000;

pub const IPPROTO_IP: c_int = 0;
pub const IPPROTO_ICMP: c_int = 1;
pub const IPPROTO_TCP: c_int = 6;
pub const IPPROTO_UDP: c_int = 17;
pub const IPPROTO_IPV6: c_int = 41;
pub const IPPROTO_ICMPV6: c_int = 58;
pub const IPPROTO_SCTP: c_int = 132;

pub const SOL_SOCKET: c_int = 1;
pub const SO_REUSEADDR: c_int = 2;
pub const SO_ERROR: c_int = 4;
pub const SO_SNDBUF: c_int = 7;
pub const SO_RCVBUF: c_int = 8;
pub const SO_SNDBUFFORCE: c_int = 32;
pub const SO_RCVBUFFORCE: c_int = 33;

pub const IP_PKTINFO: c_int = 8;
pub const IP_MTU_DISCOVER: c_int = 10;
pub const IP_PMTUDISC_DONT: c_int = 0;
pub const IPV6_MTU_DISCOVER: c_int = 23;
pub const IPV6_PMTUDISC_DONT: c_int = 0;
pub const IPV6_V6ONLY: c_int = 26;
pub const IPV6_RECVPKTINFO: c_int = 49;
pub const IPV6_PKTINFO: c_int = 50;
pub const TCP_NODELAY: c_int = 1;
pub const SOL_UDP: c_int = 17;
pub const UDP_SEGMENT: c_int = 103;
pub const UDP_GRO: c_int = 104;

pub const SCM_RIGHTS: c_int = 1;
pub const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
pub const MSG_DONTWAIT: c_int = 0x40;
pub const MSG_NOSIGNAL: c_int = 0x4000;
pub const MSG_WAITFORONE: c_int = 0x10000;
pub const MSG_TRUNC: c_int = 0x20;

pub const POLLIN: c_short = 1;
pub const POLLOUT: c_short = 4;
pub const POLLERR: c_short = 8;
pub const POLLHUP: c_short = 16;

pub const SIGINT: c_int = 2;
pub const SIGTERM: c_int = 15;
pub const SIGHUP: c_int = 1;
pub const SIGKILL: c_int = 9;
pub const SIGPIPE: c_int = 13;
pub const SIGUSR1: c_int = 10;
pub const SIGUSR2: c_int = 12;
pub const SIGQUIT: c_int = 3;
pub const SIGCHLD: c_int = 17;
pub const SIG_SETMASK: c_int = 2;
pub const SIG_DFL: usize = 0;
pub const WNOHANG: c_int = 1;
pub const PR_SET_PDEATHSIG: c_int = 1;
pub const PR_SET_NAME: c_int = 15;
pub const MFD_CLOEXEC: c_uint = 1;

pub const CLONE_NEWNS: c_int = 0x0002_0000;
pub const CLONE_NEWCGROUP: c_int = 0x0200_0000;
pub const CLONE_NEWUTS: c_int = 0x0400_0000;
pub const CLONE_NEWPID: c_int = 0x2000_0000;
pub const CLONE_NEWNET: c_int = 0x4000_0000;

pub const MS_RDONLY: c_ulong = 1;
pub const MS_NOSUID: c_ulong = 2;
pub const MS_NODEV: c_ulong = 4;
pub const MS_NOEXEC: c_ulong = 8;
pub const MS_BIND: c_ulong = 4096;
pub const MS_REC: c_ulong = 16384;
pub const MS_SLAVE: c_ulong = 1 << 19;
pub const MNT_DETACH: c_int = 2;

pub const TUNGETFEATURES: c_ulong = 0x8004_54cf;
pub const TUNSETIFF: c_ulong = 0x4004_54ca;
pub const TUNSETPERSIST: c_ulong = 0x4004_54cb;
pub const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
pub const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
pub const TUNGETIFF: c_ulong = 0x8004_54d2;
pub const IFF_TUN: c_short = 0x0001;
pub const IFF_NO_PI: c_short = 0x1000;
pub const IFF_VNET_HDR: c_short = 0x4000;
pub const TUN_F_CSUM: c_ulong = 0x01;
pub const TUN_F_TSO4: c_ulong = 0x02;
pub const TUN_F_TSO6: c_ulong = 0x04;
pub const TUN_F_TSO_ECN: c_ulong = 0x08;
pub const TUN_F_USO4: c_ulong = 0x20;
pub const TUN_F_USO6: c_ulong = 0x40;
pub const SIOCGIFMTU: c_ulong = 0x8921;
pub const SIOCSIFMTU: c_ulong = 0x8922;
pub const SIOCSIFTXQLEN: c_ulong = 0x8943;

pub const F_SETFL: c_int = 4;
pub const O_NONBLOCK: c_int = 0o4000;

extern "C" {
    pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    pub fn bind(fd: c_int, address: *const c_void, length: socklen_t) -> c_int;
    pub fn connect(fd: c_int, address: *const c_void, length: socklen_t) -> c_int;
    pub fn listen(fd: c_int, backlog: c_int) -> c_int;
    pub fn accept4(fd: c_int, address: *mut c_void, length: *mut socklen_t, flags: c_int) -> c_int;
    pub fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int;
    pub fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int;
    pub fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> isize;
    pub fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> isize;
    pub fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    pub fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int;
    pub fn sendto(
        fd: c_int,
        bytes: *const c_void,
        length: usize,
        flags: c_int,
        address: *const c_void,
        address_length: socklen_t,
    ) -> isize;
    pub fn recvfrom(
        fd: c_int,
        bytes: *mut c_void,
        length: usize,
        flags: c_int,
        address: *mut c_void,
        address_length: *mut socklen_t,
    ) -> isize;
    pub fn read(fd: c_int, bytes: *mut c_void, length: usize) -> isize;
    pub fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize;
    pub fn readv(fd: c_int, parts: *const iovec, count: c_int) -> isize;
    pub fn writev(fd: c_int, parts: *const iovec, count: c_int) -> isize;
    pub fn poll(fds: *mut pollfd, count: c_ulong, timeout_ms: c_int) -> c_int;
    pub fn ppoll(fds: *mut pollfd, count: c_ulong, timeout: *const timespec, mask: *const sigset_t) -> c_int;
    pub fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int;
    pub fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    pub fn fcntl(fd: c_int, command: c_int, value: c_int) -> c_int;
    pub fn umask(mask: c_uint) -> c_uint;
    pub fn setns(fd: c_int, kind: c_int) -> c_int;
    pub fn unshare(flags: c_int) -> c_int;
    pub fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        options: *const c_void,
    ) -> c_int;
    pub fn umount2(target: *const c_char, flags: c_int) -> c_int;
    pub fn sethostname(name: *const c_char, length: usize) -> c_int;
    pub fn gethostname(name: *mut c_char, length: usize) -> c_int;
    pub fn fork() -> c_int;
    pub fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    pub fn getppid() -> c_int;
    pub fn prctl(option: c_int, value: c_ulong, ...) -> c_int;
    pub fn signal(signal: c_int, handler: usize) -> usize;
    pub fn sigprocmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int;
    pub fn sigemptyset(set: *mut sigset_t) -> c_int;
    pub fn sigaddset(set: *mut sigset_t, signal: c_int) -> c_int;
    pub fn sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int;
    pub fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int;
    pub fn _exit(code: c_int) -> !;
}
