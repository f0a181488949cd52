//! Puts packets that arrived side by side and belong to one flow back together, so that the kernel takes them as one. Only
//! what a later cut would restore exactly is merged, and only packets whose own checksums are right: the merged packet is
//! handed over as "checksum still to be made", which would bless a broken one.
//!
//! Sources: Documentation/networking/segmentation-offloads.rst; RFC 6864 (identification of unfragmentable packets).

use crate::checksum;
use crate::device::{VnetHeader, GSO_TCP4, GSO_TCP6, GSO_UDP, NEEDS_CHECKSUM};
use crate::packet::{addresses, finish_v4_header, put_u16, u16_at, u32_at, Family, Header, TCP, UDP, V4_HEADER_BYTES};

const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;
const TCP_ECE: u8 = 0x40;
const TCP_FLAGS_AT: usize = 13;
/// Packets in one merged packet: what fits a gathered write with room to spare.
pub const PART_LIMIT: usize = 128;
const TOTAL_LIMIT_BYTES: usize = 65_535;

/// A packet that could be merged with others of its flow. Offsets are into the receive buffer.
#[derive(Clone, Copy)]
struct Candidate {
    start: usize,
    header: Header,
    /// IP and transport header.
    header_bytes: usize,
    payload_bytes: usize,
    is_tcp: bool,
    pushed: bool,
}

/// Packets being merged. The parts are ranges of the receive buffer: the first with its headers, the others without.
pub struct Merger {
    takes_tcp: bool,
    takes_udp: bool,
    first: Option<Candidate>,
    last: Option<Candidate>,
    first_is_sound: bool,
    payload_total: usize,
    closed: bool,
    parts: Vec<(usize, usize)>,
}

/// What became of a packet that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// Part of the pending packet now.
    Taken,
    /// The pending packet has to go first; then offer this one again.
    FlushFirst,
    /// Not to be merged: goes on its own, after the pending packet.
    Alone,
}

impl Merger {
    pub fn new(takes_tcp: bool, takes_udp: bool) -> Merger {
        let parts = Vec::with_capacity(PART_LIMIT);
        Merger {
            takes_tcp,
            takes_udp,
            first: None,
            last: None,
            first_is_sound: false,
            payload_total: 0,
            closed: false,
            parts,
        }
    }

    /// Offers the packet at `start` of the buffer. `more_follow` is a hint that merging may be worth a look.
    pub fn offer(&mut self, buffer: &[u8], start: usize, header: &Header) -> Offer {
        let candidate = match self.candidate(buffer, start, header) {
            Some(candidate) => candidate,
            None if self.first.is_some() => return Offer::FlushFirst,
            None => return Offer::Alone,
        };
        match (self.first, self.last) {
            (Some(first), Some(last)) => {
                if !self.continues(buffer, &first, &last, &candidate) {
                    return Offer::FlushFirst;
                }
                self.last = Some(candidate);
                self.payload_total += candidate.payload_bytes;
                self.closed = candidate.pushed || candidate.payload_bytes < first.payload_bytes;
                let payload = start + candidate.header_bytes;
                self.parts.push((payload, payload + candidate.payload_bytes));
            }
            _ => {
                self.first = Some(candidate);
                self.last = Some(candidate);
                self.first_is_sound = false;
                self.payload_total = candidate.payload_bytes;
                self.closed = candidate.pushed;
                self.parts.push((start, start + header.total_bytes));
            }
        }
        Offer::Taken
    }

    fn candidate(&self, buffer: &[u8], start: usize, header: &Header) -> Option<Candidate> {
        let packet = &buffer[start..start + header.total_bytes];
        let ip_bytes = header.header_bytes;
        if header.fragment || (header.family == Family::V4 && ip_bytes != V4_HEADER_BYTES) {
            return None;
        }
        let transport = &packet[ip_bytes..];
        let (transport_bytes, is_tcp, pushed) = match header.protocol {
            TCP if self.takes_tcp && transport.len() > 20 => {
                let flags = transport[TCP_FLAGS_AT];
                if flags & !(TCP_PSH | TCP_ECE) != TCP_ACK || transport[12] & 0x0f != 0 {
                    return None;
                }
                (usize::from(transport[12] >> 4) * 4, true, flags & TCP_PSH != 0)
            }
            UDP if self.takes_udp && transport.len() > 8 => {
                if usize::from(u16_at(transport, 4)) != transport.len() || u16_at(transport, 6) == 0 {
                    return None;
                }
                (8, false, false)
            }
            _ => return None,
        };
        if transport_bytes < 8 || transport_bytes >= transport.len() || (is_tcp && transport_bytes < 20) {
            return None;
        }
        let payload_bytes = transport.len() - transport_bytes;
        let header_bytes = ip_bytes + transport_bytes;
        Some(Candidate { start, header: *header, header_bytes, payload_bytes, is_tcp, pushed })
    }

    /// Whether `next` follows `last` in the flow, and everything merged so far and `next` are sound.
    fn continues(&mut self, buffer: &[u8], first: &Candidate, last: &Candidate, next: &Candidate) -> bool {
        let fits = !self.closed
            && self.parts.len() < PART_LIMIT
            && next.payload_bytes <= first.payload_bytes
            && first.header_bytes + self.payload_total + next.payload_bytes <= TOTAL_LIMIT_BYTES
            && first.header.family == next.header.family
            && first.is_tcp == next.is_tcp
            && first.header_bytes == next.header_bytes;
        if !fits || !same_headers(buffer, first, last, next) {
            return false;
        }
        if !self.first_is_sound && !is_sound(buffer, first) {
            self.closed = true;
            return false;
        }
        self.first_is_sound = true;
        is_sound(buffer, next)
    }

    /// Number of packets pending.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Writes the headers of the pending packet and returns what has to stand before it; its parts are `parts()`.
    pub fn finish(&self, buffer: &mut [u8]) -> VnetHeader {
        let (first, last) = match (self.first, self.last) {
            (Some(first), Some(last)) if self.parts.len() > 1 => (first, last),
            _ => return VnetHeader::default(),
        };
        let ip_bytes = first.header.header_bytes;
        let total = first.header_bytes + self.payload_total;
        let own = &mut buffer[first.start..first.start + first.header_bytes];
        match first.header.family {
            Family::V4 => {
                put_u16(own, 2, total as u16);
                finish_v4_header(&mut own[..ip_bytes]);
            }
            Family::V6 => put_u16(own, 4, (total - ip_bytes) as u16),
        }
        let length = total - ip_bytes;
        let pseudo = checksum::pseudo_header(addresses(own, first.header.family), first.header.protocol, length);
        let checksum_offset = if first.is_tcp { 16 } else { 6 };
        put_u16(own, ip_bytes + checksum_offset, pseudo);
        if !first.is_tcp {
            put_u16(own, ip_bytes + 4, length as u16);
        } else if last.pushed {
            own[ip_bytes + TCP_FLAGS_AT] |= TCP_PSH;
        }
        VnetHeader {
            flags: NEEDS_CHECKSUM,
            gso_type: match (first.is_tcp, first.header.family) {
                (false, _) => GSO_UDP,
                (true, Family::V4) => GSO_TCP4,
                (true, Family::V6) => GSO_TCP6,
            },
            header_bytes: first.header_bytes as u16,
            gso_bytes: first.payload_bytes as u16,
            checksum_start: ip_bytes as u16,
            checksum_offset: checksum_offset as u16,
        }
    }

    pub fn parts(&self) -> &[(usize, usize)] {
        &self.parts
    }

    pub fn clear(&mut self) {
        self.first = None;
        self.last = None;
        self.parts.clear();
    }
}

fn same_headers(buffer: &[u8], first: &Candidate, last: &Candidate, next: &Candidate) -> bool {
    let (a, b) = (&buffer[first.start..], &buffer[next.start..]);
    let ip_bytes = first.header.header_bytes;
    let same_ip = match first.header.family {
        Family::V4 => {
            let id_follows = u16_at(b, 4) == u16_at(&buffer[last.start..], 4).wrapping_add(1);
            let unfragmentable = b[6] & 0x40 != 0;
            a[..2] == b[..2] && a[6..10] == b[6..10] && a[12..20] == b[12..20] && (id_follows || unfragmentable)
        }
        Family::V6 => a[..4] == b[..4] && a[6..40] == b[6..40],
    };
    let (a, b) = (&a[ip_bytes..first.header_bytes], &b[ip_bytes..next.header_bytes]);
    if !same_ip || a[..4] != b[..4] {
        return false;
    }
    if !first.is_tcp {
        return true;
    }
    let expected = u32_at(&buffer[last.start + ip_bytes..], 4).wrapping_add(last.payload_bytes as u32);
    let flags = |tcp: &[u8]| tcp[TCP_FLAGS_AT] & !TCP_PSH;
    // Acknowledged number, window, urgent pointer and options.
    u32_at(b, 4) == expected
        && a[8..13] == b[8..13]
        && flags(a) == flags(b)
        && a[14..16] == b[14..16]
        && a[18..] == b[18..]
}

fn is_sound(buffer: &[u8], candidate: &Candidate) -> bool {
    let packet = &buffer[candidate.start..candidate.start + candidate.header.total_bytes];
    let header = &candidate.header;
    let (ip, transport) = packet.split_at(header.header_bytes);
    let pseudo = checksum::pseudo_header(addresses(ip, header.family), header.protocol, transport.len());
    let whole = checksum::fold(u64::from(pseudo) + u64::from(checksum::sum(transport)));
    whole == 0xffff && (header.family == Family::V6 || checksum::sum(ip) == 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;
    use crate::packet::testing::{tcp, udp};
    use crate::segment::Cut;

    /// Merges as the receiver does and cuts again: the packets in order, and how many writes they took.
    fn merged_and_cut(packets: &[Vec<u8>]) -> (Vec<Vec<u8>>, usize) {
        let mut buffer = packets.concat();
        let mut merger = Merger::new(true, true);
        let mut out = Vec::new();
        let mut writes = 0;
        let mut start = 0;
        let mut flush = |merger: &mut Merger, buffer: &mut [u8], out: &mut Vec<Vec<u8>>| {
            if merger.count() == 0 {
                return;
            }
            writes += 1;
            let vnet = merger.finish(buffer);
            let whole: Vec<u8> = merger.parts().iter().flat_map(|(from, to)| buffer[*from..*to].to_vec()).collect();
            if merger.count() == 1 {
                out.push(whole);
            } else {
                let cut = Cut::plan(&whole, &vnet, &parse(&whole).unwrap()).unwrap();
                let mut segments = Vec::new();
                cut.write(&whole, &mut segments);
                out.extend(segments.chunks(cut.packet_bytes()).map(<[u8]>::to_vec));
            }
            merger.clear();
        };
        for packet in packets {
            let header = parse(packet).unwrap();
            loop {
                match merger.offer(&buffer, start, &header) {
                    Offer::Taken => break,
                    Offer::FlushFirst => flush(&mut merger, &mut buffer, &mut out),
                    Offer::Alone => {
                        out.push(packet.clone());
                        break;
                    }
                }
            }
            start += packet.len();
        }
        flush(&mut merger, &mut buffer, &mut out);
        (out, writes)
    }

    fn segments(v6: bool, count: u32, each: usize) -> Vec<Vec<u8>> {
        let packet = |index: u32| {
            let flags = if index + 1 == count { 0x18 } else { 0x10 };
            tcp(v6, 1000 + index * each as u32, flags, 40 + index as u16, &vec![index as u8; each])
        };
        (0..count).map(packet).collect()
    }

    #[test]
    fn a_cut_restores_what_was_merged() {
        for v6 in [false, true] {
            let packets = segments(v6, 40, 1400);
            assert_eq!(merged_and_cut(&packets), (packets, 1));
            let datagrams: Vec<Vec<u8>> = (0..30).map(|i| udp(v6, 7 + i, &[i as u8; 1000])).collect();
            assert_eq!(merged_and_cut(&datagrams), (datagrams, 1));
        }
    }

    #[test]
    fn a_short_or_pushed_packet_ends_a_run() {
        let mut packets = segments(false, 3, 500);
        packets.extend(segments(false, 3, 500));
        assert_eq!(merged_and_cut(&packets), (packets, 2));
        let mut datagrams: Vec<Vec<u8>> = (0..3).map(|i| udp(false, i, &[1; 900])).collect();
        datagrams.push(udp(false, 3, &[2; 100]));
        datagrams.push(udp(false, 4, &[2; 100]));
        datagrams.push(udp(false, 5, &[2; 900]));
        assert_eq!(merged_and_cut(&datagrams), (datagrams, 3));
    }

    #[test]
    fn whatever_differs_stays_apart() {
        let base = segments(false, 3, 300);
        type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
        let changes: [Change; 7] = [
            // Time to live, acknowledged number, window, option, port, type of service, the payload (a broken checksum).
            &|p| p[8] -= 1,
            &|p| p[20 + 11] += 1,
            &|p| p[20 + 15] += 1,
            &|p| p[20 + 27] += 1,
            &|p| p[20] ^= 1,
            &|p| p[1] = 4,
            &|p| *p.last_mut().unwrap() ^= 1,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut packets = base.clone();
            change(&mut packets[1]);
            assert_eq!(merged_and_cut(&packets), (packets.clone(), 3), "change {index}");
        }
    }

    #[test]
    fn a_broken_checksum_is_never_repaired() {
        for broken in 0..4 {
            let mut packets = segments(false, 4, 300);
            let at = packets[broken].len() - 7;
            packets[broken][at] ^= 0x10;
            assert_eq!(merged_and_cut(&packets).0, packets);
        }
    }

    #[test]
    fn what_is_no_data_goes_alone() {
        let packets = vec![tcp(false, 1, 0x10, 1, b""), tcp(false, 1, 0x02, 2, b"x"), tcp(false, 1, 0x11, 3, b"x")];
        assert_eq!(merged_and_cut(&packets), (packets, 0));
    }

    #[test]
    fn no_bytes_bring_it_down() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let seeds = [segments(false, 3, 90), segments(true, 3, 90), (0..3).map(|i| udp(false, i, &[1; 90])).collect()];
        for round in 0..30_000 {
            let mut packets = seeds[round % seeds.len()].clone();
            for _ in 0..random() % 6 {
                let packet = random() % packets.len();
                let at = random() % packets[packet].len().min(70);
                packets[packet][at] = random() as u8;
            }
            let cut = random() % packets.len();
            let kept = packets[cut].len() - random() % 40;
            packets[cut].truncate(kept);
            // What does not parse is dropped before; the length that the header says is what counts.
            packets.retain(|packet| parse(packet).is_some());
            packets.iter_mut().for_each(|packet| packet.truncate(parse(packet).unwrap().total_bytes));
            // The identification of a packet that may not be fragmented means nothing, and may come out another.
            let without_id = |mut packet: Vec<u8>| {
                if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 && checksum::sum(&packet[..20]) == 0xffff {
                    packet[4..6].fill(0);
                    packet[10..12].fill(0);
                }
                packet
            };
            let out: Vec<Vec<u8>> = merged_and_cut(&packets).0.into_iter().map(without_id).collect();
            let expected: Vec<Vec<u8>> = packets.into_iter().map(without_id).collect();
            assert_eq!(out, expected, "round {round}");
        }
    }
}
