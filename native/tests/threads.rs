//! The relay with its threads, asked from several sides at once. One test: it counts threads and descriptors.

mod world;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use doorward_native::pair::{End, Limits, Pair};
use doorward_native::relay::Relay;
use world::open_descriptors;

const PAIRS: usize = 200;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// A pair in the relay, and its peers, which wait two seconds at most.
fn pair(relay: &Relay) -> (u64, UnixStream, UnixStream) {
    let (client, internal) = UnixStream::pair().unwrap();
    let (external, server) = UnixStream::pair().unwrap();
    for peer in [&client, &server] {
        peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    let limits = Limits { idle: Some(Duration::from_secs(60)), ..Limits::default() };
    let pair = Pair::new(internal.into(), external.into(), limits, Instant::now());
    let (id, worker) = relay.place().unwrap();
    worker.add(id, pair).unwrap();
    (id, client, server)
}

/// Speak over a few pairs, end each in one of several ways, and say which are to be reported.
fn converse(relay: &Relay, expected: &Mutex<HashSet<u64>>) {
    for number in 0..PAIRS {
        let (id, mut client, mut server) = pair(relay);
        let mut got = [0; 4];
        client.write_all(b"ping").unwrap();
        server.read_exact(&mut got).unwrap();
        server.write_all(b"pong").unwrap();
        client.read_exact(&mut got).unwrap();
        let worker = relay.worker(id).unwrap();
        assert_eq!(worker.with(|hub| hub.counts(id)), Some((4, 4)));
        if number % 3 == 0 {
            assert!(worker.with(|hub| hub.reclaim(id)).is_some());
            continue;
        }
        if number % 3 == 1 {
            worker.with(|hub| hub.kill(id));
        }
        expected.lock().unwrap().insert(id);
    }
}

#[test]
fn many_callers_lose_nothing_and_stopping_leaves_nothing() {
    let (descriptors, tasks) = (open_descriptors(), threads());
    let relay = Relay::start(3).unwrap();
    assert_eq!(threads(), tasks + 3);
    let expected = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| converse(&relay, &expected));
        }
    });
    let alive = [pair(&relay), pair(&relay)];
    expected.lock().unwrap().extend(alive.iter().map(|(id, _, _)| *id));
    let mut reported = relay.completions();
    reported.extend(relay.stop());
    let ids: HashSet<u64> = reported.iter().map(|done| done.id).collect();
    assert_eq!(ids.len(), reported.len(), "reported twice");
    assert_eq!(&ids, &*expected.lock().unwrap());
    let last: Vec<End> =
        reported.iter().filter(|done| done.id >= alive[0].0).map(|done| done.ending.end).collect();
    assert_eq!(last, [End::Killed, End::Killed]);
    drop(alive);
    drop(relay);
    assert_eq!(open_descriptors(), descriptors);
    let deadline = Instant::now() + Duration::from_secs(2);
    while threads() > tasks {
        // The kernel lists a thread for a moment after it was joined.
        assert!(Instant::now() < deadline, "a thread is left");
        thread::yield_now();
    }
}
