//! A pool of enlarged pipes for splice. A flow holds one only while bytes are in it.
//!
//! One pipe per connection would be two more descriptors each, and past the kernel's soft limit on pipe pages an
//! unprivileged user gets pipes of a page or two. So: few, big, shared, and copying when none is left. Receivers that
//! stall would hold all of them for as long as they like; `unclog` takes theirs away, and here it is counted how many
//! bytes that has brought into memory.

use std::mem;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::pair::Way;

/// 1 MiB is the default of /proc/sys/fs/pipe-max-size, and was measured twice as fast as 64 KiB.
pub const PIPE_BYTES: usize = 1024 * 1024;
/// As much goes into a pipe while most are lent: what may have to be taken out again.
const CROWDED_BYTES: usize = 128 * 1024;
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
    holders: Vec<(u64, Way)>,
    lent_max: usize,
    wanted: bool,
    unloaded: usize,
    unloaded_max: usize,
}

impl Pipes {
    /// At most `unloaded_max` bytes are in memory at a time because a pipe was taken away.
    pub fn new(lent_max: usize, unloaded_max: usize) -> Self {
        Self { free: Vec::new(), holders: Vec::new(), lent_max, wanted: false, unloaded: 0, unloaded_max }
    }

    /// An empty pipe for this direction of a pair, which has none; or none when there is none to be had: copy instead.
    pub fn take(&mut self, id: u64, way: Way) -> Option<Pipe> {
        let has_room = self.holders.len() < self.lent_max;
        let pipe = if has_room { self.free.pop().or_else(make) } else { None };
        if pipe.is_some() {
            self.holders.push((id, way));
        } else {
            self.wanted = true;
        }
        pipe
    }

    /// Take a pipe back; one that still holds bytes is closed, they belong to nobody else.
    pub fn give_back(&mut self, id: u64, way: Way, pipe: Pipe, empty: bool) {
        if let Some(place) = self.holders.iter().position(|holder| *holder == (id, way)) {
            self.holders.swap_remove(place);
        }
        if empty && self.free.len() < FREE_MAX {
            self.free.push(pipe);
        }
    }

    /// How many bytes may go into one pipe now.
    pub fn room(&self) -> usize {
        if self.holders.len() > self.lent_max.div_euclid(2) { CROWDED_BYTES } else { PIPE_BYTES }
    }

    /// Who has a pipe.
    pub fn holders(&self) -> &[(u64, Way)] {
        &self.holders
    }

    /// Has somebody gone without since this was last asked?
    pub fn take_wanted(&mut self) -> bool {
        mem::take(&mut self.wanted)
    }

    /// May so many bytes more go from pipes into memory?
    pub fn may_unload(&self, count: usize) -> bool {
        self.unloaded.saturating_add(count) <= self.unloaded_max
    }

    /// So many have gone there.
    pub fn unloaded(&mut self, count: usize) {
        self.unloaded = self.unloaded.saturating_add(count);
    }

    /// They have left it.
    pub fn no_longer_unloaded(&mut self, count: usize) {
        self.unloaded = self.unloaded.saturating_sub(count);
    }

    /// Close the free ones.
    pub fn clear(&mut self) {
        self.free.clear();
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
        let mut pipes = Pipes::new(2, 0);
        let first = pipes.take(1, Way::Outward).unwrap();
        let size = rustix::pipe::fcntl_getpipe_size(&first.writer).unwrap();
        assert!(size >= PIPE_BYTES_MIN);
        let second = pipes.take(1, Way::Inward).unwrap();
        assert!(!pipes.take_wanted());
        assert!(pipes.take(2, Way::Outward).is_none());
        assert!(pipes.take_wanted() && !pipes.take_wanted());
        pipes.give_back(1, Way::Outward, first, true);
        assert_eq!(pipes.holders(), [(1, Way::Inward)]);
        pipes.give_back(1, Way::Inward, second, false);
        assert_eq!((pipes.holders().len(), pipes.free.len()), (0, 1));
    }

    #[test]
    fn few_free_ones_are_kept() {
        let mut pipes = Pipes::new(20, 0);
        let taken: Vec<(u64, Pipe)> =
            (0..30).filter_map(|id| Some((id, pipes.take(id, Way::Outward)?))).collect();
        assert_eq!(taken.len(), 20);
        for (id, pipe) in taken {
            pipes.give_back(id, Way::Outward, pipe, true);
        }
        assert_eq!((pipes.holders().len(), pipes.free.len()), (0, FREE_MAX));
    }

    #[test]
    fn little_goes_into_a_pipe_when_most_are_lent() {
        let mut pipes = Pipes::new(4, 0);
        let mut taken = Vec::new();
        for room in [PIPE_BYTES, PIPE_BYTES, PIPE_BYTES, CROWDED_BYTES, CROWDED_BYTES] {
            assert_eq!(pipes.room(), room);
            taken.extend(pipes.take(1, Way::Outward));
        }
    }

    #[test]
    fn what_is_unloaded_has_a_limit() {
        let mut pipes = Pipes::new(1, 100);
        pipes.unloaded(60);
        assert!(pipes.may_unload(40) && !pipes.may_unload(41));
        pipes.no_longer_unloaded(60);
        assert!(pipes.may_unload(100));
    }
}
