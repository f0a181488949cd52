//! The plainest tunnel of flannel's `udp` wire format: one thread, one packet a system call, no offload. It stands for
//! flannel's own proxy in benches and interoperation tests: the same order of calls (while either side has something, try
//! both without waiting; otherwise poll), the same decrement of the time to live on each end, a list of routes with the
//! last used one first. IPv4 only, as that.
//!
//! Source: flannel pkg/backend/udp (behaviour and wire format).

use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::raw::c_ulong;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use weft_sys as sys;
use weft_sys::{Options, SocketAddress};

const HELP: &str = "\
weft-udp-loop --device NAME --mtu BYTES --local ADDRESS [--port PORT] --peer NETWORK=ADDRESS...
    A one-packet-a-call UDP tunnel, to compare with. The device goes away with the process.
";
const V4_HEADER_BYTES: usize = 20;

struct Route {
    base: u32,
    mask: u32,
    next_hop: SocketAddress,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some("--help") {
        return print!("{HELP}");
    }
    if let Err(problem) = run(&arguments) {
        eprintln!("weft-udp-loop: {problem}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let options = Options::parse(arguments, &["device", "mtu", "local", "port", "peer"], &[])?;
    let port: u16 = options.parsed("port")?.unwrap_or(8285);
    let mtu_bytes: usize = options.required("mtu")?;
    let local: Ipv4Addr = options.required("local")?;
    let mut routes = options.all("peer").iter().map(|text| parse_route(text, port)).collect::<Result<Vec<_>, _>>()?;
    let said = |what: &'static str| move |problem: io::Error| format!("{what}: {problem}");
    let device = open_device(&options.required::<String>("device")?, mtu_bytes).map_err(said("open device"))?;
    let socket = sys::open_socket(sys::AF_INET, sys::SOCK_DGRAM, sys::IPPROTO_UDP).map_err(said("open socket"))?;
    let address = SocketAddress::new(SocketAddr::new(IpAddr::V4(local), port));
    sys::check(unsafe { sys::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) }).map_err(said("bind"))?;
    println!("ready");
    carry(device.as_raw_fd(), socket.as_raw_fd(), &mut vec![0; mtu_bytes], &mut routes).map_err(said("poll"))
}

fn carry(device: RawFd, socket: RawFd, buffer: &mut [u8], routes: &mut [Route]) -> io::Result<()> {
    loop {
        let entry = |fd| sys::pollfd { fd, events: sys::POLLIN, revents: 0 };
        sys::wait(&mut [entry(device), entry(socket)], -1)?;
        loop {
            let sent = send_one(device, socket, buffer, routes);
            let received = receive_one(socket, device, buffer);
            if !sent && !received {
                break;
            }
        }
    }
}

/// False when there was nothing to do.
fn send_one(device: RawFd, socket: RawFd, buffer: &mut [u8], routes: &mut [Route]) -> bool {
    let length = match sys::read_fd(device, buffer) {
        Ok(length) if length >= V4_HEADER_BYTES => length,
        _ => return false,
    };
    let destination = u32::from_be_bytes([buffer[16], buffer[17], buffer[18], buffer[19]]);
    let found = routes.iter().position(|route| destination & route.mask == route.base);
    if let Some(index) = found {
        routes.swap(0, index);
        if decrement(buffer) {
            let to = &routes[0].next_hop;
            let send = || unsafe { sys::sendto(socket, buffer.as_ptr().cast(), length, 0, to.as_ptr(), to.len()) };
            let _ = sys::retry(send);
        }
    }
    true
}

fn receive_one(socket: RawFd, device: RawFd, buffer: &mut [u8]) -> bool {
    let (nobody, none) = (std::ptr::null_mut(), std::ptr::null_mut());
    let received = sys::retry(|| unsafe {
        sys::recvfrom(socket, buffer.as_mut_ptr().cast(), buffer.len(), sys::MSG_DONTWAIT, nobody, none)
    });
    let length = match received {
        Ok(length) if length as usize >= V4_HEADER_BYTES => length as usize,
        _ => return false,
    };
    if decrement(buffer) {
        let _ = sys::write_fd(device, &buffer[..length]);
    }
    true
}

/// Takes one from the time to live; false when nothing is left.
fn decrement(packet: &mut [u8]) -> bool {
    packet[8] = packet[8].wrapping_sub(1);
    if packet[8] == 0 {
        return false;
    }
    let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]])) + 0x100;
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(folded as u16).to_be_bytes());
    true
}

fn parse_route(text: &str, port: u16) -> Result<Route, String> {
    let wrong = || format!("--peer {text}: not NETWORK=ADDRESS");
    let (network, next_hop) = text.split_once('=').ok_or_else(wrong)?;
    let (base, length) = network.split_once('/').ok_or_else(wrong)?;
    let base: Ipv4Addr = base.parse().map_err(|_| wrong())?;
    let length: u32 = length.parse().ok().filter(|length| (1..=32).contains(length)).ok_or_else(wrong)?;
    let next_hop: IpAddr = next_hop.parse().map_err(|_| wrong())?;
    let next_hop = SocketAddress::new(SocketAddr::new(next_hop, port));
    Ok(Route { base: u32::from(base), mask: u32::MAX << (32 - length), next_hop })
}

fn open_device(name: &str, mtu_bytes: usize) -> io::Result<OwnedFd> {
    let mut request = sys::ifreq { ifr_name: [0; 16], ifr_ifru: [0; 24] };
    let length = name.len().min(15);
    request.ifr_name[..length].copy_from_slice(&name.as_bytes()[..length]);
    request.ifr_ifru[..2].copy_from_slice(&(sys::IFF_TUN | sys::IFF_NO_PI).to_ne_bytes());
    let device = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/net/tun")?);
    ioctl(&device, sys::TUNSETIFF, &mut request as *mut sys::ifreq as c_ulong)?;
    sys::check(unsafe { sys::fcntl(device.as_raw_fd(), sys::F_SETFL, sys::O_NONBLOCK) })?;
    request.ifr_ifru[..4].copy_from_slice(&(mtu_bytes as i32).to_ne_bytes());
    let socket = sys::open_socket(sys::AF_INET, sys::SOCK_DGRAM, 0)?;
    ioctl(&socket, sys::SIOCSIFMTU, &mut request as *mut sys::ifreq as c_ulong)?;
    Ok(device)
}

fn ioctl(fd: &OwnedFd, request: c_ulong, argument: c_ulong) -> io::Result<()> {
    sys::check(unsafe { sys::ioctl(fd.as_raw_fd(), request, argument) }).map(|_| ())
}
