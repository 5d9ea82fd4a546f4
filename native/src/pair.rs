//! What is remembered of a pair: two sockets, and a flow each way. Nothing is read or written here.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;

use crate::allowance::Allowance;
use crate::pipes::{Pipe, Pipes};

/// Which socket of a pair. The internal one leads to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Internal,
    External,
}

impl Side {
    /// The external one first: the client has mostly spoken already, and its edge comes when the pair is complete.
    pub const BOTH: [Self; 2] = [Self::External, Self::Internal];
}

/// Which direction of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From internal to external: what is sent.
    Outward,
    /// From external to internal: what is received.
    Inward,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Outward, Self::Inward];

    /// The direction whose bytes come from this side.
    pub fn from(side: Side) -> Self {
        match side {
            Side::Internal => Self::Outward,
            Side::External => Self::Inward,
        }
    }

    pub fn source(self) -> Side {
        match self {
            Self::Outward => Side::Internal,
            Self::Inward => Side::External,
        }
    }

    pub fn sink(self) -> Side {
        self.back().source()
    }

    pub fn back(self) -> Self {
        match self {
            Self::Outward => Self::Inward,
            Self::Inward => Self::Outward,
        }
    }
}

/// Limits of one pair. Those of bytes and rate hold for each direction by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub idle: Option<Duration>,
    pub bytes_max: Option<u64>,
    pub bytes_per_second: Option<u64>,
}

/// How a pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
    IdleTimeout,
    ByteLimit,
    Killed,
    Failed,
}

impl End {
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::IdleTimeout => "idle_timeout",
            Self::ByteLimit => "byte_limit",
            Self::Killed => "killed",
            Self::Failed => "failed",
        }
    }
}

/// Why a pair ends. `by` is none when it was us; `errno` is zero when no call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub end: End,
    pub by: Option<Side>,
    pub errno: i32,
}

impl Ending {
    pub fn ours(end: End) -> Self {
        Self { end, by: None, errno: 0 }
    }

    pub fn failed(errno: Errno) -> Self {
        Self { end: End::Failed, by: None, errno: errno.raw_os_error() }
    }
}

/// One direction.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact, and most go together with most others")]
pub struct Flow {
    /// What was read and could not be written, from `held_from` on.
    pub held: Vec<u8>,
    pub held_from: usize,
    /// Only while bytes are in it, or while this flow is being pumped.
    pub pipe: Option<Pipe>,
    pub in_pipe: usize,
    /// When the pipe last went from empty to not.
    pub filled_at: Option<Instant>,
    /// So many of the bytes held were taken out of a pipe; see `unclog`.
    pub unloaded: usize,
    /// From so many bytes moved on it may splice.
    pub splice_from: u64,
    pub moved: u64,
    /// The source has said something beyond data: read until the kernel says wait.
    pub ending: bool,
    /// The source has sent its last byte, and no error: a read that comes back short has brought it.
    pub ended: bool,
    pub eof: bool,
    pub done: bool,
    /// It gave way to others and has its turn to come.
    pub queued: bool,
    pub splicing: bool,
    /// Both sockets never block. A splice asks for that; every other call says so itself.
    pub unblocked: bool,
    /// This kind of socket cannot be spliced, or an urgent mark has come: splice cannot pass one.
    pub copy_only: bool,
    pub small_reads: u8,
    /// For a limited rate only.
    pub allowance: Option<Box<Allowance>>,
}

impl Flow {
    /// Is there anything that was read and not yet written?
    pub fn holds(&self) -> bool {
        self.in_pipe > 0 || self.held_from < self.held.len()
    }

    /// What is held of a copy, less what is in a pipe. It is not held any more.
    pub fn take_held(&mut self, pipes: &mut Pipes) -> Vec<u8> {
        let mut bytes = mem::take(&mut self.held);
        bytes.drain(..self.held_from.min(bytes.len()));
        self.held_from = 0;
        pipes.no_longer_unloaded(mem::take(&mut self.unloaded));
        bytes
    }
}

/// Closed with the last handle.
pub struct Sockets {
    pub internal: OwnedFd,
    pub external: OwnedFd,
}

impl Sockets {
    pub fn of(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Internal => self.internal.as_fd(),
            Side::External => self.external.as_fd(),
        }
    }
}

/// Two sockets and the flow each way.
pub struct Pair {
    /// Shared with whoever adds the pair, for as long as that takes: a pair may end before.
    pub sockets: Arc<Sockets>,
    /// Is the epoll asked about room to write? Only once a write had to wait, or for what came early.
    pub internal_awaits_room: bool,
    pub external_awaits_room: bool,
    pub outward: Flow,
    pub inward: Flow,
    pub limits: Limits,
    /// When the last byte moved.
    pub last: Instant,
    pub first_eof: Option<Side>,
}

impl Pair {
    pub fn new(internal: OwnedFd, external: OwnedFd, limits: Limits, now: Instant) -> Self {
        Self {
            sockets: Arc::new(Sockets { internal, external }),
            internal_awaits_room: false,
            external_awaits_room: false,
            outward: Flow::default(),
            inward: Flow::default(),
            limits,
            last: now,
            first_eof: None,
        }
    }

    /// With what was read from each side before: `to_external` from the internal one. It goes out first.
    pub fn with_early(mut self, to_external: Vec<u8>, to_internal: Vec<u8>) -> Self {
        self.external_awaits_room = !to_external.is_empty();
        self.internal_awaits_room = !to_internal.is_empty();
        self.outward.held = to_external;
        self.inward.held = to_internal;
        self
    }

    /// Close both sockets, with RST if abortive.
    pub fn close(self, abortive: bool) {
        if abortive {
            for socket in [&self.sockets.internal, &self.sockets.external] {
                // It can fail only for what is no socket; then there is nobody to reset.
                let _ = set_socket_linger(socket, Some(Duration::ZERO));
            }
        }
    }

    /// Is the epoll asked about room to write to this side?
    pub fn awaits_room(&self, side: Side) -> bool {
        match side {
            Side::Internal => self.internal_awaits_room,
            Side::External => self.external_awaits_room,
        }
    }

    pub fn flow(&mut self, way: Way) -> &mut Flow {
        match way {
            Way::Outward => &mut self.outward,
            Way::Inward => &mut self.inward,
        }
    }

    pub fn peek(&self, way: Way) -> &Flow {
        match way {
            Way::Outward => &self.outward,
            Way::Inward => &self.inward,
        }
    }

    /// Bytes moved so far: outward, inward.
    pub fn counts(&self) -> (u64, u64) {
        (self.outward.moved, self.inward.moved)
    }

    /// Everything that one direction works on.
    pub fn lane(&mut self, id: u64, way: Way) -> Lane<'_> {
        let (flow, source, sink, sink_awaits_room) = match way {
            Way::Outward => (
                &mut self.outward,
                self.sockets.internal.as_fd(),
                self.sockets.external.as_fd(),
                &mut self.external_awaits_room,
            ),
            Way::Inward => (
                &mut self.inward,
                self.sockets.external.as_fd(),
                self.sockets.internal.as_fd(),
                &mut self.internal_awaits_room,
            ),
        };
        Lane {
            id,
            way,
            flow,
            source,
            sink,
            sink_awaits_room,
            limits: &self.limits,
            last: &mut self.last,
            first_eof: &mut self.first_eof,
        }
    }
}

/// One direction of a pair, with its sockets at hand.
pub struct Lane<'a> {
    /// The pair's number.
    pub id: u64,
    pub way: Way,
    pub flow: &'a mut Flow,
    pub source: BorrowedFd<'a>,
    pub sink: BorrowedFd<'a>,
    pub sink_awaits_room: &'a mut bool,
    pub limits: &'a Limits,
    pub last: &'a mut Instant,
    pub first_eof: &'a mut Option<Side>,
}
