//! Datagrams that nobody reads, moved from socket to socket by a thread that never waits for Python.
//!
//! It knows sockets, flows, and bytes that stand before a payload; no policy, no SOCKS, no client. What it has no flow
//! for is handed up. `src/doorward/net/native_datagrams.py` is the border that it meets.
//!
//! ```text
//! mover       a thread, and a turnstile around its table
//! table       sockets and flows, and everything that can happen to them
//! socket      one socket: which flow a datagram belongs to, and what waits to be handed up
//! runs        what goes out together
//! calls       recvmmsg and sendmmsg: unsafe code lives here and in `sys`, and nowhere else
//! ```

pub mod calls;
pub mod mover;
#[cfg(feature = "python")]
pub mod python;
pub mod runs;
pub mod socket;
pub mod table;
