//! A terminal for a program: a pseudo terminal whose slave end becomes the program's controlling terminal, while this
//! process carries bytes between the master end and its own standard input and output. Terminal sizes come on a
//! descriptor of their own, a line `COLUMNS ROWS` each; the first is waited for, so that the program starts with it.
//!
//! Sources: pty(7), ptmx(4), ioctl_tty(2) (TIOCSCTTY, TIOCSWINSZ, TIOCGPTPEER), setsid(2).

use std::fs::OpenOptions;
use std::io;
use std::os::raw::{c_int, c_ulong, c_ushort};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
use weft_sys as sys;

const O_RDWR: c_int = 2;
const O_NOCTTY: c_int = 0o400;
const O_CLOEXEC: c_int = 0o2000000;
const TIOCSCTTY: c_ulong = 0x540e;
const TIOCSWINSZ: c_ulong = 0x5414;
const TIOCGPTPEER: c_ulong = 0x5441;
const TIOCSPTLCK: c_ulong = 0x4004_5431;

extern "C" {
    fn setsid() -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
}

/// Bytes carried at once.
const CHUNK: usize = 16384;
/// Longest line of the size descriptor; anything longer is dropped.
const LINE_LIMIT: usize = 64;
/// How long the first size is waited for.
const FIRST_SIZE_NS: i64 = 200_000_000;
/// How long output of what an ended program left behind on its terminal is waited for.
const LEFTOVER_NS: i64 = 100_000_000;
/// What a terminal takes for the end of input.
const END_OF_INPUT: u8 = 4;

#[repr(C)]
struct WindowSize {
    rows: c_ushort,
    columns: c_ushort,
    width_pixels: c_ushort,
    height_pixels: c_ushort,
}

/// Both ends of a new pseudo terminal.
pub struct Terminal {
    master: OwnedFd,
    /// Given up by the parent: it would keep the terminal open for ever.
    slave: Option<OwnedFd>,
    sizes: Option<Sizes>,
}

/// The descriptor that sizes come on, and what was read of an unfinished line.
struct Sizes {
    fd: OwnedFd,
    line: Vec<u8>,
}

impl Terminal {
    /// Opens a terminal, before any namespace is entered: the pod may have no /dev/ptmx. `sizes` is the number of an open
    /// descriptor.
    pub fn open(sizes: Option<c_int>) -> io::Result<Terminal> {
        let options = OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY).clone();
        let master = OwnedFd::from(options.open("/dev/ptmx")?);
        let unlocked: c_int = 0;
        let pointer = &unlocked as *const c_int as c_ulong;
        sys::check(unsafe { sys::ioctl(master.as_raw_fd(), TIOCSPTLCK, pointer) })?;
        let flags = (O_RDWR | O_NOCTTY | O_CLOEXEC) as c_ulong;
        let slave = sys::own(unsafe { sys::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags) })?;
        sys::check(unsafe { sys::fcntl(master.as_raw_fd(), sys::F_SETFL, sys::O_NONBLOCK | O_RDWR) })?;
        // SAFETY: the caller opened it for this use and gives it away.
        let sizes = sizes.map(|fd| Sizes { fd: unsafe { OwnedFd::from_raw_fd(fd) }, line: Vec::new() });
        let mut terminal = Terminal { master, slave: Some(slave), sizes };
        terminal.wait_for_size()?;
        Ok(terminal)
    }

    fn wait_for_size(&mut self) -> io::Result<()> {
        let sizes = match &self.sizes {
            Some(sizes) => sizes,
            None => return Ok(()),
        };
        let mut ready = [sys::pollfd { fd: sizes.fd.as_raw_fd(), events: sys::POLLIN, revents: 0 }];
        if sys::wait(&mut ready, FIRST_SIZE_NS)? > 0 {
            self.read_sizes()?;
        }
        Ok(())
    }

    /// Reads what the size descriptor has; its end closes it.
    fn read_sizes(&mut self) -> io::Result<()> {
        let sizes = match &mut self.sizes {
            Some(sizes) => sizes,
            None => return Ok(()),
        };
        let mut bytes = [0u8; 256];
        let count = sys::read_fd(sizes.fd.as_raw_fd(), &mut bytes)?;
        for byte in &bytes[..count] {
            if *byte != b'\n' {
                sizes.line.push(*byte);
                continue;
            }
            if let Some(size) = parse_size(&sizes.line) {
                let pointer = &size as *const WindowSize as c_ulong;
                sys::check(unsafe { sys::ioctl(self.master.as_raw_fd(), TIOCSWINSZ, pointer) })?;
            }
            sizes.line.clear();
        }
        if sizes.line.len() > LINE_LIMIT {
            sizes.line.clear();
        }
        if count == 0 {
            self.sizes = None;
        }
        Ok(())
    }

    /// In the child: a session of its own with the slave end as its terminal and as its three standard streams.
    pub fn become_controlling(&self) -> io::Result<()> {
        sys::check(unsafe { setsid() })?;
        let slave = self.slave.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        sys::check(unsafe { sys::ioctl(slave, TIOCSCTTY, 0) })?;
        for stream in 0..3 {
            sys::check(unsafe { dup2(slave, stream) })?;
        }
        Ok(())
    }

    /// In the parent: carries bytes both ways until the program has ended. `signals` is readable when a child has, `ended`
    /// tells its exit code then.
    pub fn carry(mut self, signals: OwnedFd, mut ended: impl FnMut() -> Option<i32>) -> io::Result<i32> {
        self.slave = None;
        let master = self.master.as_raw_fd();
        let mut reading = true;
        let mut typed: Vec<u8> = Vec::new();
        let mut code = None;
        let mut buffer = vec![0u8; CHUNK];
        loop {
            let size_fd = self.sizes.as_ref().map_or(-1, |sizes| sizes.fd.as_raw_fd());
            let typing = if typed.is_empty() { 0 } else { sys::POLLOUT };
            let mut fds = [
                sys::pollfd { fd: master, events: sys::POLLIN | typing, revents: 0 },
                sys::pollfd { fd: if reading && typed.is_empty() { 0 } else { -1 }, events: sys::POLLIN, revents: 0 },
                sys::pollfd { fd: size_fd, events: sys::POLLIN, revents: 0 },
                sys::pollfd { fd: signals.as_raw_fd(), events: sys::POLLIN, revents: 0 },
            ];
            let patience = if code.is_some() { LEFTOVER_NS } else { -1 };
            if sys::wait(&mut fds, patience)? == 0 {
                if let Some(code) = code {
                    return Ok(code);
                }
                continue;
            }
            if fds[2].revents != 0 {
                self.read_sizes()?;
            }
            if fds[1].revents != 0 {
                let count = sys::read_fd(0, &mut buffer)?;
                typed.extend_from_slice(if count == 0 { &[END_OF_INPUT] } else { &buffer[..count] });
                reading = count > 0;
            }
            if fds[3].revents != 0 {
                drain(&signals);
                code = code.or_else(&mut ended);
            }
            if fds[0].revents & sys::POLLOUT != 0 {
                let count = sys::write_fd(master, &typed).unwrap_or(0);
                typed.drain(..count);
            }
            if fds[0].revents & !sys::POLLOUT != 0 {
                match sys::read_fd(master, &mut buffer) {
                    Ok(count) if count > 0 => sys::write_all(1, &buffer[..count])?,
                    // Nobody holds the slave end any more.
                    _ => return wait_for(code, &signals, &mut ended),
                }
            }
        }
    }
}

fn drain(signals: &OwnedFd) {
    let mut bytes = [0u8; 512];
    let _ = sys::read_fd(signals.as_raw_fd(), &mut bytes);
}

fn wait_for(code: Option<i32>, signals: &OwnedFd, ended: &mut impl FnMut() -> Option<i32>) -> io::Result<i32> {
    let mut found = code;
    loop {
        if let Some(code) = found.or_else(&mut *ended) {
            return Ok(code);
        }
        sys::wait(&mut [sys::pollfd { fd: signals.as_raw_fd(), events: sys::POLLIN, revents: 0 }], -1)?;
        drain(signals);
        found = None;
    }
}

/// `COLUMNS ROWS`
fn parse_size(line: &[u8]) -> Option<WindowSize> {
    let text = std::str::from_utf8(line).ok()?;
    let (columns, rows) = text.split_once(' ')?;
    Some(WindowSize { rows: rows.parse().ok()?, columns: columns.parse().ok()?, width_pixels: 0, height_pixels: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_columns_and_rows() {
        let size = parse_size(b"80 24").unwrap();
        assert_eq!((size.columns, size.rows), (80, 24));
        for bad in [&b"80"[..], b"80 ", b"x 24", b"80 70000", b"80 24 1", b"\xff 1"] {
            assert!(parse_size(bad).is_none());
        }
    }
}
