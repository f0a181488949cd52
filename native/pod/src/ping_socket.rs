//! The three ways in which numbered messages travel: in ICMP echo requests, in datagrams, in a TCP connection.
//!
//! Sources: RFC 792 and RFC 4443 section 4 (echo), RFC 1071 (checksum), raw(7).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use weft_sys as sys;
use weft_sys::SocketAddress;

const ICMP_HEADER_BYTES: usize = 8;
/// A TCP connection that has stalled keeps this much; what would be sent beyond it counts as not sent.
const BACKLOG_LIMIT_BYTES: usize = 1 << 20;
/// Room for what arrives while this program, or whoever answers it, waits for a processor: the kernel's usual 208 KiB hold
/// 300 small messages, and what the measure itself loses would count as lost on the way.
const RECEIVE_BUFFER_BYTES: i32 = 8 << 20;
const CONNECT_TIMEOUT_NS: i64 = 5_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Icmp,
    Udp(u16),
    Tcp(u16),
}

pub struct PingSocket {
    fd: OwnedFd,
    way: Way,
    is_v6: bool,
    identifier: u16,
    message_bytes: usize,
    sequence: u16,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
}

impl PingSocket {
    /// `message_bytes` is the size of every message. A TCP connection stands when this returns.
    pub fn open(way: Way, to: IpAddr, from: Option<IpAddr>, message_bytes: usize) -> io::Result<PingSocket> {
        let is_v6 = to.is_ipv6();
        let domain = if is_v6 { sys::AF_INET6 } else { sys::AF_INET };
        let echo = if is_v6 { sys::IPPROTO_ICMPV6 } else { sys::IPPROTO_ICMP };
        let (kind, transport, port) = match way {
            Way::Icmp => (sys::SOCK_RAW, echo, 0),
            Way::Udp(port) => (sys::SOCK_DGRAM, sys::IPPROTO_UDP, port),
            Way::Tcp(port) => (sys::SOCK_STREAM, sys::IPPROTO_TCP, port),
        };
        let fd = sys::open_socket(domain, kind | sys::SOCK_NONBLOCK, transport)?;
        if let Some(from) = from {
            let source = SocketAddress::new(SocketAddr::new(from, 0));
            sys::check(unsafe { sys::bind(fd.as_raw_fd(), source.as_ptr(), source.len()) })?;
        }
        let target = SocketAddress::new(SocketAddr::new(to, port));
        let connected = sys::check(unsafe { sys::connect(fd.as_raw_fd(), target.as_ptr(), target.len()) });
        match (connected, way) {
            (Ok(_), _) => {}
            (Err(problem), Way::Tcp(_)) if problem.raw_os_error() == Some(sys::EINPROGRESS) => await_connection(&fd)?,
            (Err(problem), _) => return Err(problem),
        }
        if !matches!(way, Way::Tcp(_)) {
            widen(&fd);
        }
        if let Way::Tcp(_) = way {
            sys::set_option(fd.as_raw_fd(), sys::IPPROTO_TCP, sys::TCP_NODELAY, 1)?;
        }
        let identifier = std::process::id() as u16;
        Ok(PingSocket { fd, way, is_v6, identifier, message_bytes, sequence: 0, outbox: Vec::new(), inbox: Vec::new() })
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn interest(&self) -> i16 {
        sys::POLLIN | if self.outbox.is_empty() { 0 } else { sys::POLLOUT }
    }

    /// Sends one message. An error of a datagram way means that this message is lost; one of TCP, that the connection is.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self.way {
            Way::Icmp => {
                let packet = self.echo_request(message);
                self.send_now(&packet).map(|_| ())
            }
            Way::Udp(_) => self.send_now(message).map(|_| ()),
            Way::Tcp(_) if self.outbox.len() >= BACKLOG_LIMIT_BYTES => Err(io::ErrorKind::WouldBlock.into()),
            Way::Tcp(_) => {
                self.outbox.extend_from_slice(message);
                self.flush()
            }
        }
    }

    /// Sends on what a TCP connection could not take earlier.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.send_now(&self.outbox) {
                Ok(count) => {
                    self.outbox.drain(..count);
                }
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(problem) => return Err(problem),
            }
        }
        Ok(())
    }

    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = sys::MSG_NOSIGNAL | sys::MSG_DONTWAIT;
        let send = || unsafe { sys::sendto(self.fd(), bytes.as_ptr().cast(), bytes.len(), flags, std::ptr::null(), 0) };
        sys::retry(send).map(|count| count as usize)
    }

    /// Hands over every message that has arrived. Errors are as those of `send`; `UnexpectedEof` is the end of a connection.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut bytes = [0u8; 64 << 10];
        loop {
            let count = match sys::read_fd(self.fd(), &mut bytes) {
                Ok(0) if matches!(self.way, Way::Tcp(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(problem) => return Err(problem),
            };
            match self.way {
                Way::Icmp => self.echo_reply(&bytes[..count]).into_iter().for_each(&mut each),
                Way::Udp(_) => each(&bytes[..count]),
                Way::Tcp(_) => {
                    self.inbox.extend_from_slice(&bytes[..count]);
                    let whole = self.inbox.len() / self.message_bytes * self.message_bytes;
                    self.inbox[..whole].chunks_exact(self.message_bytes).for_each(&mut each);
                    self.inbox.drain(..whole);
                }
            }
        }
    }

    fn echo_request(&mut self, message: &[u8]) -> Vec<u8> {
        let kind = if self.is_v6 { 128 } else { 8 };
        let mut packet = vec![kind, 0, 0, 0];
        packet.extend_from_slice(&self.identifier.to_be_bytes());
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(message);
        self.sequence = self.sequence.wrapping_add(1);
        if !self.is_v6 {
            let sum = checksum(&packet).to_be_bytes();
            packet[2..4].copy_from_slice(&sum);
        }
        packet
    }

    /// The message of an echo reply to this process; nothing for other ICMP traffic.
    fn echo_reply<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let (kind, skipped) = if self.is_v6 { (129, 0) } else { (0, usize::from(packet.first()? & 0x0f) * 4) };
        let echo = packet.get(skipped..)?;
        let header = echo.get(..ICMP_HEADER_BYTES)?;
        let ours = header[0] == kind && header[1] == 0 && header[4..6] == self.identifier.to_be_bytes();
        ours.then(|| &echo[ICMP_HEADER_BYTES..])
    }
}

/// Gives a socket of datagrams room for a long wait; without the privilege, what the system allows.
pub fn widen(fd: &OwnedFd) {
    let set = |name| sys::set_option(fd.as_raw_fd(), sys::SOL_SOCKET, name, RECEIVE_BUFFER_BYTES);
    let _ = set(sys::SO_RCVBUFFORCE).or_else(|_| set(sys::SO_RCVBUF));
}

fn await_connection(fd: &OwnedFd) -> io::Result<()> {
    let mut polled = [sys::pollfd { fd: fd.as_raw_fd(), events: sys::POLLOUT, revents: 0 }];
    if sys::wait(&mut polled, CONNECT_TIMEOUT_NS)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match sys::get_option(fd.as_raw_fd(), sys::SOL_SOCKET, sys::SO_ERROR)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The Internet checksum of a message whose checksum field is zero.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_as_the_rfc_does() {
        // RFC 1071 section 3: the words 0001 f203 f4f5 f6f7 add up to ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
