//! The C library's calls, structures and constants that the native programs use and the standard library does not offer.
//! Declared by hand: the programs then build with a distribution's own compiler and without a package registry.
//!
//! The layouts are those of 64-bit Linux with the GNU C library; `layouts` below refuses to compile elsewhere.
//!
//! Sources: the manual pages of section 2 of each call; include/uapi/linux/{if,if_tun,in,in6,udp,sched,errqueue}.h,
//! include/uapi/asm-generic/{socket,ioctls,fcntl}.h.

#![allow(non_camel_case_types)]

mod address;
mod call;
mod declarations;
mod descriptors;
mod options;

pub use address::SocketAddress;
pub use call::*;
pub use declarations::*;
pub use descriptors::*;
pub use options::*;

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_env = "gnu")))]
compile_error!("weft's native programs know the layouts of 64-bit Linux with the GNU C library only");
