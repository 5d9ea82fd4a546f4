//! One direction at work: read, hold what could not be written, write, and never read more before that is gone.
//!
//! So the buffer of a direction is one read, and back-pressure is the kernel's own. Small messages are copied through
//! one buffer that all share; once a read fills it the flow splices through a pipe, and after some small reads it
//! copies again. `src/doorward/net/python_relay.py` is the same in Python, and the reference.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustix::pipe::{SpliceFlags, splice};

use crate::allowance::Allowance;
use crate::pair::{End, Ending, Lane, Pair, Side, Way};
use crate::pipes::{PIPE_BYTES, Pipes};
use crate::timers::{Reason, Timers};

pub const COPY_BYTES: usize = 64 * 1024;
/// A read this small while splicing counts toward copying again, which is cheaper for messages.
const SMALL_READ_BYTES: usize = 16 * 1024;
const SMALL_READS_BEFORE_COPYING: u8 = 8;
/// Rounds of read and write that one flow may take before others have their turn.
const ROUNDS_MAX: usize = 16;

/// Everything there may be an edge of. Room to write is asked for once a write had to wait.
pub const READ: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);
pub const READ_AND_WRITE: epoll::EventFlags = READ.union(epoll::EventFlags::OUT);

/// What pumping needs beside the pair, once per thread.
pub struct Tools {
    pub epoll: OwnedFd,
    pub pipes: Pipes,
    /// Bytes that a flow may carry before others have their turn.
    pub turn_bytes_max: u64,
    pub buffer: Box<[u8]>,
    pub timers: Timers,
    pub now: Instant,
}

/// Where a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The kernel, a timer or the end of the pair goes on from here.
    Waiting,
    /// There is more, and others have waited.
    Unfinished,
    /// All bytes of this direction are delivered, and so is now its end.
    Finished,
}

/// What ends a pair from within: a call on one of its sockets failed, or a limit is reached.
enum Fault {
    Source(Errno),
    Sink(Errno),
    Ours(Ending),
}

/// The number that stands for one socket of a pair in the epoll.
pub fn tag(id: u64, side: Side) -> epoll::EventData {
    let bit = u64::from(side == Side::External);
    epoll::EventData::new_u64(id.wrapping_shl(1) | bit)
}

/// The pair and the side that a number stands for.
pub fn untag(tag: epoll::EventData) -> (u64, Side) {
    let number = tag.u64();
    let side = if number & 1 == 1 { Side::External } else { Side::Internal };
    (number >> 1, side)
}

/// Carry until the kernel says wait, or the turn is over. An error is how the pair ends; nothing is closed yet.
pub fn pump(id: u64, pair: &mut Pair, way: Way, tools: &mut Tools) -> Result<Turn, Ending> {
    let turn = run(&mut pair.lane(id, way), tools).map_err(|fault| fault.ending(way))?;
    if turn == Turn::Finished {
        if pair.outward.done && pair.inward.done {
            // Closing says FIN by itself.
            return Err(Ending { end: End::Closed, by: pair.first_eof, errno: 0 });
        }
        end_sending(&pair.lane(id, way)).map_err(|fault| fault.ending(way))?;
    }
    Ok(turn)
}

/// A call failed on this side's socket.
pub fn broken(side: Side, errno: Errno) -> Ending {
    let gone = matches!(
        errno,
        Errno::CONNRESET
            | Errno::PIPE
            | Errno::TIMEDOUT
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::CONNABORTED
    );
    if gone {
        Ending { end: End::Reset, by: Some(side), errno: errno.raw_os_error() }
    } else {
        Ending::failed(errno)
    }
}

impl Fault {
    fn ending(self, way: Way) -> Ending {
        match self {
            Self::Source(errno) => broken(way.source(), errno),
            Self::Sink(errno) => broken(way.sink(), errno),
            Self::Ours(ending) => ending,
        }
    }
}

fn run(lane: &mut Lane<'_>, tools: &mut Tools) -> Result<Turn, Fault> {
    let began_at = lane.flow.moved;
    for _ in 0..ROUNDS_MAX {
        if lane.flow.done {
            return Ok(Turn::Waiting);
        }
        if lane.flow.holds() && !flush(lane, tools)? {
            await_room(lane, tools)?;
            return Ok(Turn::Waiting);
        }
        if lane.flow.eof {
            lane.flow.done = true;
            return Ok(Turn::Finished);
        }
        if !fill(lane, tools)? {
            return Ok(Turn::Waiting);
        }
        if lane.flow.moved.saturating_sub(began_at) > tools.turn_bytes_max {
            break;
        }
    }
    Ok(Turn::Unfinished)
}

fn end_sending(lane: &Lane<'_>) -> Result<(), Fault> {
    match shutdown(lane.sink, Shutdown::Write) {
        // The other side has reset, and its edge is on its way.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(Fault::Sink(errno)),
    }
}

/// Write what is held; false when the sink cannot take all of it yet.
fn flush(lane: &mut Lane<'_>, tools: &mut Tools) -> Result<bool, Fault> {
    while lane.flow.held_from < lane.flow.held.len() {
        let rest = lane.flow.held.get(lane.flow.held_from..).unwrap_or_default();
        match retry_on_intr(|| send(lane.sink, rest, SEND)) {
            Ok(count) => {
                lane.flow.held_from = lane.flow.held_from.saturating_add(count);
                moved(lane, count, tools);
            }
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(Fault::Sink(errno)),
        }
    }
    if lane.flow.held_from > 0 {
        // Not emptied: its room would stay for the life of the pair.
        drop(lane.flow.take_held(&mut tools.pipes));
    }
    while let (Some(pipe), true) = (&lane.flow.pipe, lane.flow.in_pipe > 0) {
        let held = lane.flow.in_pipe;
        match retry_on_intr(|| splice(&pipe.reader, None, lane.sink, None, held, SPLICE)) {
            Ok(0) => return Err(Fault::Ours(Ending::failed(Errno::IO))), // the kernel would have lost bytes
            Ok(count) => {
                lane.flow.in_pipe = held.saturating_sub(count);
                moved(lane, count, tools);
            }
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(Fault::Sink(errno)),
        }
    }
    Ok(true)
}

/// Read once and write what can be written at once; false when there is nothing to read yet.
fn fill(lane: &mut Lane<'_>, tools: &mut Tools) -> Result<bool, Fault> {
    let bytes_max = allowed(lane, tools)?;
    if bytes_max == 0 {
        return_pipe(lane, tools);
        return Ok(false);
    }
    let filled = if lane.flow.splicing && !lane.flow.copy_only {
        splice_in(lane, tools, bytes_max)
    } else {
        Filled::NotSpliced
    };
    let filled = match filled {
        Filled::NotSpliced => copy(lane, tools, bytes_max)?,
        other => other,
    };
    match filled {
        Filled::Some => Ok(true),
        Filled::Drained | Filled::NotSpliced => Ok(false),
        Filled::Nothing => {
            return_pipe(lane, tools);
            Ok(false)
        }
        Filled::Broken(errno) => Err(Fault::Source(errno)),
    }
}

/// What one read has brought.
enum Filled {
    Some,
    /// Bytes, and certainly no more of them: the next come with an edge of their own.
    Drained,
    /// The kernel says wait.
    Nothing,
    /// Splicing cannot be done, with nothing read.
    NotSpliced,
    Broken(Errno),
}

fn copy(lane: &mut Lane<'_>, tools: &mut Tools, bytes_max: usize) -> Result<Filled, Fault> {
    let size = bytes_max.min(COPY_BYTES);
    let room = tools.buffer.get_mut(..size).unwrap_or_default();
    let count = match retry_on_intr(|| recv(lane.source, &mut *room, RecvFlags::DONTWAIT)) {
        Ok((count, _)) => count,
        Err(Errno::AGAIN) => return Ok(Filled::Nothing),
        Err(errno) => return Ok(Filled::Broken(errno)),
    };
    if count == 0 {
        saw_eof(lane, tools);
        return Ok(Filled::Some);
    }
    lane.flow.splicing = count == COPY_BYTES && lane.flow.moved >= lane.flow.splice_from;
    if count < size && lane.flow.ended && !lane.flow.copy_only {
        saw_eof(lane, tools);
    }
    let data = tools.buffer.get(..count).unwrap_or_default();
    let sent = match retry_on_intr(|| send(lane.sink, data, SEND)) {
        Ok(sent) => sent,
        Err(Errno::AGAIN) => 0,
        Err(errno) => return Err(Fault::Sink(errno)),
    };
    if sent < count {
        lane.flow.held = data.get(sent..).unwrap_or_default().to_vec();
        lane.flow.held_from = 0;
    }
    moved(lane, sent, tools);
    if sent < count || count == size || lane.flow.ending { Ok(Filled::Some) } else { Ok(Filled::Drained) }
}

/// One read into a pipe.
fn splice_in(lane: &mut Lane<'_>, tools: &mut Tools, bytes_max: usize) -> Filled {
    if !lane.flow.unblocked {
        if let Err(errno) = unblock(lane) {
            return Filled::Broken(errno);
        }
        lane.flow.unblocked = true;
    }
    if lane.flow.pipe.is_none() {
        lane.flow.pipe = tools.pipes.take(lane.id, lane.way);
    }
    let Some(pipe) = &lane.flow.pipe else {
        return Filled::NotSpliced;
    };
    let size = bytes_max.min(tools.pipes.room());
    let count = match retry_on_intr(|| splice(lane.source, None, &pipe.writer, None, size, SPLICE)) {
        Ok(0) => return Filled::NotSpliced, // an end of stream or an urgent mark: a copy can tell
        Ok(count) => count,
        Err(Errno::AGAIN) => return Filled::Nothing,
        Err(Errno::INVAL) => {
            lane.flow.copy_only = true;
            return_pipe(lane, tools);
            return Filled::NotSpliced;
        }
        Err(errno) => return Filled::Broken(errno),
    };
    lane.flow.in_pipe = count;
    lane.flow.filled_at = Some(tools.now);
    if count < SMALL_READ_BYTES {
        lane.flow.small_reads = lane.flow.small_reads.saturating_add(1);
    } else {
        lane.flow.small_reads = 0;
    }
    if lane.flow.small_reads >= SMALL_READS_BEFORE_COPYING {
        lane.flow.splicing = false;
        lane.flow.small_reads = 0;
    }
    Filled::Some
}

/// A splice waits at a socket that blocks, whatever it is told, and everybody else waits with it.
fn unblock(lane: &Lane<'_>) -> Result<(), Errno> {
    ioctl_fionbio(lane.source, true)?;
    ioctl_fionbio(lane.sink, true)
}

/// Never MORE: it corks the last bytes for 200 ms.
const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

fn moved(lane: &mut Lane<'_>, count: usize, tools: &Tools) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    lane.flow.moved = lane.flow.moved.saturating_add(count);
    *lane.last = tools.now;
    if let Some(allowance) = &mut lane.flow.allowance {
        allowance.spend(count);
    }
}

fn saw_eof(lane: &mut Lane<'_>, tools: &mut Tools) {
    lane.flow.eof = true;
    lane.first_eof.get_or_insert(lane.way.source());
    return_pipe(lane, tools);
}

fn return_pipe(lane: &mut Lane<'_>, tools: &mut Tools) {
    if let Some(pipe) = lane.flow.pipe.take() {
        tools.pipes.give_back(lane.id, lane.way, pipe, lane.flow.in_pipe == 0);
        lane.flow.in_pipe = 0;
    }
}

/// The sink is full: from now on the epoll tells of room. It also tells of room that came in the meantime.
fn await_room(lane: &mut Lane<'_>, tools: &Tools) -> Result<(), Fault> {
    if *lane.sink_awaits_room {
        return Ok(());
    }
    let tag = tag(lane.id, lane.way.sink());
    let epoll = tools.epoll.as_fd();
    let mut asked = epoll::modify(epoll, lane.sink, tag, READ_AND_WRITE);
    if asked == Err(Errno::NOENT) {
        // Whoever adds the pair is about to put it in, and may do so right now.
        asked = match epoll::add(epoll, lane.sink, tag, READ_AND_WRITE) {
            Err(Errno::EXIST) => epoll::modify(epoll, lane.sink, tag, READ_AND_WRITE),
            added => added,
        };
    }
    asked.map_err(|errno| Fault::Ours(Ending::failed(errno)))?;
    *lane.sink_awaits_room = true;
    Ok(())
}

/// How many bytes may be read now; 0 ends the turn, and a timer or the pair's end goes on from there.
fn allowed(lane: &mut Lane<'_>, tools: &mut Tools) -> Result<usize, Fault> {
    let mut allowed = u64::try_from(PIPE_BYTES).unwrap_or(u64::MAX);
    if let Some(bytes_max) = lane.limits.bytes_max {
        allowed = allowed.min(bytes_max.saturating_sub(lane.flow.moved));
        if allowed == 0 {
            return over_bytes_max(lane);
        }
    }
    if let Some(bytes_per_second) = lane.limits.bytes_per_second {
        allowed = allowed.min(available(lane, tools, bytes_per_second));
    }
    Ok(usize::try_from(allowed).unwrap_or(PIPE_BYTES))
}

/// The limit is reached. More bytes to come are a breach; an end of stream is not, and is read like any other.
fn over_bytes_max(lane: &Lane<'_>) -> Result<usize, Fault> {
    let mut one = [0_u8];
    match retry_on_intr(|| recv(lane.source, &mut one, RecvFlags::PEEK | RecvFlags::DONTWAIT)) {
        Ok((0, _)) => Ok(1),
        Ok(_) => Err(Fault::Ours(Ending::ours(End::ByteLimit))),
        Err(Errno::AGAIN) => Ok(0),
        Err(errno) => Err(Fault::Source(errno)),
    }
}

fn available(lane: &mut Lane<'_>, tools: &mut Tools, bytes_per_second: u64) -> u64 {
    let allowance =
        lane.flow.allowance.get_or_insert_with(|| Box::new(Allowance::new(bytes_per_second, tools.now)));
    let available = allowance.available(tools.now);
    if available == 0 && !allowance.waiting {
        allowance.waiting = true;
        let wait = allowance.wait();
        tools.timers.push(tools.now, wait, Reason::allowance(lane.id, lane.way));
    }
    available
}
