//! Calls with Rust's manners: errors as `io::Error`, interrupted calls repeated, descriptors owned.

use crate::declarations::*;
use std::ffi::{c_void, CString};
use std::io;
use std::mem::{size_of, MaybeUninit};
use std::os::raw::{c_char, c_int};
use std::os::unix::io::{FromRawFd, OwnedFd};

/// The value of a call that says -1 for "see errno".
pub fn check<T: PartialOrd + Default>(result: T) -> io::Result<T> {
    if result < T::default() {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Repeats a call for as long as signals interrupt it.
pub fn retry<T: PartialOrd + Default>(mut call: impl FnMut() -> T) -> io::Result<T> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Takes a descriptor that a call has just returned into ownership.
pub fn own(result: c_int) -> io::Result<OwnedFd> {
    // SAFETY: a non-negative result of the calls this is used with is a fresh descriptor that nobody else owns.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn open_socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    own(unsafe { socket(domain, kind | SOCK_CLOEXEC, protocol) })
}

/// Sets an integer socket option.
pub fn set_option(fd: c_int, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let size = size_of::<c_int>() as socklen_t;
    check(unsafe { setsockopt(fd, level, name, (&value as *const c_int).cast(), size) }).map(|_| ())
}

pub fn get_option(fd: c_int, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut size = size_of::<c_int>() as socklen_t;
    check(unsafe { getsockopt(fd, level, name, (&mut value as *mut c_int).cast(), &mut size) }).map(|_| value)
}

/// Reads once. Zero is the end.
pub fn read_fd(fd: c_int, out: &mut [u8]) -> io::Result<usize> {
    retry(|| unsafe { read(fd, out.as_mut_ptr().cast(), out.len()) }).map(|count| count as usize)
}

/// Writes once.
pub fn write_fd(fd: c_int, bytes: &[u8]) -> io::Result<usize> {
    retry(|| unsafe { write(fd, bytes.as_ptr().cast(), bytes.len()) }).map(|count| count as usize)
}

/// Writes everything, however many calls it takes.
pub fn write_all(fd: c_int, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[write_fd(fd, rest)?..];
    }
    Ok(())
}

/// Waits for events; a negative timeout waits for ever. An interruption counts as "nothing yet".
pub fn wait(fds: &mut [pollfd], timeout_ns: i64) -> io::Result<usize> {
    let limit = timespec { tv_sec: timeout_ns / 1_000_000_000, tv_nsec: timeout_ns % 1_000_000_000 };
    let limit_pointer = if timeout_ns < 0 { std::ptr::null() } else { &limit as *const timespec };
    match check(unsafe { ppoll(fds.as_mut_ptr(), fds.len() as u64, limit_pointer, std::ptr::null()) }) {
        Ok(count) => Ok(count as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            fds.iter_mut().for_each(|entry| entry.revents = 0);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// Blocks the signals for this thread and returns a set for `sigwait` or `signalfd`.
pub fn block_signals(signals: &[c_int]) -> io::Result<sigset_t> {
    let set = signal_set(signals);
    check(unsafe { sigprocmask(SIG_SETMASK, &set, std::ptr::null_mut()) }).map(|_| set)
}

/// Lets every signal through again, as a program that is about to be executed expects.
pub fn unblock_signals() -> io::Result<()> {
    block_signals(&[]).map(|_| ())
}

pub fn signal_set(signals: &[c_int]) -> sigset_t {
    let mut set = sigset_t { bits: [0; 16] };
    unsafe { sigemptyset(&mut set) };
    for number in signals {
        unsafe { sigaddset(&mut set, *number) };
    }
    set
}

/// A descriptor that becomes readable when one of the signals, blocked by this call, arrives.
pub fn open_signals(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = block_signals(signals)?;
    own(unsafe { signalfd(-1, &set, SOCK_CLOEXEC | SOCK_NONBLOCK) })
}

/// The host name of this UTS namespace, or nothing when it cannot be read.
pub fn host_name() -> String {
    let mut bytes = [0u8; 256];
    if unsafe { gethostname(bytes.as_mut_ptr().cast(), bytes.len() - 1) } != 0 {
        return String::new();
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub fn set_host_name(name: &str) -> io::Result<()> {
    check(unsafe { sethostname(name.as_ptr().cast(), name.len()) }).map(|_| ())
}

/// mount(2); an empty source, type or option string is passed as NULL.
pub fn mount_at(source: &str, target: &str, kind: &str, flags: u64, options: &str) -> io::Result<()> {
    let texts: Vec<Option<CString>> =
        [source, target, kind, options].iter().map(|text| optional_text(text)).collect::<io::Result<_>>()?;
    let at = |index: usize| texts[index].as_ref().map_or(std::ptr::null::<c_char>(), |text| text.as_ptr());
    check(unsafe { mount(at(0), at(1), at(2), flags, at(3).cast::<c_void>()) }).map(|_| ())
}

pub fn unmount(target: &str, flags: c_int) -> io::Result<()> {
    let text = CString::new(target)?;
    check(unsafe { umount2(text.as_ptr(), flags) }).map(|_| ())
}

fn optional_text(text: &str) -> io::Result<Option<CString>> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(CString::new(text)?))
}

/// A value with every byte zero, for structures that the kernel fills in.
///
/// # Safety
/// All zero bits must be a value of `T`.
pub unsafe fn zeroed<T>() -> T {
    MaybeUninit::zeroed().assume_init()
}
