//! Sends numbered messages at a steady rate and says afterwards what happened to them: the measure of "nothing was lost".
//! Never bursts to catch up: a late message makes the next ones later.
//!
//! ```text
//! message   "WEFT"  u32 run  u64 number  u64 nanoseconds since the start  zeros up to the size   (big endian)
//! ```
//! An answer is the same message; the UDP server writes "weft" into it, so that answers are never answered.

use crate::meter::Meter;
use crate::ping_socket::{PingSocket, Way};
use std::io;
use std::net::IpAddr;
use std::os::unix::io::AsRawFd;
use std::time::Instant;
use weft_sys as sys;
use weft_sys::Options;

pub const REQUEST_MAGIC: &[u8; 4] = b"WEFT";
pub const REPLY_MAGIC: &[u8; 4] = b"weft";
const LEAST_BYTES: usize = 32;
const MOST_BYTES: usize = 9000;
/// Without an answer for this long, a ping-pong goes on with the next message.
const LOST_AFTER_NS: u64 = 100_000_000;
const MOST_PER_SECOND: u64 = 200_000;

struct Plan {
    to: IpAddr,
    from: Option<IpAddr>,
    way: Way,
    interval_ns: u64,
    duration_ns: Option<u64>,
    wait_ns: u64,
    message_bytes: usize,
    /// Send the next message when the last one was answered, instead of at the rate.
    ping_pong: bool,
}

pub fn main(arguments: &[String]) -> Result<i32, String> {
    let plan = Plan::parse(arguments)?;
    let signals = sys::open_signals(&[sys::SIGTERM, sys::SIGINT]).map_err(|problem| format!("signals: {problem}"))?;
    let mut socket = PingSocket::open(plan.way, plan.to, plan.from, plan.message_bytes)
        .map_err(|problem| format!("reach {}: {problem}", plan.to))?;
    let mut session = Session::new(&plan);
    session.run(&mut socket, signals.as_raw_fd()).map_err(|problem| format!("poll: {problem}"))?;
    println!("{}", session.to_json());
    Ok(if session.meter.count_received() > 0 { 0 } else { 1 })
}

impl Plan {
    fn parse(arguments: &[String]) -> Result<Plan, String> {
        let valued = ["to", "from", "udp", "tcp", "rate", "duration-ms", "wait-ms", "size"];
        let options = Options::parse(arguments, &valued, &["icmp", "ping-pong"])?;
        if let Some(extra) = options.rest.first() {
            return Err(format!("ping1k takes no argument {extra}"));
        }
        let way = match (options.has("icmp"), options.parsed("udp")?, options.parsed("tcp")?) {
            (_, None, None) => Way::Icmp,
            (false, Some(port), None) => Way::Udp(port),
            (false, None, Some(port)) => Way::Tcp(port),
            _ => return Err("--icmp, --udp and --tcp exclude each other".into()),
        };
        let rate: u64 = options.parsed("rate")?.unwrap_or(1000);
        if rate == 0 || rate > MOST_PER_SECOND {
            return Err(format!("--rate must be 1 to {MOST_PER_SECOND}"));
        }
        let message_bytes = options.parsed("size")?.unwrap_or(64);
        if !(LEAST_BYTES..=MOST_BYTES).contains(&message_bytes) {
            return Err(format!("--size must be {LEAST_BYTES} to {MOST_BYTES}"));
        }
        let milliseconds = |name: &str| -> Result<Option<u64>, String> {
            Ok(options.parsed::<u32>(name)?.map(|value| u64::from(value) * 1_000_000))
        };
        Ok(Plan {
            to: options.required("to")?,
            from: options.parsed("from")?,
            way,
            interval_ns: 1_000_000_000 / rate,
            duration_ns: milliseconds("duration-ms")?,
            wait_ns: milliseconds("wait-ms")?.unwrap_or(1_000_000_000),
            message_bytes,
            ping_pong: options.has("ping-pong"),
        })
    }
}

struct Session<'a> {
    plan: &'a Plan,
    start: Instant,
    run: u32,
    meter: Meter,
    send_errors: u64,
    last_problem: Option<String>,
    /// A TCP connection ended before its time.
    broken: bool,
}

impl<'a> Session<'a> {
    fn new(plan: &'a Plan) -> Session<'a> {
        Session {
            plan,
            start: Instant::now(),
            run: std::process::id(),
            meter: Meter::default(),
            send_errors: 0,
            last_problem: None,
            broken: false,
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn run(&mut self, socket: &mut PingSocket, signals: i32) -> io::Result<()> {
        let mut next_ns = 0;
        let mut end_ns = self.plan.duration_ns.unwrap_or(u64::MAX);
        loop {
            let now_ns = self.now_ns();
            let sending = now_ns < end_ns && !self.broken;
            let answered = self.plan.ping_pong && self.meter.is_complete();
            if sending && (answered || now_ns >= next_ns) {
                self.send(socket, now_ns);
                next_ns = match self.plan.ping_pong {
                    true => now_ns + LOST_AFTER_NS,
                    false => (next_ns + self.plan.interval_ns).max(now_ns),
                };
            }
            let over_ns = end_ns.saturating_add(self.plan.wait_ns);
            if !sending && (self.broken || self.meter.is_complete() || now_ns >= over_ns) {
                return Ok(());
            }
            let until_ns = if sending { next_ns.min(end_ns) } else { over_ns };
            let mut polled = [
                sys::pollfd { fd: signals, events: if sending { sys::POLLIN } else { 0 }, revents: 0 },
                sys::pollfd { fd: socket.fd(), events: socket.interest(), revents: 0 },
            ];
            sys::wait(&mut polled, until_ns.saturating_sub(self.now_ns()) as i64)?;
            if polled[0].revents != 0 {
                end_ns = end_ns.min(self.now_ns());
            }
            if polled[1].revents != 0 {
                self.receive(socket);
            }
        }
    }

    fn send(&mut self, socket: &mut PingSocket, now_ns: u64) {
        let mut message = vec![0u8; self.plan.message_bytes];
        message[..4].copy_from_slice(REQUEST_MAGIC);
        message[4..8].copy_from_slice(&self.run.to_be_bytes());
        message[8..16].copy_from_slice(&self.meter.count_sent().to_be_bytes());
        message[16..24].copy_from_slice(&now_ns.to_be_bytes());
        let result = socket.send(&message);
        self.meter.sent(now_ns);
        if let Err(problem) = result {
            self.send_errors += 1;
            self.note(problem);
        }
    }

    fn receive(&mut self, socket: &mut PingSocket) {
        let (run, start, meter) = (self.run, self.start, &mut self.meter);
        let before = meter.count_received();
        let received = socket.receive(|message| {
            if let Some((number, sent_ns)) = parse_message(message, run) {
                meter.received(number, sent_ns, start.elapsed().as_nanos() as u64);
            }
        });
        if before == 0 && self.meter.count_received() > 0 {
            eprintln!("first reply");
        }
        if let Err(problem) = received.and_then(|()| socket.flush()) {
            self.note(problem);
        }
    }

    fn note(&mut self, problem: io::Error) {
        let stalled = problem.kind() == io::ErrorKind::WouldBlock;
        self.broken |= matches!(self.plan.way, Way::Tcp(_)) && !stalled;
        self.last_problem = Some(problem.to_string());
    }

    fn to_json(&self) -> String {
        let (name, port) = match self.plan.way {
            Way::Icmp => ("icmp", 0),
            Way::Udp(port) => ("udp", port),
            Way::Tcp(port) => ("tcp", port),
        };
        // Error texts of the system hold nothing that JSON forbids but quotes.
        let problem =
            self.last_problem.as_ref().map_or("null".into(), |text| format!("\"{}\"", text.replace('"', "'")));
        format!(
            "{{\"protocol\":\"{name}\",\"to\":\"{}\",\"port\":{port},{},\"sendErrors\":{},\"broken\":{},\"problem\":{problem},\"elapsedMs\":{}}}",
            self.plan.to,
            self.meter.to_json(),
            self.send_errors,
            self.broken,
            self.now_ns() / 1_000_000,
        )
    }
}

/// Number and time of a message of this run.
fn parse_message(message: &[u8], run: u32) -> Option<(u64, u64)> {
    let header = message.get(..24)?;
    let known = header.starts_with(REQUEST_MAGIC) || header.starts_with(REPLY_MAGIC);
    if !known || header[4..8] != run.to_be_bytes() {
        return None;
    }
    let word = |at: usize| header[at..at + 8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    Some((word(8), word(16)))
}
