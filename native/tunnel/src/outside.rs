//! Out of a container, so that the tunnel outlives it. What ends with a container is what is in its cgroups and its process
//! namespace; what keeps its files from being removed is what runs from them.
//!
//! ```text
//!   container            process 1's mounts and cgroups      a copy of this program in memory
//!   weft-tunnel  ──setns──►  cgroup.procs of process 1  ──exec──►  weft-tunnel
//! ```
//! It goes where process 1 is: that is outside of every container, processes may live there on any kind of hierarchy, and no
//! cgroup is made that somebody had to remove. The container has to share the host's process namespace (`hostPID`) to see it.
//! Where process 1 is beside us already there is nothing to leave.
//!
//! Sources: setns(2), cgroup_namespaces(7), cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5), memfd_create(2).

use std::fs::{self, File};
use std::io;
use std::os::raw::c_int;
use std::os::unix::io::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use weft_sys as sys;

/// Moves this process to where process 1 is and starts it anew, with `arguments`, from memory. Returns only when it is there
/// already, or when it has to go on from its file. Must be called before there are threads.
pub fn leave(arguments: &[String]) -> Result<(), String> {
    let namespace = |process: &str, kind: &str| {
        let path = format!("/proc/{process}/ns/{kind}");
        fs::read_link(&path).map_err(|problem| format!("{path}: {problem}"))
    };
    if namespace("1", "mnt")? == namespace("self", "mnt")? && namespace("1", "cgroup")? == namespace("self", "cgroup")?
    {
        return Ok(());
    }
    let program = File::open("/proc/self/exe").map_err(|problem| format!("/proc/self/exe: {problem}"))?;
    enter("cgroup", sys::CLONE_NEWCGROUP)?;
    enter("mnt", sys::CLONE_NEWNS)?;
    let read = |path: &str| fs::read_to_string(path).map_err(|problem| format!("{path}: {problem}"));
    for path in cgroups_of(&read("/proc/1/cgroup")?, &read("/proc/self/mountinfo")?) {
        let file = format!("{path}/cgroup.procs");
        fs::write(&file, "0").map_err(|problem| format!("{file}: {problem}"))?;
    }
    // A system may forbid programs in memory: then the container's files stay in use until the tunnel ends.
    if let Err(problem) = start_anew(program, arguments) {
        eprintln!("weft-tunnel: goes on from the container's files: {problem}");
    }
    Ok(())
}

fn enter(kind: &str, flag: c_int) -> Result<(), String> {
    let path = format!("/proc/1/ns/{kind}");
    let namespace = File::open(&path).map_err(|problem| format!("{path}: {problem}"))?;
    sys::check(unsafe { sys::setns(namespace.as_raw_fd(), flag) }).map_err(|problem| format!("{path}: {problem}"))?;
    Ok(())
}

/// Replaces this process by a copy of its program that no file system holds.
fn start_anew(mut program: File, arguments: &[String]) -> io::Result<()> {
    let name = b"weft-tunnel\0";
    let memory = sys::own(unsafe { sys::memfd_create(name.as_ptr().cast(), sys::MFD_CLOEXEC) })?;
    let mut copy = File::from(memory);
    io::copy(&mut program, &mut copy)?;
    drop(program);
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Err(Command::new(path).arg0("weft-tunnel").args(arguments).exec())
}

/// The folders of the cgroups that `listed` (a process's /proc/PID/cgroup) names, where `mounts` (mountinfo) has them.
/// Hierarchies that are mounted nowhere hold nobody.
fn cgroups_of(listed: &str, mounts: &str) -> Vec<String> {
    listed.lines().filter_map(|line| folder_of(line, mounts)).collect()
}

fn folder_of(line: &str, mounts: &str) -> Option<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    for mount in mounts.lines() {
        // 36 35 0:30 ROOT POINT OPTIONS [tags…] - TYPE SOURCE SUPER
        let (front, back) = mount.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1)?);
        let is_it = match kind {
            "cgroup2" => controllers.is_empty(),
            "cgroup" => {
                !controllers.is_empty() && controllers.split(',').all(|each| options.split(',').any(|one| one == each))
            }
            _ => false,
        };
        if !is_it {
            continue;
        }
        if let Some(below) = path.strip_prefix(root.trim_end_matches('/')) {
            return Some(format!("{point}{}", below.trim_end_matches('/')));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 1 8:1 / / rw - ext4 /dev/sda1 rw
31 24 0:26 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd
32 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 24 0:28 /machine /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn finds_cgroups_where_they_are_mounted() {
        let listed = "6:memory:/machine/init\n5:cpu,cpuacct:/\n3:pids:/x\n1:name=systemd:/init.scope\n0::/init.scope\n";
        assert_eq!(
            cgroups_of(listed, MOUNTS),
            [
                "/sys/fs/cgroup/memory/init",
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/systemd/init.scope",
                "/sys/fs/cgroup/unified/init.scope"
            ]
        );
    }

    #[test]
    fn what_is_outside_of_a_mount_is_not_found_in_it() {
        assert!(cgroups_of("6:memory:/elsewhere\n", MOUNTS).is_empty());
        assert!(cgroups_of("garbage\n", MOUNTS).is_empty());
    }
}
