//! What a stream of numbered messages lost, and when: pure counting, times in nanoseconds from the start.

/// Round trips kept for percentiles; the counts go on after that.
const SAMPLE_LIMIT: usize = 1 << 20;
/// Lost messages that are named.
const NAMED_LOSSES: usize = 8;

#[derive(Default)]
pub struct Meter {
    sent: u64,
    received: u64,
    duplicates: u64,
    reordered: u64,
    highest: Option<u64>,
    /// One bit a message: answered.
    answered: Vec<u64>,
    last_sent_ns: u64,
    last_arrival_ns: Option<u64>,
    longest_gap_ns: u64,
    round_trips_us: Vec<u32>,
}

impl Meter {
    /// Messages are numbered from zero in the order of these calls.
    pub fn sent(&mut self, now_ns: u64) {
        if self.sent % 64 == 0 {
            self.answered.push(0);
        }
        self.sent += 1;
        self.last_sent_ns = now_ns;
    }

    pub fn received(&mut self, number: u64, sent_ns: u64, now_ns: u64) {
        // A number that was never sent is somebody else's message.
        if number >= self.sent {
            return;
        }
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if self.answered[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.answered[word] |= bit;
        self.received += 1;
        if self.highest.map_or(false, |highest| number < highest) {
            self.reordered += 1;
        }
        self.highest = Some(self.highest.map_or(number, |highest| highest.max(number)));
        if let Some(last) = self.last_arrival_ns {
            self.longest_gap_ns = self.longest_gap_ns.max(now_ns.saturating_sub(last));
        }
        self.last_arrival_ns = Some(now_ns);
        if self.round_trips_us.len() < SAMPLE_LIMIT {
            self.round_trips_us.push((now_ns.saturating_sub(sent_ns) / 1000).min(u64::from(u32::MAX)) as u32);
        }
    }

    pub fn count_sent(&self) -> u64 {
        self.sent
    }

    pub fn count_received(&self) -> u64 {
        self.received
    }

    pub fn is_complete(&self) -> bool {
        self.received == self.sent
    }

    /// The totals as the members of a JSON object.
    pub fn to_json(&self) -> String {
        let mut sorted = self.round_trips_us.clone();
        sorted.sort_unstable();
        let at = |share: f64| match sorted.len() {
            0 => "null".to_string(),
            count => sorted[((count - 1) as f64 * share).round() as usize].to_string(),
        };
        // Silence that lasts until the end is a gap as well.
        let tail_ns = self.last_arrival_ns.map_or(0, |last| self.last_sent_ns.saturating_sub(last));
        format!(
            "\"sent\":{},\"received\":{},\"lost\":{},\"duplicates\":{},\"reordered\":{},\"longestLoss\":{},\"lostNumbers\":[{}],\"maxGapMs\":{:.3},\"rttUs\":{{\"min\":{},\"p50\":{},\"p99\":{},\"max\":{}}}",
            self.sent,
            self.received,
            self.sent - self.received,
            self.duplicates,
            self.reordered,
            self.longest_loss(),
            self.lost_numbers().take(NAMED_LOSSES).map(|number| number.to_string()).collect::<Vec<_>>().join(","),
            self.longest_gap_ns.max(tail_ns) as f64 / 1e6,
            at(0.0),
            at(0.5),
            at(0.99),
            at(1.0),
        )
    }

    /// The messages that got no answer, in their order.
    fn lost_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.sent).filter(|number| self.answered[(number / 64) as usize] >> (number % 64) & 1 == 0)
    }

    /// The most messages in a row that got no answer.
    fn longest_loss(&self) -> u64 {
        let (mut longest, mut run, mut last) = (0, 0, None);
        for number in self.lost_numbers() {
            run = if last.map_or(false, |last| last + 1 == number) { run + 1 } else { 1 };
            last = Some(number);
            longest = longest.max(run);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_happened() {
        let mut meter = Meter::default();
        for number in 0..200u64 {
            meter.sent(number * 1_000_000);
        }
        for number in (0..200).filter(|number| !(70..75).contains(number) && *number != 3) {
            meter.received(number, number * 1_000_000, number * 1_000_000 + 50_000);
        }
        meter.received(3, 3_000_000, 250_000_000);
        meter.received(3, 3_000_000, 251_000_000);
        meter.received(999, 0, 0);
        let json = meter.to_json();
        let expected = "\"sent\":200,\"received\":195,\"lost\":5,\"duplicates\":1,\"reordered\":1,\"longestLoss\":5,\"lostNumbers\":[70,71,72,73,74],";
        assert!(json.starts_with(expected), "{json}");
        assert!(json.contains("\"maxGapMs\":50.950,"), "{json}");
        assert!(json.contains("\"rttUs\":{\"min\":50,\"p50\":50,\"p99\":50,\"max\":247000}"), "{json}");
    }

    #[test]
    fn silence_until_the_end_is_a_gap() {
        let mut meter = Meter::default();
        for number in 0..1000u64 {
            meter.sent(number * 1_000_000);
            if number < 10 {
                meter.received(number, number * 1_000_000, number * 1_000_000);
            }
        }
        assert!(meter.to_json().contains("\"longestLoss\":990,\"lostNumbers\":[10,11,12,13,14,15,16,17],\"maxGapMs\":990.000,"));
        assert!(Meter::default().to_json().contains("\"rttUs\":{\"min\":null"));
    }
}
