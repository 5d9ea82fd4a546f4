//! One thread around one hub: wait for edges, hand them over, do what is due.
//!
//! The hub is behind a turnstile, and between any two edges the thread lets those pass who wait at it, so that a
//! question from elsewhere waits for one turn of one flow at most. The thread never waits for anything but its epoll
//! and that turnstile, and whoever holds the turnstile waits for nothing. Pairs come past it, by `arrivals`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::arrivals::{Added, Arrivals};
use crate::completions::{Bell, Outbox};
use crate::hub::{Hub, Share};
use crate::pair::{End, Pair};
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
    arrivals: Arc<Arrivals>,
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
        let entered = fcntl_dupfd_cloexec(&epoll, 0)?;
        let now = Instant::now();
        let arrivals = Arc::new(Arrivals::new(entered, now));
        let hub = Hub::new(epoll, Arc::clone(&arrivals), outbox, share, now);
        let shared = Arc::new(Shared { hub: Turnstile::new(hub), arrivals, bell });
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name(format!("relay-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || work(&theirs, &waited))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hand over a pair that was made just now. Its sockets are reset when that cannot be done: no room for watches,
    /// or stopped. Waits for nobody's turn, but when there is no room.
    pub fn add(&self, id: u64, pair: Pair) -> Result<(), Errno> {
        match self.shared.arrivals.add(id, pair)? {
            Added::Quietly => Ok(()),
            Added::Overslept => {
                self.shared.bell.ring();
                Ok(())
            }
            // If it has ended by itself in the meantime, that is what is told.
            Added::Unwatched(errno) => {
                if self.with(|hub| hub.forget(id)) {
                    Err(errno)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Pairs alive. Waits for nobody.
    pub fn alive(&self) -> usize {
        self.shared.arrivals.alive()
    }

    /// Do something with the hub.
    pub fn with<T>(&self, act: impl FnOnce(&mut Hub) -> T) -> T {
        let mut hub = self.shared.hub.enter();
        hub.receive();
        act(&mut hub)
    }

    /// The same, if nobody has the hub at this moment; else `act` comes back.
    pub fn try_with<T, F: FnOnce(&mut Hub) -> T>(&self, act: F) -> Result<T, F> {
        let Some(mut hub) = self.shared.hub.try_enter() else {
            return Err(act);
        };
        hub.receive();
        Ok(act(&mut hub))
    }

    /// End all pairs and the thread. Idempotent.
    pub fn stop(&self) {
        self.with(|hub| hub.close(End::Killed));
        self.shared.bell.ring();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // An error would be the thread's panic, and a panic has ended the process.
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(shared: &Shared, epoll: &OwnedFd) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
    let mut hub = shared.hub.enter();
    while !hub.is_closed() {
        let sleep = hub.rest(Instant::now());
        drop(hub);
        events.clear();
        let waited = epoll::wait(epoll, spare_capacity(&mut events), sleep.map(whole_ms).as_ref());
        shared.arrivals.wakes_up();
        hub = shared.hub.enter();
        if !matches!(waited, Ok(_) | Err(Errno::INTR)) {
            // Without edges nothing may go on, and nothing would end.
            hub.close(End::Failed);
            return;
        }
        let now = Instant::now();
        for event in &events {
            if event.data.u64() == BELL {
                shared.bell.hush();
            } else {
                let (id, side) = untag(event.data);
                hub.ready(id, side, event.flags, now);
                hub = shared.hub.give_way(hub);
            }
        }
        hub.tick(now);
    }
}

/// Rounded up: waking a little early means waking again at once. At most a day, which every kernel can wait.
pub fn whole_ms(sleep: Duration) -> Timespec {
    let sleep_ms = sleep.as_micros().div_ceil(1000).min(24 * 3600 * 1000);
    let sleep = Duration::from_millis(u64::try_from(sleep_ms).unwrap_or(0));
    Timespec::try_from(sleep).unwrap_or_default()
}
