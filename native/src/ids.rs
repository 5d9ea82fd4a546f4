//! Tables by pair number. The numbers are our own, in a row: nobody can choose them so that they collide, so the
//! table's usual hash, made against such a choice, would be paid for nothing, several times a message.

use std::hash::{BuildHasherDefault, Hasher};

/// For `HashMap<u64, _>`.
pub type Ids = BuildHasherDefault<IdHasher>;

/// Spreads a number over all bits of its hash, of which tables look at the highest and the lowest.
#[derive(Default)]
pub struct IdHasher {
    hash: u64,
}

/// 2^64 divided by the golden ratio, and odd: neighbours end up far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(SPREAD).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_in_a_row_and_in_steps_spread_over_high_and_low_bits() {
        for step in [1, 2, 3, 64, 4096] {
            let hashes: Vec<u64> = (0..1024)
                .map(|place| {
                    let mut hasher = IdHasher::default();
                    hasher.write_u64(place * step);
                    hasher.finish()
                })
                .collect();
            let low: HashSet<u64> = hashes.iter().map(|hash| hash & 1023).collect();
            let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(low.len() > 512 && high.len() > 100, "{step}: {} {}", low.len(), high.len());
        }
    }
}
