//! From the device to the peers. One packet is sent on as soon as no other waits behind it: batching never delays.
//!
//! ```text
//! wait for a packet ─► burst (TSO, USO)? ──yes──► cut, send
//!        ▲                    │ no
//!        │                    ▼
//!        │            add to the pending run of one peer ─► another packet waits? ──yes──► take it
//!        └──────────────────── send the run ◄──────────────────────┘ no
//! ```

use crate::counters::Counter;
use crate::datagrams::{self, burst_limit_bytes, Datagram, BURST_LIMIT};
use crate::device::{VnetHeader, GSO_NONE, NEEDS_CHECKSUM};
use crate::icmp::{self, Problem, RateLimit};
use crate::packet::{decrement_hop_limit, ip_of, parse, Family, Header, UDP};
use crate::segment::{finish_checksum, Segments};
use crate::table::{Table, TableReader};
use crate::tunnel::Tunnel;
use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use weft_sys as sys;

/// Longest packet that a read can bring.
const PACKET_LIMIT_BYTES: usize = 65_536;

pub struct Sender<'a> {
    tunnel: &'a Tunnel,
    tables: TableReader<'a>,
    table: Arc<Table>,
    /// The pending run from the start on, then room for one more packet.
    buffer: Vec<u8>,
    run: Run,
    segments: Segments,
    datagrams: Vec<Datagram>,
    limit: RateLimit,
    /// Where the last packet went; good for as long as the table is.
    last_found: Option<(Family, u128, u32)>,
    reads_without_waiting: bool,
}

/// Packets of one size to one peer, side by side in the buffer; the last may be shorter and ends the run.
#[derive(Default)]
struct Run {
    peer: u32,
    bytes: usize,
    each_bytes: usize,
    count: usize,
    ended: bool,
}

impl<'a> Sender<'a> {
    pub fn new(tunnel: &'a Tunnel) -> Sender<'a> {
        let mut tables = tunnel.table.reader();
        let table = tables.current().clone();
        Sender {
            tunnel,
            tables,
            table,
            buffer: vec![0; 2 * PACKET_LIMIT_BYTES],
            run: Run::default(),
            segments: Segments::new(),
            datagrams: Vec::new(),
            limit: RateLimit::new(),
            last_found: None,
            reads_without_waiting: true,
        }
    }

    /// Runs until the device is gone.
    pub fn run(&mut self) -> io::Error {
        loop {
            // Nothing is pending here: the numbers of the old table's peers are not needed any more.
            let read = self.read(true);
            self.renew_table();
            match read {
                Ok(Some((vnet, length))) => self.take(vnet, length),
                Ok(None) => {}
                Err(problem) => return problem,
            }
            // Bounded, so that a new table comes into force also when packets never cease.
            for _ in 0..4 * BURST_LIMIT {
                match self.read(false) {
                    Ok(Some((vnet, length))) => self.take(vnet, length),
                    Ok(None) => break,
                    Err(problem) => return problem,
                }
            }
            self.flush();
        }
    }

    /// Reads one packet to behind the pending run. Nothing when none waits, or when the device is down for the moment.
    fn read(&mut self, wait: bool) -> io::Result<Option<(VnetHeader, usize)>> {
        if !wait && !self.reads_without_waiting {
            return Ok(None);
        }
        let mut vnet = VnetHeader::default();
        let header_bytes = self.tunnel.device.header_bytes();
        let room = &mut self.buffer[self.run.bytes..];
        let parts = [
            sys::iovec { iov_base: (&mut vnet as *mut VnetHeader).cast(), iov_len: header_bytes },
            sys::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() },
        ];
        let fd = self.tunnel.device.fd();
        let read = sys::retry(|| unsafe {
            if wait {
                sys::readv(fd, parts.as_ptr(), 2)
            } else {
                sys::preadv2(fd, parts.as_ptr(), 2, -1, sys::RWF_NOWAIT)
            }
        });
        match read {
            Ok(length) => Ok((length as usize).checked_sub(header_bytes).map(|length| (vnet, length))),
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(problem) if !wait && matches!(problem.raw_os_error(), Some(sys::EOPNOTSUPP | sys::ENOSYS)) => {
                self.reads_without_waiting = false;
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Deals with the packet that was read to behind the pending run.
    fn take(&mut self, vnet: VnetHeader, length: usize) {
        let start = self.run.bytes;
        let header = match parse(&self.buffer[start..start + length]) {
            Some(header) => header,
            None => return self.tunnel.counters.add(Counter::Malformed, 1),
        };
        let peer = match self.find(&header) {
            Some(peer) => peer,
            None => {
                let claimed = ip_of(header.family, header.destination);
                return self.refuse(Counter::NoPeer, Problem::NoRoute, &header, claimed);
            }
        };
        let far_side = self.table.peer(peer).subnet.first();
        if header.hop_limit <= 1 {
            return self.refuse(Counter::TtlExceeded, Problem::TimeExceeded, &header, far_side);
        }
        let packet = &mut self.buffer[start..start + header.total_bytes];
        let mtu_bytes = self.tunnel.mtu_bytes.load(Ordering::Relaxed);
        let is_burst = vnet.kind() != GSO_NONE;
        let each_bytes = if is_burst {
            if self.segments.cut(packet, &vnet, &header).is_none() {
                return self.tunnel.counters.add(Counter::Malformed, 1);
            }
            self.segments.packet_bytes()
        } else {
            header.total_bytes
        };
        if each_bytes > mtu_bytes as usize {
            return self.refuse(Counter::TooBig, Problem::TooBig { mtu_bytes }, &header, far_side);
        }
        if is_burst {
            self.segments.decrement_hop_limits(header.family);
            self.flush();
            return self.send_segments(start, peer);
        }
        if vnet.flags & NEEDS_CHECKSUM != 0 && !finish_checksum(packet, &vnet, header.protocol == UDP) {
            return self.tunnel.counters.add(Counter::Malformed, 1);
        }
        decrement_hop_limit(packet, header.family);
        self.append(start, header.total_bytes, peer);
    }

    fn renew_table(&mut self) {
        let current = self.tables.current();
        if !Arc::ptr_eq(current, &self.table) {
            self.table = current.clone();
            self.last_found = None;
        }
    }

    fn find(&mut self, header: &Header) -> Option<u32> {
        if let Some((family, destination, peer)) = self.last_found {
            if family == header.family && destination == header.destination {
                return Some(peer);
            }
        }
        let peer = self.table.find(header.family, header.destination)?;
        self.last_found = Some((header.family, header.destination, peer));
        Some(peer)
    }

    fn append(&mut self, start: usize, length: usize, peer: u32) {
        let run = &self.run;
        let fits = peer == run.peer
            && length <= run.each_bytes
            && !run.ended
            && run.count < BURST_LIMIT
            && run.bytes + length <= burst_limit_bytes(self.tunnel);
        if run.count > 0 && !fits {
            self.flush();
            self.buffer.copy_within(start..start + length, 0);
        }
        if self.run.count == 0 {
            self.run = Run { peer, each_bytes: length, ..Run::default() };
        }
        self.run.bytes += length;
        self.run.count += 1;
        self.run.ended = length < self.run.each_bytes;
    }

    /// Sends the pending run.
    fn flush(&mut self) {
        if self.run.count == 0 {
            return;
        }
        let run = std::mem::take(&mut self.run);
        self.datagrams.clear();
        for packet in self.buffer[..run.bytes].chunks_mut(run.each_bytes) {
            let whole = sys::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
            let nothing = sys::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
            self.datagrams.push([whole, nothing]);
        }
        datagrams::send(self.tunnel, self.table.peer(run.peer), &mut self.datagrams, run.each_bytes);
    }

    fn send_segments(&mut self, start: usize, peer: u32) {
        let each_bytes = self.segments.packet_bytes();
        self.datagrams.clear();
        for index in 0..self.segments.count() {
            let header = self.segments.header(index);
            let (from, to) = self.segments.payload(index);
            let payload = &mut self.buffer[start + from..start + to];
            self.datagrams.push([
                sys::iovec { iov_base: header.as_ptr() as *mut _, iov_len: header.len() },
                sys::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() },
            ]);
        }
        let at_once = (burst_limit_bytes(self.tunnel) / each_bytes).clamp(1, BURST_LIMIT);
        let peer = self.table.peer(peer);
        for run in self.datagrams.chunks_mut(at_once) {
            datagrams::send(self.tunnel, peer, run, each_bytes);
        }
    }

    /// Drops the packet behind the pending run and tells its sender why.
    fn refuse(&mut self, counter: Counter, problem: Problem, header: &Header, source: IpAddr) {
        self.tunnel.counters.add(counter, 1);
        let start = self.run.bytes;
        let error = match icmp::build(problem, &self.buffer[start..start + header.total_bytes], header, source) {
            Some(error) => error,
            None => return,
        };
        if !self.limit.take() {
            return self.tunnel.counters.add(Counter::IcmpLimited, 1);
        }
        let vnet = VnetHeader::default();
        let parts = [
            sys::iovec { iov_base: (&vnet as *const VnetHeader) as *mut _, iov_len: self.tunnel.device.header_bytes() },
            sys::iovec { iov_base: error.as_ptr() as *mut _, iov_len: error.len() },
        ];
        let written = sys::retry(|| unsafe { sys::writev(self.tunnel.device.fd(), parts.as_ptr(), 2) });
        self.tunnel.counters.add(if written.is_ok() { Counter::IcmpSent } else { Counter::WriteError }, 1);
    }
}

const _: () = assert!(size_of::<VnetHeader>() == 10);
