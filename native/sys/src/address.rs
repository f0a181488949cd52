//! Socket addresses as the kernel's structures, beside the standard library's values.

use crate::declarations::*;
use std::ffi::c_void;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for `sockaddr_in` or `sockaddr_in6`, as calls take and fill it.
#[repr(C)]
#[derive(Clone, Copy)]
pub union SocketAddress {
    family: u16,
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl SocketAddress {
    /// Room to be filled by a call.
    pub fn empty() -> SocketAddress {
        SocketAddress {
            v6: sockaddr_in6 { sin6_family: 0, sin6_port: 0, sin6_flowinfo: 0, sin6_addr: [0; 16], sin6_scope_id: 0 },
        }
    }

    pub fn new(address: SocketAddr) -> SocketAddress {
        let mut out = SocketAddress::empty();
        match address {
            SocketAddr::V4(v4) => {
                out.v4 = sockaddr_in {
                    sin_family: AF_INET as u16,
                    sin_port: v4.port().to_be(),
                    sin_addr: v4.ip().octets(),
                    sin_zero: [0; 8],
                }
            }
            SocketAddr::V6(v6) => {
                out.v6 = sockaddr_in6 {
                    sin6_family: AF_INET6 as u16,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: v6.ip().octets(),
                    sin6_scope_id: v6.scope_id(),
                }
            }
        }
        out
    }

    /// What a call filled in; nothing for any other family.
    pub fn get(&self) -> Option<SocketAddr> {
        // SAFETY: every member is plain bytes, all of them initialised.
        unsafe {
            match i32::from(self.family) {
                AF_INET => Some(SocketAddr::V4(SocketAddrV4::new(
                    Ipv4Addr::from(self.v4.sin_addr),
                    u16::from_be(self.v4.sin_port),
                ))),
                AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(self.v6.sin6_addr),
                    u16::from_be(self.v6.sin6_port),
                    0,
                    self.v6.sin6_scope_id,
                ))),
                _ => None,
            }
        }
    }

    /// Like `get`, with an IPv4-mapped address as the IPv4 address that it is.
    pub fn get_unmapped(&self) -> Option<SocketAddr> {
        self.get().map(|address| SocketAddr::new(unmap(address.ip()), address.port()))
    }

    pub fn as_ptr(&self) -> *const c_void {
        (self as *const SocketAddress).cast()
    }

    pub fn as_mut_ptr(&mut self) -> *mut c_void {
        (self as *mut SocketAddress).cast()
    }

    /// Length of the structure that is held; of the whole room when none is.
    pub fn len(&self) -> socklen_t {
        let v4 = unsafe { i32::from(self.family) == AF_INET };
        (if v4 { size_of::<sockaddr_in>() } else { size_of::<SocketAddress>() }) as socklen_t
    }

    pub fn is_empty(&self) -> bool {
        unsafe { self.family == 0 }
    }
}

/// An IPv4-mapped IPv6 address as IPv4; everything else as it is.
pub fn unmap(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => ip,
        },
        IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in ["10.1.2.3:8285", "[fd00::1]:1", "[fe80::1%5]:9", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddress::new(address).get(), Some(address));
        }
        assert_eq!(SocketAddress::empty().get(), None);
    }

    #[test]
    fn unmaps() {
        let mapped = SocketAddress::new("[::ffff:10.0.0.1]:53".parse().unwrap());
        assert_eq!(mapped.get_unmapped(), Some("10.0.0.1:53".parse().unwrap()));
        let plain = SocketAddress::new("[::1]:53".parse().unwrap());
        assert_eq!(plain.get_unmapped(), Some("[::1]:53".parse().unwrap()));
    }
}
