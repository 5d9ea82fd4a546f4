//! A limited rate: bytes a second, with a second's worth at most saved up.

use std::time::{Duration, Instant};

/// Who is out of allowance sleeps until this much of a second's worth is there again.
const STEP_S: f64 = 0.05;

/// One direction's allowance. Fractions of a byte matter to slow rates, so it counts in floating point.
pub struct Allowance {
    bytes_per_second: f64,
    bytes: f64,
    at: Instant,
    /// A timer is running and no second one is needed.
    pub waiting: bool,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "beyond 2^53 bytes a second the last bytes do not matter, and float to integer saturates"
)]
impl Allowance {
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        let bytes_per_second = bytes_per_second as f64;
        Self { bytes_per_second, bytes: bytes_per_second * STEP_S, at: now, waiting: false }
    }

    /// Whole bytes that may pass now.
    pub fn available(&mut self, now: Instant) -> u64 {
        let since_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.bytes = (self.bytes + since_s * self.bytes_per_second).min(self.bytes_per_second);
        self.at = now;
        self.bytes.max(0.0) as u64
    }

    /// So many have passed; it may be overdrawn.
    pub fn spend(&mut self, count: u64) {
        self.bytes -= count as f64;
    }

    /// How long until it is worth asking again.
    pub fn wait(&self) -> Duration {
        let wait_s = (-self.bytes / self.bytes_per_second).max(STEP_S);
        Duration::try_from_secs_f64(wait_s).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_over_seconds_and_is_not_saved_up() {
        let start = Instant::now();
        let mut allowance = Allowance::new(1000, start);
        assert_eq!(allowance.available(start), 50);
        allowance.spend(50);
        assert_eq!(allowance.available(start), 0);
        assert_eq!(allowance.available(start + Duration::from_millis(100)), 100);
        assert_eq!(allowance.available(start + Duration::from_secs(3600)), 1000);
    }

    #[test]
    fn an_overdrawn_allowance_says_how_long_to_wait() {
        let mut allowance = Allowance::new(100, Instant::now());
        allowance.spend(105);
        assert_eq!(allowance.wait(), Duration::from_secs(1));
    }

    #[test]
    fn the_slowest_rate_passes_a_byte_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(1, start);
        assert_eq!(allowance.available(start + Duration::from_millis(900)), 0);
        assert_eq!(allowance.available(start + Duration::from_secs(1)), 1);
    }
}
