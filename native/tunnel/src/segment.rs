//! Cuts a burst that the kernel handed over as one packet (TSO, USO) into the packets that it stands for, written side by
//! side. The copy costs less than it saves: one message then has one part instead of two for every packet, and the sum of a
//! payload is taken while the copy is still near the processor.
//!
//! Sources: RFC 9293 section 3.1, RFC 768; Documentation/networking/segmentation-offloads.rst (which flags and which
//! identification each segment gets); virtio 1.2 section 5.1.6.2 (checksum_start holds the sum of the pseudo-header).

use crate::checksum;
use crate::device::{VnetHeader, GSO_TCP4, GSO_TCP6, GSO_UDP, NEEDS_CHECKSUM};
use crate::packet::{put_u16, put_u32, u16_at, u32_at, Family, Header};

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const TCP_FLAGS_AT: usize = 13;
const TCP_SUM_AT: usize = 16;
const UDP_SUM_AT: usize = 6;
/// More pieces than a full burst of the smallest usual segments has.
const SEGMENT_LIMIT: usize = 4096;

/// How a burst is to be cut.
#[derive(Clone, Copy)]
pub struct Cut {
    family: Family,
    is_tcp: bool,
    ip_bytes: usize,
    /// Where the transport header starts: behind IPv6 extension headers if there are any.
    transport: usize,
    /// IP and transport header.
    header_bytes: usize,
    total_bytes: usize,
    payload_each: usize,
}

/// What every segment of a burst has in common: its headers' sums without the fields that differ.
struct Common {
    ip_sum: u16,
    transport_sum: u16,
    id: u16,
    sequence: u32,
    flags: u8,
}

impl Cut {
    /// Nothing when the burst does not make sense.
    pub fn plan(packet: &[u8], vnet: &VnetHeader, header: &Header) -> Option<Cut> {
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
        let (family, ip_bytes, total_bytes) = (header.family, header.header_bytes, header.total_bytes);
        let cut = Cut { family, is_tcp, ip_bytes, transport, header_bytes, total_bytes, payload_each };
        Some(cut).filter(|cut| cut.count() <= SEGMENT_LIMIT)
    }

    fn count(&self) -> usize {
        let payload = self.total_bytes - self.header_bytes;
        (payload + self.payload_each - 1) / self.payload_each
    }

    /// Bytes of every packet but the last, which may have fewer.
    pub fn packet_bytes(&self) -> usize {
        self.header_bytes + self.payload_each.min(self.total_bytes - self.header_bytes)
    }

    /// Writes the segments of the packet that this was planned for to the end of `out`.
    pub fn write(&self, packet: &[u8], out: &mut Vec<u8>) {
        let (header, payload) = packet[..self.total_bytes].split_at(self.header_bytes);
        let common = self.common(header);
        let last = self.count() - 1;
        for (index, piece) in payload.chunks(self.payload_each).enumerate() {
            let start = out.len();
            out.extend_from_slice(header);
            out.extend_from_slice(piece);
            let (own, piece) = out[start..].split_at_mut(self.header_bytes);
            self.finish_ip(own, index, piece.len(), &common);
            self.finish_transport(&mut own[self.transport..], index, index == last, piece, &common);
        }
    }

    fn common(&self, header: &[u8]) -> Common {
        let without = |sum: u16, field: u16| checksum::replace(sum, field, 0);
        let (ip, transport) = (&header[..self.ip_bytes], &header[self.transport..]);
        let (mut ip_sum, mut id) = (0, 0);
        if self.family == Family::V4 {
            id = u16_at(ip, 4);
            ip_sum = [2, 4, 10].into_iter().fold(checksum::sum(ip), |sum, at| without(sum, u16_at(ip, at)));
        }
        // The checksum field holds the pseudo-header's sum with the burst's length in it, and stays in for that.
        let length = (self.total_bytes - self.transport) as u16;
        let mut transport_sum = without(checksum::sum(transport), length);
        let (mut sequence, mut flags) = (0, 0);
        if self.is_tcp {
            (sequence, flags) = (u32_at(transport, 4), transport[TCP_FLAGS_AT]);
            let fields = [u16_at(transport, 4), u16_at(transport, 6), u16::from(flags)];
            transport_sum = fields.into_iter().fold(transport_sum, without);
        } else {
            transport_sum = without(transport_sum, u16_at(transport, 4));
        }
        Common { ip_sum, transport_sum, id, sequence, flags }
    }

    fn finish_ip(&self, own: &mut [u8], index: usize, payload_bytes: usize, common: &Common) {
        let total = self.header_bytes + payload_bytes;
        if self.family == Family::V6 {
            return put_u16(own, 4, (total - self.ip_bytes) as u16);
        }
        let id = common.id.wrapping_add(index as u16);
        put_u16(own, 2, total as u16);
        put_u16(own, 4, id);
        put_u16(own, 10, !checksum::fold(u64::from(common.ip_sum) + total as u64 + u64::from(id)));
    }

    fn finish_transport(&self, own: &mut [u8], index: usize, is_last: bool, payload: &[u8], common: &Common) {
        let length = (own.len() + payload.len()) as u64;
        let sum = u64::from(common.transport_sum) + u64::from(checksum::sum(payload)) + length;
        if !self.is_tcp {
            put_u16(own, 4, length as u16);
            let sum = !checksum::fold(sum + length);
            // Zero would mean "no checksum".
            return put_u16(own, UDP_SUM_AT, if sum == 0 { 0xffff } else { sum });
        }
        let sequence = common.sequence.wrapping_add((index * self.payload_each) as u32);
        let mut flags = common.flags;
        if !is_last {
            flags &= !(TCP_FIN | TCP_PSH);
        }
        if index > 0 {
            flags &= !TCP_CWR;
        }
        put_u32(own, 4, sequence);
        own[TCP_FLAGS_AT] = flags;
        let fields = u64::from(sequence >> 16) + u64::from(sequence & 0xffff) + u64::from(flags);
        put_u16(own, TCP_SUM_AT, !checksum::fold(sum + fields));
    }
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
        let cut = Cut::plan(packet, vnet, &parse(packet).unwrap()).unwrap();
        let mut out = Vec::new();
        cut.write(packet, &mut out);
        out.chunks(cut.packet_bytes()).map(<[u8]>::to_vec).collect()
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
        let refused = |vnet: VnetHeader| Cut::plan(&packet, &vnet, &header).is_none();
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
