//! The control socket: lines of words in, lines out, each answer ended by `ok` or `error TEXT`. It outlives any agent: one
//! that starts finds the tunnel here, compares what it is with what is wanted, and changes only what differs.
//!
//! The commands are in native/README.md.

use crate::carry::{Carrier, Stop};
use crate::table::{Definition, Prefix};
use crate::tunnel::Tunnel;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::io::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use weft_sys as sys;

/// Grows with every new command. Commands keep their meaning: an agent and a tunnel of neighbouring versions understand each
/// other. Since 2: `hand-over`, `release`. Since 3: `look`.
pub const PROTOCOL_VERSION: u32 = 3;
const CLIENT_LIMIT: usize = 16;
const LINE_LIMIT_BYTES: usize = 4096;
const OUTPUT_LIMIT_BYTES: usize = 16 << 20;
const PEER_LIMIT: usize = 65_536;

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Lines of a `replace-peers` that are still to come, and what came so far.
    replacement: Option<(usize, BTreeMap<Prefix, SocketAddr>, Option<String>)>,
    /// The device and the socket go with the next bytes.
    hands_over: bool,
    /// Has got them, and will either say `release` or be gone.
    is_heir: bool,
    closing: bool,
}

/// The listening socket and its path.
pub struct Door {
    listener: UnixListener,
    path: String,
    inode: Option<(u64, u64)>,
}

/// Refuses when something answers at the path.
pub fn expect_silence(path: &str) -> Result<(), String> {
    match UnixStream::connect(path) {
        Ok(_) => Err(format!("another tunnel answers at {path}")),
        Err(_) => Ok(()),
    }
}

impl Door {
    /// Listens, for its owner alone, in place of whoever listened before: there is no moment at which nobody does.
    pub fn open(path: &str) -> Result<Door, String> {
        let said = |problem: io::Error| format!("listen on {path}: {problem}");
        let hidden = Path::new(path).with_file_name(format!(".{}", std::process::id()));
        match std::fs::remove_file(&hidden) {
            Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(said(problem)),
            _ => {}
        }
        let before = unsafe { sys::umask(0o177) };
        let listener = UnixListener::bind(&hidden);
        unsafe { sys::umask(before) };
        let listener = listener.map_err(said)?;
        let shown = std::fs::rename(&hidden, path).and_then(|()| listener.set_nonblocking(true));
        shown.map_err(|problem| {
            let _ = std::fs::remove_file(&hidden);
            said(problem)
        })?;
        Ok(Door { listener, path: path.to_string(), inode: inode_of(path) })
    }

    fn is_ours(&self) -> bool {
        self.inode.is_some() && self.inode == inode_of(&self.path)
    }

    /// Nobody finds it any more. The path of a successor is left alone.
    fn close(&self) {
        if self.is_ours() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode_of(path: &str) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Serves until a signal, `shutdown` or `release`. Then every packet taken is passed on and the socket's path is gone or a
/// successor's; connections end with the process, after all else that it held.
pub fn serve(tunnel: &Tunnel, mut door: Door, signals: &OwnedFd, carrier: Carrier) -> io::Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut polled = vec![
            sys::pollfd { fd: signals.as_raw_fd(), events: sys::POLLIN, revents: 0 },
            sys::pollfd { fd: door.listener.as_raw_fd(), events: sys::POLLIN, revents: 0 },
        ];
        for client in &clients {
            let events = if client.output.is_empty() { sys::POLLIN } else { sys::POLLOUT };
            polled.push(sys::pollfd { fd: client.stream.as_raw_fd(), events, revents: 0 });
        }
        sys::wait(&mut polled, -1)?;
        let mut last = if polled[0].revents != 0 { Some(Stop::Empty) } else { None };
        for (client, event) in clients.iter_mut().zip(&polled[2..]) {
            if event.revents != 0 {
                if let Next::End(when) = client.exchange(tunnel) {
                    last = Some(when);
                }
            }
        }
        if let Some(when) = last {
            // Before the answer: who has got it, or sees the connection end, may start the next process at once.
            carrier.stop(when);
            door.close();
            clients.iter_mut().for_each(|client| client.write(tunnel));
            std::mem::forget(clients);
            return Ok(());
        }
        let heir_is_gone = clients.iter().any(|client| client.closing && client.is_heir);
        clients.retain(|client| !client.closing);
        if heir_is_gone && !door.is_ours() {
            match Door::open(&door.path) {
                Ok(again) => door = again,
                Err(problem) => eprintln!("weft-tunnel: {problem}"),
            }
        }
        if polled[1].revents != 0 {
            accept(&door.listener, &mut clients);
        }
    }
}

fn accept(listener: &UnixListener, clients: &mut Vec<Client>) {
    while let Ok((stream, _)) = listener.accept() {
        if clients.len() < CLIENT_LIMIT && stream.set_nonblocking(true).is_ok() {
            clients.push(Client {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                replacement: None,
                hands_over: false,
                is_heir: false,
                closing: false,
            });
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End(Stop),
}

/// The first whole line of what has come, which is taken out; without its end.
pub fn take_line(input: &mut Vec<u8>) -> Option<String> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let line = String::from_utf8_lossy(&input[..end]).trim().to_string();
    input.drain(..=end);
    Some(line)
}

impl Client {
    fn exchange(&mut self, tunnel: &Tunnel) -> Next {
        let mut bytes = [0; 16 << 10];
        if self.output.is_empty() {
            match sys::read_fd(self.stream.as_raw_fd(), &mut bytes) {
                Ok(0) => self.closing = true,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(problem) => self.closing = problem.kind() != io::ErrorKind::WouldBlock,
            }
        }
        while let Some(line) = take_line(&mut self.input) {
            if let Next::End(when) = self.line(tunnel, &line) {
                return Next::End(when);
            }
        }
        self.closing |= self.input.len() > LINE_LIMIT_BYTES || self.output.len() > OUTPUT_LIMIT_BYTES;
        self.write(tunnel);
        Next::GoOn
    }

    fn write(&mut self, tunnel: &Tunnel) {
        if self.output.is_empty() {
            return;
        }
        let socket = self.stream.as_raw_fd();
        let written = if self.hands_over {
            sys::send_descriptors(socket, &self.output, &[tunnel.device.fd(), tunnel.socket_fd()])
        } else {
            sys::write_fd(socket, &self.output)
        };
        match written {
            Ok(count) => {
                self.hands_over = false;
                self.output.drain(..count);
            }
            Err(problem) => self.closing |= problem.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn line(&mut self, tunnel: &Tunnel, line: &str) -> Next {
        if self.replacement.is_some() {
            self.replacement_line(tunnel, line);
            return Next::GoOn;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let result = match words[..] {
            [] => return Next::GoOn,
            ["shutdown"] => Ok(String::new()),
            ["shutdown", "destroy"] => tunnel.device.forget().map(|()| String::new()).map_err(|e| e.to_string()),
            ["hand-over"] => {
                (self.hands_over, self.is_heir) = (true, true);
                Ok(describe(tunnel))
            }
            ["release"] if self.is_heir => Ok(String::new()),
            ["release"] => Err("nothing was handed over here".into()),
            ["replace-peers", count] => match count.parse::<usize>() {
                Ok(count) if count <= PEER_LIMIT => {
                    self.replacement = Some((count, BTreeMap::new(), None));
                    if count == 0 {
                        self.finish_replacement(tunnel);
                    }
                    return Next::GoOn;
                }
                _ => Err(format!("{count} is no number of peers up to {PEER_LIMIT}")),
            },
            _ => answer(tunnel, &words),
        };
        let next = match words[0] {
            "shutdown" if result.is_ok() => Next::End(Stop::Empty),
            "release" if result.is_ok() => Next::End(Stop::Soon),
            _ => Next::GoOn,
        };
        self.reply(result);
        next
    }

    fn reply(&mut self, result: Result<String, String>) {
        match result {
            Ok(text) => {
                self.output.extend_from_slice(text.as_bytes());
                self.output.extend_from_slice(b"ok\n");
            }
            Err(problem) => self.output.extend_from_slice(format!("error {problem}\n").as_bytes()),
        }
    }

    fn replacement_line(&mut self, tunnel: &Tunnel, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (left, peers, problem) = match &mut self.replacement {
            Some(replacement) => (&mut replacement.0, &mut replacement.1, &mut replacement.2),
            None => return,
        };
        match parse_peer(&words) {
            Ok((subnet, remote)) => {
                peers.insert(subnet, remote);
            }
            Err(text) => *problem = problem.take().or(Some(text)),
        }
        *left -= 1;
        if *left == 0 {
            self.finish_replacement(tunnel);
        }
    }

    /// All of them or, when one line was wrong, none.
    fn finish_replacement(&mut self, tunnel: &Tunnel) {
        let result = match self.replacement.take() {
            Some((_, _, Some(problem))) => Err(problem),
            Some((_, peers, None)) => {
                tunnel.change(|definition| definition.peers = peers);
                Ok(String::new())
            }
            None => return,
        };
        self.reply(result);
    }
}

fn answer(tunnel: &Tunnel, words: &[&str]) -> Result<String, String> {
    match words {
        ["version"] => Ok(format!("version {PROTOCOL_VERSION} {}\n", env!("CARGO_PKG_VERSION"))),
        ["describe"] => Ok(describe(tunnel)),
        ["list"] => Ok(list(&tunnel.definition())),
        ["look"] => {
            tunnel.bell.ring();
            Ok(String::new())
        }
        ["stats"] => Ok(tunnel.counters.read().map(|(name, value)| format!("counter {name} {value}\n")).collect()),
        ["set-peer", rest @ ..] => {
            let (subnet, remote) = parse_peer(rest)?;
            let is_new = |definition: &Definition| !definition.peers.contains_key(&subnet);
            if is_new(&tunnel.definition()) && tunnel.definition().peers.len() >= PEER_LIMIT {
                return Err(format!("there are {PEER_LIMIT} peers already"));
            }
            tunnel.change(|definition| {
                definition.peers.insert(subnet, remote);
            });
            Ok(String::new())
        }
        ["delete-peer", subnet] => {
            let subnet: Prefix = subnet.parse()?;
            let mut found = false;
            tunnel.change(|definition| found = definition.peers.remove(&subnet).is_some());
            if found {
                Ok(String::new())
            } else {
                Err(format!("there is no peer for {subnet}"))
            }
        }
        ["set-subnets", subnets @ ..] => {
            let subnets: Vec<Prefix> = subnets.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
            tunnel.change(|definition| definition.subnets = subnets);
            Ok(String::new())
        }
        ["set-mtu", mtu] => {
            let mtu_bytes = parse_mtu(mtu)?;
            tunnel.set_mtu(mtu_bytes).map_err(|problem| format!("set MTU {mtu_bytes}: {problem}"))?;
            Ok(String::new())
        }
        _ => Err(format!("there is no command {:?}", words.join(" "))),
    }
}

fn describe(tunnel: &Tunnel) -> String {
    let mut offloads = tunnel.device.offload_names();
    if tunnel.sends_bursts.load(Ordering::Relaxed) {
        offloads.push("udp-segment");
    }
    if tunnel.receives_bursts {
        offloads.push("udp-gro");
    }
    let mut out = format!(
        "device {}\nmtu {}\nlocal {}\nport {}\npid {}\nnetns {}\noffloads {}\n",
        tunnel.device_name,
        tunnel.mtu_bytes.load(Ordering::Relaxed),
        tunnel.local.ip(),
        tunnel.local.port(),
        std::process::id(),
        own_network_namespace(),
        offloads.join(" "),
    );
    for subnet in tunnel.definition().subnets {
        out.push_str(&format!("subnet {subnet}\n"));
    }
    out
}

/// The number of the namespace's nsfs file: what tells one namespace from another.
fn own_network_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |file| file.ino())
}

fn list(definition: &Definition) -> String {
    let line = |(subnet, remote): (&Prefix, &SocketAddr)| format!("peer {subnet} {} {}\n", remote.ip(), remote.port());
    definition.peers.iter().map(line).collect()
}

pub fn parse_peer(words: &[&str]) -> Result<(Prefix, SocketAddr), String> {
    match words {
        [subnet, ip, port] => {
            let ip: IpAddr = ip.parse().map_err(|_| format!("{ip} is not an address"))?;
            let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{port} is not a port"))?;
            Ok((subnet.parse()?, SocketAddr::new(ip, port)))
        }
        _ => Err("a peer is NETWORK ADDRESS PORT".into()),
    }
}

/// An MTU that both families can live with.
pub fn parse_mtu(text: &str) -> Result<u32, String> {
    let range = 576..=65_500;
    text.parse().ok().filter(|mtu| range.contains(mtu)).ok_or_else(|| format!("{text} is no MTU from 576 to 65500"))
}
