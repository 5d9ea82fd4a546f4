//! A front's desk without its thread, on a clock turned by hand; clients and servers around it are plain sockets.

#![allow(dead_code, reason = "each test uses what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use doorward_native::completions::Completion;
use doorward_native::front::desk::{Desk, Order};
use doorward_native::front::post::{Letter, Post, Visitor, Why};
use doorward_native::front::room::Room;
use doorward_native::pair::Limits;
use doorward_native::pump::untag;
use doorward_native::relay::Relay;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_error};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub const GREETING: &[u8] = &[5, 1, 0];
/// Of every dial.
pub const TIMEOUT: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(5);

/// Descriptors are counted, and for a moment forbidden, for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A SOCKS5 client's CONNECT.
pub fn request(to: SocketAddr) -> Vec<u8> {
    let mut said = vec![5, 1, 0];
    match to {
        SocketAddr::V4(four) => {
            said.push(1);
            said.extend(four.ip().octets());
        }
        SocketAddr::V6(six) => {
            said.push(4);
            said.extend(six.ip().octets());
        }
    }
    said.extend(to.port().to_be_bytes());
    said
}

/// One end of a connection.
pub struct Client {
    pub address: SocketAddr,
    stream: TcpStream,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { address: stream.local_addr().unwrap(), stream }
    }

    /// All of it; what is said to somebody who has reset is lost.
    pub fn say(&mut self, data: &[u8]) {
        match self.stream.write(data) {
            Ok(count) => assert_eq!(count, data.len()),
            Err(error) => {
                assert!([ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind()))
            }
        }
    }

    /// Exactly so many bytes, of which the last may be on their way.
    pub fn wait(&mut self, count: usize) -> Vec<u8> {
        let mut got = vec![0; count];
        let mut have = 0;
        let deadline = Instant::now() + PATIENCE;
        while have < count {
            match self.stream.read(&mut got[have..]) {
                Ok(0) => panic!("an end after {:?}", &got[..have]),
                Ok(more) => have += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "only {:?}", &got[..have]);
                    sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error} after {:?}", &got[..have]),
            }
        }
        got
    }

    pub fn finish(&mut self) {
        // It fails when the other side has reset.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Everything that comes, and whether it ends with a reset; None while it has not ended.
    pub fn rest(&mut self) -> (Vec<u8>, Option<bool>) {
        let mut got = Vec::new();
        let mut data = [0; 4096];
        loop {
            match self.stream.read(&mut data) {
                Ok(0) => return (got, Some(socket_error(&self.stream).unwrap().is_err())),
                Ok(count) => got.extend_from_slice(&data[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (got, None),
                Err(_) => return (got, Some(true)),
            }
        }
    }

    pub fn sees_reset(self) -> bool {
        self.ends()
    }

    /// It comes to an end; whether that is a reset.
    pub fn ends(mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let (_, Some(is_reset)) = self.rest() {
                return is_reset;
            }
            assert!(Instant::now() < deadline, "it has not ended");
            sleep(Duration::from_millis(1));
        }
    }
}

/// Somewhere to connect to.
pub struct Server {
    pub address: SocketAddr,
    listener: Option<TcpListener>,
    /// They fill its backlog.
    fillers: Vec<TcpStream>,
}

impl Server {
    pub fn listening() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { address: listener.local_addr().unwrap(), listener: Some(listener), fillers: Vec::new() }
    }

    /// Nobody listens there, and nobody else can: the port is bound.
    pub fn refusing() -> Self {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let socket = socket.unwrap();
        rustix::net::bind(&socket, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        Self { address, listener: Some(TcpListener::from(socket)), fillers: Vec::new() }
    }

    /// Its backlog is full, so that it does not answer.
    pub fn silent() -> Self {
        let mut server = Self::refusing();
        rustix::net::listen(server.listener.as_ref().unwrap(), 0).unwrap();
        server.fillers.push(TcpStream::connect(server.address).unwrap());
        server
    }

    /// Somebody has come.
    pub fn accept(&self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.listener.as_ref().unwrap().accept() {
                Ok((stream, address)) => return Client { address, ..Client::new(stream) },
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "nobody comes");
                    sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Letters without what they bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Visitor,
    Asked(u64),
    Stood(u64),
    Failed(u64),
    Lost(u64, Errno),
    Short,
}

/// See the module.
pub struct Front {
    pub desk: Desk,
    pub room: Arc<Room>,
    pub now: Instant,
    pub letters: Vec<Letter>,
    pub door: u64,
    pub address: SocketAddr,
    pub completions: Vec<Completion>,
    post: Arc<Post>,
    relay: Arc<Relay>,
    epoll: OwnedFd,
    before: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Front {
    /// With room for a thousand, and two threads in its relay.
    pub fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = open_descriptors();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let relay = Arc::new(Relay::start(2).unwrap());
        let room = Arc::new(Room::default());
        room.set(1000);
        let post = Arc::new(Post::new(Arc::clone(&room)).unwrap());
        let theirs = epoll.try_clone().unwrap();
        let mut desk = Desk::new(theirs, Arc::clone(&relay), Arc::clone(&post), Arc::clone(&room));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = OwnedFd::from(listener);
        let door = desk.listen(listener).unwrap();
        let (letters, completions) = (Vec::new(), Vec::new());
        let now = Instant::now();
        Self {
            desk,
            room,
            now,
            letters,
            door,
            address,
            completions,
            post,
            relay,
            epoll,
            before,
            _alone: alone,
        }
    }

    /// Somebody comes who has said this.
    pub fn client(&mut self, said: &[u8]) -> Client {
        let mut client = Client::new(TcpStream::connect(self.address).unwrap());
        client.say(said);
        client
    }

    pub fn dial(&mut self, id: u64, to: SocketAddr) {
        self.desk.dial(Order { id, to, limits: Limits::default(), timeout: TIMEOUT }, self.now);
        self.letters.extend(self.post.take());
    }

    /// What the thread does between two sleeps, without the sleep. How many edges there were.
    pub fn turn(&mut self) -> usize {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default())).unwrap();
        for event in &events {
            let (id, side) = untag(event.data);
            self.desk.ready(id, side, event.flags, self.now);
        }
        self.desk.tick(self.now);
        self.letters.extend(self.post.take());
        self.completions.extend(self.relay.completions());
        events.len()
    }

    pub fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
        }
    }

    /// What is waiting now.
    pub fn edges(&self) -> usize {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default())).unwrap()
    }

    pub fn advance(&mut self, time: Duration) {
        self.now += time;
        self.turns(2);
    }

    /// The letters so far, which are gone then.
    pub fn told(&mut self) -> Vec<Told> {
        self.letters.extend(self.post.take());
        let told = |letter| match letter {
            Letter::Visitor(..) => Told::Visitor,
            Letter::Asked { id, .. } => Told::Asked(id),
            Letter::Stood { id, .. } => Told::Stood(id),
            Letter::Failed { id, .. } => Told::Failed(id),
            Letter::Lost { id, errno } => Told::Lost(id, errno),
            Letter::Short { .. } => Told::Short,
        };
        self.letters.drain(..).map(told).collect()
    }

    /// Those who were handed over; every other letter is gone.
    pub fn visitors(&mut self) -> Vec<(Visitor, Why)> {
        let visitor = |letter| match letter {
            Letter::Visitor(visitor, why) => Some((visitor, why)),
            _ => None,
        };
        self.letters.drain(..).filter_map(visitor).collect()
    }

    /// The one who was handed over.
    pub fn visitor(&mut self) -> (Visitor, Why) {
        let mut visitors = self.visitors();
        assert_eq!(visitors.len(), 1);
        visitors.remove(0)
    }

    /// How this pair has ended, or ends.
    pub fn completion(&mut self, id: u64) -> Completion {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.completions.extend(self.relay.completions());
            if let Some(done) = self.completions.iter().find(|done| done.id == id) {
                return *done;
            }
            assert!(Instant::now() < deadline, "the pair has not ended");
            sleep(Duration::from_millis(1));
        }
    }

    /// The relay is closed as well: what it had is among the completions.
    pub fn close(&mut self) {
        self.desk.close();
        self.letters.extend(self.post.take());
        self.completions.extend(self.relay.stop());
    }

    /// Nothing is left of it, once its letters are gone.
    pub fn end(self) {
        let Self { before, _alone, .. } = self;
        drop((self.desk, self.letters, self.post, self.relay, self.epoll));
        assert_eq!(open_descriptors(), before);
    }

    /// One more listener, and another handle of it.
    pub fn shared_listener(&mut self) -> (OwnedFd, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let another = OwnedFd::from(listener.try_clone().unwrap());
        let address = listener.local_addr().unwrap();
        self.desk.listen(OwnedFd::from(listener)).unwrap();
        (another, address)
    }
}

/// While this is done there is no descriptor to be had.
pub fn without_descriptors(act: impl FnOnce()) {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
    act();
    setrlimit(Resource::Nofile, before).unwrap();
}

pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
