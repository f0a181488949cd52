//! Descriptors that travel over a unix socket (SCM_RIGHTS).
//!
//! Sources: unix(7), cmsg(3).

use crate::call::{own, retry};
use crate::declarations::*;
use std::io;
use std::mem::size_of;
use std::os::raw::c_int;
use std::os::unix::io::{OwnedFd, RawFd};

/// Descriptors in one message.
pub const DESCRIPTOR_LIMIT: usize = 4;

#[repr(C)]
struct Control {
    header: cmsghdr,
    descriptors: [c_int; DESCRIPTOR_LIMIT],
}

impl Control {
    fn new(count: usize) -> Control {
        let cmsg_len = size_of::<cmsghdr>() + count * size_of::<c_int>();
        Control {
            header: cmsghdr { cmsg_len, cmsg_level: SOL_SOCKET, cmsg_type: SCM_RIGHTS },
            descriptors: [-1; DESCRIPTOR_LIMIT],
        }
    }
}

/// Sends bytes (at least one) with descriptors, which stay open here too. Returns how many bytes went; the descriptors went
/// with the first.
pub fn send_descriptors(socket: RawFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<usize> {
    if bytes.is_empty() || descriptors.len() > DESCRIPTOR_LIMIT {
        return Err(io::Error::from_raw_os_error(EINVAL));
    }
    let mut control = Control::new(descriptors.len());
    control.descriptors[..descriptors.len()].copy_from_slice(descriptors);
    let mut part = iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let message = message(&mut part, &mut control, size_of::<cmsghdr>() + descriptors.len() * size_of::<c_int>());
    retry(|| unsafe { sendmsg(socket, &message, MSG_NOSIGNAL) }).map(|count| count as usize)
}

/// Receives bytes, and appends descriptors that came with them (closed on exec). Zero bytes are the end.
pub fn receive_descriptors(socket: RawFd, out: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = Control::new(0);
    let mut part = iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    let mut message = message(&mut part, &mut control, size_of::<Control>());
    let count = retry(|| unsafe { recvmsg(socket, &mut message, MSG_CMSG_CLOEXEC) })?;
    let carries = message.msg_controllen >= size_of::<cmsghdr>()
        && (control.header.cmsg_level, control.header.cmsg_type) == (SOL_SOCKET, SCM_RIGHTS);
    if carries {
        let length = control.header.cmsg_len.min(message.msg_controllen) - size_of::<cmsghdr>();
        for descriptor in &control.descriptors[..(length / size_of::<c_int>()).min(DESCRIPTOR_LIMIT)] {
            descriptors.push(own(*descriptor)?);
        }
    }
    Ok(count as usize)
}

fn message(part: &mut iovec, control: &mut Control, control_bytes: usize) -> msghdr {
    msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: part,
        msg_iovlen: 1,
        msg_control: (control as *mut Control).cast(),
        msg_controllen: control_bytes,
        msg_flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::io::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_as_another_name_of_the_same_thing() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        assert_eq!(send_descriptors(left.as_raw_fd(), b"two", &[far.as_raw_fd(), left.as_raw_fd()]).unwrap(), 3);
        drop(far);
        let (mut bytes, mut descriptors) = ([0; 8], Vec::new());
        assert_eq!(receive_descriptors(right.as_raw_fd(), &mut bytes, &mut descriptors).unwrap(), 3);
        assert_eq!((&bytes[..3], descriptors.len()), (&b"two"[..], 2));
        UnixStream::from(descriptors.remove(0)).write_all(b"x").unwrap();
        let mut text = [0; 1];
        near.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"x");
        assert!(send_descriptors(left.as_raw_fd(), b"", &[]).is_err());
        (&left).write_all(b"plain").unwrap();
        let mut none = Vec::new();
        assert_eq!(receive_descriptors(right.as_raw_fd(), &mut bytes, &mut none).unwrap(), 5);
        assert!(none.is_empty());
    }
}
