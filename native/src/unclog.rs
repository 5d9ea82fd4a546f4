//! Pipes that are stuck behind receivers who do not read, for those who can use them.
//!
//! A pipe holds what its receiver has yet to take, so receivers that stall hold all pipes and everybody else's bulk is
//! copied, at twice the price. When somebody has gone without, the one whose bytes have waited longest loses its pipe:
//! they wait in memory, within a limit, and for a while that flow is copied, which suits a slow one as well.

use std::collections::HashMap;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, retry_on_intr};

use crate::ids::Ids;
use crate::pair::{Ending, Flow, Pair, Way};
use crate::pipes::Pipes;
use crate::pump::Tools;

/// Who has not emptied a pipe of 1 MiB for so long takes less than 5 MiB a second, and needs none.
pub const STALL: Duration = Duration::from_millis(200);
/// Who has lost a pipe has to take so much more before it gets another: it is fast again, or not worth it.
const COPIED_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Take its pipe away from the flow that has been stuck longest. False: nobody is stuck for long, or memory is full of
/// such bytes. An error is how that flow's pair ends.
pub fn unclog(pairs: &mut HashMap<u64, Pair, Ids>, tools: &mut Tools) -> Result<bool, (u64, Ending)> {
    let Some((id, way)) = longest_stuck(pairs, tools) else {
        return Ok(false);
    };
    let Some(pair) = pairs.get_mut(&id) else {
        return Ok(false);
    };
    let flow = pair.flow(way);
    let bytes = unload(id, way, flow, &mut tools.pipes).map_err(|errno| (id, Ending::failed(errno)))?;
    tools.pipes.unloaded(bytes.len());
    flow.unloaded = bytes.len();
    flow.held = bytes;
    flow.splicing = false;
    flow.splice_from = flow.moved.saturating_add(COPIED_BYTES_MIN);
    Ok(true)
}

/// What was read and not written: the held rest of a copy, and what is still in the pipe, which goes back.
pub fn unload(id: u64, way: Way, flow: &mut Flow, pipes: &mut Pipes) -> Result<Vec<u8>, Errno> {
    let mut bytes = flow.take_held(pipes);
    bytes.reserve_exact(flow.in_pipe);
    while let (Some(pipe), true) = (&flow.pipe, flow.in_pipe > 0) {
        let count = retry_on_intr(|| read(&pipe.reader, spare_capacity(&mut bytes)))?;
        flow.in_pipe = flow.in_pipe.saturating_sub(count);
        if count == 0 {
            return Err(Errno::IO); // the kernel has lost bytes: nothing may go on behind the gap
        }
    }
    if let Some(pipe) = flow.pipe.take() {
        pipes.give_back(id, way, pipe, true);
    }
    Ok(bytes)
}

fn longest_stuck(pairs: &HashMap<u64, Pair, Ids>, tools: &Tools) -> Option<(u64, Way)> {
    let stuck = tools.pipes.holders().iter().filter_map(|(id, way)| {
        let flow = pairs.get(id)?.peek(*way);
        let since = flow.filled_at.filter(|_| flow.in_pipe > 0)?;
        let is_long = tools.now.saturating_duration_since(since) >= STALL;
        (is_long && tools.pipes.may_unload(flow.in_pipe)).then_some((since, *id, *way))
    });
    stuck.min_by_key(|(since, _, _)| *since).map(|(_, id, way)| (id, way))
}
