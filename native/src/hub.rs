//! The pairs of one thread, and everything that can happen to them. No thread and no lock here: whoever calls has
//! it to himself. `now` is handed in by every call that has to do with time.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;

use crate::arrivals::Arrivals;
use crate::completions::{Completion, Outbox};
use crate::ids::Ids;
use crate::pair::{End, Ending, Pair, Side, Sockets, Way};
use crate::pipes::Pipes;
use crate::pump::{COPY_BYTES, Tools, Turn, broken, pump};
use crate::timers::{IDLE_STEP, Reason, Timers};
use crate::unclog::{unclog, unload};

const WRITE: epoll::EventFlags = epoll::EventFlags::OUT.union(GONE);
const GONE: epoll::EventFlags = epoll::EventFlags::HUP.union(epoll::EventFlags::ERR);
/// Something beyond data: an end, an error, or an urgent mark, at which every read stops short of what follows it.
const ENDING: epoll::EventFlags = GONE.union(epoll::EventFlags::PRI).union(epoll::EventFlags::RDHUP);
const READABLE: epoll::EventFlags = ENDING.union(epoll::EventFlags::IN);

/// Whoever goes without a pipe may have it looked for this often, when there was none to be had.
const UNCLOG_STEP: Duration = Duration::from_millis(20);

/// Room for so many arrivals is kept.
const ARRIVED_MAX: usize = 256;

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
    /// Bytes at a time that are in memory because they were taken out of a pipe.
    pub unloaded_bytes_max: usize,
}

/// What was read and not written: outward, inward.
type Unloaded = (Vec<u8>, Vec<u8>);

/// The table of one thread.
pub struct Hub {
    pairs: HashMap<u64, Pair, Ids>,
    unfinished: VecDeque<(u64, Way)>,
    tools: Tools,
    arrivals: Arc<Arrivals>,
    /// Room for them; empty between calls.
    arrived: Vec<(u64, Pair)>,
    outbox: Arc<Outbox>,
    closed: bool,
    /// Nobody is stuck for long: no need to look again before this.
    unclog_from: Instant,
}

impl Hub {
    /// `epoll` is another handle of the one that the thread waits for.
    pub fn new(
        epoll: OwnedFd,
        arrivals: Arc<Arrivals>,
        outbox: Arc<Outbox>,
        share: Share,
        now: Instant,
    ) -> Self {
        Self {
            pairs: HashMap::default(),
            unfinished: VecDeque::new(),
            tools: Tools {
                epoll,
                pipes: Pipes::new(share.pipes_max, share.unloaded_bytes_max),
                turn_bytes_max: share.turn_bytes_max,
                buffer: vec![0; COPY_BYTES].into_boxed_slice(),
                timers: Timers::default(),
                now,
            },
            arrivals,
            arrived: Vec::new(),
            outbox,
            closed: false,
            unclog_from: now,
        }
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Who has bytes in a pipe.
    pub fn pipe_holders(&self) -> &[(u64, Way)] {
        self.tools.pipes.holders()
    }

    /// Take over what has arrived. Whoever asks about pairs does this first.
    pub fn receive(&mut self) {
        if !self.arrivals.is_empty() {
            self.adopt();
        }
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
        self.arrivals.close();
        self.adopt();
        let mut ids: Vec<u64> = self.pairs.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end(id, Ending::ours(end));
        }
        self.unfinished.clear();
        self.tools.pipes.clear();
    }

    /// Reset both sides, and say nothing. False if it has ended already.
    pub fn forget(&mut self, id: u64) -> bool {
        self.take_out(id).map(|pair| pair.close(true)).is_some()
    }

    /// Give the pair back with nothing lost. None when it has ended, or ends now because that cannot be done.
    pub fn reclaim(&mut self, id: u64) -> Option<Reclaimed> {
        match self.unload(id)? {
            Ok((to_external, to_internal)) => {
                let pair = self.take_out(id)?;
                let counts = pair.counts();
                // Only whoever still adds it has another handle, and does not know its number yet.
                let Sockets { internal, external } = Arc::into_inner(pair.sockets)?;
                Some(Reclaimed { internal, external, to_external, to_internal, counts })
            }
            Err(errno) => {
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
        if !self.pairs.contains_key(&id) {
            self.adopt();
        }
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
        flow.ended |= events.contains(epoll::EventFlags::RDHUP) && !events.contains(epoll::EventFlags::ERR);
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
        if self.tools.pipes.take_wanted() {
            self.unclog();
        }
    }

    /// How long the thread may sleep; none is until something happens. Whoever adds a pair that cannot wait for that
    /// is told so.
    pub fn rest(&mut self, now: Instant) -> Option<Duration> {
        self.receive();
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.tools.timers.next();
        self.arrivals.falls_asleep(next);
        if !self.arrivals.is_empty() {
            return Some(Duration::ZERO); // it was added before it could be told
        }
        next.map(|at| at.saturating_duration_since(now))
    }

    fn adopt(&mut self) {
        self.arrivals.take(&mut self.arrived);
        for (id, pair) in self.arrived.drain(..) {
            if let Some(idle) = pair.limits.idle {
                self.tools.timers.push(pair.last, idle, Reason::idle(id));
            }
            self.pairs.insert(id, pair);
        }
        self.arrived.shrink_to(ARRIVED_MAX);
        self.tools.timers.sweep(self.pairs.len(), |id| self.pairs.contains_key(&id));
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
        let errno = match socket_error(pair.sockets.of(side)) {
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
        let Some(pair) = self.take_out(id) else {
            return;
        };
        let (bytes_sent, bytes_received) = pair.counts();
        pair.close(ending.end != End::Closed);
        self.outbox.push(Completion { id, bytes_sent, bytes_received, ending });
    }

    /// It holds nothing any more.
    fn take_out(&mut self, id: u64) -> Option<Pair> {
        let mut pair = self.pairs.remove(&id)?;
        self.arrivals.ended();
        for way in Way::BOTH {
            let flow = pair.flow(way);
            drop(flow.take_held(&mut self.tools.pipes));
            if let Some(pipe) = flow.pipe.take() {
                self.tools.pipes.give_back(id, way, pipe, flow.in_pipe == 0);
            }
        }
        Some(pair)
    }

    /// Empty a pair that is to be given away, and look at it no more. None if it has ended already.
    fn unload(&mut self, id: u64) -> Option<Result<Unloaded, Errno>> {
        let pair = self.pairs.get_mut(&id)?;
        let pipes = &mut self.tools.pipes;
        let epoll = &self.tools.epoll;
        let mut unload = || {
            let to_external = unload(id, Way::Outward, &mut pair.outward, pipes)?;
            let to_internal = unload(id, Way::Inward, &mut pair.inward, pipes)?;
            // Before they are given away: a duplicate would keep the registration alive.
            epoll::delete(epoll, &pair.sockets.internal)?;
            epoll::delete(epoll, &pair.sockets.external)?;
            Ok((to_external, to_internal))
        };
        Some(unload())
    }

    /// A pipe for whoever has gone without one.
    fn unclog(&mut self) {
        let now = self.tools.now;
        if now < self.unclog_from {
            return;
        }
        match unclog(&mut self.pairs, &mut self.tools) {
            Ok(true) => {}
            Ok(false) => self.unclog_from = now.checked_add(UNCLOG_STEP).unwrap_or(now),
            Err((id, ending)) => self.end(id, ending),
        }
    }
}
