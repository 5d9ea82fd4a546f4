//! Clients on their way to the relay: accepted, heard out, connected, and handed over, by one thread that never waits
//! for Python. It knows the two handshakes that nearly everybody speaks, SOCKS5 without a password and CONNECT of HTTP, and
//! nothing of policy: Python is told what was asked and says where to dial. A client that says anything else is
//! handed to Python with every byte that it has said, as if nobody had listened before.
//!
//! ```text
//! python      what Python sees
//! reception   the thread
//! desk        the clients, and everything that can happen to them
//! client      what is remembered of one
//! doors       where they come in
//! room        how many may
//! handshake   what they say
//! deadlines   when their time is up
//! dial        connecting out
//! post        what Python is told
//! ```

pub mod client;
pub mod deadlines;
pub mod desk;
pub mod dial;
pub mod doors;
pub mod handshake;
pub mod post;
#[cfg(feature = "python")]
pub mod python;
pub mod reception;
pub mod room;
