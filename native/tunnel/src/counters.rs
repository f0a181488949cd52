//! What happened, by reason. Each counter is written by one packet thread (or rarely by both) and read by the control thread.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug)]
pub enum Counter {
    SentPackets,
    SentBytes,
    SendCalls,
    ReceivedPackets,
    ReceivedBytes,
    ReceiveCalls,
    DeviceWrites,
    MergedPackets,
    NoPeer,
    TtlExceeded,
    TooBig,
    Malformed,
    Stranger,
    ForgedSource,
    NotForUs,
    BadChecksum,
    SendError,
    WriteError,
    IcmpSent,
    IcmpLimited,
    SegmentationRefused,
    /// Looks that found no packet in the device, and in the socket.
    DeviceEmpty,
    SocketEmpty,
}

const NAMES: [(Counter, &str); 23] = [
    (Counter::SentPackets, "sent-packets"),
    (Counter::SentBytes, "sent-bytes"),
    (Counter::SendCalls, "send-calls"),
    (Counter::ReceivedPackets, "received-packets"),
    (Counter::ReceivedBytes, "received-bytes"),
    (Counter::ReceiveCalls, "receive-calls"),
    (Counter::DeviceWrites, "device-writes"),
    (Counter::MergedPackets, "merged-packets"),
    (Counter::NoPeer, "dropped-no-peer"),
    (Counter::TtlExceeded, "dropped-ttl-exceeded"),
    (Counter::TooBig, "dropped-too-big"),
    (Counter::Malformed, "dropped-malformed"),
    (Counter::Stranger, "dropped-unknown-sender"),
    (Counter::ForgedSource, "dropped-forged-source"),
    (Counter::NotForUs, "dropped-not-for-us"),
    (Counter::BadChecksum, "passed-bad-checksum"),
    (Counter::SendError, "dropped-send-error"),
    (Counter::WriteError, "dropped-write-error"),
    (Counter::IcmpSent, "icmp-sent"),
    (Counter::IcmpLimited, "icmp-limited"),
    (Counter::SegmentationRefused, "segmentation-refused"),
    (Counter::DeviceEmpty, "device-empty"),
    (Counter::SocketEmpty, "socket-empty"),
];

#[derive(Default)]
pub struct Counters {
    values: [AtomicU64; NAMES.len()],
}

impl Counters {
    pub fn add(&self, counter: Counter, count: u64) {
        self.values[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().map(|(counter, name)| (*name, self.values[*counter as usize].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_name() {
        for (index, (counter, _)) in NAMES.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
        let counters = Counters::default();
        counters.add(Counter::NoPeer, 2);
        counters.add(Counter::NoPeer, 1);
        assert_eq!(counters.read().find(|(_, value)| *value > 0), Some(("dropped-no-peer", 3)));
    }
}
