//! Sockets and flows, and everything that can happen to them. No thread and no lock here: whoever calls has it to
//! himself. `now` is handed in by every call that has to do with time.
//!
//! A flow has two ends, each a socket of ours and somebody who sends to it. What comes in at one end goes out at the
//! other: without the bytes that it began with here, and with those that are to stand before it there.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::{Errno, ioctl_fionbio};

use crate::udp::calls::{BATCH, Inlet, Message, send};
use crate::udp::runs::{Hit, Run, message, parts, runs};
use crate::udp::socket::{Losses, Place, Socket, Waiting};

/// Of one socket, handed up in one call: others wait as well.
const SHARE: usize = 64;
/// Handed up in one call.
const TAKEN_MAX: usize = 256;
const WATCHED: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

/// One end of a flow: datagrams from `peer` to `socket` that begin with `strip`; those that go there get `prepend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub socket: u64,
    pub peer: SocketAddr,
    pub strip: Box<[u8]>,
    pub prepend: Box<[u8]>,
}

/// Payload that came in at each end, and when the last of it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub bytes: [u64; 2],
    pub moved: Instant,
}

struct Flow {
    ends: [End; 2],
    counts: Counts,
    /// The kernel does not cut messages for this way out: a datagram at a time.
    alone: [bool; 2],
}

/// What a look at a socket has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is nothing more to take.
    Empty,
    /// There may be.
    Unfinished,
}

/// See the module.
pub struct Table {
    epoll: OwnedFd,
    sockets: HashMap<u64, Socket>,
    flows: HashMap<u64, Flow>,
    /// Sockets with something to hand up, each once.
    calling: VecDeque<u64>,
    last_id: u64,
    closed: bool,
}

impl Table {
    /// `epoll` is another handle of the one that the thread waits for.
    pub fn new(epoll: OwnedFd) -> Self {
        Self {
            epoll,
            sockets: HashMap::new(),
            flows: HashMap::new(),
            calling: VecDeque::new(),
            last_id: 0,
            closed: false,
        }
    }

    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Receive here from now on. Its number is never used again. Fails when the kernel watches no more, or closed.
    pub fn open(&mut self, fd: OwnedFd) -> Result<u64, Errno> {
        if self.closed {
            return Err(Errno::SHUTDOWN);
        }
        ioctl_fionbio(&fd, true)?;
        let id = self.next_id();
        epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(id), WATCHED)?;
        self.sockets.insert(id, Socket::new(fd));
        Ok(id)
    }

    /// Receive here no more. Its flows end; what was not handed up comes back, the oldest first.
    pub fn release(&mut self, id: u64) -> Option<(Vec<Waiting>, Losses)> {
        let flows = self.sockets.get(&id)?.flows();
        for flow in flows {
            self.end(flow);
        }
        let mut socket = self.sockets.remove(&id)?;
        // The descriptor has a duplicate elsewhere, which would keep the registration alive. It cannot fail.
        let _ = epoll::delete(&self.epoll, &socket.fd);
        self.calling.retain(|calling| *calling != id);
        Some((socket.take(usize::MAX), socket.losses))
    }

    pub fn losses(&self, id: u64) -> Option<Losses> {
        self.sockets.get(&id).map(|socket| socket.losses)
    }

    /// Let datagrams flow between two ends; what waits to be handed up and belongs there goes first. None when there
    /// is no such socket, the beginning at an end leads elsewhere, or its source has too many.
    pub fn flow(&mut self, ends: [End; 2], now: Instant) -> Option<u64> {
        let flow = self.next_id();
        let [first, second] = &ends;
        if !self.lead(first, Place { flow, end: 0 }) {
            return None;
        }
        if !self.lead(second, Place { flow, end: 1 }) {
            self.mislead(first);
            return None;
        }
        let numbers = [first.socket, second.socket];
        let counts = Counts { bytes: [0; 2], moved: now };
        self.flows.insert(flow, Flow { ends, counts, alone: [false; 2] });
        for number in numbers {
            self.send_what_waited(number, now);
        }
        Some(flow)
    }

    pub fn counts(&self, flow: u64) -> Option<Counts> {
        self.flows.get(&flow).map(|flow| flow.counts)
    }

    /// Datagrams of this flow are handed up from now on; what it has carried. None when it has ended already.
    pub fn end(&mut self, flow: u64) -> Option<Counts> {
        let ended = self.flows.remove(&flow)?;
        for end in &ended.ends {
            self.mislead(end);
        }
        Some(ended.counts)
    }

    /// An edge on one socket, or the rest of one: take a batch and move it. Nothing for a socket that is gone. The
    /// flag says that there is something to hand up, and was not before.
    pub fn ready(&mut self, id: u64, inlet: &mut Inlet, now: Instant) -> (Turn, bool) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return (Turn::Empty, false);
        };
        let count = match inlet.receive(socket.fd.as_fd()) {
            Ok(count) => count,
            Err(Errno::AGAIN) => return (Turn::Empty, false),
            // What a router said of an earlier datagram: it is told once, and gone.
            Err(_) => return (Turn::Unfinished, false),
        };
        let mut hits = Vec::with_capacity(count);
        let mut calls = false;
        for (from, data) in inlet.datagrams() {
            if let Some((place, length)) = socket.find(from, data) {
                hits.push(Hit { place, payload: data.get(length..).unwrap_or_default() });
            } else if socket.hand_up(from, data) {
                calls = true;
            }
        }
        let was_calling = !self.calling.is_empty();
        if calls {
            self.calling.push_back(id);
        }
        self.forward(&hits, now);
        let turn = if count < BATCH { Turn::Empty } else { Turn::Unfinished };
        (turn, calls && !was_calling)
    }

    /// What is to be handed up, at most a few hundred, the sockets in turn. The flag says that there is more.
    pub fn take(&mut self) -> (Vec<(u64, Waiting)>, bool) {
        let mut taken = Vec::new();
        while taken.len() < TAKEN_MAX {
            let Some(id) = self.calling.pop_front() else {
                break;
            };
            let Some(socket) = self.sockets.get_mut(&id) else {
                continue;
            };
            taken.extend(socket.take(SHARE).into_iter().map(|waiting| (id, waiting)));
            if socket.has_waiting() {
                self.calling.push_back(id);
            }
        }
        (taken, !self.calling.is_empty())
    }

    /// Receive nowhere any more. What was not handed up is lost.
    pub fn close(&mut self) {
        self.closed = true;
        self.sockets.clear();
        self.flows.clear();
        self.calling.clear();
    }

    fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.wrapping_add(1); // at a million a second, in half a million years
        self.last_id
    }

    fn lead(&mut self, end: &End, place: Place) -> bool {
        let socket = self.sockets.get_mut(&end.socket);
        socket.is_some_and(|socket| socket.lead(end.peer, &end.strip, place))
    }

    fn mislead(&mut self, end: &End) {
        if let Some(socket) = self.sockets.get_mut(&end.socket) {
            socket.mislead(end.peer, &end.strip);
        }
    }

    /// What was to be handed up and belongs to a flow now: nothing that comes later may overtake it.
    fn send_what_waited(&mut self, id: u64, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        let led = socket.take_led();
        if !socket.has_waiting() {
            self.calling.retain(|calling| *calling != id);
        }
        for chunk in led.chunks(BATCH) {
            let hits: Vec<Hit> = chunk
                .iter()
                .map(|(place, length, waiting)| Hit {
                    place: *place,
                    payload: waiting.data.get(*length..).unwrap_or_default(),
                })
                .collect();
            self.forward(&hits, now);
        }
    }

    /// Out with them, in their order. What cannot be sent now is lost, and counted where it was to go out.
    fn forward(&mut self, hits: &[Hit<'_>], now: Instant) {
        let runs = runs(hits, |place| {
            self.way_out(place).map_or((false, 0), |(to, alone)| (!alone, to.prepend.len()))
        });
        for run in &runs {
            if let Some(flow) = self.flows.get_mut(&run.place.flow) {
                flow.counts.moved = now;
                if let Some(bytes) = flow.counts.bytes.get_mut(run.place.end) {
                    *bytes = bytes.saturating_add(run.payload_bytes);
                }
            }
        }
        let mut all_parts = Vec::with_capacity(hits.len().saturating_mul(2));
        let mut leaving: Vec<Leaving> = Vec::with_capacity(runs.len());
        for run in runs {
            if let Some((to, _)) = self.way_out(run.place) {
                let first = all_parts.len();
                parts(&run, hits, &to.prepend, &mut all_parts);
                leaving.push(Leaving { run, to, first, end: all_parts.len() });
            }
        }
        let mut lost = Vec::new();
        let mut alone = Vec::new();
        for of_one in leaving.chunk_by(|one, next| one.to.socket == next.to.socket) {
            self.send(of_one, &all_parts, &mut lost, &mut alone);
        }
        drop(leaving);
        for (id, count, errno) in lost {
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.lose(count, errno);
            }
        }
        for place in alone {
            if let Some(alone) =
                self.flows.get_mut(&place.flow).and_then(|flow| flow.alone.get_mut(place.end))
            {
                *alone = true;
            }
        }
    }

    /// The end at which it leaves, and whether each datagram must do so by itself.
    fn way_out(&self, place: Place) -> Option<(&End, bool)> {
        let flow = self.flows.get(&place.flow)?;
        Some((flow.ends.get(1_usize.checked_sub(place.end)?)?, *flow.alone.get(place.end)?))
    }

    /// All of them leave by one socket.
    fn send(
        &self,
        leaving: &[Leaving<'_>],
        parts: &[IoSlice<'_>],
        lost: &mut Vec<(u64, u64, Errno)>,
        alone: &mut Vec<Place>,
    ) {
        let Some(id) = leaving.first().map(|first| first.to.socket) else {
            return;
        };
        let Some(socket) = self.sockets.get(&id) else {
            return; // it went, and its flows with it
        };
        let messages: Vec<Message> = leaving.iter().map(|one| one.message(parts)).collect();
        let mut gone = 0;
        while let (Some(rest), Some(first)) = (messages.get(gone..), leaving.get(gone)) {
            match send(socket.fd.as_fd(), rest) {
                Ok(count) => gone = gone.saturating_add(count.max(1)),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    gone = gone.saturating_add(1);
                    if first.run.count > 1 && cuts_no_messages(errno) {
                        alone.push(first.run.place);
                        for datagram in first.datagrams(parts) {
                            if let Err(errno) = send(socket.fd.as_fd(), &[datagram]) {
                                lost.push((id, 1, errno));
                            }
                        }
                    } else {
                        lost.push((id, u64::try_from(first.run.count).unwrap_or(0), errno));
                    }
                }
            }
        }
    }
}

/// A run with its way out, and which of all parts are its own.
struct Leaving<'a> {
    run: Run,
    to: &'a End,
    first: usize,
    end: usize,
}

impl Leaving<'_> {
    fn message<'p>(&self, parts: &'p [IoSlice<'p>]) -> Message<'p> {
        message(&self.run, self.to.peer, &self.to.prepend, self.parts(parts))
    }

    fn datagrams<'p>(&self, parts: &'p [IoSlice<'p>]) -> impl Iterator<Item = Message<'p>> {
        let parts_of_each = if self.to.prepend.is_empty() { 1 } else { 2 };
        let to = self.to.peer;
        self.parts(parts).chunks(parts_of_each).map(move |parts| Message { to, parts, segment_bytes: None })
    }

    fn parts<'p>(&self, parts: &'p [IoSlice<'p>]) -> &'p [IoSlice<'p>] {
        parts.get(self.first..self.end).unwrap_or_default()
    }
}

/// Whether it may be the message's form that the kernel, or the way, does not take: too old, no checksums there, or
/// datagrams that are longer than the way and would have to be fragmented.
fn cuts_no_messages(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::IO | Errno::MSGSIZE | Errno::OPNOTSUPP | Errno::NOPROTOOPT)
}
