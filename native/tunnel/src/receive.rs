//! From the peers to the device. Takes whatever datagrams have arrived, never waits for more, and hands packets of one flow
//! over together.

use crate::carry::Turn;
use crate::counters::Counter;
use crate::datagrams;
use crate::device::VnetHeader;
use crate::icmp::{self, Problem, RateLimit};
use crate::merge::{Merger, Offer, PART_LIMIT};
use crate::packet::{decrement_hop_limit, parse, Family, Header};
use crate::table::{Peer, Refusal, Table, TableReader};
use crate::tunnel::Tunnel;
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::sync::Arc;
use weft_sys as sys;
use weft_sys::SocketAddress;

/// Datagrams or bursts taken in one call.
const MESSAGE_LIMIT: usize = 16;
/// Room for the longest burst.
const MESSAGE_BYTES: usize = 65_536;
/// Where in a page the room of each message starts. The kernel copies with one string instruction, which some processors
/// (Zen 3) carry out thirty times slower when the target lies 1 to 31 bytes behind the source, counted within a page. Full
/// datagrams lie at multiples of 256 in the kernel's pages, and an allocator would start 16 bytes into one.
const PAGE_OFFSET_BYTES: usize = 128;
const PAGE_BYTES: usize = 4096;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

pub struct Receiver<'a> {
    tunnel: &'a Tunnel,
    tables: TableReader<'a>,
    table: Arc<Table>,
    buffer: Vec<u8>,
    /// Where in the buffer the first message's room starts.
    rooms_start: usize,
    inbox: Box<Inbox>,
    merger: Merger,
    limit: RateLimit,
    /// What was last let in; good for as long as the table is.
    last_admitted: Option<(SocketAddr, Family, u128, u128)>,
}

/// What a call that receives is given to fill. It points into itself and into the receiver's buffer, which both stay where
/// they are.
struct Inbox {
    names: [SocketAddress; MESSAGE_LIMIT],
    controls: [Control; MESSAGE_LIMIT],
    parts: [sys::iovec; MESSAGE_LIMIT],
    messages: [sys::mmsghdr; MESSAGE_LIMIT],
}

impl Inbox {
    fn new(rooms: &mut [u8]) -> Box<Inbox> {
        let mut inbox = Box::new(Inbox {
            names: [SocketAddress::empty(); MESSAGE_LIMIT],
            controls: [Control([0; 64]); MESSAGE_LIMIT],
            parts: [sys::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MESSAGE_LIMIT],
            messages: unsafe { sys::zeroed() },
        });
        for (part, room) in inbox.parts.iter_mut().zip(rooms.chunks_mut(MESSAGE_BYTES)) {
            *part = sys::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        }
        inbox.renew(MESSAGE_LIMIT);
        inbox
    }

    /// Makes the first `count` messages ready to be filled again.
    fn renew(&mut self, count: usize) {
        for index in 0..count {
            self.messages[index].msg_hdr = sys::msghdr {
                msg_name: self.names[index].as_mut_ptr(),
                msg_namelen: size_of::<SocketAddress>() as sys::socklen_t,
                msg_iov: &mut self.parts[index],
                msg_iovlen: 1,
                msg_control: self.controls[index].0.as_mut_ptr().cast(),
                msg_controllen: size_of::<Control>(),
                msg_flags: 0,
            };
        }
    }
}

impl<'a> Receiver<'a> {
    pub fn new(tunnel: &'a Tunnel) -> Receiver<'a> {
        let mut tables = tunnel.table.reader();
        let mut buffer = vec![0; MESSAGE_LIMIT * MESSAGE_BYTES + PAGE_BYTES + PAGE_OFFSET_BYTES];
        let rooms_start = buffer.as_ptr().align_offset(PAGE_BYTES) + PAGE_OFFSET_BYTES;
        Receiver {
            tunnel,
            table: tables.current().clone(),
            tables,
            inbox: Inbox::new(&mut buffer[rooms_start..]),
            buffer,
            rooms_start,
            merger: Merger::new(tunnel.device.takes_tcp_bursts(), tunnel.device.takes_udp_bursts()),
            limit: RateLimit::new(),
            last_admitted: None,
        }
    }

    /// Carries what has arrived. Fails when the socket is gone.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let messages = self.inbox.messages.as_mut_ptr();
        let received = sys::retry(|| unsafe {
            let (limit, flags) = (MESSAGE_LIMIT as u32, sys::MSG_DONTWAIT);
            sys::recvmmsg(self.tunnel.socket_fd(), messages, limit, flags, std::ptr::null_mut())
        });
        let count = match received {
            Ok(count) => count as usize,
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Nothing),
            Err(problem) if is_passing(&problem) => return Ok(Turn::Part),
            Err(problem) => return Err(problem),
        };
        if !Arc::ptr_eq(self.tables.current(), &self.table) {
            self.table = self.tables.current().clone();
            self.last_admitted = None;
        }
        let table = self.table.clone();
        self.tunnel.counters.add(Counter::ReceiveCalls, 1);
        for index in 0..count {
            let message = &self.inbox.messages[index];
            let length = message.msg_len as usize;
            let each_bytes = burst_bytes(&message.msg_hdr, &self.inbox.controls[index]).unwrap_or(length);
            match self.inbox.names[index].get() {
                Some(remote) => self.take(&table, remote, self.rooms_start + index * MESSAGE_BYTES, length, each_bytes),
                None => self.tunnel.counters.add(Counter::Malformed, 1),
            }
        }
        self.flush();
        self.inbox.renew(count);
        Ok(if count < MESSAGE_LIMIT { Turn::All } else { Turn::Part })
    }

    /// Takes the packets of one message, each of them `each_bytes` long, the last perhaps shorter.
    fn take(&mut self, table: &Table, remote: SocketAddr, start: usize, length: usize, each_bytes: usize) {
        let mut at = start;
        let (mut packets, mut bytes) = (0, 0);
        while at < start + length {
            let end = (at + each_bytes.max(1)).min(start + length);
            match parse(&self.buffer[at..end]) {
                None => self.tunnel.counters.add(Counter::Malformed, 1),
                Some(header) => {
                    if self.admit(table, &remote, &header, at) {
                        packets += 1;
                        bytes += header.total_bytes;
                        self.deliver(at, &header);
                    }
                }
            }
            at = end;
        }
        self.tunnel.counters.add(Counter::ReceivedPackets, packets);
        self.tunnel.counters.add(Counter::ReceivedBytes, bytes as u64);
    }

    fn admit(&mut self, table: &Table, remote: &SocketAddr, header: &Header, at: usize) -> bool {
        let key = (*remote, header.family, header.source, header.destination);
        if self.last_admitted != Some(key) {
            match table.admit(remote, header) {
                Ok(()) => self.last_admitted = Some(key),
                Err(refusal) => {
                    self.tunnel.counters.add(
                        match refusal {
                            Refusal::Stranger => Counter::Stranger,
                            Refusal::ForgedSource => Counter::ForgedSource,
                            Refusal::NotForUs => Counter::NotForUs,
                        },
                        1,
                    );
                    return false;
                }
            }
        }
        if header.hop_limit <= 1 {
            self.answer_expired(table, remote, header, at);
            return false;
        }
        decrement_hop_limit(&mut self.buffer[at..at + header.total_bytes], header.family);
        true
    }

    fn deliver(&mut self, at: usize, header: &Header) {
        loop {
            match self.merger.offer(&self.buffer, at, header) {
                Offer::Taken => return,
                Offer::FlushFirst => self.flush(),
                Offer::Alone => return self.write(VnetHeader::default(), &[(at, at + header.total_bytes)]),
            }
        }
    }

    /// Writes the pending packet.
    fn flush(&mut self) {
        if self.merger.count() == 0 {
            return;
        }
        let vnet = self.merger.finish(&mut self.buffer);
        if self.merger.count() > 1 {
            self.tunnel.counters.add(Counter::MergedPackets, self.merger.count() as u64);
        }
        self.write(vnet, self.merger.parts());
        self.merger.clear();
    }

    fn write(&self, vnet: VnetHeader, ranges: &[(usize, usize)]) {
        let mut parts = [sys::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PART_LIMIT + 1];
        let header_bytes = self.tunnel.device.header_bytes();
        parts[0] = sys::iovec { iov_base: (&vnet as *const VnetHeader) as *mut _, iov_len: header_bytes };
        for (part, (from, to)) in parts[1..].iter_mut().zip(ranges) {
            let bytes = &self.buffer[*from..*to];
            *part = sys::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
        }
        let count = ranges.len() as i32 + 1;
        self.tunnel.counters.add(Counter::DeviceWrites, 1);
        if sys::retry(|| unsafe { sys::writev(self.tunnel.device.fd(), parts.as_ptr(), count) }).is_err() {
            self.tunnel.counters.add(Counter::WriteError, ranges.len() as u64);
        }
    }

    /// Tells a sender on the far side that its packet ended here.
    fn answer_expired(&mut self, table: &Table, remote: &SocketAddr, header: &Header, at: usize) {
        self.tunnel.counters.add(Counter::TtlExceeded, 1);
        let packet = &self.buffer[at..at + header.total_bytes];
        let error = table
            .own_address(header.family)
            .and_then(|source| icmp::build(Problem::TimeExceeded, packet, header, source))
            .zip(table.find(header.family, header.source));
        let (error, peer): (Vec<u8>, &Peer) = match error {
            Some((error, index)) if table.peer(index).remote == *remote => (error, table.peer(index)),
            _ => return,
        };
        if !self.limit.take() {
            return self.tunnel.counters.add(Counter::IcmpLimited, 1);
        }
        let counter =
            if datagrams::send_one(self.tunnel, peer, &error) { Counter::IcmpSent } else { Counter::SendError };
        self.tunnel.counters.add(counter, 1);
    }
}

/// Errors that belong to one datagram, not to the socket.
fn is_passing(problem: &io::Error) -> bool {
    let passing = [sys::ECONNREFUSED, sys::EHOSTUNREACH, sys::ENETUNREACH, sys::ENETDOWN, sys::EMSGSIZE];
    problem.raw_os_error().map_or(false, |errno| passing.contains(&errno))
}

/// The size of the datagrams that the kernel joined into this message, when it did.
fn burst_bytes(message: &sys::msghdr, control: &Control) -> Option<usize> {
    let header_bytes = size_of::<sys::cmsghdr>();
    if message.msg_controllen < header_bytes + 4 {
        return None;
    }
    let number = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&control.0[at..at + 4]);
        i32::from_ne_bytes(word)
    };
    let is_burst = number(8) == sys::SOL_UDP && number(12) == sys::UDP_GRO;
    usize::try_from(number(header_bytes)).ok().filter(|bytes| is_burst && *bytes > 0)
}
