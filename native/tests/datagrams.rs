//! Random schedules of datagrams, flows that come and go, and hands that take, against a model: what belongs to a flow
//! goes through it, once, whole, in order, and is counted; everything else is handed up, once, in order; nothing that
//! was handed up is overtaken by what came later; strangers are never heard.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use doorward_native::udp::calls::Inlet;
use doorward_native::udp::socket::{PENDING_MAX, Waiting};
use doorward_native::udp::table::{Counts, End, Table, Turn};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::event::epoll;

const FAR_ENDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client speaks to a far end: so many datagrams of this size.
    Say(usize, usize, usize),
    /// Somebody who is not the client does.
    Intrude(usize),
    /// A far end answers.
    Answer(usize, usize, usize),
    Begin(usize),
    End(usize),
    Work,
    Take,
    Reopen,
}

fn steps() -> impl Strategy<Value = Step> {
    let size = prop_oneof![Just(0), Just(1), Just(64), Just(1200), 1..3000_usize];
    let count = prop_oneof![1..4_usize, Just(40)];
    let burst = (0..FAR_ENDS, count, size);
    prop_oneof![
        5 => burst.clone().prop_map(|(to, count, size)| Step::Say(to, count, size)),
        1 => (0..FAR_ENDS).prop_map(Step::Intrude),
        4 => burst.prop_map(|(from, count, size)| Step::Answer(from, count, size)),
        4 => (0..FAR_ENDS).prop_map(Step::Begin),
        2 => (0..FAR_ENDS).prop_map(Step::End),
        5 => Just(Step::Work),
        2 => Just(Step::Take),
        1 => Just(Step::Reopen),
    ]
}

/// Beginnings of different lengths; none is the beginning of another, as headers are.
fn header(far: usize) -> Vec<u8> {
    [vec![1; 10], vec![2; 22], vec![3; 9]][far].clone()
}

fn answer_header(far: usize) -> Vec<u8> {
    vec![0xa0; 10 * far]
}

/// Where a datagram was to arrive, and what it is then.
type Expected = HashMap<usize, Vec<Vec<u8>>>;

struct World {
    table: Table,
    inlet: Inlet,
    inner: (u64, UdpSocket),
    outer: (u64, UdpSocket),
    client: UdpSocket,
    intruder: UdpSocket,
    far: Vec<UdpSocket>,
    flows: Vec<Option<u64>>,
    /// Payload of all flows so far that began at each end, by far end; ended flows included.
    counted: Vec<[u64; 2]>,
    ended: Vec<[u64; 2]>,
    sent: u8,
    /// Sent, and not yet looked at by the table: to which socket, from whom, what.
    in_kernel: Vec<(bool, SocketAddr, Vec<u8>)>,
    /// To be handed up, in order, by socket.
    waiting: [Vec<(SocketAddr, Vec<u8>)>; 2],
    to_far: Expected,
    to_client: Vec<Vec<u8>>,
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20).unwrap();
    socket
}

fn open(table: &mut Table, socket: &UdpSocket) -> u64 {
    table.open(OwnedFd::from(socket.try_clone().unwrap())).unwrap()
}

impl World {
    fn new() -> Self {
        let mut table = Table::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let (inner, outer) = (bound(), bound());
        let (inner, outer) = ((open(&mut table, &inner), inner), (open(&mut table, &outer), outer));
        let far: Vec<UdpSocket> = (0..FAR_ENDS).map(|_| bound()).collect();
        Self {
            table,
            inlet: Inlet::default(),
            inner,
            outer,
            client: bound(),
            intruder: bound(),
            far,
            flows: vec![None; FAR_ENDS],
            counted: vec![[0; 2]; FAR_ENDS],
            ended: vec![[0; 2]; FAR_ENDS],
            sent: 0,
            in_kernel: Vec::new(),
            waiting: [Vec::new(), Vec::new()],
            to_far: HashMap::new(),
            to_client: Vec::new(),
        }
    }

    fn payload(&mut self, size: usize) -> Vec<u8> {
        self.sent = self.sent.wrapping_add(1);
        vec![self.sent; size]
    }

    fn send(&mut self, from: &UdpSocket, is_inner: bool, data: Vec<u8>) {
        let to = if is_inner { &self.inner.1 } else { &self.outer.1 };
        from.send_to(&data, to.local_addr().unwrap()).unwrap();
        self.in_kernel.push((is_inner, from.local_addr().unwrap(), data));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Say(far, count, size) => {
                for _ in 0..count {
                    let data = [header(far), self.payload(size)].concat();
                    let client = self.client.try_clone().unwrap();
                    self.send(&client, true, data);
                }
            }
            Step::Intrude(far) => {
                let data = [header(far), self.payload(5)].concat();
                let intruder = self.intruder.try_clone().unwrap();
                self.send(&intruder, true, data.clone());
                self.send(&intruder, false, data);
            }
            Step::Answer(far, count, size) => {
                for _ in 0..count {
                    let data = self.payload(size);
                    let far = self.far[far].try_clone().unwrap();
                    self.send(&far, false, data);
                }
            }
            Step::Begin(far) => self.begin(far),
            Step::End(far) => self.end(far),
            Step::Work => self.work(),
            Step::Take => self.take(),
            Step::Reopen => self.reopen(),
        }
    }

    fn begin(&mut self, far: usize) {
        if self.flows[far].is_some() {
            return;
        }
        let client = self.client.local_addr().unwrap();
        let inner = End {
            socket: self.inner.0,
            peer: client,
            strip: header(far).into(),
            prepend: answer_header(far).into(),
        };
        let peer = self.far[far].local_addr().unwrap();
        let outer = End { socket: self.outer.0, peer, strip: [].into(), prepend: [].into() };
        let ends = [inner, outer];
        self.flows[far] = self.table.flow(ends.clone(), Instant::now());
        assert!(self.flows[far].is_some());
        assert_eq!(self.table.flow(ends, Instant::now()), None, "its beginnings lead there already");
        // The model: those that waited to be handed up and belong there have gone first.
        for is_inner in [true, false] {
            for (from, data) in std::mem::take(&mut self.waiting[usize::from(is_inner)]) {
                self.arrive(is_inner, from, data);
            }
        }
    }

    fn end(&mut self, far: usize) {
        if let Some(flow) = self.flows[far].take() {
            let counts = self.table.end(flow).unwrap();
            assert_eq!(self.table.end(flow), None);
            self.add(far, counts);
        }
    }

    fn add(&mut self, far: usize, counts: Counts) {
        for (ended, bytes) in self.ended[far].iter_mut().zip(counts.bytes) {
            *ended += bytes;
        }
    }

    /// The model of one datagram that the table looks at.
    fn arrive(&mut self, is_inner: bool, from: SocketAddr, data: Vec<u8>) {
        let place = (0..FAR_ENDS).find(|far| {
            let belongs = if is_inner {
                from == self.client.local_addr().unwrap() && data.starts_with(&header(*far))
            } else {
                from == self.far[*far].local_addr().unwrap()
            };
            self.flows[*far].is_some() && belongs
        });
        if let Some(far) = place {
            if is_inner {
                let payload = data[header(far).len()..].to_vec();
                self.counted[far][0] += payload.len() as u64;
                self.to_far.entry(far).or_default().push(payload);
            } else {
                self.counted[far][1] += data.len() as u64;
                self.to_client.push([answer_header(far), data].concat());
            }
        } else {
            let waiting = &mut self.waiting[usize::from(is_inner)];
            let bytes: usize = waiting.iter().map(|(_, data)| data.len()).sum();
            if waiting.len() < PENDING_MAX && bytes + data.len() <= 256 * 1024 {
                waiting.push((from, data));
            }
        }
    }

    fn work(&mut self) {
        for is_inner in [true, false] {
            let id = if is_inner { self.inner.0 } else { self.outer.0 };
            while self.table.ready(id, &mut self.inlet, Instant::now()).0 == Turn::Unfinished {}
            let (here, rest) =
                std::mem::take(&mut self.in_kernel).into_iter().partition(|one| one.0 == is_inner);
            self.in_kernel = rest;
            let here: Vec<(bool, SocketAddr, Vec<u8>)> = here;
            for (_, from, data) in here {
                self.arrive(is_inner, from, data);
            }
        }
        self.hear();
    }

    /// What arrived at the ends of the world is what the model says.
    fn hear(&mut self) {
        let mut buffer = vec![0; 65_536];
        for (far, expected) in self.to_far.drain() {
            for data in expected {
                let (size, from) = self.far[far].recv_from(&mut buffer).expect("a datagram for a far end");
                assert_eq!((from, &buffer[..size]), (self.outer.1.local_addr().unwrap(), &data[..]));
            }
        }
        for data in self.to_client.drain(..) {
            let (size, from) = self.client.recv_from(&mut buffer).expect("a datagram for the client");
            assert_eq!((from, &buffer[..size]), (self.inner.1.local_addr().unwrap(), &data[..]));
        }
        for (far, flow) in self.flows.iter().enumerate() {
            let alive = flow.map_or([0; 2], |flow| self.table.counts(flow).unwrap().bytes);
            let sum = [self.ended[far][0] + alive[0], self.ended[far][1] + alive[1]];
            assert_eq!(sum, self.counted[far]);
        }
    }

    fn take(&mut self) {
        let mut taken: [Vec<(SocketAddr, Vec<u8>)>; 2] = [Vec::new(), Vec::new()];
        loop {
            let (some, more) = self.table.take();
            for (id, Waiting { from, data }) in some {
                taken[usize::from(id == self.inner.0)].push((from, data.into_vec()));
            }
            if !more {
                break;
            }
        }
        assert_eq!(taken, std::mem::take(&mut self.waiting));
    }

    /// Both sockets are taken back with what waits, and given again. Their flows end with them.
    fn reopen(&mut self) {
        for far in 0..FAR_ENDS {
            self.end(far);
        }
        for is_inner in [true, false] {
            let (id, socket) = if is_inner { &mut self.inner } else { &mut self.outer };
            let (waiting, losses) = self.table.release(*id).unwrap();
            assert!(self.table.release(*id).is_none());
            assert_eq!((losses.dropped, losses.failed), (0, 0));
            *id = open(&mut self.table, socket);
            let waiting: Vec<(SocketAddr, Vec<u8>)> =
                waiting.into_iter().map(|one| (one.from, one.data.into_vec())).collect();
            assert_eq!(waiting, std::mem::take(&mut self.waiting[usize::from(is_inner)]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_datagram_goes_where_the_model_says(steps in vec(steps(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.work();
        world.take();
        world.reopen();
        world.client.set_nonblocking(true).unwrap();
        prop_assert!(world.client.recv(&mut [0; 9]).is_err());
        for far in &world.far {
            far.set_nonblocking(true).unwrap();
            prop_assert!(far.recv(&mut [0; 9]).is_err());
        }
    }
}
