//! Holds a pod's namespaces: waits to be told to stop and reaps whatever was left to it.

use weft_sys as sys;

pub fn main(arguments: &[String]) -> Result<i32, String> {
    if let Some(extra) = arguments.first() {
        return Err(format!("pause takes no argument {extra}"));
    }
    let set = sys::block_signals(&[sys::SIGTERM, sys::SIGINT, sys::SIGCHLD])
        .map_err(|problem| format!("block signals: {problem}"))?;
    loop {
        let mut signal = 0;
        unsafe { sys::sigwait(&set, &mut signal) };
        if signal != sys::SIGCHLD {
            return Ok(0);
        }
        let mut status = 0;
        while unsafe { sys::waitpid(-1, &mut status, sys::WNOHANG) } > 0 {}
    }
}
