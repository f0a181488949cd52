//! Cuts a burst that the kernel handed over as one packet (TSO, USO) into the packets that it stands for, without moving the
//! payload: headers are written side by side, payloads stay where they are, and one gathered send takes both.
//!
//! Sources: RFC 9293 section 3.1, RFC 768; Documentation/networking/segmentation-offloads.rst (which flags and which
//! identification each segment gets); virtio 1.2 section 5.1.6.2 (checksum_start holds the sum of the pseudo-header).

use crate::checksum;
use crate::device::{VnetHeader, GSO_TCP4, GSO_TCP6, GSO_UDP, NEEDS_CHECKSUM};
use crate::packet::{decrement_hop_limit, finish_v4_header, put_u16, put_u32, u16_at, u32_at, Family, Header};

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const TCP_FLAGS_AT: usize = 13;
/// More pieces than a full burst of the smallest usual segments has.
const SEGMENT_LIMIT: usize = 4096;

/// The segments of one burst.
pub struct Segments {
    headers: Vec<u8>,
    header_bytes: usize,
    payload_start: usize,
    payload_end: usize,
    payload_each: usize,
}

impl Segments {
    pub fn new() -> Segments {
        Segments { headers: Vec::new(), header_bytes: 0, payload_start: 0, payload_end: 0, payload_each: 1 }
    }

    /// Writes the headers of all segments of `packet`. Nothing when the burst does not make sense.
    pub fn cut(&mut self, packet: &[u8], vnet: &VnetHeader, header: &Header) -> Option<()> {
        let transport = usize::from(vnet.checksum_start);
        let is_tcp = match vnet.kind() {
            GSO_TCP4 | GSO_TCP6 => true,
            GSO_UDP => false,
            _ => return None,
        };
        let least = if is_tcp { 20 } else { 8 };
        if vnet.flags & NEEDS_CHECKSUM == 0 || transport < header.header_bytes || transport + least > header.total_bytes
        {
            return None;
        }
        let transport_bytes = if is_tcp { usize::from(packet[transport + 12] >> 4) * 4 } else { 8 };
        let header_bytes = transport + transport_bytes;
        let payload_each = usize::from(vnet.gso_bytes);
        if transport_bytes < least || header_bytes >= header.total_bytes || payload_each == 0 {
            return None;
        }
        self.header_bytes = header_bytes;
        self.payload_start = header_bytes;
        self.payload_end = header.total_bytes;
        self.payload_each = payload_each;
        let count = self.count();
        if count > SEGMENT_LIMIT {
            return None;
        }
        self.headers.clear();
        self.headers.reserve(count * header_bytes);
        for index in 0..count {
            self.headers.extend_from_slice(&packet[..header_bytes]);
            let at = index * header_bytes;
            let own = &mut self.headers[at..at + header_bytes];
            let (start, end) = payload_range(self.payload_start, self.payload_end, payload_each, index);
            let payload = &packet[start..end];
            finish_ip(own, header, index, transport_bytes + payload.len(), transport);
            let old_length = header.total_bytes - transport;
            if is_tcp {
                finish_tcp(&mut own[transport..], index, index + 1 == count, payload_each, old_length, payload);
            } else {
                finish_udp(&mut own[transport..], old_length, payload);
            }
        }
        Some(())
    }

    /// Takes one from every segment's time to live, which must be more than one.
    pub fn decrement_hop_limits(&mut self, family: Family) {
        for header in self.headers.chunks_mut(self.header_bytes) {
            decrement_hop_limit(header, family);
        }
    }

    pub fn count(&self) -> usize {
        let payload = self.payload_end - self.payload_start;
        (payload + self.payload_each - 1) / self.payload_each
    }

    /// Bytes of every packet but the last, which may have fewer.
    pub fn packet_bytes(&self) -> usize {
        let longest = self.payload_each.min(self.payload_end - self.payload_start);
        self.header_bytes + longest
    }

    pub fn header(&self, index: usize) -> &[u8] {
        &self.headers[index * self.header_bytes..(index + 1) * self.header_bytes]
    }

    /// Where in the burst the payload of a segment stands.
    pub fn payload(&self, index: usize) -> (usize, usize) {
        payload_range(self.payload_start, self.payload_end, self.payload_each, index)
    }
}

fn payload_range(start: usize, end: usize, each: usize, index: usize) -> (usize, usize) {
    let from = start + index * each;
    (from, (from + each).min(end))
}

/// `transport` is where the transport header starts, behind IPv6 extension headers if there are any.
fn finish_ip(own: &mut [u8], header: &Header, index: usize, transport_and_payload: usize, transport: usize) {
    if header.family == Family::V6 {
        put_u16(own, 4, (transport - header.header_bytes + transport_and_payload) as u16);
        return;
    }
    put_u16(own, 2, (transport + transport_and_payload) as u16);
    let id = u16_at(own, 4).wrapping_add(index as u16);
    put_u16(own, 4, id);
    finish_v4_header(&mut own[..header.header_bytes]);
}

fn finish_tcp(tcp: &mut [u8], index: usize, is_last: bool, each: usize, old_length: usize, payload: &[u8]) {
    let sequence = u32_at(tcp, 4).wrapping_add((index * each) as u32);
    put_u32(tcp, 4, sequence);
    if !is_last {
        tcp[TCP_FLAGS_AT] &= !(TCP_FIN | TCP_PSH);
    }
    if index > 0 {
        tcp[TCP_FLAGS_AT] &= !TCP_CWR;
    }
    let sum = finished_sum(tcp, 16, old_length, payload);
    put_u16(tcp, 16, sum);
}

fn finish_udp(udp: &mut [u8], old_length: usize, payload: &[u8]) {
    put_u16(udp, 4, (8 + payload.len()) as u16);
    let sum = finished_sum(udp, 6, old_length, payload);
    // Zero would mean "no checksum".
    put_u16(udp, 6, if sum == 0 { 0xffff } else { sum });
}

/// The checksum of a segment whose checksum field still holds the pseudo-header's sum with the burst's length in it.
fn finished_sum(transport: &mut [u8], field: usize, old_length: usize, payload: &[u8]) -> u16 {
    let pseudo = u16_at(transport, field);
    let length = transport.len() + payload.len();
    let pseudo = checksum::replace(pseudo, old_length as u16, length as u16);
    put_u16(transport, field, 0);
    let parts = u64::from(pseudo) + u64::from(checksum::sum(transport)) + u64::from(checksum::sum(payload));
    !checksum::fold(parts)
}

/// Completes the checksum of a single packet that the kernel left to its device. False when the header makes no sense.
pub fn finish_checksum(packet: &mut [u8], vnet: &VnetHeader, protocol_is_udp: bool) -> bool {
    let start = usize::from(vnet.checksum_start);
    let field = start + usize::from(vnet.checksum_offset);
    if field + 2 > packet.len() {
        return false;
    }
    let sum = !checksum::sum(&packet[start..]);
    put_u16(packet, field, if sum == 0 && protocol_is_udp { 0xffff } else { sum });
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{is_sound, tcp, udp};
    use crate::packet::{addresses, parse};

    /// A burst as the kernel hands it over: the checksum field holds the pseudo-header's sum only.
    fn burst(mut packet: Vec<u8>, is_tcp: bool, gso_bytes: u16) -> (Vec<u8>, VnetHeader) {
        let header = parse(&packet).unwrap();
        let start = header.header_bytes;
        let offset = if is_tcp { 16 } else { 6 };
        let pseudo =
            checksum::pseudo_header(addresses(&packet, header.family), header.protocol, header.total_bytes - start);
        put_u16(&mut packet, start + offset, pseudo);
        let gso_type = match (is_tcp, header.family) {
            (false, _) => GSO_UDP,
            (true, Family::V4) => GSO_TCP4,
            (true, Family::V6) => GSO_TCP6,
        };
        let vnet = VnetHeader {
            flags: NEEDS_CHECKSUM,
            gso_type,
            header_bytes: 0,
            gso_bytes,
            checksum_start: start as u16,
            checksum_offset: offset as u16,
        };
        (packet, vnet)
    }

    fn cut(packet: &[u8], vnet: &VnetHeader) -> Vec<Vec<u8>> {
        let mut segments = Segments::new();
        segments.cut(packet, vnet, &parse(packet).unwrap()).unwrap();
        let whole = |index: usize| {
            let (start, end) = segments.payload(index);
            [segments.header(index), &packet[start..end]].concat()
        };
        (0..segments.count()).map(whole).collect()
    }

    #[test]
    fn cuts_tcp_bursts_into_sound_segments() {
        let payload: Vec<u8> = (0..10_000u32).map(|at| ((at * 7) >> 3) as u8).collect();
        for v6 in [false, true] {
            let (packet, vnet) = burst(tcp(v6, u32::MAX - 1000, 0x99, 0xfffe, &payload), true, 1400);
            let segments = cut(&packet, &vnet);
            assert_eq!(segments.len(), 8);
            let mut joined = Vec::new();
            for (index, segment) in segments.iter().enumerate() {
                assert!(is_sound(segment), "segment {index}");
                let at = parse(segment).unwrap().header_bytes;
                assert_eq!(u32_at(segment, at + 4), (u32::MAX - 1000).wrapping_add(joined.len() as u32));
                let expected = if index == 0 {
                    0x90
                } else if index == 7 {
                    0x19
                } else {
                    0x10
                };
                assert_eq!(segment[at + TCP_FLAGS_AT], expected, "segment {index}");
                if !v6 {
                    assert_eq!(u16_at(segment, 4), 0xfffeu16.wrapping_add(index as u16));
                }
                joined.extend_from_slice(&segment[at + 32..]);
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn cuts_udp_bursts_into_sound_datagrams() {
        let payload: Vec<u8> = (0..5000u32).map(|at| at as u8).collect();
        for v6 in [false, true] {
            let (packet, vnet) = burst(udp(v6, 3, &payload), false, 1200);
            let datagrams = cut(&packet, &vnet);
            assert_eq!(datagrams.len(), 5);
            assert!(datagrams.iter().all(|datagram| is_sound(datagram)));
            let start = parse(&packet).unwrap().header_bytes + 8;
            assert_eq!(datagrams.iter().flat_map(|d| d[start..].to_vec()).collect::<Vec<u8>>(), payload);
        }
    }

    #[test]
    fn refuses_bursts_that_make_no_sense() {
        let (packet, good) = burst(tcp(false, 1, 0x10, 1, &[1; 3000]), true, 1400);
        let header = parse(&packet).unwrap();
        let refused = |vnet: VnetHeader| Segments::new().cut(&packet, &vnet, &header).is_none();
        assert!(refused(VnetHeader { gso_bytes: 0, ..good }));
        assert!(refused(VnetHeader { flags: 0, ..good }));
        assert!(refused(VnetHeader { gso_type: 3, ..good }));
        assert!(refused(VnetHeader { checksum_start: 4, ..good }));
        assert!(refused(VnetHeader { checksum_start: u16::MAX, ..good }));
        // The data offset is then read from the payload, which says 0 or more than there is.
        assert!(refused(VnetHeader { checksum_start: 3030, ..good }));
    }

    #[test]
    fn completes_single_checksums() {
        for v6 in [false, true] {
            let (mut packet, vnet) = burst(tcp(v6, 1, 0x18, 1, b"odd"), true, 0);
            assert!(!is_sound(&packet));
            assert!(finish_checksum(&mut packet, &vnet, false));
            assert!(is_sound(&packet));
        }
        let vnet = VnetHeader { checksum_start: 60, checksum_offset: 16, ..VnetHeader::default() };
        assert!(!finish_checksum(&mut [0; 70], &vnet, false));
    }
}
