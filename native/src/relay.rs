//! The relay as a whole: threads, each with its pairs, and one outbox.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::completions::{Completion, Outbox};
use crate::hub::Share;
use crate::worker::Worker;

/// Pipes of 1 MiB that one user may have by default (`/proc/sys/fs/pipe-user-pages-soft`), shared by the threads.
const PIPES_MAX: usize = 64;
/// Half a millisecond or so: as long as a question may wait.
const TURN_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// As much as all pipes hold.
const UNLOADED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Threads with pairs. Pairs are dealt out in turn.
pub struct Relay {
    workers: Vec<Worker>,
    ids: AtomicU64,
    outbox: Arc<Outbox>,
}

impl Relay {
    /// Start the threads, at least one. Fails when descriptors or threads have run out, with nothing left behind.
    pub fn start(threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let outbox = Arc::new(Outbox::new()?);
        let share = Share {
            pipes_max: PIPES_MAX.div_euclid(threads).max(1),
            turn_bytes_max: TURN_BYTES_MAX,
            unloaded_bytes_max: UNLOADED_BYTES_MAX.div_euclid(threads),
        };
        let workers = (0..threads)
            .map(|number| Worker::start(number, Arc::clone(&outbox), share))
            .collect::<io::Result<Vec<Worker>>>()?;
        Ok(Self { workers, ids: AtomicU64::new(1), outbox })
    }

    /// A number for a new pair, never used before, and the worker that is to have it.
    pub fn place(&self) -> Option<(u64, &Worker)> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        Some((id, self.worker(id)?))
    }

    /// The worker whose pair this is.
    pub fn worker(&self, id: u64) -> Option<&Worker> {
        let count = u64::try_from(self.workers.len()).ok()?;
        let place = usize::try_from(id.checked_rem(count)?).ok()?;
        self.workers.get(place)
    }

    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// What has ended since it was last asked. Silences the bell.
    pub fn completions(&self) -> Vec<Completion> {
        self.outbox.take()
    }

    /// The descriptor of the bell: readable while there are completions.
    pub fn bell(&self) -> RawFd {
        self.outbox.bell.number()
    }

    /// Kill all pairs and end all threads. Returns the completions that were not told yet.
    pub fn stop(&self) -> Vec<Completion> {
        for worker in &self.workers {
            worker.stop();
        }
        self.outbox.take()
    }
}
