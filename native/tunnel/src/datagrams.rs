//! Sends a run of datagrams to one peer in as few calls as the kernel allows: as one burst that it cuts itself
//! (UDP_SEGMENT), or as one list (sendmmsg).
//!
//! Sources: udp(7), Documentation/networking/msg_zerocopy.rst is deliberately not used: completions cost more than the copy.

use crate::counters::Counter;
use crate::table::Peer;
use crate::tunnel::Tunnel;
use std::io;
use std::mem::size_of;
use std::sync::atomic::Ordering;
use weft_sys as sys;

/// Datagrams in one burst: what every kernel with UDP_SEGMENT takes.
pub const BURST_LIMIT: usize = 64;

/// One datagram: a header and a payload that may stand apart, or all of it in the first part.
pub type Datagram = [sys::iovec; 2];

#[repr(C, align(8))]
struct SegmentControl {
    header: sys::cmsghdr,
    segment_bytes: u16,
    padding: [u8; 6],
}

/// Most bytes of one burst: an IP packet's with the outer headers taken off.
pub fn burst_limit_bytes(tunnel: &Tunnel) -> usize {
    65_535 - if tunnel.local.is_ipv4() { 28 } else { 48 }
}

/// Sends datagrams that all have `each_bytes` but the last, which may have fewer. What cannot be sent is counted and lost.
pub fn send(tunnel: &Tunnel, peer: &Peer, datagrams: &mut [Datagram], each_bytes: usize) {
    let bytes: usize = datagrams.iter().map(length).sum();
    let lost = if datagrams.len() == 1 || !tunnel.sends_bursts.load(Ordering::Relaxed) {
        send_list(tunnel, peer, datagrams)
    } else {
        match send_burst(tunnel, peer, datagrams, each_bytes) {
            Ok(()) => 0,
            Err(problem) if is_refusal(&problem) => {
                tunnel.counters.add(Counter::SegmentationRefused, 1);
                if matches!(problem.raw_os_error(), Some(sys::EIO | sys::EOPNOTSUPP)) {
                    tunnel.sends_bursts.store(false, Ordering::Relaxed);
                }
                send_list(tunnel, peer, datagrams)
            }
            Err(_) => datagrams.len(),
        }
    };
    tunnel.counters.add(Counter::SentPackets, (datagrams.len() - lost) as u64);
    tunnel.counters.add(Counter::SentBytes, bytes as u64);
    tunnel.counters.add(Counter::SendCalls, 1);
    if lost > 0 {
        tunnel.counters.add(Counter::SendError, lost as u64);
    }
}

fn length(datagram: &Datagram) -> usize {
    datagram[0].iov_len + datagram[1].iov_len
}

/// EINVAL and EMSGSIZE: the way to this peer has a smaller MTU than the datagrams; one by one the kernel fragments them.
fn is_refusal(problem: &io::Error) -> bool {
    matches!(problem.raw_os_error(), Some(sys::EIO | sys::EOPNOTSUPP | sys::EINVAL | sys::EMSGSIZE))
}

fn send_burst(tunnel: &Tunnel, peer: &Peer, datagrams: &mut [Datagram], each_bytes: usize) -> io::Result<()> {
    let mut control = SegmentControl {
        header: sys::cmsghdr {
            cmsg_len: size_of::<sys::cmsghdr>() + size_of::<u16>(),
            cmsg_level: sys::SOL_UDP,
            cmsg_type: sys::UDP_SEGMENT,
        },
        segment_bytes: each_bytes as u16,
        padding: [0; 6],
    };
    let mut message = message_to(peer);
    message.msg_iov = datagrams.as_mut_ptr().cast();
    message.msg_iovlen = datagrams.len() * 2;
    message.msg_control = (&mut control as *mut SegmentControl).cast();
    message.msg_controllen = size_of::<SegmentControl>();
    sys::retry(|| unsafe { sys::sendmsg(tunnel.socket_fd(), &message, 0) }).map(|_| ())
}

/// Returns how many were lost.
fn send_list(tunnel: &Tunnel, peer: &Peer, datagrams: &mut [Datagram]) -> usize {
    let mut messages = [sys::mmsghdr { msg_hdr: message_to(peer), msg_len: 0 }; BURST_LIMIT];
    let mut lost = 0;
    for run in datagrams.chunks_mut(BURST_LIMIT) {
        for (message, datagram) in messages.iter_mut().zip(run.iter_mut()) {
            message.msg_hdr.msg_iov = datagram.as_mut_ptr();
            message.msg_hdr.msg_iovlen = 2;
        }
        let mut done = 0;
        while done < run.len() {
            let rest = &mut messages[done..run.len()];
            let sent =
                sys::retry(|| unsafe { sys::sendmmsg(tunnel.socket_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) });
            match sent {
                Ok(count) => done += count as usize,
                // The first of the rest cannot be sent; the others may.
                Err(_) => {
                    lost += 1;
                    done += 1;
                }
            }
        }
    }
    lost
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
