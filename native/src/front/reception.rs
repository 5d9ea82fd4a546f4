//! One thread around one desk: wait for edges and orders, hand them over, do what is due.
//!
//! The desk is behind a turnstile, and between any two edges the thread lets those pass who wait at it. Orders come
//! past it: whoever gives one waits for nobody's turn, and wakes the thread only if it sleeps.

use std::io;
use std::mem;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::completions::Bell;
use crate::front::desk::{Desk, Order};
use crate::front::post::{Letter, Post};
use crate::front::room::Room;
use crate::pump::untag;
use crate::relay::Relay;
use crate::turnstile::Turnstile;
use crate::worker::whole_ms;

const EVENTS_MAX: usize = 256;
const STACK_BYTES: usize = 128 * 1024;
/// The tag of the bell: no client has this number.
const BELL: u64 = u64::MAX;

struct Shared {
    desk: Turnstile<Desk>,
    orders: Mutex<Vec<Order>>,
    asleep: AtomicBool,
    room: Arc<Room>,
    bell: Bell,
    post: Arc<Post>,
}

/// A thread and the desk that it works at. Dropping it without `stop` stops it as well.
pub struct Reception {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reception {
    /// Clients go on to this relay. Fails when descriptors or threads have run out, with nothing left behind.
    pub fn start(relay: Arc<Relay>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        let waited = fcntl_dupfd_cloexec(&epoll, 0)?;
        let room = Arc::new(Room::default());
        let post = Arc::new(Post::new(Arc::clone(&room))?);
        let desk = Desk::new(epoll, relay, Arc::clone(&post), Arc::clone(&room));
        let shared = Arc::new(Shared {
            desk: Turnstile::new(desk),
            orders: Mutex::default(),
            asleep: AtomicBool::new(false),
            room,
            bell,
            post,
        });
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name("front".into())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&theirs, &waited))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Do something at the desk, with all orders done that were given before.
    pub fn with<T>(&self, act: impl FnOnce(&mut Desk) -> T) -> T {
        let mut desk = self.shared.desk.enter();
        carry_out(&self.shared, &mut desk);
        act(&mut desk)
    }

    /// The same, if nobody is at the desk at this moment; else `act` comes back.
    pub fn try_with<T, F: FnOnce(&mut Desk) -> T>(&self, act: F) -> Result<T, F> {
        let Some(mut desk) = self.shared.desk.try_enter() else {
            return Err(act);
        };
        carry_out(&self.shared, &mut desk);
        Ok(act(&mut desk))
    }

    /// Connect a client that has asked. Waits for nobody's turn.
    pub fn dial(&self, order: Order) {
        self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.shared.bell.ring();
        }
    }

    pub fn room(&self) -> &Room {
        &self.shared.room
    }

    pub fn letters(&self) -> Vec<Letter> {
        self.shared.post.take()
    }

    /// The descriptor of the bell: readable while there are letters that cannot wait.
    pub fn bell(&self) -> RawFd {
        self.shared.post.bell()
    }

    /// Reset all clients and end the thread. Idempotent.
    pub fn stop(&self) {
        self.with(Desk::close);
        self.shared.bell.ring();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // An error would be the thread's panic, and a panic has ended the process.
            let _ = thread.join();
        }
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(shared: &Shared, epoll: &OwnedFd) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
    let mut desk = shared.desk.enter();
    while !desk.is_closed() {
        let sleep = rest(shared, &desk);
        drop(desk);
        events.clear();
        let waited = epoll::wait(epoll, spare_capacity(&mut events), sleep.map(whole_ms).as_ref());
        shared.asleep.store(false, Ordering::SeqCst);
        desk = shared.desk.enter();
        if !matches!(waited, Ok(_) | Err(Errno::INTR)) {
            // Without edges nothing may go on.
            desk.close();
            return;
        }
        carry_out(shared, &mut desk);
        let now = Instant::now();
        for event in &events {
            if event.data.u64() == BELL {
                shared.bell.hush();
            } else {
                let (id, side) = untag(event.data);
                desk.ready(id, side, event.flags, now);
                desk = shared.desk.give_way(desk);
            }
        }
        desk.tick(now);
    }
}

/// How long the thread may sleep; none is until something happens.
fn rest(shared: &Shared, desk: &Desk) -> Option<Duration> {
    shared.asleep.store(true, Ordering::SeqCst);
    if !shared.orders.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        return Some(Duration::ZERO); // given before it could be told
    }
    desk.next().map(|at| at.saturating_duration_since(Instant::now()))
}

fn carry_out(shared: &Shared, desk: &mut Desk) {
    let orders = mem::take(&mut *shared.orders.lock().unwrap_or_else(PoisonError::into_inner));
    if orders.is_empty() {
        return;
    }
    let now = Instant::now();
    for order in orders {
        desk.dial(order, now);
    }
}
