//! Flows one by one: through a thread, over a way that takes no segments, and where a datagram fits nowhere.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use doorward_native::udp::calls::Inlet;
use doorward_native::udp::mover::Mover;
use doorward_native::udp::socket::Losses;
use doorward_native::udp::table::{End, Table, Turn};
use rustix::event::epoll;

const PATIENCE: Duration = Duration::from_secs(10);

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn open(table: &mut Table, socket: &UdpSocket) -> u64 {
    table.open(OwnedFd::from(socket.try_clone().unwrap())).unwrap()
}

#[test]
fn a_thread_moves_what_flows_and_calls_for_what_does_not() {
    let mover = Mover::start().unwrap();
    let (inner, outer, client, far) = (bound(), bound(), bound(), bound());
    let ids = [&inner, &outer].map(|socket| mover.with(|table| open(table, socket)));
    client.send_to(b"Hfirst", inner.local_addr().unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut taken = mover.take();
    while taken.is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
        taken = mover.take();
    }
    assert_eq!((taken.len(), taken[0].0, &taken[0].1.data[..]), (1, ids[0], &b"Hfirst"[..]));
    let peer = far.local_addr().unwrap();
    let ends = [
        End {
            socket: ids[0],
            peer: client.local_addr().unwrap(),
            strip: (*b"H").into(),
            prepend: (*b"A").into(),
        },
        End { socket: ids[1], peer, strip: [].into(), prepend: [].into() },
    ];
    let flow = mover.with(|table| table.flow(ends, Instant::now())).unwrap();
    let mut buffer = [0; 100];
    let mut payload_bytes = 0;
    for round in 0..500_u16 {
        client.send_to(format!("Hquestion {round}").as_bytes(), inner.local_addr().unwrap()).unwrap();
        let (size, from) = far.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..size], format!("question {round}").as_bytes());
        payload_bytes += size as u64;
        far.send_to(&buffer[..size], from).unwrap();
        let size = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..size], format!("Aquestion {round}").as_bytes());
    }
    let counts = mover.with(|table| table.end(flow)).unwrap();
    assert_eq!(counts.bytes, [payload_bytes; 2]);
    mover.stop();
    mover.stop();
    assert!(mover.with(|table| table.open(outer.try_clone().unwrap().into())).is_err());
}

struct Pair {
    table: Table,
    inlet: Inlet,
    ids: [u64; 2],
    inner: UdpSocket,
    client: UdpSocket,
    far: UdpSocket,
    flow: u64,
}

/// A flow with nothing to strip; this stands before what the far end gets.
fn pair(outer: &UdpSocket, prepend: Vec<u8>) -> Pair {
    let mut table = Table::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
    let (inner, client, far) = (bound(), bound(), bound());
    let ids = [&inner, outer].map(|socket| open(&mut table, socket));
    let ends = [
        End { socket: ids[0], peer: client.local_addr().unwrap(), strip: [].into(), prepend: [].into() },
        End { socket: ids[1], peer: far.local_addr().unwrap(), strip: [].into(), prepend: prepend.into() },
    ];
    let flow = table.flow(ends, Instant::now()).unwrap();
    Pair { table, inlet: Inlet::default(), ids, inner, client, far, flow }
}

impl Pair {
    fn say(&mut self, payloads: &[&[u8]]) {
        for payload in payloads {
            self.client.send_to(payload, self.inner.local_addr().unwrap()).unwrap();
        }
        while self.table.ready(self.ids[0], &mut self.inlet, Instant::now()).0 == Turn::Unfinished {}
    }
}

#[test]
fn a_way_that_takes_no_segments_gets_its_datagrams_one_by_one() {
    let outer = bound();
    let on: libc::c_int = 1;
    // SAFETY: the value is ours, and its size is its own. Where nobody makes checksums the kernel cuts nothing.
    let set = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_NO_CHECK);
        libc::setsockopt(outer.as_raw_fd(), level, name, (&raw const on).cast(), 4)
    };
    assert_eq!(set, 0);
    let mut pair = pair(&outer, b"H".to_vec());
    let mut buffer = [0; 100];
    for _ in 0..3 {
        pair.say(&[b"one", b"two", b"x"]);
        for expected in [&b"Hone"[..], b"Htwo", b"Hx"] {
            let size = pair.far.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..size], expected);
        }
    }
    assert_eq!(pair.table.losses(pair.ids[1]).unwrap(), Losses::default());
}

#[test]
fn what_fits_nowhere_is_lost_and_counted_and_its_neighbours_are_not() {
    let outer = bound();
    let mut pair = pair(&outer, vec![7; 65_000]);
    let long = [1; 600];
    pair.say(&[&long[..400], &long, &long[..300]]);
    let mut buffer = vec![0; 65_536];
    for expected in [65_400, 65_300] {
        assert_eq!(pair.far.recv(&mut buffer).unwrap(), expected);
    }
    let losses = pair.table.losses(pair.ids[1]).unwrap();
    assert_eq!((losses.dropped, losses.failed, losses.unheard), (0, 1, 0));
    assert_eq!(losses.refused, libc::EMSGSIZE);
    assert_eq!(pair.table.counts(pair.flow).unwrap().bytes, [400 + 600 + 300, 0]);
}
