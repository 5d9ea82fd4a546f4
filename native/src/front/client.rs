//! What is remembered of a client. Nothing is read or written here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use crate::front::post::Visitor;
use crate::ids::Ids;
use crate::pair::Limits;

/// How far a client is.
pub enum Stage {
    Speaking,
    Asked,
    /// `began` is by the clock of the machine: it goes on record.
    Dialling {
        external: OwnedFd,
        limits: Limits,
        to: SocketAddr,
        began: Instant,
    },
}

/// Somebody who is here.
pub struct Client {
    pub visitor: Visitor,
    /// So much of what it has said is understood.
    pub read: usize,
    /// Its socket is in the epoll.
    pub watched: bool,
    pub stage: Stage,
}

/// All of them, by number.
pub type Clients = HashMap<u64, Client, Ids>;

/// Is the client of a number here, and this far?
pub fn is_at(clients: &Clients, wanted: impl Fn(&Stage) -> bool) -> impl Fn(u64) -> bool {
    move |id| clients.get(&id).is_some_and(|client| wanted(&client.stage))
}

/// Closing it is a reset from now on.
pub fn reset(socket: &OwnedFd) {
    // It can fail only for what is no socket; then there is nobody to reset.
    let _ = set_socket_linger(socket, Some(Duration::ZERO));
}
