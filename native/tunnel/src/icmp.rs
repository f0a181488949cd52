//! The errors that a router owes to a sender whose packet it cannot carry, at a bounded rate.
//!
//! They come from an address of the far side: the kernel refuses packets from a device that claim an address of its own.
//!
//! Sources: RFC 792, RFC 1812 section 4.3.2, RFC 1191 section 4, RFC 4443 sections 2.4 and 3.

use crate::checksum;
use crate::packet::{finish_v4_header, ip_of, put_u16, put_u32, Family, Header};
use std::net::IpAddr;
use std::time::Instant;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// The whole error message at most: what every host can take.
const V4_LIMIT_BYTES: usize = 576;
const V6_LIMIT_BYTES: usize = 1280;
const PER_SECOND: f64 = 200.0;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    TimeExceeded,
    NoRoute,
    TooBig { mtu_bytes: u32 },
}

/// The error about a packet, or nothing when none may be sent about it.
pub fn build(problem: Problem, packet: &[u8], header: &Header, source: IpAddr) -> Option<Vec<u8>> {
    if !may_answer(packet, header) {
        return None;
    }
    match source {
        IpAddr::V4(source) if header.family == Family::V4 => {
            let (kind, code, rest) = match problem {
                Problem::TimeExceeded => (11, 0, 0),
                Problem::NoRoute => (3, 0, 0),
                Problem::TooBig { mtu_bytes } => (3, 4, mtu_bytes & 0xffff),
            };
            let quoted = &packet[..header.total_bytes.min(V4_LIMIT_BYTES - 28)];
            let mut out = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0];
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&packet[12..16]);
            put_u16(&mut out, 2, (28 + quoted.len()) as u16);
            finish_v4_header(&mut out);
            push_message(&mut out, kind, code, rest, quoted, 0);
            Some(out)
        }
        IpAddr::V6(source) if header.family == Family::V6 => {
            let (kind, code, rest) = match problem {
                Problem::TimeExceeded => (3, 0, 0),
                Problem::NoRoute => (1, 0, 0),
                Problem::TooBig { mtu_bytes } => (2, 0, mtu_bytes),
            };
            let quoted = &packet[..header.total_bytes.min(V6_LIMIT_BYTES - 48)];
            let mut out = vec![0x60, 0, 0, 0, 0, 0, ICMPV6, 64];
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&packet[8..24]);
            put_u16(&mut out, 4, (8 + quoted.len()) as u16);
            let pseudo = checksum::pseudo_header(&out[8..40], ICMPV6, 8 + quoted.len());
            push_message(&mut out, kind, code, rest, quoted, pseudo);
            Some(out)
        }
        _ => None,
    }
}

fn push_message(out: &mut Vec<u8>, kind: u8, code: u8, rest: u32, quoted: &[u8], pseudo: u16) {
    let at = out.len();
    out.extend_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    put_u32(out, at + 4, rest);
    out.extend_from_slice(quoted);
    let sum = checksum::fold(u64::from(pseudo) + u64::from(checksum::sum(&out[at..])));
    put_u16(out, at + 2, !sum);
}

/// No errors about errors, later fragments, or packets from or to what is no single host.
fn may_answer(packet: &[u8], header: &Header) -> bool {
    let inner_type = packet.get(header.header_bytes).copied();
    let one = |number: u128| match ip_of(header.family, number) {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback(),
    };
    let is_error = match (header.family, header.protocol) {
        (Family::V4, ICMP) => !matches!(inner_type, Some(0 | 8 | 13 | 14)),
        (Family::V6, ICMPV6) => !matches!(inner_type, Some(128..=255)),
        _ => false,
    };
    let later_fragment = header.family == Family::V4 && (packet[6] & 0x1f != 0 || packet[7] != 0);
    one(header.source) && one(header.destination) && !is_error && !later_fragment
}

/// A token bucket.
pub struct RateLimit {
    tokens: f64,
    filled: Instant,
}

impl RateLimit {
    pub fn new() -> RateLimit {
        RateLimit { tokens: PER_SECOND, filled: Instant::now() }
    }

    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        self.tokens = (self.tokens + now.duration_since(self.filled).as_secs_f64() * PER_SECOND).min(PER_SECOND);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::udp;
    use crate::packet::{addresses, parse, u16_at, u32_at};

    #[test]
    fn builds_sound_errors() {
        for v6 in [false, true] {
            let packet = udp(v6, 1, &[7; 1400]);
            let header = parse(&packet).unwrap();
            let source: IpAddr = if v6 { "fd00::9".parse().unwrap() } else { "10.244.9.0".parse().unwrap() };
            let error = build(Problem::TooBig { mtu_bytes: 1380 }, &packet, &header, source).unwrap();
            let outer = parse(&error).unwrap();
            assert_eq!((outer.total_bytes, outer.destination), (if v6 { 1280 } else { 576 }, header.source));
            let message = &error[outer.header_bytes..];
            assert_eq!((message[0], message[1]), if v6 { (2, 0) } else { (3, 4) });
            assert_eq!(u32_at(message, 4), 1380);
            let pseudo = if v6 { checksum::pseudo_header(addresses(&error, Family::V6), 58, message.len()) } else { 0 };
            assert_eq!(checksum::fold(u64::from(pseudo) + u64::from(checksum::sum(message))), 0xffff);
            assert_eq!(message[8..], packet[..message.len() - 8]);
            assert_eq!(parse(&message[8..]), None, "the quoted packet is cut");
        }
    }

    #[test]
    fn is_silent_about_errors_fragments_and_groups() {
        let packet = udp(false, 1, &[7; 40]);
        let source: IpAddr = "10.244.9.0".parse().unwrap();
        let answer = |packet: &[u8]| build(Problem::NoRoute, packet, &parse(packet).unwrap(), source);
        assert_eq!(u16_at(&answer(&packet).unwrap()[20..], 0), 0x0300);
        let mut fragment = packet.clone();
        fragment[7] = 3;
        assert_eq!(answer(&fragment), None);
        let mut multicast = packet.clone();
        multicast[16] = 224;
        assert_eq!(answer(&multicast), None);
        let mut about_error = packet.clone();
        about_error[9] = 1;
        about_error[20] = 11;
        assert_eq!(answer(&about_error), None);
        about_error[20] = 8;
        assert!(answer(&about_error).is_some());
        assert_eq!(build(Problem::NoRoute, &packet, &parse(&packet).unwrap(), "fd00::1".parse().unwrap()), None);
    }

    #[test]
    fn limits_the_rate() {
        let mut limit = RateLimit::new();
        let allowed = (0..10_000).filter(|_| limit.take()).count();
        assert!((200..1000).contains(&allowed), "{allowed}");
    }
}
