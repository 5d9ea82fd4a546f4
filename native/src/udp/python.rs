//! What Python sees: `doorward_native.Datagrams`. Its types stand in `doorward_native/_relay.pyi` as well; a test
//! compares the two. The thread never touches Python.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::io::Errno;

use crate::sys::adopt;
use crate::udp::mover::Mover;
use crate::udp::socket::{Losses, Waiting};
use crate::udp::table::{Counts, End, Table};

/// Packed address, port, scope; and the datagram.
type Handed<'a> = (Cow<'a, [u8]>, u16, u32, Cow<'a, [u8]>);
/// Packed address and port.
type Name<'a> = (Cow<'a, [u8]>, u16);
/// Dropped, failed, errno of the last that failed, unheard.
type Lost = (u64, u64, i32, u64);
/// Bytes that came in at the first end, and at the second; when the last did, in seconds since the start.
type Carried = (u64, u64, f64);

/// Datagrams that nobody reads, moved from socket to socket by a thread that never waits for Python.
#[pyclass(frozen, module = "doorward_native")]
pub struct Datagrams {
    // None once it is closed. The lock is held for a copy of the handle only.
    inner: Mutex<Option<Arc<Mover>>>,
    started: Instant,
}

#[pymethods]
impl Datagrams {
    /// Start the thread. Raises `OSError` when descriptors or threads have run out, with nothing left behind.
    #[new]
    fn new() -> PyResult<Self> {
        let started = Instant::now();
        Ok(Self { inner: Mutex::new(Some(Arc::new(Mover::start()?))), started })
    }

    /// Take over a duplicate of a UDP socket's descriptor, and receive there from now on. Whoever has the original may
    /// send with it, and must not receive before `release`. Returns the socket's number, never reused. Raises
    /// `OSError`, with the duplicate closed, when there is no room, or when closed; `ValueError` for no descriptor.
    fn open(&self, py: Python<'_>, fd: i32) -> PyResult<u64> {
        let own = adopt(fd).ok_or_else(|| PyValueError::new_err("no descriptor"))?;
        let opened = self.with(py, move |table| table.open(own));
        opened.unwrap_or(Err(Errno::SHUTDOWN)).map_err(|errno| io::Error::from(errno).into())
    }

    /// Receive no more on this socket. Its flows end. Returns what was not handed up, the oldest first, and what was
    /// lost; None for one that was released already.
    fn release(&self, py: Python<'_>, socket_id: u64) -> Option<(Vec<Handed<'static>>, Lost)> {
        let (waiting, losses) = self.with(py, move |table| table.release(socket_id))??;
        Some((waiting.into_iter().map(handed).collect(), lost(losses)))
    }

    /// What this socket has lost so far. None for one that was released.
    fn losses(&self, py: Python<'_>, socket_id: u64) -> Option<Lost> {
        self.with(py, move |table| table.losses(socket_id))?.map(lost)
    }

    /// Let datagrams flow. Those from `client` to the first socket that begin with `header` go to `peer` from the
    /// second socket, without it; those from `peer` to the second go to `client` from the first, with
    /// `answer_header` before them. What waits to be handed up and belongs to the flow goes first.
    /// Returns its number; None when there is no such socket, or no room for this beginning.
    /// Raises `ValueError` for what is no packed address.
    #[expect(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "as the border has them")]
    fn flow(
        &self,
        py: Python<'_>,
        inner_id: u64,
        client: Name<'_>,
        header: &[u8],
        outer_id: u64,
        peer: Name<'_>,
        answer_header: &[u8],
    ) -> PyResult<Option<u64>> {
        let inner = End {
            socket: inner_id,
            peer: address(&client)?,
            strip: header.into(),
            prepend: answer_header.into(),
        };
        let outer = End { socket: outer_id, peer: address(&peer)?, strip: [].into(), prepend: [].into() };
        Ok(self.with(py, move |table| table.flow([inner, outer], Instant::now())).flatten())
    }

    /// Payload carried so far, from the client and to it, and when the last of it was: in seconds since this was made,
    /// always the same for the same datagram. None when the flow has ended.
    fn counts(&self, py: Python<'_>, flow_id: u64) -> Option<Carried> {
        self.with(py, move |table| table.counts(flow_id))?.map(|counts| self.carried(counts))
    }

    /// End a flow: its datagrams are handed up from now on. Returns as `counts`.
    fn end(&self, py: Python<'_>, flow_id: u64) -> Option<Carried> {
        self.with(py, move |table| table.end(flow_id))?.map(|counts| self.carried(counts))
    }

    /// A descriptor that is readable while there is something to take; -1 once closed. Not the caller's.
    fn fileno(&self) -> i32 {
        self.mover().as_deref().map_or(-1, Mover::call)
    }

    /// Datagrams that belong to no flow, at most a few hundred: the socket's number, and who has sent what.
    fn take(&self, py: Python<'_>) -> Vec<(u64, Handed<'static>)> {
        let Some(mover) = self.mover() else {
            return Vec::new();
        };
        let taken = py.detach(|| mover.take());
        taken.into_iter().map(|(id, waiting)| (id, handed(waiting))).collect()
    }

    /// Sockets open.
    fn __len__(&self, py: Python<'_>) -> usize {
        self.with(py, |table| table.len()).unwrap_or(0)
    }

    /// Release every socket, end the thread. What was not handed up is lost. Idempotent.
    fn close(&self, py: Python<'_>) {
        let mover = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| mover.map(|mover| mover.stop()));
    }
}

impl Datagrams {
    fn mover(&self) -> Option<Arc<Mover>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn carried(&self, counts: Counts) -> Carried {
        let [first, second] = counts.bytes;
        (first, second, counts.moved.saturating_duration_since(self.started).as_secs_f64())
    }

    /// None once it is closed. Python is kept while the table is free, and others may run while it is not.
    fn with<T: Send>(&self, py: Python<'_>, act: impl FnOnce(&mut Table) -> T + Send) -> Option<T> {
        let mover = self.mover()?;
        Some(match mover.try_with(act) {
            Ok(done) => done,
            Err(act) => py.detach(|| mover.with(act)),
        })
    }
}

fn address((packed, port): &Name<'_>) -> PyResult<SocketAddr> {
    let address = match packed.len() {
        4 => <[u8; 4]>::try_from(&packed[..]).map(IpAddr::from),
        _ => <[u8; 16]>::try_from(&packed[..]).map(IpAddr::from),
    };
    let address = address.map_err(|_| PyValueError::new_err("an address has 4 or 16 bytes"))?;
    Ok(SocketAddr::new(address, *port))
}

fn handed(waiting: Waiting) -> Handed<'static> {
    let packed = match waiting.from.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let scope = match waiting.from {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(from) => SocketAddrV6::scope_id(&from),
    };
    (packed.into(), waiting.from.port(), scope, waiting.data.into_vec().into())
}

fn lost(losses: Losses) -> Lost {
    (losses.dropped, losses.failed, losses.refused, losses.unheard)
}
