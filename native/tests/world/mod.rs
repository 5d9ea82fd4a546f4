//! A hub without threads, on a clock turned by hand, and two peers around each pair.

#![allow(dead_code, reason = "each test uses what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use doorward_native::arrivals::Arrivals;
use doorward_native::completions::{Completion, Outbox};
use doorward_native::hub::{Hub, Share};
use doorward_native::pair::{Limits, Pair, Side};
use doorward_native::pump::{READ, tag, untag};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::sockopt;

/// A prime: no power of two is a whole number of them.
const PERIOD: usize = 251;
/// What one call sends or reads at most.
const CALL_BYTES_MAX: usize = 512 * 1024;
/// What a kernel may hold. A client's wire holds enough to fill reads, so that its bytes are spliced; a server's so
/// little that writes come in parts; and both are full after a few hundred kilobytes.
const CLIENT_BUFFER_BYTES: usize = 200 * 1024;
const SERVER_BUFFER_BYTES: usize = 16 * 1024;
pub const PIPES_MAX: usize = 4;
/// So little that most transfers take several turns.
const TURN_BYTES_MAX: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unix,
    Tcp,
}

/// The far end of a wire. Every byte it sends stands for its place in the stream.
pub struct Peer {
    socket: Option<OwnedFd>,
    pub sent: usize,
    pub got: usize,
    pub finished: bool,
    pub at_end: bool,
    pub saw_reset: bool,
}

/// The bytes that stand for so many places from this one on.
fn bytes_at(place: usize, count: usize) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..PERIOD + CALL_BYTES_MAX).map(|place| u8::try_from(place * 31 % PERIOD).unwrap()).collect()
    });
    &BYTES[place % PERIOD..][..count]
}

impl Peer {
    fn new(socket: OwnedFd) -> Self {
        Self { socket: Some(socket), sent: 0, got: 0, finished: false, at_end: false, saw_reset: false }
    }

    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    fn file(&self) -> Option<std::fs::File> {
        // A duplicate for one call: std reads and writes files, whatever they are.
        Some(std::fs::File::from(self.socket.as_ref()?.try_clone().unwrap()))
    }

    /// As much of so many bytes as the kernel takes.
    pub fn send(&mut self, count: usize) {
        let Some(mut file) = self.file().filter(|_| !self.finished) else {
            return;
        };
        match file.write(bytes_at(self.sent, count.min(CALL_BYTES_MAX))) {
            Ok(sent) => self.sent += sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.saw_reset = true,
        }
    }

    /// At most so many bytes of what is there; each must be the one that is due.
    pub fn read(&mut self, count: usize) -> usize {
        let Some(mut file) = self.file().filter(|_| !self.at_end) else {
            return 0;
        };
        let mut data = vec![0; count.min(CALL_BYTES_MAX)];
        match file.read(&mut data) {
            Ok(0) => self.at_end = true,
            Ok(count) => {
                assert!(data[..count] == *bytes_at(self.got, count), "other bytes than were sent");
                self.got += count;
                return count;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.saw_reset = true,
        }
        0
    }

    pub fn finish(&mut self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| !self.finished) {
            // It fails when the other side has reset.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
        }
        self.finished = true;
    }

    /// Go away without a word; RST where the wire knows one.
    pub fn vanish(&mut self) {
        if let Some(socket) = self.socket.take() {
            let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        }
    }

    /// Read all there is. Has the other side ended, in whichever way? After a FIN only the socket's error tells of RST.
    pub fn has_seen_an_end(&mut self) -> bool {
        while self.read(256 * 1024) > 0 {}
        if let Some(socket) = &self.socket {
            self.saw_reset |= sockopt::socket_error(socket).unwrap().is_err();
        }
        self.socket.is_none() || self.at_end || self.saw_reset
    }
}

fn wire(kind: Kind, buffer_bytes: usize) -> (OwnedFd, OwnedFd) {
    let (one, other): (OwnedFd, OwnedFd) = match kind {
        Kind::Unix => {
            let (one, other) = UnixStream::pair().unwrap();
            (one.into(), other.into())
        }
        Kind::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            sockopt::set_socket_recv_buffer_size(&listener, buffer_bytes).unwrap();
            let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let other = listener.accept().unwrap().0;
            one.set_nodelay(true).unwrap();
            other.set_nodelay(true).unwrap();
            (one.into(), other.into())
        }
    };
    for socket in [&one, &other] {
        rustix::io::ioctl_fionbio(socket, true).unwrap();
        sockopt::set_socket_recv_buffer_size(socket, buffer_bytes).unwrap();
        sockopt::set_socket_send_buffer_size(socket, buffer_bytes).unwrap();
    }
    (one, other)
}

/// One hub, and one pair after the other.
pub struct World {
    pub hub: Hub,
    pub now: Instant,
    pub completions: Vec<Completion>,
    pub arrivals: Arc<Arrivals>,
    epoll: OwnedFd,
    outbox: Arc<Outbox>,
    next_id: u64,
}

/// A pair and its peers: the client is the internal one.
pub struct Talk {
    pub id: u64,
    pub client: Peer,
    pub server: Peer,
}

impl Talk {
    pub fn peer(&mut self, side: Side) -> &mut Peer {
        match side {
            Side::Internal => &mut self.client,
            Side::External => &mut self.server,
        }
    }
}

impl World {
    pub fn new() -> Self {
        Self::with_unloaded_max(usize::MAX)
    }

    /// With so much memory for what pipes are emptied into.
    pub fn with_unloaded_max(unloaded_bytes_max: usize) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let outbox = Arc::new(Outbox::new().unwrap());
        let now = Instant::now();
        let share = Share { pipes_max: PIPES_MAX, turn_bytes_max: TURN_BYTES_MAX, unloaded_bytes_max };
        let arrivals = Arc::new(Arrivals::new(epoll.try_clone().unwrap(), now));
        let (theirs, told) = (Arc::clone(&arrivals), Arc::clone(&outbox));
        let hub = Hub::new(epoll.try_clone().unwrap(), theirs, told, share, now);
        Self { hub, now, completions: Vec::new(), arrivals, epoll, outbox, next_id: 1 }
    }

    pub fn talk(&mut self, kind: Kind, limits: Limits) -> Talk {
        let (mut talk, pair) = self.wires(kind, limits);
        talk.id = self.add(pair);
        talk
    }

    /// A pair that is not the hub's yet.
    pub fn wires(&self, kind: Kind, limits: Limits) -> (Talk, Pair) {
        self.wires_with(kind, limits, SERVER_BUFFER_BYTES)
    }

    /// A pair in the relay over which bulk flows well, and which holds much when it does not.
    pub fn wide_talk(&mut self) -> Talk {
        let (mut talk, pair) = self.wires_with(Kind::Tcp, Limits::default(), CLIENT_BUFFER_BYTES);
        talk.id = self.add(pair);
        talk
    }

    fn wires_with(&self, kind: Kind, limits: Limits, server_buffer_bytes: usize) -> (Talk, Pair) {
        let (client, internal) = wire(kind, CLIENT_BUFFER_BYTES);
        let (external, server) = wire(kind, server_buffer_bytes);
        let talk = Talk { id: 0, client: Peer::new(client), server: Peer::new(server) };
        (talk, Pair::new(internal, external, limits, self.now))
    }

    pub fn add(&mut self, pair: Pair) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.arrivals.add(id, pair).unwrap();
        self.hub.receive();
        id
    }

    /// Put a socket into the epoll, for this pair.
    pub fn watch(&self, id: u64, side: Side, socket: &OwnedFd) {
        epoll::add(&self.epoll, socket, tag(id, side), READ).unwrap();
    }

    /// And out of it.
    pub fn unwatch(&self, socket: &OwnedFd) {
        epoll::delete(&self.epoll, socket).unwrap();
    }

    /// Take the pair back and hand it over again, if it is alive.
    pub fn again(&mut self, talk: &mut Talk, limits: Limits) {
        if let Some(back) = self.hub.reclaim(talk.id) {
            let pair = Pair::new(back.internal, back.external, limits, self.now);
            talk.id = self.add(pair.with_early(back.to_external, back.to_internal));
        }
    }

    /// What the thread does between two sleeps, without the sleep.
    pub fn turn(&mut self) {
        self.hub.rest(self.now);
        self.turn_without_rest();
    }

    /// The same, and nobody has looked at the arrivals before.
    pub fn turn_without_rest(&mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default())).unwrap();
        self.arrivals.wakes_up();
        for event in events {
            let (id, side) = untag(event.data);
            self.hub.ready(id, side, event.flags, self.now);
        }
        self.hub.tick(self.now);
        self.completions.extend(self.outbox.take());
    }

    pub fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
        }
    }

    pub fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.turns(3);
    }

    /// The completion of a pair, once.
    pub fn completion(&self, id: u64) -> Option<Completion> {
        let mut found = self.completions.iter().filter(|completion| completion.id == id);
        let first = found.next().copied();
        assert!(found.next().is_none(), "reported twice");
        first
    }
}

pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
