//! What Python sees: `doorward_native.Relay`. Its types stand in `doorward_native/_relay.pyi` as well; a test
//! compares the two.
//!
//! The threads never touch Python. A call holds the interpreter's lock only as long as nobody has the pair's hub; when
//! one has to wait, others may run.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::Errno;

use crate::completions::Completion;
use crate::hub::Hub;
use crate::pair::{Limits, Pair, Side};
use crate::relay;
use crate::sys::adopt;
use crate::worker::Worker;

/// Counts up when a change of this border needs a change of the Python around it.
const BORDER_VERSION: u32 = 2;

type Told = (u64, u64, u64, &'static str, &'static str, i32);
type Reclaimed<'py> = (i32, i32, Bound<'py, PyBytes>, Bound<'py, PyBytes>, (u64, u64));

/// Pairs of connected sockets, pumped both ways by threads that never wait for Python.
#[pyclass(frozen, module = "doorward_native")]
pub struct Relay {
    // None once it is closed. The lock is held for a copy of the handle only: whoever waits for Python must hold none.
    inner: Mutex<Option<Arc<relay::Relay>>>,
}

#[pymethods]
impl Relay {
    /// Start the threads. Raises `OSError` when descriptors or threads have run out, with nothing left behind.
    #[new]
    #[pyo3(signature = (threads = 1))]
    fn new(threads: usize) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Some(Arc::new(relay::Relay::start(threads)?))) })
    }

    /// Take over both descriptors and begin; a limit of zero is none. Returns the pair's number, never reused.
    /// Raises `OSError`, with both descriptors reset and closed, when there is no room or the relay is closed.
    /// Raises `ValueError`, with neither taken over, for what cannot be two descriptors.
    #[expect(clippy::too_many_arguments, reason = "as the border has them")]
    fn add(
        &self,
        internal_fd: i32,
        external_fd: i32,
        idle_s: f64,
        bytes_max: u64,
        bytes_per_second: u64,
        to_external: &[u8],
        to_internal: &[u8],
    ) -> PyResult<u64> {
        let (internal, external) = adopt_both(internal_fd, external_fd)?;
        let limits = Limits {
            idle: Duration::try_from_secs_f64(idle_s).ok().filter(|idle| !idle.is_zero()),
            bytes_max: (bytes_max > 0).then_some(bytes_max),
            bytes_per_second: (bytes_per_second > 0).then_some(bytes_per_second),
        };
        let pair = Pair::new(internal, external, limits, Instant::now());
        let pair = pair.with_early(to_external.to_vec(), to_internal.to_vec());
        let relay = self.relay();
        let Some((id, worker)) = relay.as_deref().and_then(relay::Relay::place) else {
            pair.close(true);
            return Err(io::Error::from(Errno::SHUTDOWN).into());
        };
        match worker.add(id, pair) {
            Ok(()) => Ok(id),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// Bytes moved so far: from internal to external, and back. None when the pair is gone.
    fn counts(&self, py: Python<'_>, pair_id: u64) -> Option<(u64, u64)> {
        self.with_hub_of(py, pair_id, move |hub| hub.counts(pair_id))?
    }

    /// Reset both sides. The completion comes as for any other end. Idempotent.
    fn kill(&self, py: Python<'_>, pair_id: u64) {
        self.with_hub_of(py, pair_id, move |hub| hub.kill(pair_id));
    }

    /// Give the pair back: both descriptors, what was read and not written (to external, to internal), and counts.
    /// No completion follows. None when it has ended already.
    fn reclaim<'py>(&self, py: Python<'py>, pair_id: u64) -> Option<Reclaimed<'py>> {
        let back = self.with_hub_of(py, pair_id, move |hub| hub.reclaim(pair_id))??;
        let to_external = PyBytes::new(py, &back.to_external);
        let to_internal = PyBytes::new(py, &back.to_internal);
        Some((
            back.internal.into_raw_fd(),
            back.external.into_raw_fd(),
            to_external,
            to_internal,
            back.counts,
        ))
    }

    /// Pairs alive.
    fn __len__(&self) -> usize {
        let relay = self.relay();
        let workers = relay.as_deref().map_or(&[][..], relay::Relay::workers);
        workers.iter().map(Worker::alive).sum()
    }

    /// A descriptor that is readable while there are completions; -1 once the relay is closed. Not the caller's.
    fn fileno(&self) -> i32 {
        let relay = self.relay();
        relay.as_deref().map_or(-1, relay::Relay::bell)
    }

    /// What has ended since this was last called: number, bytes sent and received, side, end, errno.
    fn completions(&self) -> Vec<Told> {
        let relay = self.relay();
        relay.map_or_else(Vec::new, |relay| told(&relay.completions()))
    }

    /// Kill every pair, end the threads, close all descriptors. Returns the completions that were not told yet.
    /// Idempotent.
    fn close(&self, py: Python<'_>) -> Vec<Told> {
        let relay = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rest = py.detach(|| relay.map(|relay| relay.stop()));
        told(&rest.unwrap_or_default())
    }
}

impl Relay {
    /// None once it is closed.
    pub fn relay(&self) -> Option<Arc<relay::Relay>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// None once it is closed.
    fn with_hub_of<T: Send>(
        &self,
        py: Python<'_>,
        id: u64,
        act: impl FnOnce(&mut Hub) -> T + Send,
    ) -> Option<T> {
        let relay = self.relay();
        Some(with_hub(py, relay?.worker(id)?, act))
    }
}

/// Keep the interpreter while the hub is free, as it nearly always is: to let go costs more than the call. Let others
/// run while it is not.
fn with_hub<T: Send>(py: Python<'_>, worker: &Worker, act: impl FnOnce(&mut Hub) -> T + Send) -> T {
    match worker.try_with(act) {
        Ok(done) => done,
        Err(act) => py.detach(|| worker.with(act)),
    }
}

fn adopt_both(internal: i32, external: i32) -> PyResult<(OwnedFd, OwnedFd)> {
    let wrong = || PyValueError::new_err("a pair is two different descriptors");
    if internal == external || internal < 0 || external < 0 {
        return Err(wrong());
    }
    Ok((adopt(internal).ok_or_else(wrong)?, adopt(external).ok_or_else(wrong)?))
}

fn told(completions: &[Completion]) -> Vec<Told> {
    completions
        .iter()
        .map(|done| {
            (
                done.id,
                done.bytes_sent,
                done.bytes_received,
                side_label(done.ending.by),
                done.ending.end.label(),
                done.ending.errno,
            )
        })
        .collect()
}

fn side_label(side: Option<Side>) -> &'static str {
    match side {
        Some(Side::Internal) => "internal",
        Some(Side::External) => "external",
        None => "ours",
    }
}

/// Doorward's relay in native code.
#[pymodule]
mod _relay {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::Relay;
    #[pymodule_export]
    use crate::front::python::Front;
    #[pymodule_export]
    use crate::udp::python::Datagrams;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("BORDER_VERSION", super::BORDER_VERSION)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
