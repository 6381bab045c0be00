//! The endpoints of a session, by key for the event loop and by id for commands, in order of their
//! creation.

use rtpbridge_shared::id::EndpointId;

use super::input::EndpointKey;
use crate::endpoint::Endpoint;

/// Endpoints that a session can hold whatever its configured limit.
const CAPACITY: usize = 1 << 16;

/// A slab whose keys carry a generation, so that a stale one finds nothing.
#[derive(Default)]
pub(crate) struct Endpoints {
    slots: Vec<Slot>,
    order: Vec<EndpointKey>,
}

#[derive(Default)]
struct Slot {
    generation: u16,
    endpoint: Option<Box<Endpoint>>,
}

impl Endpoints {
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.order.len() < CAPACITY
    }

    /// Keys in order of creation.
    pub(crate) fn keys(&self) -> &[EndpointKey] {
        &self.order
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (EndpointKey, &Endpoint)> {
        let pair = |key: &EndpointKey| Some((*key, self.get(*key)?));
        self.order.iter().filter_map(pair)
    }

    pub(crate) fn get(&self, key: EndpointKey) -> Option<&Endpoint> {
        let (index, generation) = parts(key);
        let slot = self.slots.get(index)?;
        let endpoint = slot.endpoint.as_deref();
        endpoint.filter(|_| slot.generation == generation)
    }

    pub(crate) fn get_mut(&mut self, key: EndpointKey) -> Option<&mut Endpoint> {
        let (index, generation) = parts(key);
        let slot = self.slots.get_mut(index)?;
        let is_current = slot.generation == generation;
        slot.endpoint.as_deref_mut().filter(|_| is_current)
    }

    /// See [`Session::visit_lists`](super::Session::visit_lists).
    pub(crate) fn visit_list(&self, visit: &impl Fn(*const u8, usize)) {
        visit(self.slots.as_ptr().cast(), size_of_val(&self.slots[..]));
    }

    pub(crate) fn find(&self, id: EndpointId) -> Option<EndpointKey> {
        self.iter()
            .find(|(_, endpoint)| endpoint.id() == id)
            .map(|(key, _)| key)
    }

    /// Takes an endpoint in; there must be room.
    pub(crate) fn insert(&mut self, endpoint: Box<Endpoint>) -> EndpointKey {
        let free = self.slots.iter().position(|slot| slot.endpoint.is_none());
        let index = free.unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.endpoint = Some(endpoint);
        let key = EndpointKey((index as u32) << 16 | u32::from(slot.generation));
        self.order.push(key);
        key
    }

    pub(crate) fn remove(&mut self, key: EndpointKey) -> Option<Box<Endpoint>> {
        let (index, generation) = parts(key);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation {
            return None;
        }
        let endpoint = slot.endpoint.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.order.retain(|kept| *kept != key);
        Some(endpoint)
    }
}

fn parts(key: EndpointKey) -> (usize, u16) {
    ((key.0 >> 16) as usize, key.0 as u16)
}
