//! A pool of enlarged pipes for splice. A flow holds one only while bytes are in it.
//!
//! One pipe per connection would be two more descriptors each, and past the kernel's soft limit on pipe pages an
//! unprivileged user gets pipes of a page or two. So: few, big, shared, and copying when none is left.

use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// 1 MiB is the default of /proc/sys/fs/pipe-max-size, and was measured twice as fast as 64 KiB.
pub const PIPE_BYTES: usize = 1024 * 1024;
/// Less than what one copy carries is not worth a pipe.
const PIPE_BYTES_MIN: usize = 64 * 1024;
const FREE_MAX: usize = 8;

/// Both ends of one pipe, non-blocking.
pub struct Pipe {
    pub reader: OwnedFd,
    pub writer: OwnedFd,
}

/// Lends empty pipes, at most `lent_max` at a time.
pub struct Pipes {
    free: Vec<Pipe>,
    lent: usize,
    lent_max: usize,
}

impl Pipes {
    pub fn new(lent_max: usize) -> Self {
        Self { free: Vec::new(), lent: 0, lent_max }
    }

    /// An empty pipe, or none when there is none to be had: copy instead.
    pub fn take(&mut self) -> Option<Pipe> {
        if self.lent >= self.lent_max {
            return None;
        }
        let pipe = self.free.pop().or_else(make)?;
        self.lent = self.lent.saturating_add(1);
        Some(pipe)
    }

    /// Take a pipe back; one that still holds bytes is closed, they belong to nobody else.
    pub fn give_back(&mut self, pipe: Pipe, empty: bool) {
        self.lent = self.lent.saturating_sub(1);
        if empty && self.free.len() < FREE_MAX {
            self.free.push(pipe);
        }
    }

    /// Close the free ones.
    pub fn clear(&mut self) {
        self.free.clear();
    }

    #[cfg(test)]
    pub fn lent(&self) -> usize {
        self.lent
    }
}

fn make() -> Option<Pipe> {
    let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
    // Over the user's soft limit the big one is refused, and what pipe2 made may be a page.
    let enlarged =
        [PIPE_BYTES, PIPE_BYTES_MIN].into_iter().any(|bytes| fcntl_setpipe_size(&writer, bytes).is_ok());
    enlarged.then_some(Pipe { reader, writer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_holds_a_mebibyte_and_no_more_are_lent_than_allowed() {
        let mut pipes = Pipes::new(2);
        let first = pipes.take().unwrap();
        let size = rustix::pipe::fcntl_getpipe_size(&first.writer).unwrap();
        assert!(size >= PIPE_BYTES_MIN);
        let second = pipes.take().unwrap();
        assert!(pipes.take().is_none());
        pipes.give_back(first, true);
        pipes.give_back(second, false);
        assert_eq!((pipes.lent(), pipes.free.len()), (0, 1));
    }

    #[test]
    fn few_free_ones_are_kept() {
        let mut pipes = Pipes::new(20);
        let taken: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), 20);
        for pipe in taken {
            pipes.give_back(pipe, true);
        }
        assert_eq!((pipes.lent(), pipes.free.len()), (0, FREE_MAX));
    }
}
