//! What has ended and was not yet told: many completions, one bell.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

use crate::pair::Ending;

/// How one pair ended, and what it had moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    pub id: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub ending: Ending,
}

/// An eventfd that is written when there is something to look at. Non-blocking; any thread may ring.
pub struct Bell {
    fd: OwnedFd,
}

impl Bell {
    pub fn new() -> rustix::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { fd })
    }

    pub fn ring(&self) {
        // It can fail only when it has been rung 2^64 times without being heard: then it rings already.
        let _ = write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Silence it.
    pub fn hush(&self) {
        // EAGAIN: it did not ring.
        let _ = read(&self.fd, &mut [0_u8; 8]);
    }

    pub fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Completions of all threads on their way out. As long as the pairs that ended since it was last emptied.
pub struct Outbox {
    waiting: Mutex<Vec<Completion>>,
    pub bell: Bell,
}

impl Outbox {
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self { waiting: Mutex::new(Vec::new()), bell: Bell::new()? })
    }

    pub fn push(&self, completion: Completion) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = waiting.is_empty();
        waiting.push(completion);
        drop(waiting);
        if is_first {
            self.bell.ring();
        }
    }

    /// All that are there. The bell is silenced first, so that none comes unheard.
    pub fn take(&self) -> Vec<Completion> {
        self.bell.hush();
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
