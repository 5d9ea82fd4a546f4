//! Everything that waits for a time, in one heap: idle limits and exhausted allowances.
//!
//! An entry is a guess. When it is due its pair is looked at, and the entry comes back later if the pair has moved
//! since; so a byte that moves costs one store and no timer. Entries of ended pairs stay until they are due, or
//! until they outnumber the living.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::pair::Way;

/// Idle limits are looked at in steps, so that those due at nearly the same time share a turn.
pub const IDLE_STEP: Duration = Duration::from_millis(50);
/// Entries of ended pairs are swept out once they outnumber the living by this many.
const ENTRIES_MIN: usize = 1024;

/// Which pair is looked at, and for what: its idle limit, or the allowance of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    pub id: u64,
    /// None is the idle limit; else the allowance of `Outward` (true) or `Inward`.
    outward: Option<bool>,
}

impl Reason {
    pub fn idle(id: u64) -> Self {
        Self { id, outward: None }
    }

    pub fn allowance(id: u64, way: Way) -> Self {
        Self { id, outward: Some(way == Way::Outward) }
    }

    /// The direction that waits for its allowance; none for an idle limit.
    pub fn way(self) -> Option<Way> {
        self.outward.map(|outward| if outward { Way::Outward } else { Way::Inward })
    }
}

/// The heap. A time that cannot be told (hundreds of years away) never comes.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Reason)>>,
}

impl Timers {
    pub fn push(&mut self, from: Instant, wait: Duration, reason: Reason) {
        if let Some(at) = from.checked_add(wait) {
            self.heap.push(Reverse((at, reason)));
        }
    }

    /// When the next entry is due.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next entry that is due.
    pub fn pop(&mut self, now: Instant) -> Option<Reason> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, reason))| reason)
    }

    /// Throw out what nobody waits for any more, if it is worth the walk. `alive` pairs have three entries at most.
    pub fn sweep(&mut self, alive: usize, is_alive: impl Fn(u64) -> bool) {
        if self.heap.len() > alive.saturating_mul(4).saturating_add(ENTRIES_MIN) {
            self.heap.retain(|Reverse((_, reason))| is_alive(reason.id));
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_the_order_of_their_times() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for (id, seconds) in [(1, 3), (2, 1), (3, 2)] {
            timers.push(start, Duration::from_secs(seconds), Reason::idle(id));
        }
        timers.push(start, Duration::MAX, Reason::idle(4));
        assert_eq!(timers.pop(start), None);
        let late = start + Duration::from_secs(10);
        let ids: Vec<u64> = std::iter::from_fn(|| timers.pop(late)).map(|r| r.id).collect();
        assert_eq!(ids, [2, 3, 1]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn the_dead_do_not_pile_up() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for id in 0..10_000 {
            timers.push(start, Duration::from_secs(3600), Reason::allowance(id, Way::Inward));
            timers.sweep(1, |alive| alive == 0);
        }
        assert!(timers.len() < 2 * ENTRIES_MIN);
        let late = start + Duration::from_secs(3601);
        assert_eq!(timers.pop(late), Some(Reason::allowance(0, Way::Inward)));
    }
}
