//! Enters a pod's namespaces and becomes its command, as a container runtime's last step does. Exit codes are those of
//! `env(1)` and of runtimes: 125 when the namespaces could not be entered, 126 and 127 when the command could not be
//! executed or does not exist.
//!
//! Sources: setns(2), unshare(2), mount_namespaces(7), pid_namespaces(7).

use crate::terminal::Terminal;
use std::fs::File;
use std::io;
use std::os::raw::c_int;
use std::os::unix::io::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use weft_sys as sys;
use weft_sys::Options;

const VALUED: [&str; 7] = ["netns", "join", "hostname", "bind", "cwd", "setenv", "sizes"];
const FLAGS: [&str; 4] = ["mount-ns", "pid-ns", "clear-env", "tty"];
/// Longest host name the kernel takes (__NEW_UTS_LEN).
const HOST_NAME_LIMIT: usize = 64;

pub fn main(arguments: &[String]) -> Result<i32, String> {
    let options = Options::parse(arguments, &VALUED, &FLAGS)?;
    let (program, rest) = options.rest.split_first().ok_or("a command is missing after --")?;
    let mut command = Command::new(program);
    command.args(rest);
    if options.has("clear-env") {
        command.env_clear();
    }
    for entry in options.all("setenv") {
        let (key, value) =
            entry.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("--setenv wants KEY=VALUE")?;
        command.env(key, value);
    }
    if options.has("tty") && options.has("pid-ns") {
        return Err("--tty and --pid-ns do not go together".into());
    }
    let terminal = match options.has("tty") {
        // Before the namespaces: the pod may have no /dev/ptmx.
        true => {
            Some(Terminal::open(options.parsed("sizes")?).map_err(|problem| format!("open a terminal: {problem}"))?)
        }
        false => None,
    };
    enter(&options)?;
    if let Some(directory) = options.text("cwd") {
        // Not Command::current_dir: a missing directory must not read as a missing command.
        std::env::set_current_dir(directory).map_err(|problem| format!("--cwd {directory}: {problem}"))?;
    }
    if options.has("pid-ns") {
        return stay_outside(&mut command, program);
    }
    match terminal {
        Some(terminal) => on_terminal(terminal, &mut command, program),
        None => Ok(become_command(&mut command, program)),
    }
}

/// The command is a child on the terminal; this process carries its bytes and ends as it ends.
fn on_terminal(terminal: Terminal, command: &mut Command, program: &str) -> Result<i32, String> {
    let signals = sys::open_signals(&[sys::SIGCHLD]).map_err(|problem| format!("watch for signals: {problem}"))?;
    let child = sys::check(unsafe { sys::fork() }).map_err(|problem| format!("fork: {problem}"))?;
    if child == 0 {
        let _ = sys::unblock_signals();
        if let Err(problem) = terminal.become_controlling() {
            eprintln!("weft-pod: take the terminal: {problem}");
            std::process::exit(125);
        }
        std::process::exit(become_command(command, program));
    }
    let ended = || {
        let mut status = 0;
        (unsafe { sys::waitpid(child, &mut status, sys::WNOHANG) } == child).then(|| exit_code(status))
    };
    terminal.carry(signals, ended).map_err(|problem| format!("carry the terminal: {problem}"))
}

/// As a shell tells it: 128 and the signal's number for a program that a signal ended.
fn exit_code(status: c_int) -> i32 {
    let by_signal = status & 0x7f;
    if by_signal == 0 {
        (status >> 8) & 0xff
    } else {
        128 + by_signal
    }
}

fn become_command(command: &mut Command, program: &str) -> i32 {
    // The standard library ignores SIGPIPE; the command must not inherit that.
    unsafe { sys::signal(sys::SIGPIPE, sys::SIG_DFL) };
    let problem = command.exec();
    eprintln!("weft-pod: cannot execute {program}: {problem}");
    if problem.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    }
}

fn enter(options: &Options) -> Result<(), String> {
    let mut joined: Vec<(String, OwnedFd, c_int)> = Vec::new();
    if let Some(path) = options.text("netns") {
        joined.push(open_namespace(path.to_string(), sys::CLONE_NEWNET)?);
    }
    if let Some(pid) = options.parsed::<u32>("join")? {
        // The mount namespace last: the paths of the others are those of this one.
        for (name, kind) in [("net", sys::CLONE_NEWNET), ("uts", sys::CLONE_NEWUTS), ("mnt", sys::CLONE_NEWNS)] {
            joined.push(open_namespace(format!("/proc/{pid}/ns/{name}"), kind)?);
        }
    }
    for (path, fd, kind) in &joined {
        sys::check(unsafe { sys::setns(fd.as_raw_fd(), *kind) })
            .map_err(|problem| format!("join {path}: {problem}"))?;
    }
    if let Some(name) = options.text("hostname") {
        if name.is_empty() || name.len() > HOST_NAME_LIMIT {
            return Err(format!("--hostname must have 1 to {HOST_NAME_LIMIT} bytes"));
        }
        unshare(sys::CLONE_NEWUTS, "UTS")?;
        sys::set_host_name(name).map_err(|problem| format!("set host name {name}: {problem}"))?;
    }
    if options.has("mount-ns") || !options.all("bind").is_empty() || options.has("pid-ns") {
        make_mounts(options.all("bind"))?;
    }
    if options.has("pid-ns") {
        unshare(sys::CLONE_NEWPID, "process")?;
    }
    Ok(())
}

fn open_namespace(path: String, kind: c_int) -> Result<(String, OwnedFd, c_int), String> {
    match File::open(&path) {
        Ok(file) => Ok((path, OwnedFd::from(file), kind)),
        Err(problem) => Err(format!("open namespace {path}: {problem}")),
    }
}

fn unshare(kind: c_int, name: &str) -> Result<(), String> {
    sys::check(unsafe { sys::unshare(kind) }).map_err(|problem| format!("make a {name} namespace: {problem}"))?;
    Ok(())
}

fn make_mounts(binds: &[String]) -> Result<(), String> {
    unshare(sys::CLONE_NEWNS, "mount")?;
    // Mounts made here stay here; those of the machine still arrive.
    sys::mount_at("", "/", "", sys::MS_REC | sys::MS_SLAVE, "")
        .map_err(|problem| format!("make / a slave: {problem}"))?;
    // /sys shows the devices of the network namespace that it was mounted in. The old one stays when this cannot be done.
    let flags = sys::MS_RDONLY | sys::MS_NOSUID | sys::MS_NODEV | sys::MS_NOEXEC;
    let _ = sys::mount_at("sysfs", "/sys", "sysfs", flags, "");
    for bind in binds {
        let (file, target) = bind.split_once(':').ok_or("--bind wants FILE:TARGET")?;
        if !Path::new(target).exists() {
            eprintln!("weft-pod: {target} does not exist here; {file} is not shown");
            continue;
        }
        sys::mount_at(file, target, "", sys::MS_BIND, "")
            .map_err(|problem| format!("show {file} at {target}: {problem}"))?;
    }
    Ok(())
}

/// A process namespace holds only what is forked after it was made: the command is a child, this process its shadow,
/// which passes signals on and ends as the child ends.
fn stay_outside(command: &mut Command, program: &str) -> Result<i32, String> {
    let passed = [sys::SIGTERM, sys::SIGINT, sys::SIGHUP, sys::SIGQUIT, sys::SIGUSR1, sys::SIGUSR2];
    let mut waited = passed.to_vec();
    waited.push(sys::SIGCHLD);
    let set = sys::block_signals(&waited).map_err(|problem| format!("block signals: {problem}"))?;
    let child = sys::check(unsafe { sys::fork() }).map_err(|problem| format!("fork: {problem}"))?;
    if child == 0 {
        std::process::exit(be_first(command, program));
    }
    loop {
        let mut signal = 0;
        unsafe { sys::sigwait(&set, &mut signal) };
        if passed.contains(&signal) {
            unsafe { sys::kill(child, signal) };
        }
        let mut status = 0;
        if unsafe { sys::waitpid(child, &mut status, sys::WNOHANG) } == child {
            return Ok(exit_code(status));
        }
    }
}

/// The first process of a process namespace: dies with its shadow and sees its own processes in /proc.
fn be_first(command: &mut Command, program: &str) -> i32 {
    unsafe { sys::prctl(sys::PR_SET_PDEATHSIG, sys::SIGKILL as u64) };
    let _ = sys::mount_at("proc", "/proc", "proc", sys::MS_NOSUID | sys::MS_NODEV | sys::MS_NOEXEC, "");
    let _ = sys::unblock_signals();
    become_command(command, program)
}
