//! Pairs on their way to a thread: handed over without waiting for it, and mostly without waking it.
//!
//! Whoever adds a pair puts it on this list and its sockets into the thread's epoll. The first edge wakes the thread,
//! which finds a number that it does not know and looks here; before it sleeps it looks here as well. So whoever adds
//! waits for nobody's turn, and the lock is held for a few instructions. Two orders matter, and stand here alone:
//!
//! - The pair is on the list before its sockets can tell of an edge, so no edge comes for nobody. The pair may end
//!   before its last socket is in the epoll; whoever adds has a handle of both, so the numbers are still theirs.
//! - The thread says how long it will sleep and looks at the list then; whoever adds lengthens the list and asks then
//!   how long the thread will sleep. So one of the two sees the other.

use std::mem;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::Errno;

use crate::pair::{Pair, Side};
use crate::pump::{READ, READ_AND_WRITE, tag};

/// The thread is at work, and looks at the list before it sleeps.
const AWAKE: u64 = 0;
/// The thread sleeps until something happens.
const ENDLESS: u64 = u64::MAX;

/// The way in.
pub struct Arrivals {
    epoll: OwnedFd,
    list: Mutex<List>,
    /// As long as the list.
    count: AtomicUsize,
    /// Pairs that were added and have neither ended nor been given back.
    alive: AtomicUsize,
    /// Until when the thread means to sleep, in nanoseconds since `born`.
    sleep: AtomicU64,
    born: Instant,
}

/// What is left to do after a pair was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Quietly,
    /// The thread sleeps longer than the pair may: wake it.
    Overslept,
    /// A socket cannot be watched: take the pair out again, if it is still there.
    Unwatched(Errno),
}

/// At most as many as were added since the thread's last turn: it looks here before it sleeps.
#[derive(Default)]
struct List {
    pairs: Vec<(u64, Pair)>,
    closed: bool,
}

impl Arrivals {
    /// `epoll` is another handle of the one that the thread waits for.
    pub fn new(epoll: OwnedFd, now: Instant) -> Self {
        Self {
            epoll,
            list: Mutex::default(),
            count: AtomicUsize::new(0),
            alive: AtomicUsize::new(0),
            sleep: AtomicU64::new(AWAKE),
            born: now,
        }
    }

    /// Hand over a pair that was made just now. Its sockets are reset when that cannot be done: no room for watches,
    /// or closed.
    pub fn add(&self, id: u64, pair: Pair) -> Result<Added, Errno> {
        let idle = pair.limits.idle.and_then(|idle| pair.last.checked_add(idle));
        let sockets = Arc::clone(&pair.sockets);
        let edges = Side::BOTH.map(|side| if pair.awaits_room(side) { READ_AND_WRITE } else { READ });
        let mut list = self.lock();
        if list.closed {
            drop(list);
            pair.close(true);
            return Err(Errno::SHUTDOWN);
        }
        self.alive.fetch_add(1, Ordering::Relaxed);
        list.pairs.push((id, pair));
        self.count.store(list.pairs.len(), Ordering::SeqCst);
        drop(list);
        for (side, edges) in Side::BOTH.into_iter().zip(edges) {
            match epoll::add(&self.epoll, sockets.of(side), tag(id, side), edges) {
                // The thread was faster: it had bytes for this side, and had to ask about room.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Ok(Added::Unwatched(errno)),
            }
        }
        let is_overslept = idle.is_some_and(|idle| self.sleep.load(Ordering::SeqCst) > self.since_born(idle));
        Ok(if is_overslept { Added::Overslept } else { Added::Quietly })
    }

    /// Those that have come, in their order, for an empty `pairs` whose room is used again: memory that one thread gets
    /// and another gives back costs both a lock.
    pub fn take(&self, pairs: &mut Vec<(u64, Pair)>) {
        let mut list = self.lock();
        self.count.store(0, Ordering::SeqCst);
        mem::swap(&mut list.pairs, pairs);
    }

    /// Pairs that were added and have neither ended nor been given back. Waits for nobody.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// One less.
    pub fn ended(&self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Take no more.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// The thread is about to sleep until then; none is until something happens. `is_empty` is asked after this.
    pub fn falls_asleep(&self, until: Option<Instant>) {
        self.sleep.store(until.map_or(ENDLESS, |until| self.since_born(until)), Ordering::SeqCst);
    }

    /// The thread is at work again.
    pub fn wakes_up(&self) {
        self.sleep.store(AWAKE, Ordering::SeqCst);
    }

    fn since_born(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.born).as_nanos()).unwrap_or(ENDLESS)
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
