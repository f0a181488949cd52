//! Inner packets: just enough of IPv4, IPv6, TCP and UDP to forward them. Every reading is bounded; whatever does not look
//! right is not forwarded.
//!
//! Sources: RFC 791, RFC 8200, RFC 9293 section 3.1, RFC 768, RFC 1624.

use crate::checksum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const V4_HEADER_BYTES: usize = 20;
pub const V6_HEADER_BYTES: usize = 40;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

/// What the IP header of a packet says. `total_bytes` never exceeds the bytes that were parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub family: Family,
    /// Of the IP header with IPv4 options, without IPv6 extension headers.
    pub header_bytes: usize,
    pub total_bytes: usize,
    /// IPv4 protocol or first IPv6 next header.
    pub protocol: u8,
    pub hop_limit: u8,
    /// A fragment, the first one or another.
    pub fragment: bool,
    pub source: u128,
    pub destination: u128,
}

/// Reads the IP header. Nothing for what is no whole IP packet.
pub fn parse(packet: &[u8]) -> Option<Header> {
    match packet.first()? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<Header> {
    if packet.len() < V4_HEADER_BYTES {
        return None;
    }
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16_at(packet, 2));
    if header_bytes < V4_HEADER_BYTES || total_bytes < header_bytes || total_bytes > packet.len() {
        return None;
    }
    Some(Header {
        family: Family::V4,
        header_bytes,
        total_bytes,
        protocol: packet[9],
        hop_limit: packet[8],
        fragment: u16_at(packet, 6) & 0x3fff != 0,
        source: u128::from(u32_at(packet, 12)),
        destination: u128::from(u32_at(packet, 16)),
    })
}

fn parse_v6(packet: &[u8]) -> Option<Header> {
    if packet.len() < V6_HEADER_BYTES {
        return None;
    }
    let total_bytes = V6_HEADER_BYTES + usize::from(u16_at(packet, 4));
    if total_bytes > packet.len() {
        return None;
    }
    Some(Header {
        family: Family::V6,
        header_bytes: V6_HEADER_BYTES,
        total_bytes,
        protocol: packet[6],
        hop_limit: packet[7],
        fragment: packet[6] == 44,
        source: u128_at(packet, 8),
        destination: u128_at(packet, 24),
    })
}

/// Takes one from the time to live or hop limit and keeps the IPv4 header checksum right.
pub fn decrement_hop_limit(packet: &mut [u8], family: Family) {
    if family == Family::V6 {
        packet[7] -= 1;
        return;
    }
    let old = u16_at(packet, 8);
    packet[8] -= 1;
    let sum = checksum::replace(!u16_at(packet, 10), old, u16_at(packet, 8));
    put_u16(packet, 10, !sum);
}

/// Writes the IPv4 header checksum anew.
pub fn finish_v4_header(header: &mut [u8]) {
    put_u16(header, 10, 0);
    let sum = checksum::sum(header);
    put_u16(header, 10, !sum);
}

/// Source and destination address, next to each other in either family.
pub fn addresses(packet: &[u8], family: Family) -> &[u8] {
    match family {
        Family::V4 => &packet[12..20],
        Family::V6 => &packet[8..40],
    }
}

pub fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// An address as a number, as `Header` has it.
pub fn number_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

pub fn ip_of(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(number as u32).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    let mut word = [0; 16];
    word.copy_from_slice(&bytes[at..at + 16]);
    u128::from_be_bytes(word)
}

pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A TCP segment with the timestamp option, checksums right.
    pub fn tcp(v6: bool, sequence: u32, flags: u8, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut transport = vec![0x30, 0x39, 0x14, 0x51];
        transport.extend_from_slice(&sequence.to_be_bytes());
        transport.extend_from_slice(&77u32.to_be_bytes());
        transport.extend_from_slice(&[0x80, flags, 0x02, 0x00, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        transport.extend_from_slice(payload);
        finish(v6, TCP, id, transport, 16)
    }

    pub fn udp(v6: bool, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut transport = vec![0x30, 0x39, 0x14, 0x51];
        transport.extend_from_slice(&((payload.len() + 8) as u16).to_be_bytes());
        transport.extend_from_slice(&[0, 0]);
        transport.extend_from_slice(payload);
        finish(v6, UDP, id, transport, 6)
    }

    fn finish(v6: bool, protocol: u8, id: u16, mut transport: Vec<u8>, sum_at: usize) -> Vec<u8> {
        let mut packet = if v6 {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            header.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
            header.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
            put_u16(&mut header, 4, transport.len() as u16);
            header
        } else {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 244, 1, 2, 10, 244, 2, 3];
            put_u16(&mut header, 2, (20 + transport.len()) as u16);
            put_u16(&mut header, 4, id);
            finish_v4_header(&mut header);
            header
        };
        let family = if v6 { Family::V6 } else { Family::V4 };
        let pseudo = checksum::pseudo_header(addresses(&packet, family), protocol, transport.len());
        let sum = checksum::fold(u64::from(pseudo) + u64::from(checksum::sum(&transport)));
        put_u16(&mut transport, sum_at, !sum);
        packet.extend_from_slice(&transport);
        packet
    }

    /// Whether both checksums of a TCP or UDP packet are right.
    pub fn is_sound(packet: &[u8]) -> bool {
        let header = parse(packet).unwrap();
        let transport = &packet[header.header_bytes..header.total_bytes];
        let pseudo = checksum::pseudo_header(addresses(packet, header.family), header.protocol, transport.len());
        let whole = checksum::fold(u64::from(pseudo) + u64::from(checksum::sum(transport)));
        whole == 0xffff && (header.family == Family::V6 || checksum::sum(&packet[..header.header_bytes]) == 0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn parses_whole_packets_only() {
        for v6 in [false, true] {
            let packet = tcp(v6, 1, 0x10, 5, b"hello");
            let header = parse(&packet).unwrap();
            assert_eq!((header.total_bytes, header.hop_limit, header.protocol), (packet.len(), 64, TCP));
            for length in 0..packet.len() {
                assert_eq!(parse(&packet[..length]), None, "length {length}");
            }
        }
        assert_eq!(parse(&[0x44; 40]), None);
        assert_eq!(parse(&[0x00; 60]), None);
        assert_eq!(ip_of(Family::V4, parse(&udp(false, 1, b"")).unwrap().source).to_string(), "10.244.1.2");
        assert_eq!(ip_of(Family::V6, parse(&udp(true, 1, b"")).unwrap().source).to_string(), "fd00:0:0:1::2");
    }

    #[test]
    fn no_bytes_bring_it_down() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let mut parsed = 0;
        for round in 0..200_000 {
            let mut packet: Vec<u8> = (0..random() % 90).map(|_| random() as u8).collect();
            if let Some(first) = packet.first_mut() {
                *first = [0x45, 0x46, 0x4f, 0x60][round % 4];
            }
            if packet.len() > 5 {
                // A length that may be right.
                packet[2..6].copy_from_slice(&[0, random() as u8 % 96, 0, random() as u8 % 64]);
            }
            let header = match parse(&packet) {
                Some(header) => header,
                None => continue,
            };
            parsed += 1;
            assert!(header.header_bytes <= header.total_bytes && header.total_bytes <= packet.len(), "round {round}");
            if header.hop_limit > 0 {
                decrement_hop_limit(&mut packet[..header.total_bytes], header.family);
            }
        }
        assert!(parsed > 10_000, "only {parsed} looked like packets");
    }

    #[test]
    fn decrements_with_the_checksum() {
        let mut packet = udp(false, 9, b"x");
        for expected in (1..64).rev() {
            decrement_hop_limit(&mut packet, Family::V4);
            assert_eq!(packet[8], expected);
            assert!(is_sound(&packet));
        }
    }
}
