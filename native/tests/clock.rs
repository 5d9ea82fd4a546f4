//! Limits that are about time, on a clock turned by hand; and what a pair may hold while it waits.

mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorward_native::arrivals::Added;
use doorward_native::pair::{End, Limits, Side};
use world::{Kind, PIPES_MAX, Talk, World, open_descriptors};

/// Descriptors are counted for the whole process, so one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn idle(seconds: u64) -> Limits {
    Limits { idle: Some(Duration::from_secs(seconds)), ..Limits::default() }
}

fn rate(bytes_per_second: u64) -> Limits {
    Limits { bytes_per_second: Some(bytes_per_second), ..Limits::default() }
}

fn end_of(world: &World, talk: &Talk) -> Option<End> {
    world.completion(talk.id).map(|done| done.ending.end)
}

#[test]
fn silence_counts_from_the_last_byte() {
    let _alone = alone();
    let mut world = World::new();
    let mut talk = world.talk(Kind::Tcp, idle(10));
    for _ in 0..5 {
        world.advance(9000);
        talk.client.send(1);
        world.advance(0);
    }
    world.advance(9900);
    assert_eq!(end_of(&world, &talk), None);
    world.advance(200);
    assert_eq!(end_of(&world, &talk), Some(End::IdleTimeout));
    assert!(talk.client.has_seen_an_end() && talk.client.saw_reset);
    assert!(talk.server.has_seen_an_end() && talk.server.saw_reset);
}

#[test]
fn each_idle_limit_ends_its_pair_in_its_own_time() {
    let _alone = alone();
    let mut world = World::new();
    let talks = [30, 10, 20].map(|seconds| (seconds, world.talk(Kind::Unix, idle(seconds))));
    for round in 1..=3 {
        world.advance(10_060);
        let ended: Vec<u64> = talks
            .iter()
            .filter(|(_, talk)| end_of(&world, talk).is_some())
            .map(|(seconds, _)| *seconds)
            .collect();
        assert_eq!(ended.len(), round);
        assert!(ended.iter().all(|seconds| *seconds <= 10 * u64::try_from(round).unwrap()));
    }
}

#[test]
fn the_thread_sleeps_until_the_first_limit_and_is_woken_for_an_earlier_one() {
    let _alone = alone();
    let mut world = World::new();
    let mut talks = Vec::new();
    let mut add = |world: &mut World, seconds: u64| {
        let (talk, pair) = world.wires(Kind::Unix, idle(seconds));
        talks.push(talk);
        world.arrivals.add(seconds, pair).unwrap()
    };
    assert_eq!(add(&mut world, 100), Added::Quietly, "a thread at work needs no waking");
    assert_eq!(world.hub.rest(world.now), Some(Duration::from_secs(100)));
    assert_eq!(add(&mut world, 200), Added::Quietly);
    assert_eq!(add(&mut world, 1), Added::Overslept);
    assert_eq!(world.hub.rest(world.now), Some(Duration::from_secs(1)));
}

#[test]
fn a_thread_without_limits_sleeps_until_something_happens_and_is_woken_for_the_first_limit() {
    let _alone = alone();
    let mut world = World::new();
    let _talk = world.talk(Kind::Unix, Limits::default());
    assert_eq!(world.hub.rest(world.now), None);
    let (_first, pair) = world.wires(Kind::Unix, Limits::default());
    assert_eq!(world.arrivals.add(10, pair), Ok(Added::Quietly));
    let (_second, pair) = world.wires(Kind::Unix, idle(5));
    assert_eq!(world.arrivals.add(11, pair), Ok(Added::Overslept));
    world.arrivals.wakes_up();
    let (_third, pair) = world.wires(Kind::Unix, idle(1));
    assert_eq!(world.arrivals.add(12, pair), Ok(Added::Quietly));
    assert_eq!(world.hub.rest(world.now), Some(Duration::from_secs(1)));
    assert_eq!(world.hub.len(), 4);
}

#[test]
fn what_comes_for_a_pair_before_the_pair_is_not_lost() {
    let _alone = alone();
    let mut world = World::new();
    let (mut talk, pair) = world.wires(Kind::Tcp, Limits::default());
    talk.client.send(100);
    world.hub.rest(world.now);
    world.arrivals.add(1, pair.with_early(Vec::new(), Vec::new())).unwrap();
    let (mut other, pair) = world.wires(Kind::Tcp, Limits::default());
    world.arrivals.add(2, pair.with_early(vec![0, 31], vec![0])).unwrap();
    world.turn_without_rest();
    assert_eq!(talk.server.read(1000), 100);
    assert_eq!((other.server.read(1000), other.client.read(1000)), (2, 1));
}

#[test]
fn a_thread_that_is_faster_than_whoever_adds_the_pair_misses_nothing() {
    let _alone = alone();
    let mut world = World::new();
    // It had to ask about room at a socket before that socket was put into the epoll.
    let (mut talk, pair) = world.wires(Kind::Tcp, Limits::default());
    let sockets = std::sync::Arc::clone(&pair.sockets);
    world.watch(1, Side::External, &sockets.external);
    assert_eq!(world.arrivals.add(1, pair), Ok(Added::Quietly));
    world.unwatch(&sockets.external);
    for _ in 0..20 {
        talk.client.send(100_000);
        world.turns(2);
    }
    assert!(world.hub.counts(1).is_some());
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while talk.server.got < talk.client.sent {
        talk.server.read(100_000);
        world.turns(1);
        assert!(std::time::Instant::now() < deadline, "{} of {}", talk.server.got, talk.client.sent);
    }
}

#[test]
fn a_pair_that_ends_while_it_is_being_added_is_closed_when_that_is_over() {
    let _alone = alone();
    let before = open_descriptors();
    let mut world = World::new();
    let (mut talk, pair) = world.wires(Kind::Tcp, Limits::default());
    let still_adding = std::sync::Arc::clone(&pair.sockets);
    world.arrivals.add(1, pair).unwrap();
    world.hub.receive();
    world.hub.kill(1);
    drop(still_adding);
    assert!(talk.client.has_seen_an_end() && talk.client.saw_reset);
    assert!(talk.server.has_seen_an_end() && talk.server.saw_reset);
    drop((world, talk));
    assert_eq!(open_descriptors(), before);
}

#[test]
fn a_rate_is_kept_over_many_seconds_and_does_not_stand_still() {
    let _alone = alone();
    let mut world = World::new();
    let mut talk = world.talk(Kind::Unix, rate(10_000));
    talk.client.send(100_000);
    for tenth in 1..=50 {
        talk.client.send(10_000);
        world.advance(100);
        talk.server.read(100_000);
        let (sent, _) = world.hub.counts(talk.id).unwrap();
        assert!(sent <= 500 + tenth * 1000, "{sent} after {tenth}");
    }
    assert!(world.hub.counts(talk.id).unwrap().0 >= 45_000);
}

#[test]
fn an_allowance_is_not_saved_up() {
    let _alone = alone();
    let mut world = World::new();
    let mut talk = world.talk(Kind::Unix, rate(1000));
    talk.client.send(1);
    world.advance(3_600_000);
    talk.client.send(8000);
    world.turns(10);
    assert!(world.hub.counts(talk.id).unwrap().0 <= 1001);
}

#[test]
fn pipes_are_held_only_while_bytes_are_in_them_and_never_too_many() {
    let _alone = alone();
    let before = open_descriptors();
    let mut world = World::new();
    let empty = open_descriptors();
    let mut talks: Vec<Talk> =
        (0..2 * PIPES_MAX).map(|_| world.talk(Kind::Unix, Limits::default())).collect();
    let sockets = 4 * talks.len();
    for _ in 0..20 {
        for talk in &mut talks {
            talk.client.send(200_000);
            talk.server.read(64 * 1024); // some bulk, so that they splice
        }
        world.turns(2);
    }
    assert!(open_descriptors() <= empty + sockets + 2 * PIPES_MAX);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while talks.iter().any(|talk| talk.server.got < talk.client.sent) {
        world.turns(1);
        for talk in &mut talks {
            talk.server.read(256 * 1024);
        }
        assert!(std::time::Instant::now() < deadline);
    }
    for talk in &talks {
        world.hub.kill(talk.id);
    }
    drop(talks);
    drop(world);
    assert_eq!(open_descriptors(), before);
}

#[test]
fn a_closed_hub_takes_nothing_and_resets_what_it_is_given() {
    let _alone = alone();
    let mut world = World::new();
    world.hub.close(End::Killed);
    let (mut talk, pair) = world.wires(Kind::Tcp, Limits::default());
    assert!(world.arrivals.add(1, pair).is_err());
    assert!(talk.client.has_seen_an_end() && talk.client.saw_reset);
    assert!(talk.server.has_seen_an_end() && talk.server.saw_reset);
    world.turns(2);
    assert!(world.completions.is_empty());
}
