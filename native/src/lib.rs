//! Doorward's relay in native code: pairs of connected sockets, pumped both ways by threads that never wait for
//! Python. It knows no policy, no protocol, no session. `src/doorward/net/relay.py` is the border that it meets.
//!
//! ```text
//! python      what Python sees
//! relay       threads, each with its pairs
//! worker      one thread: epoll, and a turnstile around its hub
//! arrivals    pairs on their way to a thread
//! hub         the pairs of one thread, and everything that can happen to them
//! pump        one direction at work
//! unclog      pipes taken away from those who are stuck
//! pair, pipes, timers, allowance, completions, ids  what they work with
//! udp         datagrams
//! sys         the one place for unsafe code, beside `udp::calls`
//! ```
//!
//! A panic would be a bug of ours, and in a released build it ends the process: closed, never half alive. The lints
//! below keep out what panics: indexing, unwrapping, arithmetic that overflows.

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(clippy::pedantic)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]
#![allow(
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    clippy::len_without_is_empty,
    clippy::return_self_not_must_use,
    reason = "nobody uses this crate but its own Python, and its tests"
)]

pub mod allowance;
pub mod arrivals;
pub mod completions;
pub mod front;
pub mod hub;
pub mod ids;
pub mod pair;
pub mod pipes;
pub mod pump;
pub mod relay;
pub mod timers;
pub mod turnstile;
pub mod udp;
pub mod unclog;
pub mod worker;

#[cfg(feature = "python")]
mod python;
#[cfg(feature = "python")]
mod sys;
