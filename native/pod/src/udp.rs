//! The datagram side of the tiny server. Each answer leaves from the address that was asked, also when the pod or the node
//! has several.
//!
//! Sources: RFC 3542 section 6 (IPV6_PKTINFO); ipv6(7); agnhost netexec (the commands `hostname`, `echo` and `clientip`).

use crate::ping::{REPLY_MAGIC, REQUEST_MAGIC};
use crate::stream::answer;
use std::io;
use std::mem::size_of;
use std::os::unix::io::{AsRawFd, OwnedFd};
use weft_sys as sys;
use weft_sys::SocketAddress;

/// Longest datagram read; the rest of a longer one is lost.
const DATAGRAM_LIMIT_BYTES: usize = 9216;
const CONTROL_BYTES: usize = 128;

/// Aligned room for control messages.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Answers every datagram that waits: commands, and the messages of `ping1k`. Anything else, answers among it, gets none, so
/// that a forged datagram cannot keep two servers busy with each other for ever.
pub fn serve(socket: &OwnedFd, host_name: &str) -> io::Result<()> {
    let mut bytes = [0u8; DATAGRAM_LIMIT_BYTES];
    for _ in 0..64 {
        let mut from = SocketAddress::empty();
        let mut control = Control([0; CONTROL_BYTES]);
        let mut part = sys::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message = sys::msghdr {
            msg_name: from.as_mut_ptr(),
            msg_namelen: size_of::<SocketAddress>() as sys::socklen_t,
            msg_iov: &mut part,
            msg_iovlen: 1,
            msg_control: control.0.as_mut_ptr().cast(),
            msg_controllen: CONTROL_BYTES,
            msg_flags: 0,
        };
        let received = sys::retry(|| unsafe { sys::recvmsg(socket.as_raw_fd(), &mut message, sys::MSG_DONTWAIT) });
        let length = match received {
            Ok(length) => length as usize,
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // What ICMP said about an earlier answer.
            Err(_) => continue,
        };
        let client = from.get_unmapped().map_or_else(String::new, |address| address.to_string());
        let reply = match answer(&bytes[..length], host_name, &client) {
            Some(text) => text,
            None if bytes[..length].starts_with(REQUEST_MAGIC) => [&REPLY_MAGIC[..], &bytes[4..length]].concat(),
            None => continue,
        };
        let mut part = sys::iovec { iov_base: reply.as_ptr() as *mut _, iov_len: reply.len() };
        message.msg_iov = &mut part;
        // The control message that came, IPV6_PKTINFO, names the address to answer from; the index in it would also pin
        // the device, and the way back may be another.
        forget_device(&mut control, message.msg_controllen);
        message.msg_control =
            if message.msg_controllen == 0 { std::ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
        message.msg_flags = 0;
        let sent = sys::retry(|| unsafe { sys::sendmsg(socket.as_raw_fd(), &message, sys::MSG_DONTWAIT) });
        // An answer that cannot be sent is lost, as any datagram may be.
        drop(sent);
    }
    Ok(())
}

fn forget_device(control: &mut Control, length: usize) {
    let index_at = size_of::<sys::cmsghdr>() + 16;
    if length >= index_at + 4 && !is_link_local(&control.0[size_of::<sys::cmsghdr>()..index_at]) {
        control.0[index_at..index_at + 4].fill(0);
    }
}

fn is_link_local(address: &[u8]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}
