//! What is remembered per SSRC: the index windows of its RTP and of its RTCP. An entry is made for
//! an authenticated packet only, and there are never more than [`MAX_SOURCES`].

use super::replay::Window;

/// SSRCs that one direction remembers.
pub(super) const MAX_SOURCES: usize = 64;

/// The SSRCs of one direction.
#[derive(Default)]
pub(super) struct Sources {
    entries: Vec<Source>,
    /// Where the last packet's SSRC was: nearly always where the next one's is.
    newest: usize,
    /// Counts accepted packets, to tell which SSRC has been silent longest.
    clock: u64,
}

struct Source {
    ssrc: u32,
    used: u64,
    rtp: Option<Window>,
    rtcp: Option<Window>,
}

/// Which of an SSRC's two streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Rtp,
    Rtcp,
}

impl Sources {
    /// The window of this stream, when a packet of it has been accepted before.
    pub(super) fn window(&self, ssrc: u32, stream: Stream) -> Option<&Window> {
        let source = self
            .entries
            .get(self.newest)
            .filter(|source| source.ssrc == ssrc)
            .or_else(|| self.entries.iter().find(|source| source.ssrc == ssrc))?;
        match stream {
            Stream::Rtp => source.rtp.as_ref(),
            Stream::Rtcp => source.rtcp.as_ref(),
        }
    }

    /// Whether another SSRC can be taken in without forgetting one.
    pub(super) fn has_room_for(&self, ssrc: u32) -> bool {
        self.entries.len() < MAX_SOURCES || self.entries.iter().any(|source| source.ssrc == ssrc)
    }

    /// Notes an authenticated packet. When there are too many SSRCs the one silent longest goes.
    pub(super) fn accept(&mut self, ssrc: u32, stream: Stream, index: u64) {
        self.clock += 1;
        self.newest = self.place_of(ssrc);
        let Some(source) = self.entries.get_mut(self.newest) else {
            return;
        };
        source.used = self.clock;
        let window = match stream {
            Stream::Rtp => &mut source.rtp,
            Stream::Rtcp => &mut source.rtcp,
        };
        match window {
            Some(window) => window.accept(index),
            None => *window = Some(Window::starting_with(index)),
        }
    }

    /// How many SSRCs are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn place_of(&mut self, ssrc: u32) -> usize {
        let known = |source: &Source| source.ssrc == ssrc;
        if self.entries.get(self.newest).is_some_and(known) {
            return self.newest;
        }
        if let Some(place) = self.entries.iter().position(known) {
            return place;
        }
        let fresh = Source {
            ssrc,
            used: 0,
            rtp: None,
            rtcp: None,
        };
        if self.entries.len() < MAX_SOURCES {
            self.entries.push(fresh);
            return self.entries.len() - 1;
        }
        let oldest = self
            .entries
            .iter()
            .enumerate()
            .min_by_key(|(_, source)| source.used);
        let place = oldest.map_or(0, |(place, _)| place);
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = fresh;
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silent_source_makes_room() {
        let mut sources = Sources::default();
        for ssrc in 0..MAX_SOURCES as u32 {
            sources.accept(ssrc, Stream::Rtp, 5);
        }
        assert!(!sources.has_room_for(1000));
        assert!(sources.has_room_for(3));
        sources.accept(0, Stream::Rtcp, 1);
        sources.accept(1000, Stream::Rtp, 9);
        assert_eq!(sources.len(), MAX_SOURCES);
        assert!(sources.window(0, Stream::Rtp).is_some());
        assert!(sources.window(1, Stream::Rtp).is_none());
        assert_eq!(
            sources.window(1000, Stream::Rtp).map(Window::highest),
            Some(9)
        );
        assert!(sources.window(1000, Stream::Rtcp).is_none());
    }
}
