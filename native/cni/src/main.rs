//! The CNI plugin that a container runtime executes, a static binary without logic: it carries the CNI environment and
//! the network configuration to the weft agent of its node and the agent's answer back, so that a pod costs no
//! interpreter start. When the agent cannot answer, it prints the error that the specification has for that.
//!
//! The agent is found by a link beside the binary, `.weft.sock`, so that several agents, each with a plugin directory of
//! its own, can share a machine; then by `WEFT_CNI_SOCKET`; then at `/run/weft/cni.sock`.
//!
//! Sources: CNI specification 1.1.0, sections "Parameters", "Error" and "STATUS"; unix(7).

mod agent;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod entry;
mod request;

use agent::{AgentError, Reply};
use request::{error_json, scan_version, Request, RequestError, FROM_INSIDE, NEWEST_VERSION, STDIN_LIMIT_BYTES};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::io::AsRawFd;

/// Codes of the CNI specification.
const CODE_IO_FAILURE: u32 = 5;
const CODE_DECODE_FAILURE: u32 = 6;
const CODE_TRY_AGAIN_LATER: u32 = 11;
const CODE_NOT_AVAILABLE: u32 = 50;

const SUPPORTED_VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST_VERSION];

fn main() {
    let entries = environment();
    let command = entries.iter().find_map(|entry| entry.strip_prefix(b"CNI_COMMAND=")).unwrap_or(b"");
    if command.is_empty() {
        eprintln!("CNI plugin weft. It is executed by a container runtime, with CNI_COMMAND set.");
        eprintln!("CNI protocol versions supported: {}", SUPPORTED_VERSIONS.join(", "));
        exit(0);
    }
    let (request, mut answer) = carry(&entries);
    if matches!(&answer, Ok(reply) if reply.exit_code == FROM_INSIDE) && enter_container(&entries).is_ok() {
        if let Ok(again) = request.from_inside(&entries) {
            answer = agent::exchange(again.bytes());
        }
    }
    match answer {
        Ok(reply) => {
            let code = if reply.exit_code == FROM_INSIDE { 1 } else { i32::from(reply.exit_code) };
            exit(if print(&reply.stdout) { code } else { 1 })
        }
        Err(error) => answer_alone(command, &request, &error),
    }
}

/// Goes into the namespace that the runtime has named. Nothing but the agent's socket is used from there on.
fn enter_container(entries: &[Vec<u8>]) -> io::Result<()> {
    let path = entries.iter().find_map(|entry| entry.strip_prefix(b"CNI_NETNS=")).unwrap_or(b"");
    // Whatever else may stand at the path, opening it must not wait.
    let file = OpenOptions::new().read(true).custom_flags(weft_sys::O_NONBLOCK).open(OsStr::from_bytes(path))?;
    if unsafe { weft_sys::setns(file.as_raw_fd(), weft_sys::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes up the request where `entry` has left it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn carry(entries: &[Vec<u8>]) -> (Request, Result<Reply, AgentError>) {
    match entry::progress() {
        entry::Progress::Begun(stdin) => carry_from_start(entries, &mut stdin.chain(io::stdin().lock())),
        entry::Progress::Sent { mut stdin, socket, reply } => {
            (read_request(entries, &mut stdin), agent::resume(socket, reply))
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn carry(entries: &[Vec<u8>]) -> (Request, Result<Reply, AgentError>) {
    carry_from_start(entries, &mut io::stdin().lock())
}

fn carry_from_start(entries: &[Vec<u8>], stdin: &mut impl Read) -> (Request, Result<Reply, AgentError>) {
    let request = read_request(entries, stdin);
    let answer = agent::exchange(request.bytes());
    (request, answer)
}

fn read_request(entries: &[Vec<u8>], stdin: &mut impl Read) -> Request {
    match Request::read(entries.iter().map(Vec::as_slice), stdin) {
        Ok(request) => request,
        Err(RequestError::StdinTooLong) => {
            let details = format!("standard input is longer than {STDIN_LIMIT_BYTES} bytes");
            fail(NEWEST_VERSION, CODE_DECODE_FAILURE, "network configuration is too long", &details)
        }
        Err(RequestError::Stdin(error)) => {
            fail(NEWEST_VERSION, CODE_IO_FAILURE, "cannot read the network configuration", &error.to_string())
        }
    }
}

/// The agent is not there. What does not need it is answered; everything else is to be tried again.
fn answer_alone(command: &[u8], request: &Request, error: &AgentError) -> ! {
    let version = scan_version(request.stdin()).unwrap_or(NEWEST_VERSION);
    if command == b"VERSION" {
        let quoted: Vec<String> = SUPPORTED_VERSIONS.iter().map(|v| format!("\"{v}\"")).collect();
        let json = format!("{{\"cniVersion\": \"{version}\", \"supportedVersions\": [{}]}}\n", quoted.join(", "));
        exit(if print(json.as_bytes()) { 0 } else { 1 })
    }
    let code = if command == b"STATUS" { CODE_NOT_AVAILABLE } else { CODE_TRY_AGAIN_LATER };
    fail(version, code, "the weft agent of this node does not answer", &error.to_string())
}

fn fail(version: &str, code: u32, message: &str, details: &str) -> ! {
    print(error_json(version, code, message, details).as_bytes());
    exit(1)
}

/// Not io::stdout(): it is line buffered and would split the answer into many writes.
fn print(bytes: &[u8]) -> bool {
    let written = weft_sys::write_all(1, bytes);
    if let Err(problem) = &written {
        eprintln!("weft: cannot write the answer to standard output: {problem}");
    }
    written.is_ok()
}

/// Leaves at once: nothing is buffered and nothing needs to be released.
fn exit(code: i32) -> ! {
    unsafe { weft_sys::_exit(code) }
}

/// The `CNI_*` entries of the environment, as they are.
fn environment() -> Vec<Vec<u8>> {
    let entry = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
        let is_cni = |key: &OsStr| key.as_bytes().starts_with(b"CNI_");
        is_cni(&key).then(|| [key.as_bytes(), b"=", value.as_bytes()].concat())
    };
    std::env::vars_os().filter_map(entry).collect()
}
