//! What Python is told, in the order in which it happened. As long as the clients of one turn of Python's, or two.

use std::mem;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::completions::Bell;
use crate::front::room::Room;

/// A client with everything that it has said. Whoever gets it serves it from the first byte on.
#[derive(Debug)]
pub struct Visitor {
    pub socket: OwnedFd,
    /// None where a number for the interface belongs to it.
    pub address: Option<SocketAddr>,
    pub said: Vec<u8>,
    /// The greeting was answered: no authentication.
    pub answered: bool,
    /// When it was accepted.
    pub since: Instant,
}

/// Why a client is handed to Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It says something else.
    NotOurs,
    /// It has ended, or there was an error.
    Gone(Option<Errno>),
    /// It did not finish in time.
    Late,
}

#[derive(Debug)]
pub enum Letter {
    Visitor(Visitor, Why),
    /// The request, whole. The client waits for `dial` or `take`.
    Asked {
        id: u64,
        address: SocketAddr,
        request: Vec<u8>,
    },
    /// The relay has it, under the same number; it took so long to connect.
    Stood {
        id: u64,
        took: Duration,
    },
    /// Nobody was reached: this error, or its time was up.
    Failed {
        id: u64,
        visitor: Visitor,
        errno: Option<Errno>,
    },
    /// It is over, with nobody left to be told.
    Lost {
        id: u64,
        errno: Errno,
    },
    /// Clients have to wait: there is no room, or this error.
    Short {
        errno: Option<Errno>,
    },
}

impl Letter {
    /// Need Python look at it now? What only goes on record can wait for the next that does.
    fn is_urgent(&self) -> bool {
        !matches!(self, Self::Stood { .. })
    }

    /// Is it the first that Python hears of a client?
    fn introduces(&self) -> bool {
        matches!(self, Self::Visitor(..) | Self::Asked { .. })
    }
}

#[derive(Default)]
struct Inbox {
    letters: Vec<Letter>,
    introduced: usize,
    rung: bool,
}

/// Letters for Python, and the bell.
pub struct Post {
    inner: Mutex<Inbox>,
    bell: Bell,
    room: Arc<Room>,
}

impl Post {
    pub fn new(room: Arc<Room>) -> rustix::io::Result<Self> {
        Ok(Self { inner: Mutex::default(), bell: Bell::new()?, room })
    }

    pub fn send(&self, letter: Letter) {
        let mut inner = self.lock();
        if letter.is_urgent() && !mem::replace(&mut inner.rung, true) {
            self.bell.ring();
        }
        inner.introduced = inner.introduced.saturating_add(letter.introduces().into());
        inner.letters.push(letter);
    }

    /// All that are there. The bell is silenced first, so that none comes unheard.
    pub fn take(&self) -> Vec<Letter> {
        let mut inner = self.lock();
        if mem::take(&mut inner.rung) {
            self.bell.hush();
        }
        self.room.tell(mem::take(&mut inner.introduced));
        mem::take(&mut inner.letters)
    }

    /// The descriptor of the bell: readable while there is something that cannot wait.
    pub fn bell(&self) -> RawFd {
        self.bell.number()
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
