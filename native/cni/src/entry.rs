//! What runs before the C library: the usual request, carried with system calls alone.
//!
//! A C library asks the processor what it can do before `main`, and in a virtual machine each of these questions (`cpuid`)
//! is answered by the hypervisor: half a millisecond a start, more than everything else that the plugin does. The usual
//! request needs nothing of a C library, so the program is entered here. Whatever is unusual (no agent, a long
//! configuration, an answer in pieces) is left to `main` at the point that it has come to, and the C library is started.
//!
//! Nothing may be called here that the C library must prepare: no allocation, no thread-local, no `memcpy` (its address is
//! chosen at start), hence the volatile loops, which the compiler does not turn into calls.
//!
//! Sources: the System V ABI's process stack (argc, argv, envp); syscall(2); unix(7).

use std::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

const BUFFER_BYTES: usize = 64 << 10;
const SUN_PATH_LIMIT: usize = 107;
const ENTRIES_LIMIT: usize = 32;
const LINK_NAME: &[u8] = b".weft.sock";
/// Seconds; the same as in `agent`.
const SEND_TIMEOUT: usize = 20;
const REPLY_TIMEOUT: usize = 110;

const AF_UNIX: usize = 1;
const SOCK_STREAM_CLOEXEC: usize = 1 | 0o2000000;
const SOL_SOCKET: usize = 1;
const SO_RCVTIMEO: usize = 20;
const SO_SNDTIMEO: usize = 21;
const MSG_NOSIGNAL: usize = 0x4000;
const AT_FDCWD: usize = -100isize as usize;
const EINTR: isize = -4;
const EAGAIN: isize = -11;
const EPIPE: isize = -32;
const ECONNRESET: isize = -104;

/// How far the request had come when the C library was started.
pub enum Progress {
    /// Nothing was read or sent, but for this much of the standard input.
    Begun(&'static [u8]),
    /// The agent has the request with this standard input and has answered so much; None when it let the time pass.
    Sent { stdin: &'static [u8], socket: i32, reply: Option<&'static [u8]> },
}

static mut STDIN: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];
static mut STDIN_BYTES: usize = 0;
static mut REPLY: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];
static mut REPLY_BYTES: usize = 0;
/// The connection over which the request was sent; -1 when it was not.
static mut SOCKET: i32 = -1;
static mut TIMED_OUT: bool = false;

/// What was done before the C library was started.
pub fn progress() -> Progress {
    // Written by `weft_carry` only, which ended before `main` began.
    unsafe {
        let stdin = std::slice::from_raw_parts(addr_of!(STDIN).cast::<u8>(), STDIN_BYTES);
        let reply = std::slice::from_raw_parts(addr_of!(REPLY).cast::<u8>(), REPLY_BYTES);
        match SOCKET {
            -1 => Progress::Begun(stdin),
            socket => Progress::Sent { stdin, socket, reply: if TIMED_OUT { None } else { Some(reply) } },
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod machine {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SENDMSG: usize = 46;
    pub const SETSOCKOPT: usize = 54;
    pub const EXIT_GROUP: usize = 231;
    pub const READLINKAT: usize = 267;

    std::arch::global_asm!(
        ".globl weft_entry",
        "weft_entry:",
        "mov rbx, rsp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "and rsp, -16",
        "call weft_carry",
        "mov rsp, rbx",
        "mov rdx, r12",
        "jmp _start",
    );

    #[inline(always)]
    pub unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
        let result: isize;
        std::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
        result
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const SENDMSG: usize = 211;
    pub const SETSOCKOPT: usize = 208;
    pub const EXIT_GROUP: usize = 94;
    pub const READLINKAT: usize = 78;

    std::arch::global_asm!(
        ".globl weft_entry",
        "weft_entry:",
        "mov x19, sp",
        "mov x20, x0",
        "mov x0, sp",
        "bl weft_carry",
        "mov sp, x19",
        "mov x0, x20",
        "b _start",
    );

    #[inline(always)]
    pub unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
        let result: isize;
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
            in("x3") d, in("x4") e, options(nostack));
        result
    }
}

use machine::call;

/// Of `struct iovec`: address and length, for the header, the entries, the NUL after them and the standard input.
static mut PARTS: [usize; 2 * (ENTRIES_LIMIT + 3)] = [0; 2 * (ENTRIES_LIMIT + 3)];
/// `struct msghdr` of 64-bit Linux: no name, the address and the count of the parts, no control data, no flags.
static mut MESSAGE: [usize; 7] = [0; 7];
/// `sun_family`, then the path, which ends with a NUL.
static mut ADDRESS: [u8; 2 + SUN_PATH_LIMIT + 1] = [0; 2 + SUN_PATH_LIMIT + 1];
static mut HEADER: [u8; 8] = *b"WFT1\0\0\0\0";
static NUL: u8 = 0;
/// `struct timeval`.
static mut TIMEOUT: [usize; 2] = [0; 2];

/// Keeps the function, which only the assembly calls.
#[used]
static CARRY: unsafe extern "C" fn(*const usize) = weft_carry;

/// Called with the process's first stack pointer: argc, argv, 0, envp, 0. Does not return when the request is carried.
#[no_mangle]
unsafe extern "C" fn weft_carry(stack: *const usize) {
    let environment = stack.add(read_volatile(stack) + 2);
    let entries = gather(environment);
    if entries == 0 {
        return;
    }
    // Connected last: the agent wakes up to a request that is there whole.
    if !read_stdin() {
        return;
    }
    let socket = connect();
    if socket < 0 {
        return;
    }
    if !send(socket, entries) {
        call(machine::CLOSE, socket as usize, 0, 0, 0, 0);
        return;
    }
    addr_of_mut!(SOCKET).write(socket as i32);
    answer(socket);
}

#[inline(always)]
unsafe fn put_part(at: usize, start: *const u8, bytes: usize) {
    let part = addr_of_mut!(PARTS).cast::<usize>().add(2 * at);
    write_volatile(part, start as usize);
    write_volatile(part.add(1), bytes);
}

/// Makes parts of the message of the environment's `CNI_` entries, from the second on; returns how many there are, 0 when
/// there is no command or there are too many.
#[inline(always)]
unsafe fn gather(environment: *const usize) -> usize {
    let mut count = 0;
    let mut commanded = false;
    let mut at = environment;
    loop {
        let entry = read_volatile(at) as *const u8;
        if entry.is_null() {
            break;
        }
        at = at.add(1);
        if !starts_with(entry, b"CNI_") {
            continue;
        }
        if count == ENTRIES_LIMIT {
            return 0;
        }
        commanded |= starts_with(entry, b"CNI_COMMAND=") && read_volatile(entry.add(12)) != 0;
        let mut bytes = 0;
        while read_volatile(entry.add(bytes)) != 0 {
            bytes += 1;
        }
        count += 1;
        // With its NUL, as the request has it.
        put_part(count, entry, bytes + 1);
    }
    if commanded {
        count
    } else {
        0
    }
}

#[inline(always)]
unsafe fn starts_with(text: *const u8, start: &[u8]) -> bool {
    let mut at = 0;
    while at < start.len() {
        if read_volatile(text.add(at)) != *start.as_ptr().add(at) {
            return false;
        }
        at += 1;
    }
    true
}

/// Connects to the link beside the program. A negative number when that is not possible or would not be enough.
#[inline(always)]
unsafe fn connect() -> isize {
    let address = addr_of_mut!(ADDRESS).cast::<u8>();
    let path = address.add(2);
    write_volatile(address, AF_UNIX as u8);
    let own = b"/proc/self/exe\0".as_ptr() as usize;
    let length = call(machine::READLINKAT, AT_FDCWD, own, path as usize, SUN_PATH_LIMIT, 0);
    if length <= 0 {
        return -1;
    }
    let mut end = length as usize;
    while end > 0 && read_volatile(path.add(end - 1)) != b'/' {
        end -= 1;
    }
    if end == 0 || end + LINK_NAME.len() > SUN_PATH_LIMIT {
        return -1;
    }
    let mut at = 0;
    while at < LINK_NAME.len() {
        write_volatile(path.add(end + at), *LINK_NAME.as_ptr().add(at));
        at += 1;
    }
    write_volatile(path.add(end + at), 0);
    let socket = call(machine::SOCKET, AF_UNIX, SOCK_STREAM_CLOEXEC, 0, 0, 0);
    if socket < 0 {
        return -1;
    }
    let timed = set_timeout(socket, SO_SNDTIMEO, SEND_TIMEOUT) && set_timeout(socket, SO_RCVTIMEO, REPLY_TIMEOUT);
    if timed && call(machine::CONNECT, socket as usize, address as usize, 2 + SUN_PATH_LIMIT + 1, 0, 0) == 0 {
        return socket;
    }
    call(machine::CLOSE, socket as usize, 0, 0, 0, 0);
    -1
}

#[inline(always)]
unsafe fn set_timeout(socket: isize, option: usize, seconds: usize) -> bool {
    let time = addr_of_mut!(TIMEOUT).cast::<usize>();
    write_volatile(time, seconds);
    call(machine::SETSOCKOPT, socket as usize, SOL_SOCKET, option, time as usize, 16) == 0
}

/// Whether all of it was read.
#[inline(always)]
unsafe fn read_stdin() -> bool {
    let buffer = addr_of_mut!(STDIN) as usize;
    let mut filled = 0;
    loop {
        let count = call(machine::READ, 0, buffer + filled, BUFFER_BYTES - filled, 0, 0);
        if count == EINTR {
            continue;
        }
        if count > 0 {
            filled += count as usize;
        }
        addr_of_mut!(STDIN_BYTES).write(filled);
        if count <= 0 || filled == BUFFER_BYTES {
            return count == 0;
        }
    }
}

/// Whether the agent has the request or will not read it: in both cases an answer may be there.
#[inline(always)]
unsafe fn send(socket: isize, entries: usize) -> bool {
    let stdin_bytes = addr_of!(STDIN_BYTES).read();
    put_part(entries + 1, &NUL, 1);
    put_part(entries + 2, addr_of!(STDIN).cast::<u8>(), stdin_bytes);
    let list = addr_of_mut!(PARTS).cast::<usize>();
    let mut body_bytes = 0;
    let mut at = 1;
    while at < entries + 3 {
        body_bytes += read_volatile(list.add(2 * at + 1));
        at += 1;
    }
    let header = addr_of_mut!(HEADER).cast::<u8>();
    put_part(0, header, 8);
    at = 0;
    while at < 4 {
        write_volatile(header.add(4 + at), (body_bytes >> (24 - 8 * at)) as u8);
        at += 1;
    }
    let message = addr_of_mut!(MESSAGE).cast::<usize>();
    write_volatile(message.add(2), list as usize);
    write_volatile(message.add(3), entries + 3);
    let mut sent = EINTR;
    while sent == EINTR {
        sent = call(machine::SENDMSG, socket as usize, message as usize, MSG_NOSIGNAL, 0, 0);
    }
    sent == (8 + body_bytes) as isize || sent == EPIPE || sent == ECONNRESET
}

/// Ends the process when the whole answer comes in one piece.
#[inline(always)]
unsafe fn answer(socket: isize) {
    let buffer = addr_of_mut!(REPLY).cast::<u8>();
    let mut got = EINTR;
    while got == EINTR {
        got = call(machine::READ, socket as usize, buffer as usize, BUFFER_BYTES, 0, 0);
    }
    if got <= 0 {
        addr_of_mut!(TIMED_OUT).write(got == EAGAIN);
        return;
    }
    addr_of_mut!(REPLY_BYTES).write(got as usize);
    if got < 5 {
        return;
    }
    let mut length = 0;
    let mut at = 1;
    while at < 5 {
        length = length << 8 | read_volatile(buffer.add(at)) as usize;
        at += 1;
    }
    if got as usize != 5 + length || read_volatile(buffer) == crate::request::FROM_INSIDE {
        return;
    }
    let mut written = 0;
    while written < length {
        let count = call(machine::WRITE, 1, buffer as usize + 5 + written, length - written, 0, 0);
        if count > 0 {
            written += count as usize;
        } else if count != EINTR {
            // What cannot be written is told by `main`, unless a part of it has gone.
            if written == 0 {
                return;
            }
            call(machine::EXIT_GROUP, 1, 0, 0, 0, 0);
        }
    }
    call(machine::EXIT_GROUP, read_volatile(buffer) as usize, 0, 0, 0, 0);
}
