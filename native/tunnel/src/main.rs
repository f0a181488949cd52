//! The user-space UDP tunnel of one node: flannel's `udp` wire format (an inner IP packet is the whole payload of an outer
//! datagram), carried in bursts on both ends where the kernel offers them.
//!
//! ```text
//!   pods ◄─► route ◄─► TUN device ◄─► [packet thread] ◄─► UDP socket ◄─► wire ◄─► a peer
//!                                     [main thread: control socket]
//! ```
//! The process is independent of the agent: peers are set over the control socket and stay when the agent is gone. The
//! device is persistent: it and the routes over it stay when the process is gone.
//!
//! Sources: flannel pkg/backend/udp (wire format; the time to live goes down by one on each end);
//! Documentation/networking/tuntap.rst; udp(7).

mod bell;
mod carry;
mod checksum;
mod control;
mod counters;
mod datagrams;
mod device;
mod handover;
mod icmp;
mod merge;
mod outside;
mod packet;
mod receive;
mod segment;
mod send;
mod table;
mod tunnel;

use carry::Carrier;
use control::Door;
use handover::Predecessor;
use std::net::{IpAddr, SocketAddr};
use table::{Definition, Prefix};
use tunnel::{Inheritance, Tunnel};
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
  --take-over              take the place of the tunnel that answers at PATH, if one does, with its peers: no packet is lost
  --leave-container        leave the container that this starts in for where process 1 is, and live on when it ends; see there
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
    let options = Options::parse(arguments, &valued, &["take-over", "leave-container"])?;
    if let Some(extra) = options.rest.first() {
        return Err(format!("there is no argument {extra}"));
    }
    let device: String = options.required("device")?;
    let mtu_bytes = control::parse_mtu(options.text("mtu").ok_or("--mtu is missing")?)?;
    let port = options.parsed("port")?.unwrap_or(8285);
    let local = SocketAddr::new(options.required("local")?, port);
    let control_path: String = options.required("control")?;
    let mut definition = parse_definition(&options, port)?;

    if options.has("leave-container") {
        let others: Vec<String> = arguments.iter().filter(|each| *each != "--leave-container").cloned().collect();
        outside::leave(&others).map_err(|problem| format!("leave the container: {problem}"))?;
    }
    // One that was started from memory would be called by a number.
    unsafe { sys::prctl(sys::PR_SET_NAME, b"weft-tunnel\0".as_ptr() as u64) };
    // Before the threads, which inherit the mask.
    let signals = sys::open_signals(&[sys::SIGTERM, sys::SIGINT]).map_err(|problem| format!("signals: {problem}"))?;
    let mut predecessor = if options.has("take-over") {
        Predecessor::find(&control_path)?
    } else {
        control::expect_silence(&control_path)?;
        None
    };
    let inherited = match &mut predecessor {
        Some(predecessor) => {
            predecessor.peers.append(&mut definition.peers);
            definition.peers.append(&mut predecessor.peers);
            predecessor.inherit(&device)?
        }
        None => Inheritance::default(),
    };
    let tunnel = Tunnel::open(&device, mtu_bytes, local, definition, inherited)?;
    // The thread lives as long as the process; its end is the process's end.
    let tunnel: &'static Tunnel = Box::leak(Box::new(tunnel));
    let carrier = Carrier::start(tunnel).map_err(|problem| format!("start to carry: {problem}"))?;
    let door = Door::open(&control_path)?;
    if let Some(predecessor) = predecessor {
        predecessor.release();
    }
    // For whoever started this process and waits; it may have gone already.
    let _ = sys::write_all(1, b"ready\n");
    control::serve(tunnel, door, &signals, carrier).map_err(|problem| format!("control socket: {problem}"))
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
