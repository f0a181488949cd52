//! From the device to the peers. What waits is taken together, as far as there is room, and sent as soon as nothing waits
//! any more: batching never delays.
//!
//! ```text
//! read a packet ─► burst (TSO, USO)? ──yes──► cut into packets ─► batch ─► another waits, and room? ─► read it
//!                        └─no───────────────────────────────►           else send the batch
//! ```

use crate::carry::Turn;
use crate::counters::Counter;
use crate::datagrams::Batch;
use crate::device::{VnetHeader, GSO_NONE, NEEDS_CHECKSUM};
use crate::icmp::{self, Problem, RateLimit};
use crate::packet::{decrement_hop_limit, ip_of, parse, Family, Header, UDP};
use crate::segment::{finish_checksum, Cut};
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
/// A batch of so much is sent before the next packet is read: a few bursts, so that neighbours fill the last datagrams of each
/// other's messages.
const BATCH_BYTES: usize = 3 * PACKET_LIMIT_BYTES;
/// Reads in one turn, so that a new table comes into force, and the other direction gets its turn, when packets never cease.
const READ_LIMIT: usize = 128;

pub struct Sender<'a> {
    tunnel: &'a Tunnel,
    tables: TableReader<'a>,
    table: Arc<Table>,
    /// The packet that was read.
    buffer: Vec<u8>,
    batch: Batch,
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
            buffer: vec![0; PACKET_LIMIT_BYTES],
            batch: Batch::new(BATCH_BYTES + 2 * PACKET_LIMIT_BYTES),
            limit: RateLimit::new(),
            last_found: None,
        }
    }

    /// Carries what waits. Fails when the device is gone.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let mut turn = Turn::Part;
        for count in 0..READ_LIMIT {
            if self.batch.bytes() > BATCH_BYTES {
                self.batch.send(self.tunnel, &self.table);
            }
            let (vnet, length) = match self.read()? {
                Some(read) => read,
                None if count == 0 => return Ok(Turn::Nothing),
                None => {
                    turn = Turn::All;
                    break;
                }
            };
            if count == 0 {
                // The batch is empty here: the numbers of the old table's peers are not needed any more.
                self.renew_table();
            }
            self.take(vnet, length);
        }
        self.batch.send(self.tunnel, &self.table);
        Ok(turn)
    }

    /// Reads one packet. Nothing when none waits.
    fn read(&mut self) -> io::Result<Option<(VnetHeader, usize)>> {
        let mut vnet = VnetHeader::default();
        let header_bytes = self.tunnel.device.header_bytes();
        let parts = [
            sys::iovec { iov_base: (&mut vnet as *mut VnetHeader).cast(), iov_len: header_bytes },
            sys::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: self.buffer.len() },
        ];
        match sys::retry(|| unsafe { sys::readv(self.tunnel.device.fd(), parts.as_ptr(), 2) }) {
            Ok(length) => Ok((length as usize).checked_sub(header_bytes).map(|length| (vnet, length))),
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Adds the packet that was read to the batch, or drops it.
    fn take(&mut self, vnet: VnetHeader, length: usize) {
        let header = match parse(&self.buffer[..length]) {
            Some(header) => header,
            None => return self.drop_malformed(),
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
        let packet = &mut self.buffer[..header.total_bytes];
        let cut = match vnet.kind() {
            GSO_NONE => None,
            _ => match Cut::plan(packet, &vnet, &header) {
                None => return self.drop_malformed(),
                cut => cut,
            },
        };
        let each_bytes = cut.map_or(header.total_bytes, |cut| cut.packet_bytes());
        let mtu_bytes = self.tunnel.mtu_bytes.load(Ordering::Relaxed);
        if each_bytes > mtu_bytes as usize {
            return self.refuse(Counter::TooBig, Problem::TooBig { mtu_bytes }, &header, far_side);
        }
        if cut.is_none() && vnet.flags & NEEDS_CHECKSUM != 0 && !finish_checksum(packet, &vnet, header.protocol == UDP)
        {
            return self.drop_malformed();
        }
        decrement_hop_limit(packet, header.family);
        self.batch.add(peer, each_bytes, |room| match cut {
            Some(cut) => cut.write(packet, room),
            None => room.extend_from_slice(packet),
        });
    }

    fn drop_malformed(&self) {
        self.tunnel.counters.add(Counter::Malformed, 1);
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

    /// Drops the packet that was read and tells its sender why.
    fn refuse(&mut self, counter: Counter, problem: Problem, header: &Header, source: IpAddr) {
        self.tunnel.counters.add(counter, 1);
        let error = match icmp::build(problem, &self.buffer[..header.total_bytes], header, source) {
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
