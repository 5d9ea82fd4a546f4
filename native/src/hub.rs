//! The pairs of one thread, and everything that can happen to them. No thread and no lock here: whoever calls has
//! it to himself. `now` is handed in by every call that has to do with time.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::{Errno, ioctl_fionbio, read, retry_on_intr};
use rustix::net::sockopt::socket_error;

use crate::completions::{Completion, Outbox};
use crate::pair::{End, Ending, Flow, Pair, Side, Way};
use crate::pipes::Pipes;
use crate::pump::{COPY_BYTES, READ, Tools, Turn, broken, pump, tag};
use crate::timers::{IDLE_STEP, Reason, Timers};

const WRITE: epoll::EventFlags = epoll::EventFlags::OUT.union(GONE);
const GONE: epoll::EventFlags = epoll::EventFlags::HUP.union(epoll::EventFlags::ERR);
/// Something beyond data: an end, an error, or an urgent mark, at which every read stops short of what follows it.
const ENDING: epoll::EventFlags = GONE.union(epoll::EventFlags::PRI).union(epoll::EventFlags::RDHUP);
const READABLE: epoll::EventFlags = ENDING.union(epoll::EventFlags::IN);

/// A pair given back. `to_external` was read from the internal side and not yet written, and the other way round.
pub struct Reclaimed {
    pub internal: OwnedFd,
    pub external: OwnedFd,
    pub to_external: Vec<u8>,
    pub to_internal: Vec<u8>,
    pub counts: (u64, u64),
}

/// What one hub may have, and one of its flows at a time.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Pipes lent at a time.
    pub pipes_max: usize,
    /// Bytes that a flow may carry before others have their turn, and whoever waits for the hub.
    pub turn_bytes_max: u64,
}

/// What the thread was told when it last asked how long it may sleep.
enum Sleep {
    Awake,
    Until(Instant),
    Endless,
}

/// The table of one thread.
pub struct Hub {
    pairs: HashMap<u64, Pair>,
    unfinished: VecDeque<(u64, Way)>,
    tools: Tools,
    outbox: Arc<Outbox>,
    sleep: Sleep,
    closed: bool,
}

impl Hub {
    /// `epoll` is another handle of the one that the thread waits for.
    pub fn new(epoll: OwnedFd, outbox: Arc<Outbox>, share: Share, now: Instant) -> Self {
        Self {
            pairs: HashMap::new(),
            unfinished: VecDeque::new(),
            tools: Tools {
                epoll,
                pipes: Pipes::new(share.pipes_max),
                turn_bytes_max: share.turn_bytes_max,
                buffer: vec![0; COPY_BYTES].into_boxed_slice(),
                timers: Timers::default(),
                now,
            },
            outbox,
            sleep: Sleep::Awake,
            closed: false,
        }
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Take over a pair that was made just now and begin. Its sockets are reset when that cannot be done: no room for watches, or closed.
    pub fn add(&mut self, id: u64, mut pair: Pair) -> Result<(), Errno> {
        let now = pair.last;
        self.tools.now = now;
        let watched = if self.closed { Err(Errno::SHUTDOWN) } else { self.watch(id, &pair) };
        if let Err(errno) = watched {
            pair.close(true);
            return Err(errno);
        }
        let early = Way::BOTH.map(|way| pair.flow(way).holds().then_some(way));
        if let Some(idle) = pair.limits.idle {
            self.tools.timers.push(now, idle, Reason::idle(id));
            self.tools.timers.sweep(self.pairs.len(), |id| self.pairs.contains_key(&id));
        }
        self.pairs.insert(id, pair);
        for way in early.into_iter().flatten() {
            self.pump(id, way);
        }
        Ok(())
    }

    pub fn counts(&self, id: u64) -> Option<(u64, u64)> {
        self.pairs.get(&id).map(Pair::counts)
    }

    /// Reset both sides. Nothing if it has ended already.
    pub fn kill(&mut self, id: u64) {
        self.end(id, Ending::ours(End::Killed));
    }

    /// End all pairs, and take no more.
    pub fn close(&mut self, end: End) {
        self.closed = true;
        let mut ids: Vec<u64> = self.pairs.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end(id, Ending::ours(end));
        }
        self.unfinished.clear();
        self.tools.pipes.clear();
    }

    /// Give the pair back with nothing lost. None when it has ended, or ends now because that cannot be done.
    pub fn reclaim(&mut self, id: u64) -> Option<Reclaimed> {
        let mut pair = self.pairs.remove(&id)?;
        let taken = self.unload(&mut pair.outward).and_then(|to_external| {
            let to_internal = self.unload(&mut pair.inward)?;
            // Before they are given away: a duplicate would keep the registration alive.
            epoll::delete(&self.tools.epoll, &pair.internal)?;
            epoll::delete(&self.tools.epoll, &pair.external)?;
            Ok((to_external, to_internal))
        });
        match taken {
            Ok((to_external, to_internal)) => Some(Reclaimed {
                counts: pair.counts(),
                internal: pair.internal,
                external: pair.external,
                to_external,
                to_internal,
            }),
            Err(errno) => {
                self.pairs.insert(id, pair);
                self.end(id, Ending::failed(errno));
                None
            }
        }
    }

    /// An edge on one socket: try to read from this side, and to write to it what was held. Edges are hints; one
    /// may come for a pair that is gone.
    pub fn ready(&mut self, id: u64, side: Side, events: epoll::EventFlags, now: Instant) {
        self.tools.now = now;
        let reading = Way::from(side);
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        if events.intersects(WRITE) && pair.flow(reading.back()).holds() {
            self.pump(id, reading.back());
        }
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        if !events.intersects(READABLE) {
            return;
        }
        let flow = pair.flow(reading);
        flow.ending |= events.intersects(ENDING);
        flow.copy_only |= events.contains(epoll::EventFlags::PRI);
        if !flow.done {
            self.pump(id, reading);
        }
        if events.contains(epoll::EventFlags::ERR) {
            self.ask_for_reset(id, side);
        }
    }

    /// Do what is due: idle limits, allowances, and flows that gave way to others.
    pub fn tick(&mut self, now: Instant) {
        self.tools.now = now;
        self.sleep = Sleep::Awake;
        for _ in 0..self.unfinished.len() {
            let Some((id, way)) = self.unfinished.pop_front() else {
                break;
            };
            if let Some(pair) = self.pairs.get_mut(&id) {
                pair.flow(way).queued = false;
                self.pump(id, way);
            }
        }
        while let Some(reason) = self.tools.timers.pop(now) {
            self.due(reason);
        }
    }

    /// How long the thread may sleep; none is until something happens.
    pub fn rest(&mut self, now: Instant) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.tools.timers.next();
        self.sleep = next.map_or(Sleep::Endless, Sleep::Until);
        next.map(|at| at.saturating_duration_since(now))
    }

    /// Does the thread sleep longer than it may, after what has just been done?
    pub fn is_overslept(&self) -> bool {
        let has_work = self.closed || !self.unfinished.is_empty();
        match self.sleep {
            Sleep::Awake => false,
            Sleep::Until(time) => has_work || self.tools.timers.next().is_some_and(|next| next < time),
            Sleep::Endless => has_work || self.tools.timers.next().is_some(),
        }
    }

    fn watch(&self, id: u64, pair: &Pair) -> Result<(), Errno> {
        for side in [Side::Internal, Side::External] {
            let socket = pair.socket(side);
            // A blocking one would stop everybody at its first stall.
            ioctl_fionbio(socket, true)?;
            epoll::add(&self.tools.epoll, socket, tag(id, side), READ)?;
        }
        Ok(())
    }

    fn pump(&mut self, id: u64, way: Way) {
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        if pair.flow(way).queued {
            return; // its turn comes
        }
        match pump(id, pair, way, &mut self.tools) {
            Ok(Turn::Waiting | Turn::Finished) => {}
            Ok(Turn::Unfinished) => {
                pair.flow(way).queued = true;
                self.unfinished.push_back((id, way));
            }
            Err(ending) => self.end(id, ending),
        }
    }

    /// A source may reset while nobody reads it: after its end of stream, or while its bytes find no reader.
    fn ask_for_reset(&mut self, id: u64, side: Side) {
        let Some(pair) = self.pairs.get(&id) else {
            return;
        };
        let errno = match socket_error(pair.socket(side)) {
            Ok(Ok(())) => return,
            Ok(Err(errno)) | Err(errno) => errno,
        };
        self.end(id, broken(side, errno));
    }

    fn due(&mut self, reason: Reason) {
        let Some(pair) = self.pairs.get_mut(&reason.id) else {
            return;
        };
        if let Some(way) = reason.way() {
            if let Some(allowance) = &mut pair.flow(way).allowance {
                allowance.waiting = false;
            }
            self.pump(reason.id, way);
        } else if let Some(idle) = pair.limits.idle {
            let left = idle.saturating_sub(self.tools.now.saturating_duration_since(pair.last));
            if left.is_zero() {
                self.end(reason.id, Ending::ours(End::IdleTimeout));
            } else {
                self.tools.timers.push(self.tools.now, left.max(IDLE_STEP), reason);
            }
        }
    }

    fn end(&mut self, id: u64, ending: Ending) {
        let Some(mut pair) = self.pairs.remove(&id) else {
            return;
        };
        for way in Way::BOTH {
            let flow = pair.flow(way);
            if let Some(pipe) = flow.pipe.take() {
                self.tools.pipes.give_back(pipe, flow.in_pipe == 0);
            }
        }
        let (bytes_sent, bytes_received) = pair.counts();
        pair.close(ending.end != End::Closed);
        self.outbox.push(Completion { id, bytes_sent, bytes_received, ending });
    }

    /// What was read and not written: the held rest of a copy, and what is still in the pipe.
    fn unload(&mut self, flow: &mut Flow) -> Result<Vec<u8>, Errno> {
        let mut bytes = std::mem::take(&mut flow.held);
        bytes.drain(..flow.held_from.min(bytes.len()));
        flow.held_from = 0;
        while let (Some(pipe), true) = (&flow.pipe, flow.in_pipe > 0) {
            let room = self.tools.buffer.len().min(flow.in_pipe);
            let room = self.tools.buffer.get_mut(..room).unwrap_or_default();
            let count = retry_on_intr(|| read(&pipe.reader, &mut *room))?;
            if count == 0 {
                return Err(Errno::IO); // the kernel has lost bytes: nothing may go on behind the gap
            }
            bytes.extend_from_slice(room.get(..count).unwrap_or_default());
            flow.in_pipe = flow.in_pipe.saturating_sub(count);
        }
        if let Some(pipe) = flow.pipe.take() {
            self.tools.pipes.give_back(pipe, true);
        }
        Ok(bytes)
    }
}
