//! The listeners of the front. Their watches are level-triggered, so that nobody is forgotten in a backlog, and they
//! are taken away while there is no room, so that a full house does not spin.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::ids::Ids;
use crate::pair::Side;
use crate::pump::tag;

struct Door {
    socket: OwnedFd,
    paused: bool,
}

/// What accepting has brought.
pub enum Knock {
    /// None where a number for the interface belongs to the address.
    Client(OwnedFd, Option<SocketAddr>),
    /// The backlog is empty.
    Nobody,
    /// The client went away before it was taken: accept(2), error handling. There may be others.
    Left,
    /// Descriptors or memory have run out.
    Short(Errno),
    /// Nobody can come in here any more.
    Broken(Errno),
}

/// All listeners, by number.
#[derive(Default)]
pub struct Doors {
    doors: HashMap<u64, Door, Ids>,
}

impl Doors {
    /// Accept there from now on.
    pub fn open(&mut self, epoll: &OwnedFd, id: u64, socket: OwnedFd) -> Result<(), Errno> {
        epoll::add(epoll, &socket, tag(id, Side::Internal), EventFlags::IN)?;
        self.doors.insert(id, Door { socket, paused: false });
        Ok(())
    }

    /// Accept no more there. False if there is no such listener.
    pub fn close(&mut self, epoll: &OwnedFd, id: u64) -> bool {
        let door = self.doors.remove(&id);
        if let Some(door) = &door {
            // Another process may have a duplicate, which would keep it in the epoll.
            let _ = epoll::delete(epoll, &door.socket);
        }
        door.is_some()
    }

    /// Accept no more anywhere.
    pub fn close_all(&mut self, epoll: &OwnedFd) {
        for (_, door) in self.doors.drain() {
            let _ = epoll::delete(epoll, &door.socket);
        }
    }

    /// Leave clients in the backlog until `resume`.
    pub fn pause(&mut self, epoll: &OwnedFd, id: u64) {
        if let Some(door) = self.doors.get_mut(&id) {
            door.paused = true;
            // It cannot fail for what is in there.
            let _ = epoll::modify(epoll, &door.socket, tag(id, Side::Internal), EventFlags::empty());
        }
    }

    /// Accept again everywhere.
    pub fn resume(&mut self, epoll: &OwnedFd) {
        for (id, door) in &mut self.doors {
            if door.paused {
                door.paused = false;
                let _ = epoll::modify(epoll, &door.socket, tag(*id, Side::Internal), EventFlags::IN);
            }
        }
    }

    /// The next client of this listener. Nobody for one that pauses, and for what is none.
    pub fn accept(&self, id: u64) -> Knock {
        let Some(door) = self.doors.get(&id).filter(|door| !door.paused) else {
            return Knock::Nobody;
        };
        match acceptfrom_with(&door.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, address)) => {
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                let is_plain =
                    |address: &SocketAddr| !matches!(address, SocketAddr::V6(six) if six.scope_id() != 0);
                Knock::Client(socket, address.filter(is_plain))
            }
            Err(Errno::AGAIN | Errno::INTR) => Knock::Nobody,
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => Knock::Short(errno),
            Err(errno @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)) => {
                Knock::Broken(errno)
            }
            Err(_) => Knock::Left,
        }
    }
}
