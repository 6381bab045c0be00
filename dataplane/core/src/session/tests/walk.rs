//! A random walk over several sessions: parties, transfers that go well or not, bridges, ends of
//! sessions and deaths of control, checked against a model after every step.

use std::collections::BTreeMap;

use rtpbridge_shared::ipc::RequestError;

use super::*;

const STEPS: usize = 3000;
const WORLDS: u64 = 5;
const MAX_ENDPOINTS: u32 = 6;

struct Walk {
    worlds: Vec<World>,
    random: Seeded,
    live: BTreeMap<EndpointId, Live>,
    made: u16,
    /// Events that there must have been, of sessions that are still there.
    moved_out: [usize; WORLDS as usize],
    moved_in: [usize; WORLDS as usize],
}

#[derive(Clone)]
struct Live {
    world: usize,
    party: Option<Party>,
    far: Option<EndpointId>,
}

fn world() -> World {
    World::with(EngineConfig {
        max_endpoints_per_session: MAX_ENDPOINTS,
        ..EngineConfig::default()
    })
}

impl Walk {
    fn new(seed: u64) -> Self {
        Self {
            worlds: (0..WORLDS).map(|_| world()).collect(),
            random: Seeded(seed),
            live: BTreeMap::new(),
            made: 0,
            moved_out: [0; WORLDS as usize],
            moved_in: [0; WORLDS as usize],
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn any_world(&mut self) -> usize {
        self.below(WORLDS as usize)
    }

    fn any_endpoint(&mut self) -> Option<(EndpointId, Live)> {
        let at = self.below(self.live.len().max(1));
        let found = self.live.iter().nth(at);
        found.map(|(id, live)| (*id, live.clone()))
    }

    fn is_full(&self, world: usize) -> bool {
        let of = self.live.values().filter(|live| live.world == world);
        of.count() == MAX_ENDPOINTS as usize
    }

    fn new_id(&mut self) -> EndpointId {
        self.made += 1;
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&self.made.to_be_bytes());
        EndpointId::from_bytes(bytes)
    }

    fn join(&mut self) {
        let at = self.any_world();
        let id = self.new_id();
        let address = SocketAddr::from(([10, 0, 0, 1], 4000 + self.made));
        let world = &mut self.worlds[at];
        let prepared = world.session.prepare_from_offer(&CreateFromOffer {
            session: world.session.id(),
            endpoint: id,
            sdp: offer(address, PCMU, "sendrecv"),
            direction: Direction::Sendrecv,
            transport: None,
        });
        if let Err(refused) = prepared {
            let limit = MAX_ENDPOINTS;
            assert_eq!(refused, RequestError::TooManyEndpoints { limit });
            assert!(self.is_full(at));
            return;
        }
        let sockets = sockets(self.made);
        let (prepared, out) = (prepared.expect("checked"), &mut world.out);
        let created = world
            .session
            .create_endpoint(world.now, prepared, sockets, out);
        let party = Party {
            id,
            key: created.expect("room").key,
            address,
            socket: sockets.media.key,
            ssrc: self.made.into(),
            sequence: 1,
            timestamp: 1,
        };
        let live = Live {
            world: at,
            party: Some(party),
            far: None,
        };
        self.live.insert(id, live);
    }

    fn remove(&mut self) {
        let Some((id, live)) = self.any_endpoint() else {
            return;
        };
        let world = &mut self.worlds[live.world];
        let removed = world
            .session
            .remove_endpoint(world.now, id, &mut world.out)
            .expect("it is there");
        let socket = removed.sockets.map(|sockets| sockets.media.key);
        assert_eq!(socket, live.party.map(|party| party.socket));
        assert_eq!(removed.far_end, live.far);
        self.live.remove(&id);
        self.lose(live.far);
    }

    /// The counterpart goes too, told or by itself.
    fn lose(&mut self, far: Option<EndpointId>) {
        let Some((far, live)) = far.and_then(|far| Some((far, self.live.remove(&far)?))) else {
            return;
        };
        if self.below(2) == 0 {
            let world = &mut self.worlds[live.world];
            let removed = world
                .session
                .remove_endpoint(world.now, far, &mut world.out);
            // It may have noticed at a tick already.
            let removed = removed.map(|removed| removed.sockets);
            assert!(matches!(
                removed,
                Ok(None) | Err(RequestError::EndpointNotFound)
            ));
        } else {
            // Several may go in as many ticks.
            self.pass(160);
        }
    }

    fn transfer(&mut self) {
        let Some((id, live)) = self.any_endpoint() else {
            return;
        };
        let to = self.any_world();
        if to == live.world {
            return;
        }
        let (from_id, to_id) = (
            SessionId::from_bytes([8; 16]),
            SessionId::from_bytes([9; 16]),
        );
        let is_full = self.is_full(to);
        let world = &mut self.worlds[to];
        let reserved = world.session.reserve(world.now, id);
        assert_eq!(reserved.is_err(), is_full);
        if is_full {
            return;
        }
        if self.below(5) == 0 {
            let world = &mut self.worlds[to];
            world.session.unreserve(world.now, id);
            return;
        }
        let world = &mut self.worlds[live.world];
        let moving = world.session.detach(world.now, id).expect("it can move");
        if live.far.is_none() && self.below(5) == 0 {
            self.close(to);
        }
        let world = &mut self.worlds[to];
        let (now, out) = (world.now, &mut world.out);
        // Of a session that was replaced only the place is gone.
        let key = world.session.insert(now, moving, Some(from_id), out);
        let key = key.map_err(|(_, error)| error).expect("room");
        self.moved_in[to] += 1;
        let world = &mut self.worlds[live.world];
        world
            .session
            .transferred_out(world.now, id, to_id, &mut world.out);
        self.moved_out[live.world] += 1;
        if let Some(live) = self.live.get_mut(&id) {
            live.world = to;
            if let Some(party) = &mut live.party {
                party.key = key;
            }
        }
    }

    fn bridge(&mut self) {
        let (here, there) = (self.any_world(), self.any_world());
        if here == there {
            return;
        }
        let (near, far) = (self.new_id(), self.new_id());
        let places = [(here, near), (there, far)];
        for (at, (index, id)) in places.into_iter().enumerate() {
            let is_full = self.is_full(index);
            let world = &mut self.worlds[index];
            let reserved = world.session.reserve(world.now, id);
            assert_eq!(reserved.is_err(), is_full);
            if is_full {
                if at == 1 {
                    let world = &mut self.worlds[here];
                    world.session.unreserve(world.now, near);
                }
                return;
            }
        }
        let (one, other) = bridge(near, far, Direction::Sendrecv);
        for ((index, id), end) in places.into_iter().zip([one, other]) {
            let world = &mut self.worlds[index];
            let joined = world
                .session
                .join_bridge(world.now, id, end, &mut world.out);
            assert_eq!(joined, Ok(()));
            let live = Live {
                world: index,
                party: None,
                far: Some(if id == near { far } else { near }),
            };
            self.live.insert(id, live);
        }
    }

    /// Another session takes its place.
    fn close(&mut self, at: usize) {
        let world_now = self.worlds[at].now;
        let mut fresh = world();
        fresh.pass((world_now.at - fresh.now.at).as_millis() as u64);
        let mut old = std::mem::replace(&mut self.worlds[at], fresh);
        let closed = old.session.close(old.now, &mut old.out);
        drop(old);
        let gone = self.live.iter().filter(|(_, live)| live.world == at);
        let gone: Vec<(EndpointId, Live)> = gone.map(|(id, live)| (*id, live.clone())).collect();
        let sockets = gone.iter().filter(|(_, live)| live.party.is_some()).count();
        assert_eq!(closed.sockets.len(), sockets, "every socket comes back");
        (self.moved_in[at], self.moved_out[at]) = (0, 0);
        for (id, _) in &gone {
            self.live.remove(id);
        }
        for (_, live) in gone {
            self.lose(live.far);
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            for world in &mut self.worlds {
                world.pass(20);
            }
        }
    }

    fn talk(&mut self) {
        for live in self.live.values_mut() {
            if let Some(party) = &mut live.party {
                self.worlds[live.world].talk(party);
            }
        }
        self.pass(20);
    }

    /// Control dies and another comes: calls go on meanwhile, and what it is shown is all there is.
    fn lose_control(&mut self) {
        let told: Vec<usize> = self.worlds.iter().map(|w| w.out.events.len()).collect();
        for world in &mut self.worlds {
            world.session.release();
        }
        self.talk();
        for (at, (world, told)) in self.worlds.iter_mut().zip(told).enumerate() {
            let of = self.live.iter().filter(|(_, live)| live.world == at);
            let expected: Vec<_> = of.map(|(id, _)| *id).collect();
            let snapshot = world.session.snapshot();
            let rows = snapshot.details.endpoints.iter();
            let mut listed: Vec<_> = rows.map(|row| row.endpoint).collect();
            listed.sort();
            assert_eq!(listed, expected);
            assert_eq!(world.out.events.len(), told, "nobody was there to be told");
            let attached = world.session.attach(world.now);
            let last = attached.last_event_number;
            assert_eq!(last, snapshot.last_event_number);
            world.session.acknowledge(last);
            assert_eq!(world.session.attach(world.now).held, []);
        }
    }

    fn check(&self, step: usize) {
        for (at, world) in self.worlds.iter().enumerate() {
            let details = world.session.details();
            let mut listed: Vec<_> = details.endpoints.iter().map(|row| row.endpoint).collect();
            listed.sort();
            let of = self.live.iter().filter(|(_, live)| live.world == at);
            let expected: Vec<_> = of.map(|(id, _)| *id).collect();
            assert_eq!(listed, expected, "step {step}, session {at}");
            let count = world.session.counts().endpoints as usize;
            assert_eq!(count, expected.len(), "step {step}");
            let count = |wanted: fn(&Event) -> bool| world.events().filter(|e| wanted(e)).count();
            let arrived = count(|event| matches!(event, Event::TransferredIn { .. }));
            let departed = count(|event| matches!(event, Event::TransferredOut { .. }));
            let told = (arrived, departed);
            assert_eq!(told, (self.moved_in[at], self.moved_out[at]), "step {step}");
        }
    }
}

#[test]
fn every_endpoint_is_in_one_session_after_thousands_of_steps() {
    for seed in 1..=2 {
        let mut walk = Walk::new(seed);
        for step in 0..STEPS {
            match walk.below(20) {
                0..5 => walk.join(),
                5..7 => walk.remove(),
                7..13 => walk.transfer(),
                13..16 => walk.bridge(),
                16 => {
                    let at = walk.any_world();
                    match walk.below(6) {
                        0 => walk.close(at),
                        1 => walk.lose_control(),
                        _ => {}
                    }
                }
                _ => walk.talk(),
            }
            walk.check(step);
            for world in &mut walk.worlds {
                world.out.sent.clear();
            }
        }
        let moved: usize = walk.moved_in.iter().sum();
        assert!(moved > 20, "{moved} transfers are no walk");
    }
}
