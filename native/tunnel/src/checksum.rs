//! The Internet checksum, over kilobytes at a time: it is the one pass over the payload that the tunnel itself makes.
//!
//! Sources: RFC 1071 (sums may be taken in any byte order and any word size), RFC 1624 (incremental update).

/// The one's complement sum of the bytes as big-endian 16-bit words; an odd last byte counts as a high byte.
pub fn sum(bytes: &[u8]) -> u16 {
    // The words are added as little-endian ones; swapping the sum is swapping every word.
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= wide::LEAST_BYTES && is_x86_feature_detected!("avx2") {
        return fold(unsafe { wide::sum(bytes) }).swap_bytes();
    }
    fold(sum_words(bytes)).swap_bytes()
}

/// A sum of the bytes as little-endian words, carries not yet added back in.
fn sum_words(bytes: &[u8]) -> u64 {
    // Carries are kept in the upper half of 128-bit accumulators: an add and an add-with-carry for eight bytes. Two of them
    // let the processor do two at once.
    let (mut even, mut odd) = (0u128, 0u128);
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        even += u128::from(word(block, 0)) + u128::from(word(block, 16));
        odd += u128::from(word(block, 8)) + u128::from(word(block, 24));
    }
    let mut total = even + odd;
    let mut words = blocks.remainder().chunks_exact(8);
    for bytes in &mut words {
        total += u128::from(word(bytes, 0));
    }
    let mut rest = words.remainder();
    for size in [4, 2] {
        if rest.len() >= size {
            let (head, tail) = rest.split_at(size);
            total += head.iter().rev().fold(0, |word, byte| word << 8 | u128::from(*byte));
            rest = tail;
        }
    }
    total += u128::from(rest.first().copied().unwrap_or(0));
    let folded = (total as u64 as u128) + (total >> 64);
    (folded as u64 & 0xffff_ffff) + (folded as u64 >> 32) + (folded >> 64) as u64
}

/// The same sum, 32 bytes an instruction, for processors with AVX2.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    /// Fewer bytes are summed as fast without.
    pub const LEAST_BYTES: usize = 128;

    /// A sum of the bytes as little-endian words, carries not yet added back in. Right for up to 4 GB.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn sum(bytes: &[u8]) -> u64 {
        // Each lane of 64 bits takes halves of 32 bits, so that nothing is carried out of it.
        let low_half = _mm256_set1_epi64x(0xffff_ffff);
        let mut low = [_mm256_setzero_si256(); 4];
        let mut high = low;
        let mut blocks = bytes.chunks_exact(128);
        for block in &mut blocks {
            for index in 0..4 {
                let words = _mm256_loadu_si256(block.as_ptr().add(32 * index).cast());
                low[index] = _mm256_add_epi64(low[index], _mm256_and_si256(words, low_half));
                high[index] = _mm256_add_epi64(high[index], _mm256_srli_epi64(words, 32));
            }
        }
        let mut parts = blocks.remainder().chunks_exact(32);
        for part in &mut parts {
            let words = _mm256_loadu_si256(part.as_ptr().cast());
            low[0] = _mm256_add_epi64(low[0], _mm256_and_si256(words, low_half));
            high[0] = _mm256_add_epi64(high[0], _mm256_srli_epi64(words, 32));
        }
        let mut total = _mm256_setzero_si256();
        for index in 0..4 {
            total = _mm256_add_epi64(total, _mm256_add_epi64(low[index], high[index]));
        }
        let mut lanes = [0u64; 4];
        _mm256_storeu_si256(lanes.as_mut_ptr().cast(), total);
        lanes.iter().sum::<u64>() + super::sum_words(parts.remainder())
    }
}

fn word(block: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// Adds the carries back in.
pub fn fold(mut value: u64) -> u16 {
    while value > 0xffff {
        value = (value & 0xffff) + (value >> 16);
    }
    value as u16
}

/// The sum with one 16-bit word replaced.
pub fn replace(sum: u16, old: u16, new: u16) -> u16 {
    fold(u64::from(sum) + u64::from(!old) + u64::from(new))
}

/// The sum of a TCP or UDP pseudo-header. `addresses` is the source and destination, both of one family.
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> u16 {
    fold(u64::from(sum(addresses)) + u64::from(protocol) + (length as u64 & 0xffff) + (length as u64 >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
        fold(words.sum())
    }

    #[test]
    fn agrees_with_the_definition_at_every_length() {
        let mut state = 0x1234_5678_9abc_def1u64;
        let bytes: Vec<u8> = (0..3000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        for length in (0..200).chain([1420, 1421, 3000]) {
            assert_eq!(sum(&bytes[..length]), slow(&bytes[..length]), "length {length}");
        }
        assert_eq!(sum(&[0xff; 2999]), slow(&[0xff; 2999]));
    }

    #[test]
    fn replaces_a_word() {
        let mut bytes = [0x45, 0x00, 0x12, 0x34, 0xff, 0xff, 0x40, 0x11];
        let before = sum(&bytes);
        bytes[6] = 0x3f;
        assert_eq!(replace(before, 0x4011, 0x3f11), sum(&bytes));
    }
}
