//! From the device to the peers. What waits is taken together, as far as there is room, and sent as soon as nothing waits
//! any more: batching never delays.
//!
//! ```text
//! read a packet ─► burst (TSO, USO)? ──yes──► cut into headers and payloads ─► batch ─► another waits, and room? ─► read it
//!                        └─no────────────────────────────────────────────────►           else send the batch
//! ```

use crate::counters::Counter;
use crate::datagrams::Batch;
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
/// Room for a few bursts: neighbours fill the last datagrams of each other's messages.
const BUFFER_BYTES: usize = 4 * PACKET_LIMIT_BYTES;
/// Reads in one turn, so that a new table comes into force, and the other direction gets its turn, when packets never cease.
const READ_LIMIT: usize = 128;

pub struct Sender<'a> {
    tunnel: &'a Tunnel,
    tables: TableReader<'a>,
    table: Arc<Table>,
    /// The packets of the batch side by side, then room for one more.
    buffer: Vec<u8>,
    batch: Batch,
    segments: Segments,
    limit: RateLimit,
    /// Where the last packet went; good for as long as the table is.
    last_found: Option<(Family, u128, u32)>,
}

impl<'a> Sender<'a> {
    pub fn new(tunnel: &'a Tunnel) -> Sender<'a> {
        let mut tables = tunnel.table.reader();
        let table = tables.current().clone();
        Sender {
            tunnel,
            tables,
            table,
            buffer: vec![0; BUFFER_BYTES],
            batch: Batch::new(),
            segments: Segments::new(),
            limit: RateLimit::new(),
            last_found: None,
        }
    }

    /// Carries what waits, and says whether there was anything. Fails when the device is gone.
    pub fn turn(&mut self) -> io::Result<bool> {
        let mut used_bytes = 0;
        for count in 0..READ_LIMIT {
            if BUFFER_BYTES - used_bytes < PACKET_LIMIT_BYTES {
                self.batch.send(self.tunnel, &self.table, &self.buffer);
                used_bytes = 0;
            }
            let (vnet, length) = match self.read(used_bytes)? {
                Some(read) => read,
                None if count == 0 => return Ok(false),
                None => break,
            };
            if count == 0 {
                // The batch is empty here: the numbers of the old table's peers are not needed any more.
                self.renew_table();
            }
            if self.take(used_bytes, vnet, length) {
                used_bytes += length;
            }
        }
        self.batch.send(self.tunnel, &self.table, &self.buffer);
        Ok(true)
    }

    /// Reads one packet to `start` of the buffer. Nothing when none waits.
    fn read(&mut self, start: usize) -> io::Result<Option<(VnetHeader, usize)>> {
        let mut vnet = VnetHeader::default();
        let header_bytes = self.tunnel.device.header_bytes();
        let room = &mut self.buffer[start..start + PACKET_LIMIT_BYTES];
        let parts = [
            sys::iovec { iov_base: (&mut vnet as *mut VnetHeader).cast(), iov_len: header_bytes },
            sys::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() },
        ];
        match sys::retry(|| unsafe { sys::readv(self.tunnel.device.fd(), parts.as_ptr(), 2) }) {
            Ok(length) => Ok((length as usize).checked_sub(header_bytes).map(|length| (vnet, length))),
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Deals with the packet at `start` of the buffer; true when it is part of the batch now.
    fn take(&mut self, start: usize, vnet: VnetHeader, length: usize) -> bool {
        let header = match parse(&self.buffer[start..start + length]) {
            Some(header) => header,
            None => return self.drop_malformed(),
        };
        let peer = match self.find(&header) {
            Some(peer) => peer,
            None => {
                let claimed = ip_of(header.family, header.destination);
                return self.refuse(start, Counter::NoPeer, Problem::NoRoute, &header, claimed);
            }
        };
        let far_side = self.table.peer(peer).subnet.first();
        if header.hop_limit <= 1 {
            return self.refuse(start, Counter::TtlExceeded, Problem::TimeExceeded, &header, far_side);
        }
        let packet = &mut self.buffer[start..start + header.total_bytes];
        let mtu_bytes = self.tunnel.mtu_bytes.load(Ordering::Relaxed);
        let is_burst = vnet.kind() != GSO_NONE;
        let each_bytes = if is_burst {
            if self.segments.cut(packet, &vnet, &header).is_none() {
                return self.drop_malformed();
            }
            self.segments.packet_bytes()
        } else {
            header.total_bytes
        };
        if each_bytes > mtu_bytes as usize {
            return self.refuse(start, Counter::TooBig, Problem::TooBig { mtu_bytes }, &header, far_side);
        }
        if is_burst {
            self.segments.decrement_hop_limits(header.family);
            for index in 0..self.segments.count() {
                let (from, to) = self.segments.payload(index);
                self.batch.push(peer, self.segments.header(index), start + from..start + to);
            }
            return true;
        }
        if vnet.flags & NEEDS_CHECKSUM != 0 && !finish_checksum(packet, &vnet, header.protocol == UDP) {
            return self.drop_malformed();
        }
        decrement_hop_limit(packet, header.family);
        self.batch.push(peer, &[], start..start + header.total_bytes);
        true
    }

    fn drop_malformed(&self) -> bool {
        self.tunnel.counters.add(Counter::Malformed, 1);
        false
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

    /// Drops the packet at `start` of the buffer and tells its sender why.
    fn refuse(&mut self, start: usize, counter: Counter, problem: Problem, header: &Header, source: IpAddr) -> bool {
        self.tunnel.counters.add(counter, 1);
        let error = match icmp::build(problem, &self.buffer[start..start + header.total_bytes], header, source) {
            Some(error) => error,
            None => return false,
        };
        if !self.limit.take() {
            self.tunnel.counters.add(Counter::IcmpLimited, 1);
            return false;
        }
        let vnet = VnetHeader::default();
        let parts = [
            sys::iovec { iov_base: (&vnet as *const VnetHeader) as *mut _, iov_len: self.tunnel.device.header_bytes() },
            sys::iovec { iov_base: error.as_ptr() as *mut _, iov_len: error.len() },
        ];
        let written = sys::retry(|| unsafe { sys::writev(self.tunnel.device.fd(), parts.as_ptr(), 2) });
        self.tunnel.counters.add(if written.is_ok() { Counter::IcmpSent } else { Counter::WriteError }, 1);
        false
    }
}

const _: () = assert!(size_of::<VnetHeader>() == 10);
