//! The thread that carries packets, both ways. It tries each side without waiting for as long as either has something, then
//! looks again for a moment before it sleeps: in a conversation the answer comes sooner than a sleeper wakes up. Between two
//! looks it offers the processor to whoever else wants it. Traffic that leaves longer pauses is slept for; and where others keep
//! the processor for long, as on a busy machine, it sleeps too: a sleeper that is woken goes before them, who waits in line
//! does not.
//!
//! ```text
//! device? socket? ──something──► carry it ─┐
//!    ▲   └─nothing─► patient? ──yes──► yield┤
//!    │                  └─no─► poll ────────┤
//!    └──────────────────────────────────────┘
//! ```

use crate::counters::Counter;
use crate::receive::Receiver;
use crate::send::Sender;
use crate::tunnel::Tunnel;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use weft_sys as sys;

/// Longest time to look again before sleeping: about two round trips of the fastest networks.
const LONGEST: Duration = Duration::from_micros(100);
/// Less than this is not worth a look.
const SHORTEST: Duration = Duration::from_micros(12);

/// Whoever got the processor for longer than this is no partner in a conversation.
const CROWDED: Duration = Duration::from_micros(50);
/// How long not to look again after that: so many times what it took, so that it costs no more than a hundredth of the time.
const RETREAT_FACTOR: u32 = 100;
const LONGEST_RETREAT: Duration = Duration::from_secs(5);

/// Longest time to carry what still waits before ending: more comes for as long as somebody sends.
const LAST_TURNS: Duration = Duration::from_secs(1);

/// When to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Once everything that was taken is passed on; somebody else takes the rest.
    Soon = 1,
    /// Once nothing waits in the device or the socket any more.
    Empty = 2,
}

/// What a look at one side brought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Nothing,
    /// Everything that waited.
    All,
    /// As much as one turn may take; more may wait.
    Part,
}

/// The running thread.
pub struct Carrier {
    thread: JoinHandle<()>,
    stopping: Arc<AtomicU8>,
    tunnel: &'static Tunnel,
}

impl Carrier {
    /// Starts to carry. When that cannot go on, because the device is gone, the whole process ends and says why.
    pub fn start(tunnel: &'static Tunnel) -> io::Result<Carrier> {
        let stopping = Arc::new(AtomicU8::new(0));
        let until = stopping.clone();
        let body = move || {
            if let Err(problem) = carry(tunnel, &until) {
                eprintln!("weft-tunnel: {problem}");
                std::process::exit(1);
            }
        };
        let thread = thread::Builder::new().name("weft-carry".into()).stack_size(128 << 10).spawn(body)?;
        Ok(Carrier { thread, stopping, tunnel })
    }

    /// Stops, and returns when it has.
    pub fn stop(self, when: Stop) {
        self.stopping.store(when as u8, Ordering::Release);
        self.tunnel.bell.ring();
        let _ = self.thread.join();
    }
}

fn carry(tunnel: &Tunnel, stopping: &AtomicU8) -> io::Result<()> {
    let mut sender = Sender::new(tunnel);
    let mut receiver = Receiver::new(tunnel);
    let mut patience = Patience::default();
    let mut last_turns: Option<Instant> = None;
    loop {
        // Silent first: whatever it rang for is seen from here on.
        tunnel.bell.hush();
        let stop = stopping.load(Ordering::Acquire);
        if stop == Stop::Soon as u8 {
            return Ok(());
        }
        let sent = sender.turn()?;
        let received = receiver.turn()?;
        for (turn, counter) in [(sent, Counter::DeviceEmpty), (received, Counter::SocketEmpty)] {
            if turn == Turn::Nothing {
                tunnel.counters.add(counter, 1);
            }
        }
        let carried = sent != Turn::Nothing || received != Turn::Nothing;
        if stop == Stop::Empty as u8 {
            let since = *last_turns.get_or_insert_with(Instant::now);
            if !carried || since.elapsed() > LAST_TURNS {
                return Ok(());
            }
        }
        if carried {
            patience.worked();
            // Without patience the sleep itself is the next look: it ends at once when there is something.
            if patience.is_any() || sent == Turn::Part || received == Turn::Part || stop == Stop::Empty as u8 {
                continue;
            }
        }
        let start = Instant::now();
        if patience.looks_again(start) {
            thread::yield_now();
            patience.gave_way(start, Instant::now());
            continue;
        }
        let entry = |fd| sys::pollfd { fd, events: sys::POLLIN, revents: 0 };
        sys::wait(&mut [entry(tunnel.device.fd()), entry(tunnel.socket_fd()), entry(tunnel.bell.fd())], -1)?;
        patience.slept(start, Instant::now());
    }
}

/// How long to look again: as long as it may take while that was enough lately, less and less while it was in vain, and not
/// at all for a time where the processor is wanted by others.
#[derive(Default)]
struct Patience {
    window: Duration,
    since: Option<Instant>,
    /// The end of the last retreat.
    retreat_end: Option<Instant>,
}

impl Patience {
    fn worked(&mut self) {
        self.since = None;
    }

    fn is_any(&self) -> bool {
        !self.window.is_zero()
    }

    /// Whether to look once more, there being nothing at this moment.
    fn looks_again(&mut self, now: Instant) -> bool {
        if !self.is_any() {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < self.window {
            return true;
        }
        self.window = if self.window / 2 < SHORTEST { Duration::ZERO } else { self.window / 2 };
        false
    }

    /// Between two looks: others had the processor meanwhile.
    fn gave_way(&mut self, from: Instant, to: Instant) {
        let took = to.saturating_duration_since(from);
        if took >= CROWDED {
            self.retreat_end = Some(to + (took * RETREAT_FACTOR).min(LONGEST_RETREAT));
            self.window = Duration::ZERO;
        }
    }

    fn slept(&mut self, from: Instant, to: Instant) {
        self.since = None;
        let is_retreating = self.retreat_end.map_or(false, |end| to < end);
        if to.saturating_duration_since(from) < LONGEST && !is_retreating {
            self.window = LONGEST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_short_pauses_and_ends_with_long_ones() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert!(!patience.looks_again(start), "not before there was a reason");
        patience.slept(start - Duration::from_millis(1), start);
        assert!(!patience.looks_again(start));
        patience.slept(start - Duration::from_micros(40), start);
        assert!(patience.looks_again(start));
        assert!(patience.looks_again(start + Duration::from_micros(99)));
        patience.worked();
        let later = start + Duration::from_secs(1);
        assert!(patience.looks_again(later), "work starts the time anew");
        let mut in_vain = 0;
        let mut now = later;
        while !patience.window.is_zero() {
            now += LONGEST;
            assert!(!patience.looks_again(now), "in vain");
            patience.slept(now - Duration::from_millis(1), now);
            in_vain += 1;
            patience.looks_again(now);
            assert!(in_vain < 10);
        }
        assert!(!patience.looks_again(now));
    }

    #[test]
    fn patience_retreats_from_a_crowd_for_longer_than_the_crowd_took() {
        let micros = Duration::from_micros;
        let mut now = Instant::now();
        let mut patience = Patience::default();
        let short_pause = |patience: &mut Patience, now: Instant| patience.slept(now - micros(40), now);
        short_pause(&mut patience, now);
        patience.gave_way(now, now + micros(20));
        assert!(patience.looks_again(now + micros(20)), "a partner's turn");
        for (took, retreat) in [(60, 6_000), (4_000, 400_000), (200_000, 5_000_000)] {
            patience.gave_way(now, now + micros(took));
            let end = now + micros(took + retreat);
            for moment in [now + micros(took + 50), end - micros(1)] {
                short_pause(&mut patience, moment);
                assert!(!patience.looks_again(moment), "after {took} us");
            }
            short_pause(&mut patience, end);
            assert!(patience.looks_again(end), "after {took} us and the retreat");
            now = end + micros(10);
        }
    }
}
