//! What the threads of one tunnel share, and its two ends: the TUN device and the UDP socket, opened here or taken over from
//! the process that had them before.

use crate::bell::Bell;
use crate::counters::Counters;
use crate::device::Device;
use crate::table::{Definition, Table, TableSlot};
use std::io;
use std::net::SocketAddr;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use weft_sys as sys;
use weft_sys::SocketAddress;

/// Room for what arrives while the packet thread waits for a processor: the kernel counts a small datagram as 1 to 2 KB, so
/// that the room, which it doubles, is for as many packets as the device's queue holds.
const SOCKET_BUFFER_BYTES: i32 = 8 << 20;
/// A process that was just ended holds its device and its port until its threads have left their system calls.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Tunnel {
    pub device: Device,
    pub device_name: String,
    pub socket: OwnedFd,
    pub local: SocketAddr,
    pub mtu_bytes: AtomicU32,
    pub table: TableSlot,
    pub counters: Counters,
    /// Wakes the packet thread.
    pub bell: Bell,
    /// The socket cuts bursts into datagrams (UDP_SEGMENT). Cleared for good when the way out turns out not to.
    pub sends_bursts: AtomicBool,
    /// The socket joins datagrams into bursts (UDP_GRO).
    pub receives_bursts: bool,
    definition: Mutex<Definition>,
}

/// What another process handed over.
#[derive(Default)]
pub struct Inheritance {
    pub device: Option<OwnedFd>,
    /// The socket and the address that it is bound to.
    pub socket: Option<(OwnedFd, SocketAddr)>,
}

impl Tunnel {
    pub fn open(
        device_name: &str,
        mtu_bytes: u32,
        local: SocketAddr,
        definition: Definition,
        inherited: Inheritance,
    ) -> Result<Tunnel, String> {
        let device = match inherited.device {
            Some(fd) => Device::adopt(fd, device_name),
            None => patiently(|| Device::open(device_name)),
        };
        let device = device.map_err(|problem| match problem.raw_os_error() {
            Some(sys::EBUSY) => format!("device {device_name} has another process attached to it"),
            _ => format!("open device {device_name}: {problem}"),
        })?;
        device.set_mtu(mtu_bytes).map_err(|problem| format!("set MTU {mtu_bytes} of {device_name}: {problem}"))?;
        let socket = match inherited.socket {
            Some((socket, address)) if address == local => socket,
            _ => patiently(|| open_socket(local)).map_err(|problem| format!("listen on {local}: {problem}"))?,
        };
        let fd = socket.as_raw_fd();
        Ok(Tunnel {
            device,
            device_name: device_name.to_string(),
            sends_bursts: AtomicBool::new(sys::get_option(fd, sys::SOL_UDP, sys::UDP_SEGMENT).is_ok()),
            receives_bursts: sys::set_option(fd, sys::SOL_UDP, sys::UDP_GRO, 1).is_ok(),
            socket,
            local,
            mtu_bytes: AtomicU32::new(mtu_bytes),
            table: TableSlot::new(Table::new(&definition, local.ip())),
            counters: Counters::default(),
            bell: Bell::new().map_err(|problem| format!("bell: {problem}"))?,
            definition: Mutex::new(definition),
        })
    }

    pub fn socket_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn set_mtu(&self, mtu_bytes: u32) -> io::Result<()> {
        self.device.set_mtu(mtu_bytes)?;
        self.mtu_bytes.store(mtu_bytes, Ordering::Relaxed);
        Ok(())
    }

    pub fn definition(&self) -> Definition {
        self.lock().clone()
    }

    /// Changes the definition and puts the table made from it in force, as one step for the packet threads.
    pub fn change(&self, change: impl FnOnce(&mut Definition)) {
        let mut definition = self.lock();
        change(&mut definition);
        self.table.replace(Table::new(&definition, self.local.ip()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Definition> {
        self.definition.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Tries again for a moment what somebody else is still holding.
fn patiently<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(problem) if is_held(&problem) && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

fn is_held(problem: &io::Error) -> bool {
    matches!(problem.raw_os_error(), Some(sys::EBUSY | sys::EADDRINUSE))
}

fn open_socket(local: SocketAddr) -> io::Result<OwnedFd> {
    let domain = if local.is_ipv4() { sys::AF_INET } else { sys::AF_INET6 };
    let socket = sys::open_socket(domain, sys::SOCK_DGRAM, sys::IPPROTO_UDP)?;
    let fd = socket.as_raw_fd();
    if local.is_ipv6() {
        sys::set_option(fd, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY, 1)?;
    }
    for (forced, usual) in [(sys::SO_RCVBUFFORCE, sys::SO_RCVBUF), (sys::SO_SNDBUFFORCE, sys::SO_SNDBUF)] {
        if sys::set_option(fd, sys::SOL_SOCKET, forced, SOCKET_BUFFER_BYTES).is_err() {
            sys::set_option(fd, sys::SOL_SOCKET, usual, SOCKET_BUFFER_BYTES)?;
        }
    }
    let address = SocketAddress::new(local);
    sys::check(unsafe { sys::bind(fd, address.as_ptr(), address.len()) })?;
    Ok(socket)
}
