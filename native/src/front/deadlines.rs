//! When somebody's time is up: a queue in the order of beginning, for times that are all equally long. Most whom it
//! names are over long before, and are passed over. After a change of the settings one may wait for its predecessor.

use std::collections::VecDeque;
use std::time::Instant;

/// Those who are over are swept out from here on.
const QUEUE_MIN: usize = 1024;

#[derive(Default)]
pub struct Deadlines {
    queue: VecDeque<(Instant, u64)>,
}

impl Deadlines {
    /// A time that no clock can name is never. `alive` is how many there may be beside the one of this number.
    pub fn push(&mut self, at: Option<Instant>, id: u64, alive: usize, is_alive: impl Fn(u64) -> bool) {
        // Whoever is at the front may keep many there that are over.
        if self.queue.len() >= QUEUE_MIN.max(alive.saturating_mul(2)) {
            self.queue.retain(|(_, id)| is_alive(*id));
        }
        if let Some(at) = at {
            self.queue.push_back((at, id));
        }
    }

    /// Somebody whose time is up, and who still waits.
    pub fn pop(&mut self, now: Instant, is_waiting: impl Fn(u64) -> bool) -> Option<u64> {
        while let Some(&(at, id)) = self.queue.front() {
            let is_waiting = is_waiting(id);
            if is_waiting && at > now {
                return None;
            }
            self.queue.pop_front();
            if is_waiting {
                return Some(id);
            }
        }
        None
    }

    /// When `pop` is worth a look.
    pub fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_over_is_passed_over_and_who_waits_is_told_in_time() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        for id in 1..=3 {
            deadlines.push(start.checked_add(Duration::from_secs(id)), id, 3, |_| true);
        }
        assert_eq!(deadlines.pop(start, |id| id > 1), None);
        assert_eq!(deadlines.next(), Some(start + Duration::from_secs(2)));
        let late = start + Duration::from_secs(9);
        assert_eq!(deadlines.pop(late, |id| id != 2), Some(3));
        assert_eq!((deadlines.pop(late, |_| true), deadlines.next()), (None, None));
    }

    #[test]
    fn the_dead_do_not_pile_up_behind_one_who_waits() {
        let mut deadlines = Deadlines::default();
        for id in 0..10_000 {
            deadlines.push(Some(Instant::now()), id, 1, |id| id == 0);
            assert!(deadlines.len() <= QUEUE_MIN);
        }
    }
}
