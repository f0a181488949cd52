//! How a process takes the place of one that runs, without a packet lost: it gets the descriptors of the device and of the
//! UDP socket, and the peers, over the control socket; carries packets beside the old process; and only then tells it to
//! stop, which it does between two packets. Neither the device nor the socket is ever without a reader.
//!
//! ```text
//! new ── list, hand-over ──► old      peers; descriptors of device and socket
//! new    carries too; its control socket takes the old one's path
//! new ── release ──────────► old      passes on what it has taken, says ok, ends
//! ```
//! A process of the first protocol does not know `hand-over`: it is ended, and what it held is opened again.
//!
//! Sources: unix(7) (SCM_RIGHTS).

use crate::control::{parse_peer, take_line};
use crate::table::Prefix;
use crate::tunnel::Inheritance;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::io::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use weft_sys as sys;

/// How long the other process may think about an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_LIMIT_BYTES: usize = 16 << 20;

/// The process that goes.
pub struct Predecessor {
    stream: UnixStream,
    input: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    pub peers: BTreeMap<Prefix, SocketAddr>,
    hands_over: bool,
}

impl Predecessor {
    /// Nothing when nobody answers at the path.
    pub fn find(path: &str) -> Result<Option<Predecessor>, String> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(_) => return Ok(None),
        };
        let mut found = Predecessor {
            stream,
            input: Vec::new(),
            descriptors: Vec::new(),
            peers: BTreeMap::new(),
            hands_over: false,
        };
        found.stream.set_read_timeout(Some(PATIENCE)).map_err(|problem| problem.to_string())?;
        match found.ask("list") {
            Ok(Ok(lines)) => {
                for line in &lines {
                    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
                    let (subnet, remote) = parse_peer(&words)?;
                    found.peers.insert(subnet, remote);
                }
                Ok(Some(found))
            }
            // It was about to end anyway.
            Ok(Err(_)) => Ok(None),
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {
                Err(format!("the tunnel at {path} does not answer"))
            }
            Err(_) => Ok(None),
        }
    }

    /// What it hands over; when it does not know how, nothing, and it has ended.
    pub fn inherit(&mut self, device: &str) -> Result<Inheritance, String> {
        let lost = |problem: io::Error| format!("take over from the running tunnel: {problem}");
        let lines = match self.ask("hand-over").map_err(lost)? {
            Ok(lines) => lines,
            Err(_) => {
                self.end();
                return Ok(Inheritance::default());
            }
        };
        let value = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        let address: Option<IpAddr> = value("local").and_then(|text| text.parse().ok());
        let port: Option<u16> = value("port").and_then(|text| text.parse().ok());
        let (address, port) = match (address, port, value("device")) {
            (Some(address), Some(port), Some(name)) if name == device => (address, port),
            _ => return Err(format!("the running tunnel is not one of {device}")),
        };
        self.hands_over = true;
        let mut descriptors = self.descriptors.drain(..);
        match (descriptors.next(), descriptors.next()) {
            (Some(device), Some(socket)) => {
                let socket = Some((socket, SocketAddr::new(address, port)));
                Ok(Inheritance { device: Some(device), socket })
            }
            _ => Err("the running tunnel handed nothing over".into()),
        }
    }

    /// Tells it to stop and waits until it has. It is no harm when it has ended of itself.
    pub fn release(mut self) {
        if self.hands_over {
            let _ = self.ask("release");
        }
    }

    fn end(&mut self) {
        let _ = self.ask("shutdown");
        // Until its sockets are closed, or it has had its time.
        while matches!(self.receive(), Ok(count) if count > 0) {}
    }

    /// Sends a command; gives the lines of the answer, or what it says against it.
    fn ask(&mut self, command: &str) -> io::Result<Result<Vec<String>, String>> {
        self.stream.write_all(format!("{command}\n").as_bytes())?;
        let mut lines = Vec::new();
        loop {
            while let Some(line) = take_line(&mut self.input) {
                match line.strip_prefix("error ") {
                    Some(problem) => return Ok(Err(problem.to_string())),
                    None if line == "ok" => return Ok(Ok(lines)),
                    None => lines.push(line),
                }
            }
            if self.receive()? == 0 || self.input.len() > ANSWER_LIMIT_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 << 10];
        let count = sys::receive_descriptors(self.stream.as_raw_fd(), &mut bytes, &mut self.descriptors)?;
        self.input.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}
