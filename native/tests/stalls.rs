//! Receivers that do not read, and those that hardly do: what they may hold, and for how long others go without.

mod world;

use std::time::{Duration, Instant};

use doorward_native::pair::{End, Limits, Way};
use doorward_native::unclog::STALL;
use world::{Kind, PIPES_MAX, Talk, World};

/// The client sends until nothing moves any more, and the server reads nothing.
fn fill(world: &mut World, talk: &mut Talk) {
    let mut quiet = 0;
    while quiet < 5 {
        let before = (talk.client.sent, world.hub.counts(talk.id));
        talk.client.send(300_000);
        world.turns(2);
        quiet = if before == (talk.client.sent, world.hub.counts(talk.id)) { quiet + 1 } else { 0 };
    }
}

/// The server reads all that there is; it is what was sent.
fn empty(world: &mut World, talk: &mut Talk) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while talk.server.got < talk.client.sent {
        talk.server.read(256 * 1024);
        world.turns(1);
        assert!(Instant::now() < deadline, "{} of {}", talk.server.got, talk.client.sent);
    }
}

/// Nobody reads, and all pipes are full.
fn stalled(world: &mut World) -> Vec<Talk> {
    (0..PIPES_MAX)
        .map(|_| {
            let mut talk = world.wide_talk();
            get_pipe(world, &mut talk);
            talk
        })
        .collect()
}

fn has_pipe(world: &World, talk: &Talk) -> bool {
    world.hub.pipe_holders().contains(&(talk.id, Way::Outward))
}

/// Bulk, some of which is read: whoever can get a pipe has one then.
fn flow(world: &mut World, talk: &mut Talk) {
    for _ in 0..3 {
        fill(world, talk);
        for _ in 0..10 {
            talk.server.read(300_000);
            world.turns(2);
        }
    }
    fill(world, talk);
}

/// Bulk until it has one. How a transfer gets stuck is up to the kernel: with bytes of a copy, too.
fn get_pipe(world: &mut World, talk: &mut Talk) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !has_pipe(world, talk) {
        flow(world, talk);
        assert!(Instant::now() < deadline, "there is no pipe to be had");
    }
}

/// All pipes are stuck, and somebody comes who could use one.
fn clogged(world: &mut World) -> (Vec<Talk>, Talk) {
    let stuck = stalled(world);
    let mut newcomer = world.wide_talk();
    flow(world, &mut newcomer);
    assert!(!has_pipe(world, &newcomer), "nobody has been stuck for long");
    (stuck, newcomer)
}

#[test]
fn whoever_stalls_loses_its_pipe_to_whoever_can_use_it_and_no_byte() {
    let mut world = World::new();
    let (mut stuck, mut newcomer) = clogged(&mut world);
    world.now += STALL;
    get_pipe(&mut world, &mut newcomer);
    assert_eq!(stuck.iter().filter(|talk| has_pipe(&world, talk)).count(), PIPES_MAX - 1);
    for talk in stuck.iter_mut().chain([&mut newcomer]) {
        empty(&mut world, talk);
    }
}

#[test]
fn whoever_empties_its_pipe_now_and_then_keeps_it() {
    let mut world = World::new();
    let mut readers = stalled(&mut world);
    for _ in 0..5 {
        world.now += STALL / 2;
        for talk in &mut readers {
            empty(&mut world, talk);
            get_pipe(&mut world, talk);
        }
        let mut newcomer = world.wide_talk();
        flow(&mut world, &mut newcomer);
        assert!(!has_pipe(&world, &newcomer) && readers.iter().all(|talk| has_pipe(&world, talk)));
        world.hub.kill(newcomer.id);
    }
}

#[test]
fn a_victim_may_be_taken_back_with_all_its_bytes() {
    let mut world = World::new();
    let (mut stuck, mut newcomer) = clogged(&mut world);
    world.now += STALL;
    get_pipe(&mut world, &mut newcomer);
    for talk in stuck.iter_mut().chain([&mut newcomer]) {
        world.again(talk, Limits::default());
        empty(&mut world, talk);
    }
}

#[test]
fn whoever_has_lost_a_pipe_copies_until_it_has_shown_to_be_fast() {
    let mut world = World::new();
    let (mut stuck, mut newcomer) = clogged(&mut world);
    world.now += STALL;
    get_pipe(&mut world, &mut newcomer);
    let place = stuck.iter().position(|talk| !has_pipe(&world, talk)).unwrap();
    let mut victim = stuck.swap_remove(place);
    for talk in stuck.iter().chain([&newcomer]) {
        world.hub.kill(talk.id);
    }
    empty(&mut world, &mut victim);
    flow(&mut world, &mut victim);
    assert!(!has_pipe(&world, &victim));
    while victim.server.got < 70 * 1024 * 1024 {
        victim.client.send(500_000);
        world.turns(2);
        victim.server.read(500_000);
    }
    get_pipe(&mut world, &mut victim);
    empty(&mut world, &mut victim);
}

#[test]
fn what_pipes_are_emptied_into_is_limited() {
    let mut world = World::with_unloaded_max(1000);
    let (mut stuck, mut newcomer) = clogged(&mut world);
    world.now += STALL;
    flow(&mut world, &mut newcomer);
    assert!(!has_pipe(&world, &newcomer));
    for talk in stuck.iter_mut().chain([&mut newcomer]) {
        empty(&mut world, talk);
    }
}

#[test]
fn what_was_emptied_into_memory_and_is_gone_makes_room_for_more() {
    let mut world = World::with_unloaded_max(600 * 1024);
    for round in 0..60 {
        let (mut stuck, mut newcomer) = clogged(&mut world);
        world.now += STALL;
        get_pipe(&mut world, &mut newcomer);
        stuck.push(newcomer);
        for talk in &mut stuck {
            match round % 3 {
                0 => empty(&mut world, talk),
                1 => drop(world.hub.reclaim(talk.id)),
                _ => {}
            }
            world.hub.kill(talk.id);
        }
        assert_eq!(world.hub.pipe_holders(), []);
    }
}

#[test]
fn a_byte_a_second_is_carried_for_hours_and_is_no_silence() {
    let mut world = World::new();
    let idle = Limits { idle: Some(Duration::from_secs(10)), ..Limits::default() };
    let mut talk = world.talk(Kind::Tcp, idle);
    for second in 1..=7200_u16 {
        let is_even = second % 2 == 0;
        let (sender, reader) =
            if is_even { (&mut talk.client, &mut talk.server) } else { (&mut talk.server, &mut talk.client) };
        sender.send(1);
        world.now += Duration::from_secs(1);
        let deadline = Instant::now() + Duration::from_secs(2);
        while reader.read(10) == 0 {
            world.turns(1);
            assert!(Instant::now() < deadline, "a byte is lost");
        }
    }
    assert_eq!(world.hub.counts(talk.id), Some((3600, 3600)));
    world.advance(10_100);
    assert_eq!(world.completion(talk.id).unwrap().ending.end, End::IdleTimeout);
}

#[test]
fn a_reader_of_a_byte_a_second_gets_each_byte_once() {
    let mut world = World::new();
    let mut talk = world.talk(Kind::Unix, Limits::default());
    fill(&mut world, &mut talk);
    for _ in 0..5000 {
        assert_eq!(talk.server.read(1), 1);
        world.advance(1000);
    }
    talk.client.finish();
    empty(&mut world, &mut talk);
    world.turns(3);
    assert!(talk.server.has_seen_an_end() && talk.server.at_end);
}
