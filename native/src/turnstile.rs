//! A lock that is fair between two: whoever asks while it is held is next, however fast the holder asks again.
//!
//! The threads hold it while they work and let go of it only when somebody asks. A plain mutex would let them in again
//! before the other has woken up, and a question about one pair would wait until all were served.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Something that one at a time may have.
pub struct Turnstile<T> {
    next: Mutex<()>,
    inner: Mutex<T>,
    waiting: AtomicUsize,
}

impl<T> Turnstile<T> {
    pub fn new(inner: T) -> Self {
        Self { next: Mutex::new(()), inner: Mutex::new(inner), waiting: AtomicUsize::new(0) }
    }

    /// Wait for it. Whoever waits here keeps the place, and lets nobody past.
    pub fn enter(&self) -> MutexGuard<'_, T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        drop(place);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        inner
    }

    /// None if it is taken.
    pub fn try_enter(&self) -> Option<MutexGuard<'_, T>> {
        match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Let those pass who wait.
    pub fn give_way<'a>(&'a self, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return held;
        }
        drop(held);
        self.enter()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn entries_between(another: impl Fn(&Turnstile<u64>, &AtomicBool) + Sync) -> Vec<u64> {
        let turnstile = Turnstile::new(0_u64);
        let stop = AtomicBool::new(false);
        let mut entries_between = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| another(&turnstile, &stop));
            for _ in 0..200 {
                let before = *turnstile.enter();
                let after = *turnstile.enter();
                entries_between.push(after - before);
            }
            stop.store(true, Ordering::Relaxed);
        });
        entries_between.sort_unstable();
        entries_between
    }

    #[test]
    fn a_holder_that_asks_again_at_once_does_not_shut_others_out() {
        let between = entries_between(|turnstile, stop| {
            while !stop.load(Ordering::Relaxed) {
                *turnstile.enter() += 1;
            }
        });
        // Between two entries of this thread the other may get in while this one is not yet asking.
        assert!(between[100] < 10_000, "{between:?}");
    }

    #[test]
    fn a_holder_that_gives_way_does_not_shut_others_out() {
        let between = entries_between(|turnstile, stop| {
            let mut held = turnstile.enter();
            while !stop.load(Ordering::Relaxed) {
                *held += 1;
                held = turnstile.give_way(held);
            }
        });
        assert!(between[100] < 10_000, "{between:?}");
    }

    #[test]
    fn trying_does_not_wait() {
        let turnstile = Turnstile::new(());
        let held = turnstile.enter();
        assert!(turnstile.try_enter().is_none());
        drop(held);
        assert!(turnstile.try_enter().is_some());
    }
}
