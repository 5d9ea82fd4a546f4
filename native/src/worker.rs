//! One thread around one hub: wait for edges, hand them over, do what is due.
//!
//! The hub is behind a turnstile that the thread takes for each edge by itself, so that a question from elsewhere
//! waits for one turn of one flow at most. The thread never waits for anything but its epoll and that turnstile,
//! and whoever holds the turnstile waits for nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::completions::{Bell, Outbox};
use crate::hub::{Hub, Share};
use crate::pair::End;
use crate::pump::untag;
use crate::turnstile::Turnstile;

/// Enough to empty a busy ready list in one call, few enough that timers are not kept waiting.
const EVENTS_MAX: usize = 256;
/// A call of the kernel and a handful of frames; Rust's default is two mebibytes.
const STACK_BYTES: usize = 128 * 1024;
/// The tag of the bell: no pair has this number.
const BELL: u64 = u64::MAX;

struct Shared {
    hub: Turnstile<Hub>,
    bell: Bell,
}

/// A thread and the hub that it works on. Dropping it without `stop` stops it as well.
pub struct Worker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Fails when descriptors or threads have run out, with nothing left behind.
    pub fn start(number: usize, outbox: Arc<Outbox>, share: Share) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        let waited = fcntl_dupfd_cloexec(&epoll, 0)?;
        let hub = Hub::new(epoll, outbox, share, Instant::now());
        let shared = Arc::new(Shared { hub: Turnstile::new(hub), bell });
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name(format!("relay-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || work(&theirs, &waited))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Do something with the hub, and wake the thread if it has to know.
    pub fn with<T>(&self, act: impl FnOnce(&mut Hub) -> T) -> T {
        self.act(self.shared.hub.enter(), act)
    }

    /// The same, if nobody has the hub at this moment; else `act` comes back.
    pub fn try_with<T, F: FnOnce(&mut Hub) -> T>(&self, act: F) -> Result<T, F> {
        match self.shared.hub.try_enter() {
            Some(hub) => Ok(self.act(hub, act)),
            None => Err(act),
        }
    }

    /// End all pairs and the thread. Idempotent.
    pub fn stop(&self) {
        self.with(|hub| hub.close(End::Killed));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // An error would be the thread's panic, and a panic has ended the process.
            let _ = thread.join();
        }
    }

    fn act<T>(&self, mut hub: MutexGuard<'_, Hub>, act: impl FnOnce(&mut Hub) -> T) -> T {
        let done = act(&mut hub);
        let is_overslept = hub.is_overslept();
        drop(hub);
        if is_overslept {
            self.shared.bell.ring();
        }
        done
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(shared: &Shared, epoll: &OwnedFd) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
    loop {
        let sleep = {
            let mut hub = shared.hub.enter();
            if hub.is_closed() {
                return;
            }
            hub.rest(Instant::now())
        };
        events.clear();
        let waited = epoll::wait(epoll, spare_capacity(&mut events), sleep.map(whole_ms).as_ref());
        if !matches!(waited, Ok(_) | Err(Errno::INTR)) {
            // Without edges nothing may go on, and nothing would end.
            shared.hub.enter().close(End::Failed);
            return;
        }
        let now = Instant::now();
        for event in &events {
            if event.data.u64() == BELL {
                shared.bell.hush();
            } else {
                let (id, side) = untag(event.data);
                shared.hub.enter().ready(id, side, event.flags, now);
            }
        }
        shared.hub.enter().tick(now);
    }
}

/// Rounded up: waking a little early means waking again at once. At most a day, which every kernel can wait.
fn whole_ms(sleep: Duration) -> Timespec {
    let sleep_ms = sleep.as_micros().div_ceil(1000).min(24 * 3600 * 1000);
    let sleep = Duration::from_millis(u64::try_from(sleep_ms).unwrap_or(0));
    Timespec::try_from(sleep).unwrap_or_default()
}
