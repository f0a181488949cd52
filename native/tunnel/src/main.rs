//! The user-space UDP tunnel of one node: flannel's `udp` wire format (an inner IP packet is the whole payload of an outer
//! datagram), carried in bursts on both ends where the kernel offers them.
//!
//! ```text
//!   pods ─► route ─► TUN device ─► [send thread]    ─► UDP socket ─► wire ─► a peer
//!   pods ◄─ route ◄─ TUN device ◄─ [receive thread] ◄─ UDP socket ◄─ wire ◄─ a peer
//!                         [main thread: control socket]
//! ```
//! The process is independent of the agent: peers are set over the control socket and stay when the agent is gone. The
//! device is persistent: it and the routes over it stay when the process is gone.
//!
//! Sources: flannel pkg/backend/udp (wire format; the time to live goes down by one on each end);
//! Documentation/networking/tuntap.rst; udp(7).

mod checksum;
mod control;
mod counters;
mod datagrams;
mod device;
mod icmp;
mod merge;
mod packet;
mod receive;
mod segment;
mod send;
mod table;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::thread;
use table::{Definition, Prefix};
use tunnel::Tunnel;
use weft_sys as sys;
use weft_sys::Options;

const HELP: &str = "\
weft-tunnel: the user-space UDP tunnel of one node

  weft-tunnel --device NAME --mtu BYTES --local ADDRESS --control PATH [options]

  --device NAME            TUN device, made when it does not exist; it stays when this process ends
  --mtu BYTES              its MTU: the underlay's less 28 (48 over IPv6)
  --local ADDRESS          address to send from and to listen on
  --port PORT              UDP port (8285)
  --control PATH           unix socket for commands; see native/README.md
  --subnet NETWORK         a network of this node (repeatable): only packets to it are let in
  --peer NETWORK=ADDRESS   a first peer, on the same port (repeatable); others come over the control socket
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => return print!("{HELP}"),
        Some("--version") => {
            return println!("weft-tunnel {} {}", control::PROTOCOL_VERSION, env!("CARGO_PKG_VERSION"))
        }
        _ => {}
    }
    if let Err(problem) = run(&arguments) {
        eprintln!("weft-tunnel: {problem}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let valued = ["device", "mtu", "local", "port", "control", "subnet", "peer"];
    let options = Options::parse(arguments, &valued, &[])?;
    if let Some(extra) = options.rest.first() {
        return Err(format!("there is no argument {extra}"));
    }
    let device: String = options.required("device")?;
    let mtu_bytes = control::parse_mtu(options.text("mtu").ok_or("--mtu is missing")?)?;
    let port = options.parsed("port")?.unwrap_or(8285);
    let local = SocketAddr::new(options.required("local")?, port);
    let control_path: String = options.required("control")?;
    let definition = parse_definition(&options, port)?;

    control::expect_silence(&control_path)?;
    // Before the threads, which inherit the mask.
    let signals = sys::open_signals(&[sys::SIGTERM, sys::SIGINT]).map_err(|problem| format!("signals: {problem}"))?;
    let tunnel = Tunnel::open(&device, mtu_bytes, local, definition)?;
    let listener = control::listen(&control_path)?;
    // The threads wait in system calls that nothing interrupts; the end of the process is their end.
    let tunnel: &'static Tunnel = Box::leak(Box::new(tunnel));
    start("weft-send", move || send::Sender::new(tunnel).run())?;
    start("weft-receive", move || receive::Receiver::new(tunnel).run())?;
    // For whoever started this process and waits; it may have gone already.
    let _ = sys::write_all(1, b"ready\n");
    let served = control::serve(tunnel, &listener, &signals).map_err(|problem| format!("control socket: {problem}"));
    let _ = std::fs::remove_file(&control_path);
    served
}

fn start(name: &str, body: impl FnOnce() -> std::io::Error + Send + 'static) -> Result<(), String> {
    let whole = move || {
        let problem = body();
        eprintln!("weft-tunnel: {}: {problem}", thread::current().name().unwrap_or("thread"));
        std::process::exit(1);
    };
    let thread = thread::Builder::new().name(name.into()).stack_size(128 << 10).spawn(whole);
    thread.map(|_| ()).map_err(|problem| format!("start {name}: {problem}"))
}

fn parse_definition(options: &Options, port: u16) -> Result<Definition, String> {
    let mut definition = Definition::default();
    for text in options.all("subnet") {
        definition.subnets.push(text.parse::<Prefix>()?);
    }
    for text in options.all("peer") {
        let (subnet, remote) = text.split_once('=').ok_or("--peer wants NETWORK=ADDRESS")?;
        let remote: IpAddr = remote.parse().map_err(|_| format!("{remote} is not an address"))?;
        definition.peers.insert(subnet.parse()?, SocketAddr::new(remote, port));
    }
    Ok(definition)
}
