//! Limits that are about time, on a clock turned by hand; and what a pair may hold while it waits.

mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorward_native::pair::{End, Limits};
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
    assert_eq!(world.hub.rest(world.now), None);
    let _patient = world.talk(Kind::Unix, idle(100));
    assert!(world.hub.is_overslept());
    assert_eq!(world.hub.rest(world.now), Some(Duration::from_secs(100)));
    assert!(!world.hub.is_overslept());
    let _more_patient = world.talk(Kind::Unix, idle(200));
    assert!(!world.hub.is_overslept());
    let _hasty = world.talk(Kind::Unix, idle(1));
    assert!(world.hub.is_overslept());
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
    assert!(world.hub.add(1, pair).is_err());
    assert!(talk.client.has_seen_an_end() && talk.client.saw_reset);
    assert!(talk.server.has_seen_an_end() && talk.server.saw_reset);
    world.turns(2);
    assert!(world.completions.is_empty());
}
