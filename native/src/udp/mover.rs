//! One thread around one table: wait for edges, take a batch, move it, look at the next socket.
//!
//! The table is behind a turnstile that the thread takes for each batch by itself, so that a question from elsewhere
//! waits for one batch at most. The thread never waits for anything but its epoll and that turnstile.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::completions::Bell;
use crate::turnstile::Turnstile;
use crate::udp::calls::Inlet;
use crate::udp::socket::Waiting;
use crate::udp::table::{Table, Turn};

const EVENTS_MAX: usize = 256;
/// Calls of the kernel with headers and names for a batch each, and a handful of frames.
const STACK_BYTES: usize = 128 * 1024;
/// The tag of the bell: no socket has this number.
const BELL: u64 = u64::MAX;
const NOT_AT_ALL: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

struct Shared {
    table: Turnstile<Table>,
    /// Wakes the thread.
    bell: Bell,
    /// Tells Python that there is something for it.
    call: Bell,
}

/// A thread and the table that it works on. Dropping it without `stop` stops it as well.
pub struct Mover {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Mover {
    /// Fails when descriptors or threads have run out, with nothing left behind.
    pub fn start() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        let waited = fcntl_dupfd_cloexec(&epoll, 0)?;
        let shared = Arc::new(Shared { table: Turnstile::new(Table::new(epoll)), bell, call: Bell::new()? });
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name("datagrams".into())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&theirs, &waited))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Do something with the table.
    pub fn with<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        act(&mut self.shared.table.enter())
    }

    /// The same, if nobody has the table at this moment; else `act` comes back.
    pub fn try_with<T, F: FnOnce(&mut Table) -> T>(&self, act: F) -> Result<T, F> {
        match self.shared.table.try_enter() {
            Some(mut table) => Ok(act(&mut table)),
            None => Err(act),
        }
    }

    /// The descriptor of the bell: readable while there is something to take.
    pub fn call(&self) -> RawFd {
        self.shared.call.number()
    }

    /// What nobody knew a flow for. Silences the bell first, so that none comes unheard; it rings on for the rest.
    pub fn take(&self) -> Vec<(u64, Waiting)> {
        self.with(|table| {
            self.shared.call.hush();
            let (taken, more) = table.take();
            if more {
                self.shared.call.ring();
            }
            taken
        })
    }

    /// Receive nowhere any more, and end the thread. Idempotent.
    pub fn stop(&self) {
        self.with(Table::close);
        self.shared.bell.ring();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // An error would be the thread's panic, and a panic has ended the process.
            let _ = thread.join();
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(shared: &Shared, epoll: &OwnedFd) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
    let mut inlet = Inlet::default();
    // Sockets that had more than a batch, each once.
    let mut unfinished: Vec<u64> = Vec::new();
    loop {
        let sleep = if unfinished.is_empty() { None } else { Some(&NOT_AT_ALL) };
        events.clear();
        let waited = epoll::wait(epoll, spare_capacity(&mut events), sleep);
        if !matches!(waited, Ok(_) | Err(Errno::INTR)) {
            // Without edges nothing may go on.
            shared.table.enter().close();
            return;
        }
        for event in &events {
            let id = event.data.u64();
            if id == BELL {
                shared.bell.hush();
                if shared.table.enter().is_closed() {
                    return;
                }
            } else if !unfinished.contains(&id) {
                unfinished.push(id);
            }
        }
        unfinished.retain(|id| {
            let (turn, calls) = shared.table.enter().ready(*id, &mut inlet, Instant::now());
            if calls {
                shared.call.ring();
            }
            turn == Turn::Unfinished
        });
    }
}
