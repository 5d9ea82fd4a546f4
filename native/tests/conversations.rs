//! Random conversations against a model of two pipes, over socket pairs and over TCP.
//!
//! The model: what was sent before an orderly end arrives, exactly and in order; what arrives is always a beginning
//! of what was sent; a pair is reported once, with the bytes that it moved; nothing stays open.

mod world;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use doorward_native::pair::{End, Limits, Side};
use proptest::collection::vec;
use proptest::prelude::*;
use world::{Kind, Talk, World, open_descriptors};

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(Side, usize),
    Read(Side, usize),
    Finish(Side),
    Turns(usize),
    Again,
    Later(u64),
}

#[derive(Clone, Copy, Debug)]
enum Last {
    InOrder,
    Vanish(Side),
    Kill,
    Close,
}

fn sides() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Internal), Just(Side::External)]
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), 2..2000_usize, Just(16 * 1024), Just(64 * 1024), 60_000..300_000_usize]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (sides(), sizes()).prop_map(|(side, size)| Step::Send(side, size)),
        4 => (sides(), sizes()).prop_map(|(side, size)| Step::Read(side, size)),
        1 => sides().prop_map(Step::Finish),
        4 => (1..4_usize).prop_map(Step::Turns),
        1 => Just(Step::Again),
        1 => (1..400_u64).prop_map(Step::Later),
    ]
}

fn lasts() -> impl Strategy<Value = Last> {
    prop_oneof![
        4 => Just(Last::InOrder),
        2 => sides().prop_map(Last::Vanish),
        1 => Just(Last::Kill),
        1 => Just(Last::Close),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let none = Limits { idle: Some(Duration::from_secs(3600)), ..Limits::default() };
    prop_oneof![
        4 => Just(none),
        1 => (1000..2_000_000_u64).prop_map(move |rate| Limits { bytes_per_second: Some(rate), ..none }),
    ]
}

fn act(world: &mut World, talk: &mut Talk, step: Step, limits: Limits) {
    match step {
        Step::Send(side, count) => talk.peer(side).send(count),
        Step::Read(side, count) => drop(talk.peer(side).read(count)),
        Step::Finish(side) => talk.peer(side).finish(),
        Step::Turns(count) => world.turns(count),
        Step::Again => world.again(talk, limits),
        Step::Later(ms) => world.advance(ms),
    }
    assert!(talk.server.got <= talk.client.sent && talk.client.got <= talk.server.sent);
    assert!(!talk.server.at_end || (talk.client.finished && talk.server.got == talk.client.sent));
    assert!(!talk.client.at_end || (talk.server.finished && talk.client.got == talk.server.sent));
    assert!(world.hub.len() <= 1);
}

/// Turn and read until the pair has been reported and each peer that is left has seen an end.
fn settle(world: &mut World, talk: &mut Talk) -> End {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        world.advance(20);
        let have_seen_it = talk.client.has_seen_an_end() & talk.server.has_seen_an_end();
        if let (Some(done), true) = (world.completion(talk.id), have_seen_it) {
            return done.ending.end;
        }
        assert!(Instant::now() < deadline, "the pair did not end");
    }
}

fn end_in_order(world: &mut World, talk: &mut Talk, is_whole: bool) {
    ends_arrive(world, talk);
    assert_eq!(settle(world, talk), End::Closed);
    assert!(talk.client.at_end && talk.server.at_end);
    assert_eq!((talk.server.got, talk.client.got), (talk.client.sent, talk.server.sent));
    let done = world.completion(talk.id).unwrap();
    if is_whole {
        let moved = (u64::try_from(talk.client.sent).unwrap(), u64::try_from(talk.server.sent).unwrap());
        assert_eq!((done.bytes_sent, done.bytes_received), moved);
    }
}

fn end_by_vanishing(world: &mut World, talk: &mut Talk, kind: Kind, side: Side) {
    let both_had_finished = talk.client.finished && talk.server.finished;
    talk.peer(side).vanish();
    let other = if side == Side::Internal { Side::External } else { Side::Internal };
    if kind == Kind::Unix {
        talk.peer(other).finish(); // without RST, an end is all there is to see
    }
    let end = settle(world, talk);
    let by = world.completion(talk.id).unwrap().ending.by;
    match end {
        End::Closed => assert!(kind == Kind::Unix || both_had_finished),
        End::Reset => {
            assert_eq!(by, Some(side));
            assert!(kind == Kind::Unix || both_had_finished || talk.peer(other).saw_reset);
        }
        end => panic!("{end:?}"),
    }
}

fn converse(kind: Kind, limits: Limits, steps: &[Step], last: Last) {
    let mut world = World::new();
    let mut talk = world.talk(kind, limits);
    let first_id = talk.id;
    for step in steps {
        act(&mut world, &mut talk, *step, limits);
    }
    let is_whole = talk.id == first_id;
    let alive = world.hub.counts(talk.id).is_some();
    match last {
        Last::InOrder => end_in_order(&mut world, &mut talk, is_whole),
        Last::Vanish(side) => end_by_vanishing(&mut world, &mut talk, kind, side),
        Last::Kill => {
            world.hub.kill(talk.id);
            world.hub.kill(talk.id);
            let end = settle(&mut world, &mut talk);
            assert_eq!(end, if alive { End::Killed } else { End::Closed });
        }
        Last::Close => {
            world.hub.close(End::Killed);
            settle(&mut world, &mut talk);
            assert!(world.hub.is_closed());
        }
    }
    assert_eq!(world.hub.len(), 0);
}

/// An end travels by itself, before the other direction has ended.
fn ends_arrive(world: &mut World, talk: &mut Talk) {
    for side in [Side::Internal, Side::External] {
        let other = if side == Side::Internal { Side::External } else { Side::Internal };
        talk.peer(side).finish();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !talk.peer(other).at_end {
            world.advance(20);
            talk.peer(other).read(256 * 1024);
            assert!(Instant::now() < deadline, "the end did not arrive");
        }
    }
}

/// Descriptors are counted for the whole process, so one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn any_conversation(kind: Kind, cases: u32) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(limits in limits(), steps in vec(steps(), 0..40), last in lasts())| {
        let before = open_descriptors();
        converse(kind, limits, &steps, last);
        prop_assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn any_conversation_over_socket_pairs_fits_the_model() {
    any_conversation(Kind::Unix, 100);
}

#[test]
fn any_conversation_over_tcp_fits_the_model() {
    any_conversation(Kind::Tcp, 100);
}
