//! Random schedules against a model: whatever clients, servers, Python and the clock do, each client that was accepted
//! comes to exactly one end, the end is one that fits, and nothing stays open.
//!
//! ```text
//! accepted ─▶ visitor                                (Python's, with a beginning of what it said)
//!          └▶ asked ─▶ taken                         (Python's, with all it said up to the request)
//!                   └▶ dialled ─▶ failed | taken | lost
//!                               └▶ stood ─▶ lost | completed
//! ```

mod front_world;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use doorward_native::front::post::Letter;
use front_world::{Client, Front, Server, request};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Come(Script),
    /// The client of this place says so many bytes more.
    Say(usize, usize),
    Finish(usize),
    Reset(usize),
    /// Python answers the request that has waited longest.
    Dial(Where),
    Take,
    /// Python wants back whom it had dialled.
    Kill(usize),
    Count(usize),
    Turns(usize),
    Later(u64),
}

#[derive(Clone, Copy, Debug)]
enum Script {
    Socks,
    Http,
    Password,
}

#[derive(Clone, Copy, Debug)]
enum Where {
    Listening,
    Refusing,
    Silent,
}

/// What is known of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Unknown,
    Asked(u64),
    Dialled(u64),
    Stood(u64),
    Over,
}

struct Guest {
    client: Option<Client>,
    says: Vec<u8>,
    said: usize,
    fate: Fate,
}

struct Model {
    front: Front,
    guests: Vec<Guest>,
    places: HashMap<SocketAddr, usize>,
    waiting: Vec<usize>,
    servers: [Server; 3],
}

fn steps() -> impl Strategy<Value = Step> {
    let script = prop_oneof![4 => Just(Script::Socks), 1 => Just(Script::Http), 1 => Just(Script::Password)];
    let place =
        prop_oneof![3 => Just(Where::Listening), 1 => Just(Where::Refusing), 2 => Just(Where::Silent)];
    prop_oneof![
        3 => script.prop_map(Step::Come),
        8 => (0..6_usize, 1..20_usize).prop_map(|(who, count)| Step::Say(who, count)),
        1 => (0..6_usize).prop_map(Step::Finish),
        1 => (0..6_usize).prop_map(Step::Reset),
        4 => place.prop_map(Step::Dial),
        1 => Just(Step::Take),
        1 => (0..6_usize).prop_map(Step::Kill),
        1 => (0..5_usize).prop_map(Step::Count),
        6 => (1..3_usize).prop_map(Step::Turns),
        1 => (1..12_000_u64).prop_map(Step::Later),
    ]
}

impl Model {
    fn new() -> Self {
        let servers = [Server::listening(), Server::refusing(), Server::silent()];
        let front = Front::new();
        Self { front, guests: Vec::new(), places: HashMap::new(), waiting: Vec::new(), servers }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Come(script) => self.come(script),
            Step::Say(who, count) => self.say(who, count),
            Step::Finish(who) => {
                if let Some(client) = self.guests.get_mut(who).and_then(|guest| guest.client.as_mut()) {
                    client.finish();
                }
            }
            Step::Reset(who) => {
                if let Some(client) = self.guests.get_mut(who).and_then(|guest| guest.client.take()) {
                    client.reset();
                }
            }
            Step::Dial(place) => self.dial(place),
            Step::Take => {
                if let Some(guest) = self.pop() {
                    let Fate::Asked(id) = guest.fate else { panic!("{:?}", guest.fate) };
                    guest.fate = Fate::Over;
                    let asked = guest.says.len() - b"early".len();
                    let visitor = self.front.desk.take(id).unwrap();
                    assert!(visitor.answered && visitor.said.len() >= asked);
                }
            }
            Step::Kill(who) => self.kill(who),
            Step::Count(free) => {
                self.front.room.set(free);
                self.front.desk.resume();
            }
            Step::Turns(count) => self.front.turns(count),
            Step::Later(ms) => self.front.advance(Duration::from_millis(ms)),
        }
        self.read_letters();
    }

    fn come(&mut self, script: Script) {
        let says = match script {
            Script::Socks => [&[5, 1, 0][..], &request(self.servers[0].address), b"early"].concat(),
            Script::Http => b"GET http://a/ HTTP/1.1\r\n\r\n".to_vec(),
            Script::Password => [&[5, 2, 0, 2][..], b"\x01\x03kim\x01x"].concat(),
        };
        let client = self.front.client(b"");
        self.places.insert(client.address, self.guests.len());
        self.guests.push(Guest { client: Some(client), says, said: 0, fate: Fate::Unknown });
    }

    fn say(&mut self, who: usize, count: usize) {
        let Some(guest) = self.guests.get_mut(who) else { return };
        let end = guest.says.len().min(guest.said + count);
        if let Some(client) = &mut guest.client {
            client.say(&guest.says[guest.said..end]);
            guest.said = end;
        }
    }

    fn pop(&mut self) -> Option<&mut Guest> {
        let place = (!self.waiting.is_empty()).then(|| self.waiting.remove(0))?;
        self.guests.get_mut(place)
    }

    fn dial(&mut self, place: Where) {
        let to = self.servers[place as usize].address;
        if let Some(guest) = self.pop() {
            let Fate::Asked(id) = guest.fate else { panic!("{:?}", guest.fate) };
            guest.fate = Fate::Dialled(id);
            self.front.dial(id, to);
        }
    }

    fn kill(&mut self, who: usize) {
        let Some(guest) = self.guests.get_mut(who) else { return };
        if let Fate::Dialled(id) = guest.fate {
            if self.front.desk.take(id).is_some() {
                guest.fate = Fate::Over;
            }
        }
    }

    /// Each is possible only once, and only after what comes before it.
    fn read_letters(&mut self) {
        for letter in std::mem::take(&mut self.front.letters) {
            match letter {
                Letter::Visitor(visitor, _) => {
                    let guest = &mut self.guests[self.places[&visitor.address.unwrap()]];
                    assert_eq!(guest.fate, Fate::Unknown);
                    guest.fate = Fate::Over;
                    assert!(guest.says.starts_with(&visitor.said));
                    let is_greeting = visitor.said.starts_with(&[5, 1, 0]);
                    assert!(is_greeting || !visitor.answered);
                    // Who has reset by then cannot be answered.
                    assert!(visitor.answered || !is_greeting || guest.client.is_none());
                }
                Letter::Asked { id, address, request: asked } => {
                    let place = self.places[&address];
                    assert_eq!(self.guests[place].fate, Fate::Unknown);
                    assert_eq!(asked, request(self.servers[0].address));
                    self.guests[place].fate = Fate::Asked(id);
                    self.waiting.push(place);
                }
                Letter::Stood { id, .. } => self.turn(Fate::Dialled(id), Fate::Stood(id)),
                Letter::Failed { id, .. } => self.turn(Fate::Dialled(id), Fate::Over),
                Letter::Lost { id, .. } => {
                    let was =
                        if self.fates().contains(&Fate::Stood(id)) { Fate::Stood } else { Fate::Dialled };
                    self.turn(was(id), Fate::Over);
                }
                Letter::Short { errno } => assert_eq!(errno, None),
            }
        }
        for done in std::mem::take(&mut self.front.completions) {
            self.turn(Fate::Stood(done.id), Fate::Over);
        }
    }

    fn fates(&self) -> Vec<Fate> {
        self.guests.iter().map(|guest| guest.fate).collect()
    }

    fn turn(&mut self, from: Fate, to: Fate) {
        let found: Vec<_> = self.guests.iter_mut().filter(|guest| guest.fate == from).collect();
        assert_eq!(found.len(), 1, "{from:?} to {to:?}");
        found.into_iter().for_each(|guest| guest.fate = to);
    }

    /// Who asked and was not answered, and who is still speaking, has no other end than a reset.
    fn end(mut self) {
        self.front.turns(2);
        self.read_letters();
        self.front.close();
        self.read_letters();
        for guest in &mut self.guests {
            let is_here = matches!(guest.fate, Fate::Unknown | Fate::Asked(_));
            assert!(is_here || guest.fate == Fate::Over, "{:?}", guest.fate);
            if let Some(client) = guest.client.take() {
                client.ends();
            }
        }
        assert_eq!(self.front.desk.len(), 0);
        drop(self.guests);
        self.front.end();
    }
}

#[test]
fn any_schedule_brings_each_client_to_one_end() {
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in vec(steps(), 0..80))| {
        let mut model = Model::new();
        for step in steps {
            model.act(step);
        }
        model.end();
    });
}
