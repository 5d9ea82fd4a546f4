//! recvmmsg(2) and sendmmsg(2), the latter with `UDP_SEGMENT` (udp(7)). rustix has neither the one nor the other's
//! ancillary data, so these two calls are made here; nothing else is.

use std::io::IoSlice;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

/// Datagrams taken in one call: what a call costs is then shared by enough of them.
pub const BATCH: usize = 32;
/// The largest that UDP can carry is 65,507 bytes over IPv4 and 65,527 over IPv6.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Room for what one call receives. One for each thread; memory that no datagram has filled is never touched.
pub struct Inlet {
    space: Box<[u8]>,
    names: [libc::sockaddr_in6; BATCH],
    sizes: [usize; BATCH],
    count: usize,
}

impl Default for Inlet {
    fn default() -> Self {
        Self {
            space: vec![0; BATCH.saturating_mul(DATAGRAM_BYTES_MAX)].into_boxed_slice(),
            names: [NOBODY; BATCH],
            sizes: [0; BATCH],
            count: 0,
        }
    }
}

impl Inlet {
    /// Take what is there, at most a batch; how many. EAGAIN when there is nothing.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.count = 0;
        // SAFETY: all-zero bytes are a valid value of either struct: null pointers, and lengths of zero.
        #[expect(unsafe_code, reason = "C structs without constructors")]
        let (mut parts, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        let spaces = self.space.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let rooms = spaces.zip(&mut self.names).zip(&mut parts);
        for (((space, name), part), header) in rooms.zip(&mut headers) {
            part.iov_base = space.as_mut_ptr().cast();
            part.iov_len = space.len();
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = NAME_BYTES;
            header.msg_iov = part;
            header.msg_iovlen = 1;
        }
        // SAFETY: each header points to one part and one name, each part to a piece of the space of its own. All of
        // them are ours alone and outlive the call, and the lengths beside them are theirs.
        #[expect(unsafe_code, reason = "the system call itself")]
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH_CALL,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(taken).map_err(|_| last_error())?;
        for (size, header) in self.sizes.iter_mut().zip(&headers).take(count) {
            *size = usize::try_from(header.msg_len).unwrap_or(0);
        }
        self.count = count;
        Ok(count)
    }

    /// What the last call has taken: where each came from, and its bytes.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let spaces = self.space.chunks_exact(DATAGRAM_BYTES_MAX);
        let taken = self.names.iter().zip(&self.sizes).zip(spaces).take(self.count);
        taken.map(|((name, size), space)| (from_name(name), space.get(..*size).unwrap_or_default()))
    }
}

/// One call of a batch to send: `parts` make one datagram, or with `segment_bytes` several of that size each, of
/// which the last may be shorter.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    pub to: SocketAddr,
    pub parts: &'a [IoSlice<'a>],
    pub segment_bytes: Option<u16>,
}

/// Send what the kernel takes now, at most a batch; how many messages went. An error is about the first one.
pub fn send(socket: BorrowedFd<'_>, messages: &[Message<'_>]) -> Result<usize, Errno> {
    // SAFETY: all-zero bytes are a valid value: null pointers, and lengths of zero.
    #[expect(unsafe_code, reason = "a C struct without a constructor")]
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    let mut names = [NOBODY; BATCH];
    let mut controls = [Control::NOTHING; BATCH];
    let count = messages.len().min(BATCH);
    for (((message, header), name), control) in
        messages.iter().zip(&mut headers).zip(&mut names).zip(&mut controls)
    {
        let header = &mut header.msg_hdr;
        *name = to_name(message.to);
        header.msg_name = ptr::from_mut(name).cast();
        header.msg_namelen = if message.to.is_ipv4() { NAME4_BYTES } else { NAME_BYTES };
        // The kernel does not write through it; IoSlice is laid out as iovec is, says its documentation.
        header.msg_iov = message.parts.as_ptr().cast_mut().cast();
        header.msg_iovlen = message.parts.len();
        if let Some(bytes) = message.segment_bytes {
            control.bytes = bytes;
            header.msg_control = ptr::from_mut(control).cast();
            header.msg_controllen = size_of::<Control>();
        }
    }
    let count = u32::try_from(count).unwrap_or(0);
    // SAFETY: every header up to `count` points to a name and a control of this frame, and to as many parts as its
    // message has, which the caller lends until we return. The kernel only reads them, and writes lengths.
    #[expect(unsafe_code, reason = "the system call itself")]
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| last_error())
}

/// One `UDP_SEGMENT` message, as `CMSG_SPACE(2)` lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    bytes: u16,
    padding: [u8; size_of::<usize>() - size_of::<u16>()],
}

impl Control {
    const NOTHING: Self = Self {
        header: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<u16>(),
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        },
        bytes: 0,
        padding: [0; size_of::<usize>() - size_of::<u16>()],
    };
}

#[expect(clippy::cast_possible_truncation, reason = "32, 28, 16, 2 and 10")]
mod sizes {
    use super::{BATCH, size_of};

    pub const INET: u16 = libc::AF_INET as u16;
    pub const INET6: u16 = libc::AF_INET6 as u16;
    pub const BATCH_CALL: u32 = BATCH as u32;
    pub const NAME_BYTES: u32 = size_of::<libc::sockaddr_in6>() as u32;
    pub const NAME4_BYTES: u32 = size_of::<libc::sockaddr_in>() as u32;
}
use sizes::{BATCH_CALL, INET, INET6, NAME_BYTES, NAME4_BYTES};

const NOBODY: libc::sockaddr_in6 = libc::sockaddr_in6 {
    sin6_family: 0,
    sin6_port: 0,
    sin6_flowinfo: 0,
    sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
    sin6_scope_id: 0,
};

// A sockaddr_in begins as a sockaddr_in6 does: family, port, and then its address where the other has the flow label.
// So one struct serves for both.

fn from_name(name: &libc::sockaddr_in6) -> SocketAddr {
    let port = u16::from_be(name.sin6_port);
    if name.sin6_family == INET {
        SocketAddrV4::new(Ipv4Addr::from(u32::from_be(name.sin6_flowinfo)), port).into()
    } else {
        let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
        // The flow label is the sender's affair: it names nobody.
        SocketAddrV6::new(address, port, 0, name.sin6_scope_id).into()
    }
}

fn to_name(address: SocketAddr) -> libc::sockaddr_in6 {
    let mut name = NOBODY;
    name.sin6_port = address.port().to_be();
    match address {
        SocketAddr::V4(address) => {
            name.sin6_family = INET;
            name.sin6_flowinfo = u32::from(*address.ip()).to_be();
        }
        SocketAddr::V6(address) => {
            name.sin6_family = INET6;
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
        }
    }
    name
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_of_both_families_survive() {
        for text in ["192.0.2.7:53", "[2001:db8::7]:443", "0.0.0.0:0", "[::ffff:192.0.2.7]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(from_name(&to_name(address)), address);
        }
        let scoped = SocketAddr::from(SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 0, 3));
        assert_eq!(from_name(&to_name(scoped)), scoped);
    }

    #[test]
    fn one_call_takes_a_batch_and_says_who_has_sent_each() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let here = UdpSocket::bind(host).unwrap();
            let there = UdpSocket::bind(host).unwrap();
            let mut inlet = Inlet::default();
            assert_eq!(inlet.receive(here.as_fd()), Err(Errno::AGAIN));
            for payload in [&b"one"[..], b"", &vec![7; 65_507]] {
                there.send_to(payload, here.local_addr().unwrap()).unwrap();
            }
            assert_eq!(inlet.receive(here.as_fd()), Ok(3));
            let name = there.local_addr().unwrap();
            let taken: Vec<(SocketAddr, Vec<u8>)> =
                inlet.datagrams().map(|(from, data)| (from, data.to_vec())).collect();
            assert_eq!(taken, [(name, b"one".to_vec()), (name, Vec::new()), (name, vec![7; 65_507])]);
        }
    }

    #[test]
    fn what_goes_out_as_segments_arrives_as_datagrams() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            segments_arrive_at(host);
        }
    }

    fn segments_arrive_at(host: &str) {
        let here = UdpSocket::bind(host).unwrap();
        here.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let there = UdpSocket::bind(host).unwrap();
        let to = here.local_addr().unwrap();
        let pieces = [&b"H1"[..], b"abc", b"H2", b"def", b"H3", b"g"].map(IoSlice::new);
        let alone = [IoSlice::new(b"alone")];
        let messages = [
            Message { to, parts: &pieces, segment_bytes: Some(5) },
            Message { to, parts: &alone, segment_bytes: None },
        ];
        assert_eq!(send(there.as_fd(), &messages), Ok(2));
        let mut buffer = [0; 100];
        for expected in [&b"H1abc"[..], b"H2def", b"H3g", b"alone"] {
            let size = here.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..size], expected);
        }
    }
}
