//! A server in a megabyte: HTTP, TCP, UDP and (where the kernel has it) SCTP, both address families, one thread, one poll
//! loop, a bounded number of connections. It answers what tests of a pod network ask: who are you, who do you think I am.
//!
//! Sources: agnhost netexec (paths and commands), poll(2), ipv6(7).

use crate::ping_socket::widen;
use crate::stream::{Protocol, Stream, OUTPUT_LIMIT_BYTES};
use crate::udp;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::raw::c_int;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use weft_sys as sys;
use weft_sys::{Options, SocketAddress};

const CONNECTION_LIMIT: usize = 256;
const LISTENER_LIMIT: usize = 64;
/// An HTTP connection without traffic is closed after this; a plain one may stay for ever.
const HTTP_IDLE_LIMIT: Duration = Duration::from_secs(60);

struct Listener {
    fd: OwnedFd,
    /// Nothing: datagrams.
    protocol: Option<Protocol>,
}

struct Connection {
    fd: OwnedFd,
    protocol: Protocol,
    stream: Stream,
    last_active: Instant,
    input_ended: bool,
}

pub fn main(arguments: &[String]) -> Result<i32, String> {
    let options = Options::parse(arguments, &["http", "tcp", "udp", "sctp"], &[])?;
    if let Some(extra) = options.rest.first() {
        return Err(format!("serve takes no argument {extra}"));
    }
    let listeners = open_listeners(&options)?;
    let signals = sys::open_signals(&[sys::SIGTERM, sys::SIGINT]).map_err(|problem| format!("signals: {problem}"))?;
    run(&listeners, &signals).map_err(|problem| format!("poll: {problem}"))
}

fn open_listeners(options: &Options) -> Result<Vec<Listener>, String> {
    let nothing_said = ["http", "tcp", "udp", "sctp"].iter().all(|name| !options.has(name));
    let kinds = [
        ("http", "8080", sys::SOCK_STREAM, sys::IPPROTO_TCP, Some(Protocol::Http)),
        ("tcp", "9000", sys::SOCK_STREAM, sys::IPPROTO_TCP, Some(Protocol::Plain)),
        ("udp", "9001", sys::SOCK_DGRAM, sys::IPPROTO_UDP, None),
        ("sctp", "", sys::SOCK_STREAM, sys::IPPROTO_SCTP, Some(Protocol::Plain)),
    ];
    let mut listeners = Vec::new();
    for (name, usual, kind, transport, protocol) in kinds {
        let usual: Vec<String> = if nothing_said && !usual.is_empty() { vec![usual.into()] } else { Vec::new() };
        for text in options.all(name).iter().chain(&usual) {
            let port = text.parse::<u16>().map_err(|problem| format!("--{name} {text}: {problem}"))?;
            match listen(kind, transport, port) {
                Ok(fd) => listeners.push(Listener { fd, protocol }),
                Err(problem) if transport == sys::IPPROTO_SCTP => eprintln!("weft-pod: no SCTP here: {problem}"),
                Err(problem) => return Err(format!("listen on {name} port {port}: {problem}")),
            }
        }
    }
    match listeners.len() {
        0 => Err("there is nothing to listen on".into()),
        1..=LISTENER_LIMIT => Ok(listeners),
        _ => Err(format!("more than {LISTENER_LIMIT} ports")),
    }
}

/// Both families on one socket; IPv4 alone where the kernel has no IPv6.
fn listen(kind: c_int, transport: c_int, port: u16) -> io::Result<OwnedFd> {
    let dual = sys::open_socket(sys::AF_INET6, kind | sys::SOCK_NONBLOCK, transport);
    let (fd, any): (OwnedFd, IpAddr) = match dual {
        Ok(fd) => (fd, Ipv6Addr::UNSPECIFIED.into()),
        Err(_) => (sys::open_socket(sys::AF_INET, kind | sys::SOCK_NONBLOCK, transport)?, Ipv4Addr::UNSPECIFIED.into()),
    };
    let raw = fd.as_raw_fd();
    if any.is_ipv6() {
        sys::set_option(raw, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY, 0)?;
        if kind == sys::SOCK_DGRAM {
            sys::set_option(raw, sys::IPPROTO_IPV6, sys::IPV6_RECVPKTINFO, 1)?;
        }
    }
    match kind {
        sys::SOCK_STREAM => sys::set_option(raw, sys::SOL_SOCKET, sys::SO_REUSEADDR, 1)?,
        sys::SOCK_DGRAM => widen(&fd),
        _ => {}
    }
    let address = SocketAddress::new(SocketAddr::new(any, port));
    sys::check(unsafe { sys::bind(raw, address.as_ptr(), address.len()) })?;
    if kind == sys::SOCK_STREAM {
        sys::check(unsafe { sys::listen(raw, 128) })?;
    }
    Ok(fd)
}

fn run(listeners: &[Listener], signals: &OwnedFd) -> io::Result<i32> {
    let mut connections: Vec<Connection> = Vec::new();
    let mut polled: Vec<sys::pollfd> = Vec::new();
    loop {
        polled.clear();
        polled.push(entry(signals.as_raw_fd(), sys::POLLIN));
        polled.extend(listeners.iter().map(|listener| entry(listener.fd.as_raw_fd(), sys::POLLIN)));
        polled.extend(connections.iter().map(|connection| entry(connection.fd.as_raw_fd(), connection.interest())));
        sys::wait(&mut polled, if connections.is_empty() { -1 } else { 5_000_000_000 })?;
        if polled[0].revents != 0 {
            return Ok(0);
        }
        let (listening, connected) = polled[1..].split_at(listeners.len());
        let host_name = sys::host_name();
        let now = Instant::now();
        for (connection, event) in connections.iter_mut().zip(connected) {
            if event.revents != 0 {
                connection.last_active = now;
                connection.exchange(&host_name);
            }
        }
        if let Some(code) = connections.iter().find_map(Connection::exit_code) {
            return Ok(code);
        }
        connections.retain(|connection| !connection.is_over(now));
        for (listener, event) in listeners.iter().zip(listening) {
            match listener.protocol {
                _ if event.revents == 0 => {}
                None => udp::serve(&listener.fd, &host_name)?,
                Some(protocol) => accept(&listener.fd, protocol, &mut connections, now),
            }
        }
    }
}

fn entry(fd: RawFd, events: i16) -> sys::pollfd {
    sys::pollfd { fd, events, revents: 0 }
}

fn accept(listener: &OwnedFd, protocol: Protocol, connections: &mut Vec<Connection>, now: Instant) {
    loop {
        let mut from = SocketAddress::empty();
        let mut length = from.len();
        let flags = sys::SOCK_CLOEXEC | sys::SOCK_NONBLOCK;
        let accepted = unsafe { sys::accept4(listener.as_raw_fd(), from.as_mut_ptr(), &mut length, flags) };
        let fd = match sys::own(accepted) {
            Ok(fd) => fd,
            // Nobody waits any more, or that one is already gone; a lack of descriptors is met by the limit below.
            Err(_) => return,
        };
        let _ = sys::set_option(fd.as_raw_fd(), sys::IPPROTO_TCP, sys::TCP_NODELAY, 1);
        let client = from.get_unmapped().map_or_else(String::new, |address| address.to_string());
        if connections.len() >= CONNECTION_LIMIT {
            make_room(connections);
        }
        if connections.len() < CONNECTION_LIMIT {
            let stream = Stream::new(protocol, client);
            connections.push(Connection { fd, protocol, stream, last_active: now, input_ended: false });
        }
    }
}

/// Closes the HTTP connection that has been quiet the longest. Plain connections stay: somebody measures with them.
fn make_room(connections: &mut Vec<Connection>) {
    let quietest = connections
        .iter()
        .enumerate()
        .filter(|(_, connection)| connection.protocol == Protocol::Http)
        .min_by_key(|(_, connection)| connection.last_active)
        .map(|(index, _)| index);
    if let Some(index) = quietest {
        connections.swap_remove(index);
    }
}

impl Connection {
    fn interest(&self) -> i16 {
        let mut events = 0;
        if !self.input_ended && !self.stream.finished && self.stream.output.len() < OUTPUT_LIMIT_BYTES {
            events |= sys::POLLIN;
        }
        if !self.stream.output.is_empty() {
            events |= sys::POLLOUT;
        }
        events
    }

    fn exchange(&mut self, host_name: &str) {
        if self.interest() & sys::POLLIN != 0 {
            let mut bytes = [0u8; 16 << 10];
            match sys::read_fd(self.fd.as_raw_fd(), &mut bytes) {
                Ok(0) => {
                    self.input_ended = true;
                    self.stream.end(host_name);
                }
                Ok(count) => self.stream.receive(&bytes[..count], host_name),
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.abandon(),
            }
        }
        if !self.stream.output.is_empty() {
            match sys::write_fd(self.fd.as_raw_fd(), &self.stream.output) {
                Ok(count) => {
                    self.stream.output.drain(..count);
                }
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.abandon(),
            }
        }
        if self.stream.output.is_empty() {
            // A connection that once carried much keeps nothing of it.
            self.stream.output = Vec::new();
        }
    }

    fn abandon(&mut self) {
        self.stream.finished = true;
        self.stream.output.clear();
    }

    fn exit_code(&self) -> Option<i32> {
        self.stream.exit_code.filter(|_| self.stream.output.is_empty())
    }

    fn is_over(&self, now: Instant) -> bool {
        let done = self.stream.finished && self.stream.output.is_empty();
        done || (self.protocol == Protocol::Http && now.duration_since(self.last_active) > HTTP_IDLE_LIMIT)
    }
}
