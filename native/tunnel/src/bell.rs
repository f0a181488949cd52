//! Wakes the packet thread out of its sleep: a byte in a socket that it listens to beside its own two.

use std::io::{self, Read, Write};
use std::os::unix::io::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Bell {
    rope: UnixStream,
    heard: UnixStream,
    rung: AtomicBool,
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        let (rope, heard) = UnixStream::pair()?;
        for end in [&rope, &heard] {
            end.set_nonblocking(true)?;
        }
        Ok(Bell { rope, heard, rung: AtomicBool::new(false) })
    }

    pub fn ring(&self) {
        // When it is full, it has been rung.
        let _ = (&self.rope).write(&[0]);
        self.rung.store(true, Ordering::Release);
    }

    /// Makes it silent again; costs nothing while it is.
    pub fn hush(&self) {
        if self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel) {
            let mut bytes = [0; 64];
            while matches!((&self.heard).read(&mut bytes), Ok(count) if count > 0) {}
        }
    }

    pub fn fd(&self) -> RawFd {
        self.heard.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_until_it_is_hushed() {
        let bell = Bell::new().unwrap();
        let sounds = || {
            let mut polled = [weft_sys::pollfd { fd: bell.fd(), events: weft_sys::POLLIN, revents: 0 }];
            weft_sys::wait(&mut polled, 0).unwrap() > 0
        };
        assert!(!sounds());
        (0..3).for_each(|_| bell.ring());
        assert!(sounds());
        bell.hush();
        assert!(!sounds());
        bell.ring();
        assert!(sounds());
    }
}
