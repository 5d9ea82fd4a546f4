//! Conversations with the front's desk: without its thread, with a clock turned by hand, against real sockets.

mod front_world;

use std::time::Duration;

use doorward_native::front::desk::Settings;
use doorward_native::front::post::{Letter, Why};
use doorward_native::pair::End;
use front_world::{Client, Front, GREETING, Server, Told, request};
use rustix::io::Errno;

const HANDSHAKE: Duration = Duration::from_secs(10);

/// A client that has asked for this server, and its number.
fn asked(front: &mut Front, server: &Server, early: &[u8]) -> (Client, u64) {
    let mut client = front.client(GREETING);
    client.say(&request(server.address));
    client.say(early);
    front.turns(3);
    let Some(Letter::Asked { id, address, request: asked }) = front.letters.pop() else {
        panic!("{:?}", front.letters);
    };
    assert_eq!((address, asked), (client.address, request(server.address)));
    (client, id)
}

#[test]
fn a_client_is_heard_out_connected_answered_and_given_to_the_relay() {
    let mut front = Front::new();
    let server = Server::listening();
    let (mut client, id) = asked(&mut front, &server, b"early");
    front.dial(id, server.address);
    front.turns(3);
    let mut outer = server.accept();
    assert_eq!(outer.wait(5), b"early");
    let ours = outer.address;
    assert_eq!(client.wait(2), [5, 0]);
    assert_eq!(client.wait(10)[4..], [&[127, 0, 0, 1][..], &ours.port().to_be_bytes()].concat());
    outer.say(b"answer");
    assert_eq!(client.wait(6), b"answer");
    drop((client, outer));
    assert_eq!(front.told(), [Told::Stood(id)]);
    assert_eq!(front.completion(id).ending.end, End::Closed);
    assert_eq!(front.desk.len(), 0);
}

#[test]
fn whatever_the_pieces_a_handshake_is_heard() {
    let whole = [GREETING, &request("[::1]:443".parse().unwrap())].concat();
    for size in 1..whole.len() {
        let mut front = Front::new();
        let mut client = front.client(b"");
        for piece in whole.chunks(size) {
            client.say(piece);
            front.turns(2);
        }
        assert_eq!(client.wait(2), [5, 0]);
        assert!(matches!(&front.letters[..], [Letter::Asked { .. }]), "{size}: {:?}", front.letters);
    }
}

#[test]
fn who_says_something_else_comes_to_python_with_every_byte() {
    let connect_with_password = [5, 2, 0, 2];
    for said in
        [&b"GET / HTTP/1.1\r\n"[..], b"\x04\x01", b"\x16\x03", &connect_with_password, b"\x05\x00", b"\xff"]
    {
        let mut front = Front::new();
        let client = front.client(said);
        front.turns(2);
        let (visitor, why) = front.visitor();
        assert_eq!((visitor.said.as_slice(), visitor.answered, why), (said, false, Why::NotOurs));
        assert_eq!(visitor.address, Some(client.address));
    }
}

#[test]
fn nobody_is_heard_for_longer_than_any_message() {
    let mut front = Front::new();
    let greeting = [&[5, 255][..], &[9; 255]].concat();
    front.client(&[&greeting, &[0; 10_000][..]].concat());
    front.turns(2);
    assert_eq!(front.visitor().0.said.len(), 4096);
}

#[test]
fn with_names_of_users_in_the_policy_a_password_is_python_s_matter() {
    for (names_users, is_ours) in [(true, false), (false, true)] {
        let mut front = Front::new();
        front.desk.set(Settings { names_users, handshake: HANDSHAKE });
        let mut client = front.client(&[5, 2, 0, 2]);
        front.turns(2);
        assert_eq!(front.letters.is_empty(), is_ours);
        if is_ours {
            assert_eq!(client.wait(2), [5, 0]);
        } else {
            assert!(!front.visitor().0.answered);
        }
    }
}

#[test]
fn a_client_that_ends_is_python_s_at_every_byte() {
    let whole = [GREETING, &request("192.0.2.1:80".parse().unwrap())].concat();
    for length in 0..whole.len() {
        for with_its_last_byte in [true, false] {
            let mut front = Front::new();
            let mut client = front.client(b"");
            front.turns(2); // it is watched
            client.say(&whole[..length]);
            if !with_its_last_byte {
                front.turns(2);
            }
            client.finish();
            front.turns(2);
            let (visitor, why) = front.visitor();
            assert_eq!((visitor.said.as_slice(), why), (&whole[..length], Why::Gone(None)), "{length}");
            assert_eq!(visitor.answered, length >= GREETING.len());
        }
    }
}

#[test]
fn a_client_that_resets_is_python_s_with_its_error() {
    let mut front = Front::new();
    let mut client = front.client(GREETING);
    front.turns(2);
    assert_eq!(client.wait(2), [5, 0]);
    client.reset();
    front.turns(2);
    let (visitor, why) = front.visitor();
    assert_eq!((visitor.said.as_slice(), visitor.answered), (GREETING, true));
    assert_eq!(why, Why::Gone(Some(Errno::CONNRESET)));
}

#[test]
fn who_takes_too_long_is_parted_from_and_others_are_not() {
    let mut front = Front::new();
    let slow = front.client(b"\x05");
    front.turns(2);
    front.advance(HANDSHAKE / 2);
    let _slower = front.client(b"\x05");
    front.turns(2);
    assert_eq!(front.desk.next(), Some(front.now + HANDSHAKE / 2));
    front.advance(HANDSHAKE / 2);
    let (visitor, why) = front.visitor();
    assert_eq!((visitor.address, why), (Some(slow.address), Why::Late));
    assert_eq!(front.now - visitor.since, HANDSHAKE);
    assert_eq!(front.desk.len(), 1);
    front.advance(HANDSHAKE / 2);
    assert_eq!(front.visitor().1, Why::Late);
    assert_eq!(front.desk.next(), None);
}

#[test]
fn who_waits_for_python_has_no_deadline_here() {
    let mut front = Front::new();
    let server = Server::listening();
    let (_client, _) = asked(&mut front, &server, b"");
    front.advance(HANDSHAKE * 100);
    assert_eq!((front.desk.len(), front.told()), (1, vec![]));
}

#[test]
fn a_server_that_refuses_and_one_that_is_silent_fail_and_the_client_can_be_told() {
    let mut front = Front::new();
    for (server, errno) in [(Server::refusing(), Some(Errno::CONNREFUSED)), (Server::silent(), None)] {
        let (_client, id) = asked(&mut front, &server, b"early");
        front.dial(id, server.address);
        front.turns(2);
        if errno.is_none() {
            assert_eq!(front.told(), []);
            front.advance(front_world::TIMEOUT);
        }
        let Some(Letter::Failed { id: failed, visitor, errno: with }) = front.letters.pop() else {
            panic!("nobody has failed");
        };
        assert_eq!((failed, with), (id, errno));
        assert_eq!(visitor.said, [GREETING, &request(server.address), b"early"].concat());
    }
}

#[test]
fn a_client_that_resets_while_it_is_asked_or_dialled_is_lost_when_it_is_answered() {
    let mut front = Front::new();
    let server = Server::listening();
    let (client, id) = asked(&mut front, &server, b"");
    client.reset();
    front.turns(2);
    assert_eq!(front.told(), [], "nobody asks before there is an answer");
    front.dial(id, server.address);
    front.turns(2);
    let told = front.told();
    assert!(matches!(told[..], [Told::Stood(_), Told::Lost(_, Errno::PIPE | Errno::CONNRESET)]), "{told:?}");
    assert!(server.accept().sees_reset(), "the server has to be told");
}

#[test]
fn who_is_taken_is_python_s_alone() {
    let mut front = Front::new();
    let silent = Server::silent();
    let (_client, id) = asked(&mut front, &silent, b"early");
    front.dial(id, silent.address);
    front.turns(2);
    let visitor = front.desk.take(id).unwrap();
    assert!(visitor.said.ends_with(b"early") && visitor.answered);
    assert!(front.desk.take(id).is_none());
    front.advance(front_world::TIMEOUT * 2);
    assert_eq!((front.desk.len(), front.told()), (0, vec![]));
}

#[test]
fn an_order_for_nobody_is_lost_and_a_second_one_is_nothing() {
    let mut front = Front::new();
    front.dial(4711, "127.0.0.1:9".parse().unwrap());
    assert_eq!(front.told(), [Told::Lost(4711, Errno::SHUTDOWN)]);
    let silent = Server::silent();
    let (_client, id) = asked(&mut front, &silent, b"");
    front.dial(id, silent.address);
    front.dial(id, silent.address);
    assert_eq!(front.told(), []);
}

#[test]
fn nobody_comes_in_without_room_and_a_full_house_does_not_spin() {
    let mut front = Front::new();
    front.room.set(1);
    let _first = front.client(b"\x05");
    let second = front.client(b"GET");
    front.turns(2);
    assert_eq!(front.desk.len(), 1);
    assert!(matches!(&front.letters[..], [Letter::Short { errno: None }]));
    assert_eq!(front.edges(), 0, "the listener is quiet");
    front.letters.clear();
    front.room.set(1); // Python knows of nobody
    front.desk.resume();
    front.turns(2);
    assert!(matches!(&front.letters[..], [Letter::Short { errno: None }]), "and full again");
    front.letters.clear();
    front.room.set(2);
    front.desk.resume();
    front.turns(2);
    assert_eq!(front.visitor().0.address, Some(second.address));
}

#[test]
fn who_was_told_of_counts_here_until_python_has_counted() {
    let mut front = Front::new();
    front.room.set(2);
    let _clients = [front.client(b"GET"), front.client(b"GET"), front.client(b"GET")];
    front.turns(2);
    assert_eq!(front.visitors().len(), 2);
    assert_eq!(front.room.unknown(), 2);
    front.desk.resume();
    front.turns(2);
    assert_eq!(front.visitors().len(), 0, "Python has not said that it counts them");
    front.room.set(1);
    front.desk.resume();
    front.turns(2);
    assert_eq!(front.visitors().len(), 1);
}

#[test]
fn without_a_descriptor_clients_wait_and_dials_fail() {
    let mut front = Front::new();
    let server = Server::listening();
    let (_asking, id) = asked(&mut front, &server, b"");
    let waiting = front.client(b"GET");
    front_world::without_descriptors(|| {
        front.turns(2);
        front.dial(id, server.address);
    });
    let letters = std::mem::take(&mut front.letters);
    assert!(matches!(
        &letters[..],
        [Letter::Short { errno: Some(Errno::MFILE) }, Letter::Failed { errno: Some(Errno::MFILE), .. }]
    ));
    assert_eq!(front.edges(), 0);
    front.desk.resume();
    front.turns(2);
    assert_eq!(front.visitor().0.address, Some(waiting.address));
}

#[test]
fn a_listener_is_left_at_once() {
    let mut front = Front::new();
    let _waiting = front.client(b"GET");
    front.desk.unlisten(front.door);
    front.turns(2);
    assert_eq!(front.told(), []);
    assert!(std::net::TcpStream::connect(front.address).is_err(), "the last descriptor is closed");
}

#[test]
fn a_broken_listener_is_not_waited_for() {
    let mut front = Front::new();
    let (listener, _) = front.shared_listener();
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    front.turns(2);
    assert!(matches!(&front.letters[..], [Letter::Short { errno: Some(Errno::INVAL) }]));
    assert_eq!(front.edges(), 0);
}

#[test]
fn a_listener_that_breaks_while_it_pauses_does_not_spin() {
    let mut front = Front::new();
    let (listener, address) = front.shared_listener();
    front.room.set(0);
    let _waiting = std::net::TcpStream::connect(address).unwrap();
    front.turns(2);
    assert_eq!(front.told(), [Told::Short]);
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    front.turns(2);
    assert!(matches!(&front.letters[..], [Letter::Short { errno: Some(Errno::INVAL) }]));
    assert_eq!(front.edges(), 0);
}

#[test]
fn nobody_is_watched_any_more_who_was_given_away() {
    let mut front = Front::new();
    let mut slow = front.client(b"\x05");
    front.turns(2); // it is watched
    slow.say(b"\x00");
    let server = Server::listening();
    let (mut client, id) = asked(&mut front, &server, b"");
    let _slow_one = front.visitor();
    front.dial(id, server.address);
    front.turns(2);
    let mut outer = server.accept();
    slow.say(b"more");
    client.say(b"more");
    outer.say(b"more");
    assert_eq!((front.edges(), outer.wait(4)), (0, b"more".to_vec()));
}

#[test]
fn the_end_of_the_front_resets_everybody_and_loses_who_is_dialled() {
    let mut front = Front::new();
    let silent = Server::silent();
    let speaking = front.client(b"\x05");
    let (asking, _) = asked(&mut front, &silent, b"");
    let (dialled, id) = asked(&mut front, &silent, b"");
    front.dial(id, silent.address);
    front.turns(2);
    front.desk.close();
    assert_eq!(front.told(), [Told::Lost(id, Errno::SHUTDOWN)]);
    for client in [speaking, asking, dialled] {
        assert!(client.sees_reset());
    }
    assert!(front.desk.is_closed());
}

#[test]
fn deadlines_of_those_who_are_over_do_not_pile_up() {
    let mut front = Front::new();
    let _slow = front.client(b"\x05");
    front.turns(2);
    for _ in 0..1500 {
        let mut client = front.client(b"");
        front.turn();
        client.finish();
        front.turn();
        front.visitor();
        front.room.set(1000);
    }
    assert!(front.desk.deadlines() <= 1024, "{}", front.desk.deadlines());
}
