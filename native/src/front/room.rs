//! How many clients may come in. Python counts those that it knows; the front counts those that it does not know yet.
//!
//! A client is unknown from being accepted until Python has heard of it *and* has counted anew. So at no moment is
//! there one that neither of the two counts, however long Python takes over a batch of letters.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Shared by the thread that accepts and by Python.
#[derive(Default)]
pub struct Room {
    /// So many more fit, as Python has counted.
    free: AtomicUsize,
    /// Accepted since, as far as Python's count goes.
    unknown: AtomicUsize,
    /// Of those, told and not counted yet.
    told: AtomicUsize,
}

impl Room {
    /// A client is accepted.
    pub fn enter(&self) {
        self.unknown.fetch_add(1, Ordering::SeqCst);
    }

    /// Python is told of so many, and counts next.
    pub fn tell(&self, count: usize) {
        self.told.fetch_add(count, Ordering::SeqCst);
    }

    /// Python has counted, with everybody it was told of.
    pub fn set(&self, free: usize) {
        // In this order: whoever looks in between counts those that were told twice, and not at all never.
        self.free.store(free, Ordering::SeqCst);
        self.unknown.fetch_sub(self.told.swap(0, Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Clients that Python does not count.
    pub fn unknown(&self) -> usize {
        self.unknown.load(Ordering::SeqCst)
    }

    pub fn is_full(&self) -> bool {
        self.unknown() >= self.free.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_of_counts_here_until_python_has_counted() {
        let room = Room::default();
        assert!(room.is_full(), "nobody has said that there is room");
        room.set(2);
        room.enter();
        assert!(!room.is_full());
        room.enter();
        assert!(room.is_full());
        room.tell(2);
        assert!(room.is_full(), "told is not counted");
        room.set(1);
        assert!(!room.is_full());
        assert_eq!(room.unknown(), 0);
    }

    #[test]
    fn who_comes_while_python_counts_is_not_forgotten() {
        let room = Room::default();
        room.set(3);
        room.enter();
        room.tell(1);
        room.enter(); // Python counts the first one only
        room.set(1);
        assert!(room.is_full());
        assert_eq!(room.unknown(), 1);
    }
}
