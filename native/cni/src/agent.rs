//! One exchange with the agent over its unix socket. A connection either exists or is refused at once; the answer may take
//! as long as an agent under load takes, bounded below the two minutes after which runtimes give up on a plugin.

use crate::request::{REPLY_HEADER_BYTES, REPLY_LIMIT_BYTES};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::io::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft_sys as sys;

const DEFAULT_SOCKET: &str = "/run/weft/cni.sock";
const LINK_NAME: &str = ".weft.sock";
const REPLY_TIMEOUT: Duration = Duration::from_secs(110);
/// How long a full accept queue or a full socket buffer may hold the request up.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest path that fits `sockaddr_un.sun_path` with its NUL.
const SUN_PATH_LIMIT: usize = 107;

pub struct Reply {
    pub exit_code: u8,
    pub stdout: Vec<u8>,
}

#[derive(Debug)]
pub enum AgentError {
    Connect(PathBuf, io::Error),
    Exchange(PathBuf, io::Error),
    CutShort(PathBuf),
    TimedOut(PathBuf),
    NotTheAgent(PathBuf),
}

impl fmt::Display for AgentError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentError::Connect(path, cause) => write!(out, "cannot connect to {}: {cause}", path.display()),
            AgentError::Exchange(path, cause) => write!(out, "lost the agent at {}: {cause}", path.display()),
            AgentError::CutShort(path) => write!(out, "the agent at {} ended before it had answered", path.display()),
            AgentError::TimedOut(path) => {
                write!(out, "the agent at {} did not answer within {} s", path.display(), REPLY_TIMEOUT.as_secs())
            }
            AgentError::NotTheAgent(path) => {
                write!(out, "what listens at {} did not answer as the agent does", path.display())
            }
        }
    }
}

/// Sends the request and waits for the whole reply.
pub fn exchange(request: &[u8]) -> Result<Reply, AgentError> {
    let path = socket_path();
    let mut stream = connect(&path).map_err(|cause| AgentError::Connect(path.clone(), cause))?;
    // An agent that refuses a request answers without reading it to the end; its answer is then there to be read.
    match stream.write_all(request) {
        Err(cause) if !is_gone(&cause) => return Err(lost(&path, cause)),
        _ => {}
    }
    await_reply(&mut stream, &[], path)
}

/// The same for a request that was sent over the connection `socket`, of whose reply this much was read; None when nothing
/// came in time.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn resume(socket: RawFd, received: Option<&[u8]>) -> Result<Reply, AgentError> {
    // The descriptor is nobody else's: `entry` left it open for this.
    let mut stream = unsafe { UnixStream::from_raw_fd(socket) };
    match received {
        Some(received) => await_reply(&mut stream, received, socket_path()),
        None => Err(AgentError::TimedOut(socket_path())),
    }
}

fn await_reply(stream: &mut UnixStream, mut received: &[u8], path: PathBuf) -> Result<Reply, AgentError> {
    let deadline = Instant::now() + REPLY_TIMEOUT;
    let mut header = [0; REPLY_HEADER_BYTES];
    read_until(stream, &mut received, &mut header, deadline, &path)?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > REPLY_LIMIT_BYTES {
        return Err(AgentError::NotTheAgent(path));
    }
    let mut stdout = vec![0; length];
    read_until(stream, &mut received, &mut stdout, deadline, &path)?;
    Ok(Reply { exit_code: header[0], stdout })
}

/// Fills `out` with what was received before, then from the connection.
fn read_until(
    stream: &mut UnixStream,
    received: &mut &[u8],
    out: &mut [u8],
    deadline: Instant,
    path: &Path,
) -> Result<(), AgentError> {
    let mut filled = out.len().min(received.len());
    let (taken, rest) = received.split_at(filled);
    out[..filled].copy_from_slice(taken);
    *received = rest;
    while filled < out.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(AgentError::TimedOut(path.to_owned()));
        }
        stream.set_read_timeout(Some(left)).map_err(|cause| lost(path, cause))?;
        match stream.read(&mut out[filled..]) {
            Ok(0) => return Err(AgentError::CutShort(path.to_owned())),
            Ok(count) => filled += count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(lost(path, cause)),
        }
    }
    Ok(())
}

fn lost(path: &Path, cause: io::Error) -> AgentError {
    match cause.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AgentError::TimedOut(path.to_owned()),
        _ if is_gone(&cause) => AgentError::CutShort(path.to_owned()),
        _ => AgentError::Exchange(path.to_owned(), cause),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn socket_path() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(LINK_NAME)));
    if let Some(link) = beside {
        if link.symlink_metadata().is_ok() {
            return link;
        }
    }
    let named: Option<OsString> = std::env::var_os("WEFT_CNI_SOCKET").filter(|value| !value.is_empty());
    named.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from)
}

/// Connects even when the path is longer than a socket address can hold, through a descriptor of its directory.
fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().as_bytes().len() <= SUN_PATH_LIMIT {
        return connect_short(path);
    }
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let directory = std::fs::File::open(path.parent().unwrap_or_else(|| Path::new("/")))?;
    connect_short(&Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// Not UnixStream::connect: a connect that meets a full queue must give up, and the timeout has to be set before it.
fn connect_short(path: &Path) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > SUN_PATH_LIMIT || bytes.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut address = sys::sockaddr_un { sun_family: sys::AF_UNIX as u16, sun_path: [0; SUN_PATH_LIMIT + 1] };
    address.sun_path[..bytes.len()].copy_from_slice(bytes);
    let stream = UnixStream::from(sys::open_socket(sys::AF_UNIX, sys::SOCK_STREAM, 0)?);
    stream.set_write_timeout(Some(SEND_TIMEOUT))?;
    let size = std::mem::size_of::<sys::sockaddr_un>() as sys::socklen_t;
    sys::retry(|| unsafe { sys::connect(stream.as_raw_fd(), (&address as *const sys::sockaddr_un).cast(), size) })?;
    Ok(stream)
}
