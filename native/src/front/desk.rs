//! The clients of the front, and everything that can happen to them. No thread and no lock here: whoever calls has it
//! to himself. `now` is handed in by every call that has to do with time.
//!
//! ```text
//! accepted ─▶ speaking ─▶ asked (Python judges) ─▶ dialling ─▶ the relay's
//!                 └──────────┴── handed to Python ──┘
//! ```

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, getsockname, recv, send};

use crate::front::client::{Client, Clients, Stage, is_at, reset};
use crate::front::deadlines::Deadlines;
use crate::front::dial::{Dialled, dial, finished};
use crate::front::doors::{Doors, Knock};
use crate::front::handshake::{ESTABLISHED, NO_AUTHENTICATION, Step, connect, greeting, request, succeeded};
use crate::front::post::{Letter, Post, Visitor, Why};
use crate::front::room::Room;
use crate::pair::{Limits, Pair, Side};
use crate::pump::tag;
use crate::relay::Relay;

/// New clients taken in one turn; the rest wait for those that are here already.
const ACCEPTS_MAX: usize = 64;
/// Longer than a greeting and a request, with the first bytes of what follows.
const SAID_BYTES: usize = 4096;
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
const EDGES: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const STANDING: EventFlags = EventFlags::OUT.union(EventFlags::ET);
const GONE: EventFlags = EventFlags::HUP.union(EventFlags::ERR);
/// Something beyond data, of which no second edge tells.
const ENDING: EventFlags = GONE.union(EventFlags::RDHUP);

/// How a dial failed that met its own port; no call that is made here fails like this.
pub const MET_ITSELF: Errno = Errno::LOOP;

/// Where a client is to be led, and what its pair is held to.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub id: u64,
    pub to: SocketAddr,
    pub limits: Limits,
    pub timeout: Duration,
}

/// What is in force.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The policy names users: who can give a password is asked for it.
    pub names_users: bool,
    /// From being accepted to the last byte of the request.
    pub handshake: Duration,
}

/// The table of the front.
pub struct Desk {
    epoll: OwnedFd,
    relay: Arc<Relay>,
    post: Arc<Post>,
    room: Arc<Room>,
    settings: Settings,
    clients: Clients,
    doors: Doors,
    handshakes: Deadlines,
    dials: Deadlines,
    said: Box<[u8]>,
    closed: bool,
}

impl Desk {
    pub fn new(epoll: OwnedFd, relay: Arc<Relay>, post: Arc<Post>, room: Arc<Room>) -> Self {
        Self {
            epoll,
            relay,
            post,
            room,
            settings: Settings { names_users: true, handshake: Duration::from_secs(10) },
            clients: Clients::default(),
            doors: Doors::default(),
            handshakes: Deadlines::default(),
            dials: Deadlines::default(),
            said: vec![0; SAID_BYTES].into_boxed_slice(),
            closed: false,
        }
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Deadlines that are remembered, also of clients that are over.
    pub fn deadlines(&self) -> usize {
        self.handshakes.len().saturating_add(self.dials.len())
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// From now on this. It holds for clients that come.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Accept there from now on. Returns the listener's number. The socket is closed when that fails.
    pub fn listen(&mut self, socket: OwnedFd) -> Result<u64, Errno> {
        let (id, _) = self.relay.place().filter(|_| !self.closed).ok_or(Errno::SHUTDOWN)?;
        self.doors.open(&self.epoll, id, socket)?;
        Ok(id)
    }

    /// Accept no more there.
    pub fn unlisten(&mut self, id: u64) {
        self.doors.close(&self.epoll, id);
    }

    /// There may be room again.
    pub fn resume(&mut self) {
        self.doors.resume(&self.epoll);
    }

    /// Python wants this client itself. None if it is not here: handed over already, the relay's, or gone.
    pub fn take(&mut self, id: u64) -> Option<Visitor> {
        self.remove(id).map(|client| client.visitor)
    }

    /// Python has judged: connect, answer, hand over to the relay under the same number. To be given at most once for
    /// a client that has asked. One that is not here any more is lost.
    pub fn dial(&mut self, order: Order, now: Instant) {
        let Order { id, to, limits, timeout } = order;
        let client = match self.clients.get_mut(&id) {
            Some(client) if matches!(client.stage, Stage::Asked) => client,
            Some(_) => return,
            None => return self.post.send(Letter::Lost { id, errno: Errno::SHUTDOWN }),
        };
        let began = Instant::now();
        match dial(to) {
            Ok(Dialled::Stands(external)) => self.stand(id, external, limits, to, began, now),
            Ok(Dialled::Pending(external)) => {
                let watched = epoll::add(&self.epoll, &external, tag(id, Side::External), STANDING);
                client.stage = Stage::Dialling { external, limits, to, began };
                match watched {
                    Ok(()) => {
                        let at = now.checked_add(timeout);
                        self.dials.push(at, id, self.clients.len(), |id| self.clients.contains_key(&id));
                    }
                    Err(errno) => self.fail(id, Some(errno)),
                }
            }
            Err(errno) => self.fail(id, Some(errno)),
        }
    }

    /// Something has happened. Mostly an edge, which is a hint; one may come for a client that is gone.
    pub fn ready(&mut self, id: u64, side: Side, what: EventFlags, now: Instant) {
        match (self.clients.get(&id).map(|client| &client.stage), side) {
            (Some(Stage::Speaking), Side::Internal) => self.hear(id, what.intersects(ENDING)),
            (Some(Stage::Dialling { .. }), Side::External) => self.connected(id, now),
            (Some(_), _) => {}
            (None, _) if what.intersects(GONE) => self.break_off(id, Errno::INVAL),
            (None, _) => self.accept(id, now),
        }
    }

    /// Part from those whose time is up.
    pub fn tick(&mut self, now: Instant) {
        while let Some(id) = self.handshakes.pop(now, is_at(&self.clients, |s| matches!(s, Stage::Speaking)))
        {
            self.hand_over(id, Why::Late);
        }
        while let Some(id) =
            self.dials.pop(now, is_at(&self.clients, |s| matches!(s, Stage::Dialling { .. })))
        {
            self.fail(id, None);
        }
    }

    /// When `tick` is due, if nothing happens before.
    pub fn next(&self) -> Option<Instant> {
        [self.handshakes.next(), self.dials.next()].into_iter().flatten().min()
    }

    /// Reset everybody, and accept nobody. Who is being connected is lost.
    pub fn close(&mut self) {
        self.closed = true;
        self.doors.close_all(&self.epoll);
        for (id, client) in self.clients.drain() {
            reset(&client.visitor.socket);
            if matches!(client.stage, Stage::Dialling { .. }) {
                self.post.send(Letter::Lost { id, errno: Errno::SHUTDOWN });
            }
        }
    }

    fn accept(&mut self, door: u64, now: Instant) {
        for _ in 0..ACCEPTS_MAX {
            if self.room.is_full() {
                return self.pause(door, None);
            }
            match self.doors.accept(door) {
                Knock::Client(socket, address) => self.welcome(socket, address, now),
                Knock::Left => {}
                Knock::Nobody => return,
                Knock::Short(errno) => return self.pause(door, Some(errno)),
                Knock::Broken(errno) => return self.break_off(door, errno),
            }
        }
    }

    fn pause(&mut self, door: u64, errno: Option<Errno>) {
        self.doors.pause(&self.epoll, door);
        self.post.send(Letter::Short { errno });
    }

    /// A listener that will not accept again must not be waited for.
    fn break_off(&mut self, door: u64, errno: Errno) {
        if self.doors.close(&self.epoll, door) {
            self.post.send(Letter::Short { errno: Some(errno) });
        }
    }

    fn welcome(&mut self, socket: OwnedFd, address: Option<SocketAddr>, now: Instant) {
        let Some((id, _)) = self.relay.place() else {
            return;
        };
        self.room.enter();
        let visitor = Visitor { socket, address, said: Vec::new(), answered: false, since: now };
        self.clients.insert(id, Client { visitor, read: 0, watched: false, stage: Stage::Speaking });
        if address.is_none() {
            return self.hand_over(id, Why::NotOurs);
        }
        // The kernel keeps most clients to itself until they have said something, so that is here already.
        self.hear(id, false);
        let Some(client) = self.clients.get_mut(&id).filter(|client| matches!(client.stage, Stage::Speaking))
        else {
            return;
        };
        let watched = epoll::add(&self.epoll, &client.visitor.socket, tag(id, Side::Internal), EDGES);
        client.watched = watched.is_ok();
        if client.watched {
            let at = now.checked_add(self.settings.handshake);
            self.handshakes.push(at, id, self.clients.len(), |id| self.clients.contains_key(&id));
        } else {
            self.hand_over(id, Why::NotOurs);
        }
    }

    /// Read, and do what is said; to the end, if it is known to be near.
    fn hear(&mut self, id: u64, is_ending: bool) {
        while let Some(client) = self.clients.get_mut(&id).filter(|c| matches!(c.stage, Stage::Speaking)) {
            match retry_on_intr(|| recv(&client.visitor.socket, &mut *self.said, RecvFlags::DONTWAIT)) {
                Ok((0, _)) => self.hand_over(id, Why::Gone(None)),
                Ok((count, _)) => {
                    client.visitor.said.extend_from_slice(self.said.get(..count).unwrap_or_default());
                    self.understand(id);
                }
                Err(Errno::AGAIN) => return,
                Err(errno) => self.hand_over(id, Why::Gone(Some(errno))),
            }
            if !is_ending {
                return;
            }
        }
    }

    fn understand(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Visitor { socket, said, answered, .. } = &mut client.visitor;
        if !*answered {
            if let Step::Whole(size) = connect(said) {
                return self.asked(id, size);
            }
            match greeting(said, self.settings.names_users) {
                Step::More => return self.expect_short(id),
                Step::Whole(size)
                    if send(&*socket, &NO_AUTHENTICATION, SEND) == Ok(NO_AUTHENTICATION.len()) =>
                {
                    client.read = size;
                    *answered = true;
                }
                Step::Whole(_) | Step::NotOurs => return self.hand_over(id, Why::NotOurs),
            }
        }
        let rest = said.get(client.read..).unwrap_or_default();
        match request(rest) {
            Step::More => self.expect_short(id),
            Step::NotOurs => self.hand_over(id, Why::NotOurs),
            Step::Whole(size) => self.asked(id, size),
        }
    }

    /// A request of this size is whole.
    fn asked(&mut self, id: u64, size: usize) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let end = client.read.saturating_add(size);
        let request = client.visitor.said.get(client.read..end).unwrap_or_default().to_vec();
        client.read = end;
        client.stage = Stage::Asked;
        if let Some(address) = client.visitor.address {
            self.post.send(Letter::Asked { id, address, request });
        }
    }

    /// No message is as long as what may be read at once: whoever has said that much and is not understood never is.
    fn expect_short(&mut self, id: u64) {
        if self.clients.get(&id).is_some_and(|client| client.visitor.said.len() >= SAID_BYTES) {
            self.hand_over(id, Why::NotOurs);
        }
    }

    fn hand_over(&mut self, id: u64, why: Why) {
        if let Some(visitor) = self.take(id) {
            self.post.send(Letter::Visitor(visitor, why));
        }
    }

    fn connected(&mut self, id: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut client.stage, Stage::Asked) {
            Stage::Dialling { external, limits, to, began } => {
                match finished(&external) {
                    Ok(()) => {
                        // Before the relay watches it.
                        let _ = epoll::delete(&self.epoll, &external);
                        self.stand(id, external, limits, to, began, now);
                    }
                    Err(errno) => self.fail(id, Some(errno)),
                }
            }
            stage => client.stage = stage,
        }
    }

    /// The server is reached: tell the client, and hand both to the relay.
    fn stand(
        &mut self,
        id: u64,
        external: OwnedFd,
        limits: Limits,
        to: SocketAddr,
        began: Instant,
        now: Instant,
    ) {
        let name = getsockname(&external).and_then(SocketAddr::try_from);
        let name = match name {
            // Nobody listens; the kernel connected the socket to itself: our own port was the one asked for.
            Ok(name) if name == to => return self.fail(id, Some(MET_ITSELF)),
            Ok(name) => name,
            Err(errno) => return self.fail(id, Some(errno)),
        };
        let Some(Client { visitor, read, .. }) = self.remove(id) else {
            return;
        };
        // Told before anything can say that it is over.
        self.post.send(Letter::Stood { id, took: began.elapsed() });
        let reply = if visitor.answered { succeeded(name) } else { ESTABLISHED.to_vec() };
        let sent = retry_on_intr(|| send(&visitor.socket, &reply, SEND));
        if sent != Ok(reply.len()) {
            reset(&visitor.socket);
            reset(&external);
            let errno = sent.err().unwrap_or(Errno::AGAIN);
            return self.post.send(Letter::Lost { id, errno });
        }
        let mut early = visitor.said;
        early.drain(..read.min(early.len()));
        let pair = Pair::new(visitor.socket, external, limits, now).with_early(early, Vec::new());
        let added = self.relay.worker(id).ok_or(Errno::SHUTDOWN).and_then(|worker| worker.add(id, pair));
        if let Err(errno) = added {
            self.post.send(Letter::Lost { id, errno });
        }
    }

    /// Nobody's any more. Before its socket is given away: a duplicate would keep it in the epoll.
    fn remove(&mut self, id: u64) -> Option<Client> {
        let client = self.clients.remove(&id)?;
        if client.watched {
            let _ = epoll::delete(&self.epoll, &client.visitor.socket);
        }
        Some(client)
    }

    /// None: its time is up.
    fn fail(&mut self, id: u64, errno: Option<Errno>) {
        if let Some(visitor) = self.take(id) {
            self.post.send(Letter::Failed { id, visitor, errno });
        }
    }
}
