//! Values under keys that are never reused: index in the lower half, generation in the upper, so
//! that a stale key (old epoll data, a timer of an ended session) finds nothing.

/// A vector with holes.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    live: usize,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// Nothing.
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Number of places; indices are below it.
    pub(crate) fn places(&self) -> usize {
        self.slots.len()
    }

    /// Stores what `make` makes of its key.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(u64) -> T) -> u64 {
        self.live += 1;
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            let key = key_of(index, slot.generation);
            slot.value = Some(make(key));
            return key;
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let key = key_of(index, 0);
        self.slots.push(Slot {
            generation: 0,
            value: Some(make(key)),
        });
        key
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let slot = self.slots.get(index_of(key))?;
        (slot.generation == generation_of(key))
            .then_some(slot.value.as_ref())
            .flatten()
    }

    /// The value under `key`.
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let slot = self.slots.get_mut(index_of(key))?;
        (slot.generation == generation_of(key))
            .then_some(slot.value.as_mut())
            .flatten()
    }

    /// Where the value under `key` is or would be, and its length; reads nothing.
    pub(crate) fn place_of(&self, key: u64) -> (*const u8, usize) {
        let place = self.slots.as_ptr().wrapping_add(index_of(key));
        (place.cast(), size_of::<Slot<T>>())
    }

    /// Takes the value out; its key is dead.
    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let slot = self.slots.get_mut(index_of(key))?;
        if slot.generation != generation_of(key) {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.live -= 1;
        self.free.push(key as u32);
        Some(value)
    }

    /// Key and value at a place, whatever its generation.
    pub(crate) fn at(&self, index: usize) -> Option<(u64, &T)> {
        let slot = self.slots.get(index)?;
        let key = key_of(u32::try_from(index).ok()?, slot.generation);
        slot.value.as_ref().map(|value| (key, value))
    }

    /// All keys and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (0..self.slots.len()).filter_map(|index| self.at(index))
    }
}

fn key_of(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn index_of(key: u64) -> usize {
    key as u32 as usize
}

fn generation_of(key: u64) -> u32 {
    (key >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new();
        let a = slab.insert_with(|key| (key, 'a'));
        let b = slab.insert_with(|key| (key, 'b'));
        assert_eq!(slab.get(a), Some(&(a, 'a')));
        assert_eq!(slab.remove(a), Some((a, 'a')));
        assert_eq!(slab.remove(a), None);
        let c = slab.insert_with(|key| (key, 'c'));
        assert_ne!(a, c);
        assert_eq!(slab.places(), 2, "the place is used again");
        assert!(slab.get(a).is_none() && slab.get_mut(a).is_none());
        let all: Vec<u64> = slab.iter().map(|(key, _)| key).collect();
        assert_eq!(all, [c, b]);
        assert_eq!(slab.len(), 2);
    }
}
