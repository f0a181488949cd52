//! What is to go out together: datagrams to any peers, sent in as few calls as the kernel allows. Neighbours of one size to
//! one peer are a burst that the kernel cuts itself (UDP_SEGMENT); several bursts are one list (sendmmsg).
//!
//! ```text
//! a a a a a' │ b b │ c        one letter a peer and size, ' shorter: three bursts, one call
//! ```
//!
//! Sources: udp(7), sendmmsg(2). Documentation/networking/msg_zerocopy.rst is deliberately not used: completions cost more
//! than the copy.

use crate::counters::Counter;
use crate::table::{Peer, Table};
use crate::tunnel::Tunnel;
use std::io;
use std::mem::size_of;
use std::ops::Range;
use std::sync::atomic::Ordering;
use weft_sys as sys;

/// Datagrams in one burst: what every kernel with UDP_SEGMENT takes.
const BURST_LIMIT: usize = 64;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct SegmentControl {
    header: sys::cmsghdr,
    segment_bytes: u16,
    padding: [u8; 6],
}

/// One datagram: where in `Batch::bytes` it stands.
struct Datagram {
    peer: u32,
    bytes: Range<usize>,
}

/// Datagrams side by side that one message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Burst {
    datagrams: Range<usize>,
    each_bytes: usize,
}

#[derive(Default)]
pub struct Batch {
    /// The datagrams side by side, so that a burst is one part of a message.
    bytes: Vec<u8>,
    datagrams: Vec<Datagram>,
    bursts: Vec<Burst>,
    parts: Vec<sys::iovec>,
    controls: Vec<SegmentControl>,
    messages: Vec<sys::mmsghdr>,
}

impl Batch {
    /// An empty one with room for `room_bytes` of datagrams; more is made when it is needed.
    pub fn new(room_bytes: usize) -> Batch {
        Batch { bytes: Vec::with_capacity(room_bytes), ..Batch::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Bytes of all datagrams together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what `write` appends: datagrams of `each_bytes` to one peer, the last of them perhaps shorter.
    pub fn add(&mut self, peer: u32, each_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let mut start = self.bytes.len();
        write(&mut self.bytes);
        while start < self.bytes.len() {
            let end = (start + each_bytes).min(self.bytes.len());
            self.datagrams.push(Datagram { peer, bytes: start..end });
            start = end;
        }
    }

    /// Sends all of it and is empty then. What cannot be sent is counted and lost.
    pub fn send(&mut self, tunnel: &Tunnel, table: &Table) {
        if self.is_empty() {
            return;
        }
        let all = 0..self.datagrams.len();
        let count = all.len();
        let lost = self.transmit(tunnel, table, all, tunnel.sends_bursts.load(Ordering::Relaxed));
        tunnel.counters.add(Counter::SentPackets, (count - lost) as u64);
        tunnel.counters.add(Counter::SentBytes, self.bytes.len() as u64);
        if lost > 0 {
            tunnel.counters.add(Counter::SendError, lost as u64);
        }
        self.bytes.clear();
        self.datagrams.clear();
    }

    /// Sends some of the datagrams, in bursts or one by one. Returns how many were lost.
    fn transmit(&mut self, tunnel: &Tunnel, table: &Table, which: Range<usize>, joined: bool) -> usize {
        self.plan(which, burst_limit_bytes(tunnel), joined);
        self.fill(table);
        let bursts = std::mem::take(&mut self.bursts);
        let mut refused: Vec<Burst> = Vec::new();
        let (mut done, mut lost) = (0, 0);
        while done < bursts.len() {
            tunnel.counters.add(Counter::SendCalls, 1);
            match send_messages(tunnel, &mut self.messages[done..]) {
                Ok(count) => done += count,
                // It is the first of them that cannot be sent; the others may.
                Err(problem) => {
                    let burst = &bursts[done];
                    if burst.datagrams.len() > 1 && is_refusal(&problem) {
                        tunnel.counters.add(Counter::SegmentationRefused, 1);
                        if matches!(problem.raw_os_error(), Some(sys::EIO | sys::EOPNOTSUPP)) {
                            tunnel.sends_bursts.store(false, Ordering::Relaxed);
                        }
                        refused.push(burst.clone());
                    } else {
                        lost += burst.datagrams.len();
                    }
                    done += 1;
                }
            }
        }
        self.bursts = bursts;
        for burst in refused {
            lost += self.transmit(tunnel, table, burst.datagrams, false);
        }
        lost
    }

    /// Finds the bursts among the datagrams: of one peer, one size (the last may be shorter), and no longer than a packet can be.
    fn plan(&mut self, which: Range<usize>, limit_bytes: usize, joined: bool) {
        self.bursts.clear();
        let (mut bytes, mut ended) = (0, true);
        for index in which {
            let datagram = &self.datagrams[index];
            let length = datagram.bytes.len();
            let last = self.bursts.last_mut().filter(|burst| {
                joined
                    && !ended
                    && self.datagrams[burst.datagrams.start].peer == datagram.peer
                    && length <= burst.each_bytes
                    && burst.datagrams.len() < BURST_LIMIT
                    && bytes + length <= limit_bytes
            });
            match last {
                Some(burst) => {
                    burst.datagrams.end = index + 1;
                    ended = length < burst.each_bytes;
                    bytes += length;
                }
                None => {
                    self.bursts.push(Burst { datagrams: index..index + 1, each_bytes: length });
                    (bytes, ended) = (length, false);
                }
            }
        }
    }

    /// Writes the messages of the bursts. They point into `bytes`, `parts`, `controls` and the table: none of these may
    /// change until they are sent.
    fn fill(&mut self, table: &Table) {
        self.parts.clear();
        self.controls.clear();
        self.messages.clear();
        for burst in &self.bursts {
            let (first, last) = (&self.datagrams[burst.datagrams.start], &self.datagrams[burst.datagrams.end - 1]);
            self.parts.push(part(&self.bytes[first.bytes.start..last.bytes.end]));
            self.controls.push(SegmentControl {
                header: sys::cmsghdr {
                    cmsg_len: size_of::<sys::cmsghdr>() + size_of::<u16>(),
                    cmsg_level: sys::SOL_UDP,
                    cmsg_type: sys::UDP_SEGMENT,
                },
                segment_bytes: burst.each_bytes as u16,
                padding: [0; 6],
            });
        }
        // Both lists stand still now.
        for (index, burst) in self.bursts.iter().enumerate() {
            let mut message = message_to(table.peer(self.datagrams[burst.datagrams.start].peer));
            message.msg_iov = &mut self.parts[index];
            message.msg_iovlen = 1;
            if burst.datagrams.len() > 1 {
                message.msg_control = (&mut self.controls[index] as *mut SegmentControl).cast();
                message.msg_controllen = size_of::<SegmentControl>();
            }
            self.messages.push(sys::mmsghdr { msg_hdr: message, msg_len: 0 });
        }
    }
}

/// Sends one datagram; false when that is not possible.
pub fn send_one(tunnel: &Tunnel, peer: &Peer, bytes: &[u8]) -> bool {
    let (address, length) = (peer.address.as_ptr(), peer.address.len());
    let send = || unsafe { sys::sendto(tunnel.socket_fd(), bytes.as_ptr().cast(), bytes.len(), 0, address, length) };
    sys::retry(send).is_ok()
}

/// Returns how many were sent, at least one; or why the first was not.
fn send_messages(tunnel: &Tunnel, messages: &mut [sys::mmsghdr]) -> io::Result<usize> {
    if messages.len() == 1 {
        return sys::retry(|| unsafe { sys::sendmsg(tunnel.socket_fd(), &messages[0].msg_hdr, 0) }).map(|_| 1);
    }
    let count = messages.len() as u32;
    sys::retry(|| unsafe { sys::sendmmsg(tunnel.socket_fd(), messages.as_mut_ptr(), count, 0) })
        .map(|count| count as usize)
}

/// Most bytes of one burst: an IP packet's with the outer headers taken off.
fn burst_limit_bytes(tunnel: &Tunnel) -> usize {
    65_535 - if tunnel.local.is_ipv4() { 28 } else { 48 }
}

/// EINVAL and EMSGSIZE: the way to this peer has a smaller MTU than the datagrams; one by one the kernel fragments them.
fn is_refusal(problem: &io::Error) -> bool {
    matches!(problem.raw_os_error(), Some(sys::EIO | sys::EOPNOTSUPP | sys::EINVAL | sys::EMSGSIZE))
}

fn part(bytes: &[u8]) -> sys::iovec {
    sys::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() }
}

fn message_to(peer: &Peer) -> sys::msghdr {
    sys::msghdr {
        msg_name: peer.address.as_ptr() as *mut _,
        msg_namelen: peer.address.len(),
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bursts of datagrams given as (peer, bytes), as their lengths.
    fn bursts(datagrams: &[(u32, usize)], joined: bool) -> Vec<usize> {
        let mut batch = Batch::new(0);
        for (peer, bytes) in datagrams {
            batch.add(*peer, *bytes, |room| room.resize(room.len() + bytes, 0));
        }
        batch.plan(0..datagrams.len(), 65_507, joined);
        let found: Vec<usize> = batch.bursts.iter().map(|burst| burst.datagrams.len()).collect();
        assert_eq!(found.iter().sum::<usize>(), datagrams.len());
        assert!(batch.bursts.windows(2).all(|pair| pair[0].datagrams.end == pair[1].datagrams.start));
        found
    }

    #[test]
    fn a_burst_is_of_one_peer_and_one_size() {
        assert_eq!(bursts(&[(1, 90), (1, 90), (2, 90), (2, 90), (1, 90)], true), [2, 2, 1]);
        assert_eq!(bursts(&[(1, 90), (1, 90), (1, 40), (1, 40), (1, 90)], true), [3, 1, 1]);
        assert_eq!(bursts(&[(1, 40), (1, 90)], true), [1, 1]);
        assert_eq!(bursts(&[(1, 90); 3], false), [1, 1, 1]);
        assert_eq!(bursts(&[], true), []);
    }

    #[test]
    fn a_burst_is_no_longer_than_the_kernel_takes() {
        assert_eq!(bursts(&[(1, 60); 130], true), [64, 64, 2]);
        assert_eq!(bursts(&[(1, 1472); 90], true), [44, 44, 2]);
    }
}
