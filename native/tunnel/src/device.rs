//! The TUN device: made persistent, so that it and the routes over it outlive this process, and opened with the virtio-net
//! header and every offload that the kernel says it has, so that one read can bring a burst of segments.
//!
//! Sources: Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h, include/uapi/linux/virtio_net.h.

use std::fs::OpenOptions;
use std::io;
use std::os::raw::c_ulong;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use weft_sys as sys;

/// Longest device name (IFNAMSIZ without its NUL).
const NAME_LIMIT_BYTES: usize = 15;
const VNET_HEADER_BYTES: usize = 10;
/// Packets that wait in the device while this process waits for a processor. The kernel's 500 are half a second of one flow
/// of 1,000 packets a second; these are more than a second of four. More would hold more memory: a burst counts as one.
const QUEUE_PACKETS: i32 = 4096;

/// `struct virtio_net_hdr`, in the machine's byte order.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct VnetHeader {
    pub flags: u8,
    pub gso_type: u8,
    pub header_bytes: u16,
    pub gso_bytes: u16,
    pub checksum_start: u16,
    pub checksum_offset: u16,
}

pub const NEEDS_CHECKSUM: u8 = 1;
pub const GSO_NONE: u8 = 0;
pub const GSO_TCP4: u8 = 1;
pub const GSO_TCP6: u8 = 4;
pub const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

impl VnetHeader {
    /// The kind of burst without the mark of ECN.
    pub fn kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }
}

pub struct Device {
    fd: OwnedFd,
    name: [u8; 16],
    /// Bytes of the header before every packet: those of `VnetHeader`, or none in a kernel without it.
    header_bytes: usize,
    offloads: c_ulong,
}

impl Device {
    /// Attaches to the device, making it when there is none. EBUSY: another process is attached.
    pub fn open(name: &str) -> io::Result<Device> {
        let mut request = sys::ifreq { ifr_name: name_bytes(name)?, ifr_ifru: [0; 24] };
        let fd = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/net/tun")?);
        let mut features: u32 = 0;
        ioctl(fd.as_raw_fd(), sys::TUNGETFEATURES, &mut features as *mut u32 as c_ulong)?;
        let vnet = features & sys::IFF_VNET_HDR as u32;
        let flags = sys::IFF_TUN | sys::IFF_NO_PI | vnet as i16;
        request.ifr_ifru[..2].copy_from_slice(&flags.to_ne_bytes());
        ioctl(fd.as_raw_fd(), sys::TUNSETIFF, &mut request as *mut sys::ifreq as c_ulong)?;
        Device::prepare(fd, request.ifr_name, vnet != 0)
    }

    /// Takes a descriptor over from another process that is attached to the device of this name.
    pub fn adopt(fd: OwnedFd, name: &str) -> io::Result<Device> {
        let mut request = sys::ifreq { ifr_name: [0; 16], ifr_ifru: [0; 24] };
        ioctl(fd.as_raw_fd(), sys::TUNGETIFF, &mut request as *mut sys::ifreq as c_ulong)?;
        if request.ifr_name != name_bytes(name)? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is another device's"));
        }
        let flags = i16::from_ne_bytes([request.ifr_ifru[0], request.ifr_ifru[1]]);
        Device::prepare(fd, request.ifr_name, flags & sys::IFF_VNET_HDR != 0)
    }

    fn prepare(fd: OwnedFd, name: [u8; 16], has_vnet_header: bool) -> io::Result<Device> {
        let header_bytes = if has_vnet_header { VNET_HEADER_BYTES } else { 0 };
        if has_vnet_header {
            let mut size = VNET_HEADER_BYTES as i32;
            ioctl(fd.as_raw_fd(), sys::TUNSETVNETHDRSZ, &mut size as *mut i32 as c_ulong)?;
        }
        let offloads = if has_vnet_header { choose_offloads(fd.as_raw_fd()) } else { 0 };
        ioctl(fd.as_raw_fd(), sys::TUNSETPERSIST, 1)?;
        sys::check(unsafe { sys::fcntl(fd.as_raw_fd(), sys::F_SETFL, sys::O_NONBLOCK) })?;
        let device = Device { fd, name, header_bytes, offloads };
        device.set_number(sys::SIOCSIFTXQLEN, QUEUE_PACKETS)?;
        Ok(device)
    }

    pub fn set_mtu(&self, mtu_bytes: u32) -> io::Result<()> {
        self.set_number(sys::SIOCSIFMTU, mtu_bytes as i32)
    }

    fn set_number(&self, what: c_ulong, value: i32) -> io::Result<()> {
        let mut request = sys::ifreq { ifr_name: self.name, ifr_ifru: [0; 24] };
        request.ifr_ifru[..4].copy_from_slice(&value.to_ne_bytes());
        let socket = sys::open_socket(sys::AF_INET, sys::SOCK_DGRAM, 0)?;
        ioctl(socket.as_raw_fd(), what, &mut request as *mut sys::ifreq as c_ulong)
    }

    /// Lets the device go away with this process.
    pub fn forget(&self) -> io::Result<()> {
        ioctl(self.fd.as_raw_fd(), sys::TUNSETPERSIST, 0)
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Whether bursts of UDP may be written to the device.
    pub fn takes_udp_bursts(&self) -> bool {
        self.offloads & (sys::TUN_F_USO4 | sys::TUN_F_USO6) != 0
    }

    /// Whether bursts of TCP may be written to the device.
    pub fn takes_tcp_bursts(&self) -> bool {
        self.header_bytes != 0
    }

    pub fn offload_names(&self) -> Vec<&'static str> {
        let known = [
            (sys::TUN_F_CSUM, "checksum"),
            (sys::TUN_F_TSO4, "tso4"),
            (sys::TUN_F_TSO6, "tso6"),
            (sys::TUN_F_USO4, "uso4"),
            (sys::TUN_F_USO6, "uso6"),
        ];
        known.iter().filter(|(bit, _)| self.offloads & bit != 0).map(|(_, name)| *name).collect()
    }
}

/// The most that the kernel accepts.
fn choose_offloads(fd: RawFd) -> c_ulong {
    let tcp = sys::TUN_F_CSUM | sys::TUN_F_TSO4 | sys::TUN_F_TSO6;
    let with_ecn = tcp | sys::TUN_F_TSO_ECN;
    let with_udp = with_ecn | sys::TUN_F_USO4 | sys::TUN_F_USO6;
    let accepted = [with_udp, with_ecn, tcp, sys::TUN_F_CSUM].into_iter();
    let found = accepted.into_iter().find(|bits| ioctl(fd, sys::TUNSETOFFLOAD, *bits).is_ok());
    found.unwrap_or_else(|| {
        // An earlier owner of the device may have left some switched on.
        let _ = ioctl(fd, sys::TUNSETOFFLOAD, 0);
        0
    })
}

fn ioctl(fd: RawFd, request: c_ulong, argument: c_ulong) -> io::Result<()> {
    sys::check(unsafe { sys::ioctl(fd, request, argument) }).map(|_| ())
}

fn name_bytes(name: &str) -> io::Result<[u8; 16]> {
    let bytes = name.as_bytes();
    // The kernel would read "%d" as "any free number".
    let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"/:%".contains(byte);
    if bytes.is_empty() || bytes.len() > NAME_LIMIT_BYTES || !bytes.iter().all(allowed) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device name"));
    }
    let mut out = [0; 16];
    out[..bytes.len()].copy_from_slice(bytes);
    Ok(out)
}
