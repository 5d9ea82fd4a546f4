//! What Python sees: `doorward_native.Front`. Its types stand in `_relay.pyi` as well; a test compares the two.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::IntoRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::Errno;

use crate::front::desk::{Desk, Order, Settings};
use crate::front::post::{Letter, Visitor, Why};
use crate::front::reception::Reception;
use crate::pair::Limits;
use crate::sys::adopt;

/// Kind, number, descriptor or -1, address, port, bytes, answered, errno or microseconds, seconds since it came.
type Told<'py> = (&'static str, u64, i32, String, u16, Bound<'py, PyBytes>, bool, u64, f64);
/// As long as any deadline may be.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Clients on their way to a relay.
#[pyclass(frozen, module = "doorward_native")]
pub struct Front {
    // None once it is closed. The lock is held for a copy of the handle only.
    inner: Mutex<Option<Arc<Reception>>>,
}

#[pymethods]
impl Front {
    /// Start the thread. Raises `OSError` when descriptors or threads have run out, or the relay is closed.
    #[new]
    fn new(relay: &crate::python::Relay) -> PyResult<Self> {
        let relay = relay.relay().ok_or_else(|| io::Error::from(Errno::SHUTDOWN))?;
        Ok(Self { inner: Mutex::new(Some(Arc::new(Reception::start(relay)?))) })
    }

    /// Take over a descriptor that listens and does not block, and accept there. Returns the listener's number. Raises
    /// `OSError`, with the descriptor closed; `ValueError` for what cannot be one.
    fn listen(&self, py: Python<'_>, fd: i32) -> PyResult<u64> {
        let own = adopt(fd).ok_or_else(|| PyValueError::new_err("no descriptor"))?;
        let listening = self.with(py, move |desk| desk.listen(own));
        listening.unwrap_or(Err(Errno::SHUTDOWN)).map_err(|errno| io::Error::from(errno).into())
    }

    /// Accept no more there. Idempotent.
    fn unlisten(&self, py: Python<'_>, listener_id: u64) {
        self.with(py, move |desk| desk.unlisten(listener_id));
    }

    /// What is in force for clients that come: does the policy name users, and how long may a handshake take.
    fn set(&self, py: Python<'_>, names_users: bool, handshake_s: f64) {
        let handshake = seconds(handshake_s);
        self.with(py, move |desk| desk.set(Settings { names_users, handshake }));
    }

    /// So many more clients may come in, counted with all of whom there were letters. Holds from the next client on.
    fn set_room(&self, free: usize) {
        if let Some(reception) = self.reception() {
            reception.room().set(free);
        }
    }

    /// Clients that were accepted and are not part of that count.
    fn unknown(&self) -> usize {
        self.reception().map_or(0, |reception| reception.room().unknown())
    }

    /// Accept again, after `short`.
    fn resume(&self, py: Python<'_>) {
        self.with(py, Desk::resume);
    }

    /// Connect a client that has asked to a packed address; a limit of zero is none. `stood`, `failed` or `lost`
    /// follows, unless it is taken; `lost` also for one that is not here any more. Raises `ValueError` for what is no packed address.
    #[expect(clippy::too_many_arguments, reason = "as the border has them")]
    fn dial(
        &self,
        client_id: u64,
        packed: &[u8],
        port: u16,
        timeout_s: f64,
        idle_s: f64,
        bytes_max: u64,
        bytes_per_second: u64,
    ) -> PyResult<()> {
        let four = <[u8; 4]>::try_from(packed).map(IpAddr::from);
        let address = four.or_else(|_| <[u8; 16]>::try_from(packed).map(IpAddr::from));
        let address = address.map_err(|_| PyValueError::new_err("an address has 4 or 16 bytes"))?;
        let order = Order {
            id: client_id,
            to: SocketAddr::new(address, port),
            limits: Limits {
                idle: Duration::try_from_secs_f64(idle_s).ok().filter(|idle| !idle.is_zero()),
                bytes_max: (bytes_max > 0).then_some(bytes_max),
                bytes_per_second: (bytes_per_second > 0).then_some(bytes_per_second),
            },
            timeout: seconds(timeout_s),
        };
        if let Some(reception) = self.reception() {
            reception.dial(order);
        }
        Ok(())
    }

    /// Hand over a client that has asked: its descriptor, all that it has said, and seconds since it came. No letter
    /// follows. None when it is not here any more.
    fn take<'py>(&self, py: Python<'py>, client_id: u64) -> Option<(i32, Bound<'py, PyBytes>, f64)> {
        let visitor = self.with(py, move |desk| desk.take(client_id))??;
        let since_s = visitor.since.elapsed().as_secs_f64();
        Some((visitor.socket.into_raw_fd(), PyBytes::new(py, &visitor.said), since_s))
    }

    /// Clients that are here.
    fn __len__(&self, py: Python<'_>) -> usize {
        self.with(py, |desk| desk.len()).unwrap_or(0)
    }

    /// A descriptor that is readable while there are letters; -1 once closed. Not the caller's.
    fn fileno(&self) -> i32 {
        self.reception().as_deref().map_or(-1, Reception::bell)
    }

    /// What has happened since this was last called, in its order.
    fn letters<'py>(&self, py: Python<'py>) -> Vec<Told<'py>> {
        let letters = self.reception().map_or_else(Vec::new, |reception| reception.letters());
        letters.into_iter().map(|letter| told(py, letter)).collect()
    }

    /// Reset every client, end the thread. Returns the letters that were not taken yet. Idempotent.
    fn close<'py>(&self, py: Python<'py>) -> Vec<Told<'py>> {
        let reception = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        let letters = py.detach(|| {
            let reception = reception?;
            reception.stop();
            Some(reception.letters())
        });
        letters.unwrap_or_default().into_iter().map(|letter| told(py, letter)).collect()
    }
}

impl Front {
    fn reception(&self) -> Option<Arc<Reception>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// None once it is closed. Python is kept while the desk is free, and others may run while it is not.
    fn with<T: Send>(&self, py: Python<'_>, act: impl FnOnce(&mut Desk) -> T + Send) -> Option<T> {
        let reception = self.reception()?;
        Some(match reception.try_with(act) {
            Ok(done) => done,
            Err(act) => py.detach(|| reception.with(act)),
        })
    }
}

fn told(py: Python<'_>, letter: Letter) -> Told<'_> {
    match letter {
        Letter::Visitor(visitor, why) => {
            let (kind, errno) = match why {
                Why::NotOurs | Why::Gone(None) => ("visitor", 0),
                Why::Gone(Some(errno)) => ("visitor", number(errno)),
                Why::Late => ("late", 0),
            };
            told_of(py, kind, 0, visitor, errno)
        }
        Letter::Asked { id, address, request } => {
            let bytes = PyBytes::new(py, &request);
            ("asked", id, -1, address.ip().to_string(), address.port(), bytes, true, 0, 0.0)
        }
        Letter::Stood { id, took } => {
            plain(py, "stood", id, u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
        }
        Letter::Failed { id, visitor, errno } => told_of(py, "failed", id, visitor, errno.map_or(0, number)),
        Letter::Lost { id, errno } => plain(py, "lost", id, number(errno)),
        Letter::Short { errno } => plain(py, "short", 0, errno.map_or(0, number)),
    }
}

fn told_of<'py>(py: Python<'py>, kind: &'static str, id: u64, visitor: Visitor, errno: u64) -> Told<'py> {
    let (address, port) = visitor.address.map_or((String::new(), 0), |a| (a.ip().to_string(), a.port()));
    let said = PyBytes::new(py, &visitor.said);
    let since_s = visitor.since.elapsed().as_secs_f64();
    (kind, id, visitor.socket.into_raw_fd(), address, port, said, visitor.answered, errno, since_s)
}

fn plain<'py>(py: Python<'py>, kind: &'static str, id: u64, number: u64) -> Told<'py> {
    (kind, id, -1, String::new(), 0, PyBytes::new(py, b""), false, number, 0.0)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(DAY).min(DAY)
}

fn number(errno: Errno) -> u64 {
    u64::try_from(errno.raw_os_error()).unwrap_or(0)
}
