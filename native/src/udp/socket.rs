//! One socket: which flow a datagram of its belongs to, and what waits to be handed up.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// What waits for Python, of one socket. A datagram too many is dropped and counted, the newest first.
pub const PENDING_MAX: usize = 256;
pub const PENDING_BYTES_MAX: usize = 256 * 1024;
/// Beginnings of different lengths that are looked for in what one source sends. Each costs a look-up.
pub const LENGTHS_MAX: usize = 8;

/// Which end of which flow a datagram has come in at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub flow: u64,
    pub end: usize,
}

/// The flows of one source, by the bytes with which its datagrams begin. No beginning is that of another: who made
/// them sees to that, and headers that say their own length are so.
#[derive(Default)]
struct Beginnings {
    /// Ascending, each with how many flows have it.
    lengths: Vec<(usize, usize)>,
    places: HashMap<Box<[u8]>, Place>,
}

/// A datagram that waits to be handed up.
pub struct Waiting {
    pub from: SocketAddr,
    pub data: Box<[u8]>,
}

/// What a socket could not do. `refused` is the last refusal's errno, 0 before there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The kernel had no room.
    pub dropped: u64,
    /// The kernel refused to send.
    pub failed: u64,
    pub refused: i32,
    /// Nobody took them in time, of those that were to be handed up.
    pub unheard: u64,
}

/// See the module.
pub struct Socket {
    pub fd: OwnedFd,
    sources: HashMap<SocketAddr, Beginnings>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    pub losses: Losses,
}

impl Socket {
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            sources: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            losses: Losses::default(),
        }
    }

    /// Where a datagram belongs, and how many of its bytes only say so.
    pub fn find(&self, from: SocketAddr, data: &[u8]) -> Option<(Place, usize)> {
        let beginnings = self.sources.get(&from)?;
        beginnings.lengths.iter().find_map(|(length, _)| {
            let place = beginnings.places.get(data.get(..*length)?)?;
            Some((*place, *length))
        })
    }

    /// Datagrams of this source that begin so belong there. False when they belong elsewhere, or there is no room.
    pub fn lead(&mut self, from: SocketAddr, beginning: &[u8], place: Place) -> bool {
        let found = self.sources.entry(from).or_default();
        let known = found.lengths.iter().position(|(length, _)| *length == beginning.len());
        if found.places.contains_key(beginning) || (known.is_none() && found.lengths.len() >= LENGTHS_MAX) {
            return false;
        }
        if let Some((_, users)) = known.and_then(|at| found.lengths.get_mut(at)) {
            *users = users.saturating_add(1);
        } else {
            found.lengths.push((beginning.len(), 1));
            found.lengths.sort_unstable();
        }
        found.places.insert(beginning.into(), place);
        true
    }

    /// Not any more.
    pub fn mislead(&mut self, from: SocketAddr, beginning: &[u8]) {
        let Some(found) = self.sources.get_mut(&from) else {
            return;
        };
        if found.places.remove(beginning).is_none() {
            return;
        }
        for (length, users) in &mut found.lengths {
            if *length == beginning.len() {
                *users = users.saturating_sub(1);
            }
        }
        found.lengths.retain(|(_, users)| *users > 0);
        if found.places.is_empty() {
            self.sources.remove(&from);
        }
    }

    /// Keep it until somebody takes it; true if it is the first one that waits.
    pub fn hand_up(&mut self, from: SocketAddr, data: &[u8]) -> bool {
        let bytes = self.waiting_bytes.saturating_add(data.len());
        if self.waiting.len() >= PENDING_MAX || bytes > PENDING_BYTES_MAX {
            self.losses.unheard = self.losses.unheard.saturating_add(1);
            return false;
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(Waiting { from, data: data.into() });
        self.waiting.len() == 1
    }

    /// The oldest that wait, at most so many.
    pub fn take(&mut self, most: usize) -> Vec<Waiting> {
        let taken: Vec<Waiting> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        let bytes = taken.iter().map(|waiting| waiting.data.len()).sum();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        taken
    }

    /// Those that belong to a flow now; the others go on waiting.
    pub fn take_led(&mut self) -> Vec<(Place, usize, Waiting)> {
        let mut led = Vec::new();
        let all = self.take(usize::MAX);
        for waiting in all {
            if let Some((place, length)) = self.find(waiting.from, &waiting.data) {
                led.push((place, length, waiting));
            } else {
                self.waiting_bytes = self.waiting_bytes.saturating_add(waiting.data.len());
                self.waiting.push_back(waiting);
            }
        }
        led
    }

    /// Every flow that has an end here.
    pub fn flows(&self) -> Vec<u64> {
        self.sources.values().flat_map(|source| source.places.values()).map(|place| place.flow).collect()
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// So many datagrams did not go out.
    pub fn lose(&mut self, count: u64, errno: Errno) {
        if matches!(errno, Errno::AGAIN | Errno::NOBUFS) {
            self.losses.dropped = self.losses.dropped.saturating_add(count);
        } else {
            self.losses.failed = self.losses.failed.saturating_add(count);
            self.losses.refused = errno.raw_os_error();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn socket() -> Socket {
        Socket::new(UdpSocket::bind("127.0.0.1:0").unwrap().into())
    }

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_datagram_is_found_by_its_source_and_its_beginning() {
        let mut socket = socket();
        let first = Place { flow: 1, end: 0 };
        let second = Place { flow: 2, end: 0 };
        assert!(socket.lead(source(1), b"ab", first));
        assert!(socket.lead(source(1), b"cde", second));
        assert!(!socket.lead(source(1), b"ab", second));
        assert_eq!(socket.find(source(1), b"abc"), Some((first, 2)));
        assert_eq!(socket.find(source(1), b"cde"), Some((second, 3)));
        assert_eq!(socket.find(source(1), b"cd"), None);
        assert_eq!(socket.find(source(2), b"abc"), None);
        socket.mislead(source(1), b"ab");
        socket.mislead(source(1), b"ab");
        assert_eq!(socket.find(source(1), b"abc"), None);
        assert_eq!(socket.find(source(1), b"cdef"), Some((second, 3)));
        socket.mislead(source(1), b"cde");
        assert!(socket.sources.is_empty());
    }

    #[test]
    fn a_source_may_begin_in_a_few_lengths_only() {
        let mut socket = socket();
        for length in 0..LENGTHS_MAX {
            let flow = u64::try_from(length).unwrap();
            assert!(socket.lead(source(1), &vec![9; length], Place { flow, end: 0 }));
        }
        assert!(!socket.lead(source(1), &[9; LENGTHS_MAX], Place { flow: 99, end: 0 }));
        socket.mislead(source(1), b"\x09");
        assert!(socket.lead(source(1), &[9; LENGTHS_MAX], Place { flow: 99, end: 0 }));
    }

    #[test]
    fn what_waits_has_a_limit_in_number_and_in_bytes() {
        let mut socket = socket();
        assert!(socket.hand_up(source(1), b""));
        for _ in 0..300 {
            assert!(!socket.hand_up(source(1), b"x"));
        }
        assert_eq!(socket.losses.unheard, 45);
        assert_eq!(socket.take(1000).len(), PENDING_MAX);
        for _ in 0..5 {
            socket.hand_up(source(1), &vec![0; 64 * 1024]);
        }
        assert_eq!(socket.losses.unheard, 46);
        assert_eq!(socket.take(1000).len(), 4);
        assert_eq!(socket.waiting_bytes, 0);
    }
}
