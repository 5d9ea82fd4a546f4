//! Connecting out: to the one address that was judged, without waiting.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_oobinline, set_tcp_nodelay, socket_error};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

/// How far a connection is that was begun.
pub enum Dialled {
    Stands(OwnedFd),
    /// An edge tells when it is settled, and `finished` how.
    Pending(OwnedFd),
}

/// Begin to connect.
pub fn dial(to: SocketAddr) -> Result<Dialled, Errno> {
    let family = match to.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // As for accepted sockets.
    set_tcp_nodelay(&socket, true)?;
    set_socket_oobinline(&socket, true)?;
    let mut result = connect(&socket, &to);
    if result == Err(Errno::INPROGRESS) && to.ip().is_loopback() {
        // Within one machine it was settled before the call came back; asking again is cheaper than waiting.
        result = connect(&socket, &to);
    }
    match result {
        Ok(()) | Err(Errno::ISCONN) => Ok(Dialled::Stands(socket)),
        Err(Errno::INPROGRESS | Errno::ALREADY | Errno::INTR) => Ok(Dialled::Pending(socket)),
        Err(errno) => Err(errno),
    }
}

/// What became of a connection that was pending.
pub fn finished(socket: &OwnedFd) -> Result<(), Errno> {
    socket_error(socket)?
}
