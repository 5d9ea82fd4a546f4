//! What goes out together: datagrams of one flow and one size that follow each other leave in one message, which the
//! kernel cuts into datagrams again as late as it can (`UDP_SEGMENT`). That halves what a datagram costs.

use std::io::IoSlice;
use std::net::SocketAddr;

use crate::udp::calls::Message;
use crate::udp::socket::Place;

/// The kernel takes 64 at least; and all of them must fit into one datagram's length.
const RUN_MAX: usize = 64;
const RUN_BYTES_MAX: usize = 65_000;

/// One datagram on its way: where it came in, and what of it goes on.
#[derive(Clone, Copy)]
pub struct Hit<'a> {
    pub place: Place,
    pub payload: &'a [u8],
}

/// Datagrams that leave in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub place: Place,
    /// Which of the hits they are.
    pub first: usize,
    pub count: usize,
    pub payload_bytes: u64,
}

/// Hits as runs, in their order. `may_join` says whether more than one datagram of this place may go in a message, and
/// how many bytes stand before each of its payloads.
pub fn runs(hits: &[Hit<'_>], may_join: impl Fn(Place) -> (bool, usize)) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::with_capacity(hits.len());
    // Of the run that may still grow: the size that all of it has, and its bytes.
    let mut growing: Option<(usize, usize)> = None;
    for (index, hit) in hits.iter().enumerate() {
        let payload_bytes = u64::try_from(hit.payload.len()).unwrap_or(u64::MAX);
        let (joins, header) = may_join(hit.place);
        let size = hit.payload.len().saturating_add(header);
        if let (Some(run), Some((of_all, bytes))) = (found.last_mut(), growing) {
            let bytes = bytes.saturating_add(size);
            let fits = run.count < RUN_MAX && bytes <= RUN_BYTES_MAX;
            if run.place == hit.place && fits && size <= of_all && size > 0 {
                run.count = run.count.saturating_add(1);
                run.payload_bytes = run.payload_bytes.saturating_add(payload_bytes);
                growing = (size == of_all).then_some((of_all, bytes)); // a shorter one is the last
                continue;
            }
        }
        found.push(Run { place: hit.place, first: index, count: 1, payload_bytes });
        growing = (joins && size > 0).then_some((size, size));
    }
    found
}

/// The parts of a run's message: before each payload what its flow puts there.
pub fn parts<'a>(run: &Run, hits: &[Hit<'a>], header: &'a [u8], into: &mut Vec<IoSlice<'a>>) {
    for hit in hits.iter().skip(run.first).take(run.count) {
        if !header.is_empty() {
            into.push(IoSlice::new(header));
        }
        into.push(IoSlice::new(hit.payload));
    }
}

/// The message of a run. `parts` are its own.
pub fn message<'a>(run: &Run, to: SocketAddr, header: &[u8], parts: &'a [IoSlice<'a>]) -> Message<'a> {
    let payload = parts.get(usize::from(!header.is_empty())).map_or(0, |part| part.len());
    let size = u16::try_from(payload.saturating_add(header.len())).ok();
    Message { to, parts, segment_bytes: size.filter(|_| run.count > 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes_of(flows_and_sizes: &[(u64, usize)], header: usize) -> Vec<usize> {
        let bytes = vec![0; 65_507];
        let hits: Vec<Hit> = flows_and_sizes
            .iter()
            .map(|(flow, size)| Hit { place: Place { flow: *flow, end: 0 }, payload: &bytes[..*size] })
            .collect();
        let runs = runs(&hits, |place| (place.flow != 9, header));
        let total: u64 = runs.iter().map(|run| run.payload_bytes).sum();
        assert_eq!(total, flows_and_sizes.iter().map(|(_, size)| *size as u64).sum::<u64>());
        runs.iter().map(|run| run.count).collect()
    }

    #[test]
    fn neighbours_of_one_flow_and_size_leave_together() {
        assert_eq!(sizes_of(&[(1, 5), (1, 5), (1, 5)], 0), [3]);
        assert_eq!(sizes_of(&[(1, 5), (2, 5), (1, 5)], 0), [1, 1, 1]);
    }

    #[test]
    fn a_shorter_one_is_the_last_and_a_longer_one_the_first() {
        assert_eq!(sizes_of(&[(1, 5), (1, 3), (1, 3), (1, 5)], 0), [2, 1, 1]);
        assert_eq!(sizes_of(&[(1, 5), (1, 3), (1, 5)], 0), [2, 1]);
    }

    #[test]
    fn an_empty_one_goes_alone_unless_something_stands_before_it() {
        assert_eq!(sizes_of(&[(1, 5), (1, 0), (1, 0)], 0), [1, 1, 1]);
        assert_eq!(sizes_of(&[(1, 5), (1, 0), (1, 0)], 10), [2, 1]);
    }

    #[test]
    fn a_run_has_limits() {
        assert_eq!(sizes_of(&[(1, 1); 130], 0), [64, 64, 2]);
        assert_eq!(sizes_of(&[(1, 30_000); 5], 10), [2, 2, 1]);
        assert_eq!(sizes_of(&[(9, 5), (9, 5)], 0), [1, 1]);
    }
}
