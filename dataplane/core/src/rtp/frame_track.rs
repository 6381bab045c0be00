//! Frames of our own encoding on their way into an [`OutgoingStream`] (media.md, Routing).
//!
//! A frame says when its first sample belongs on its maker's time line. What comes from a maker that
//! the stream did not hear last is placed at last timestamp + elapsed time and gets the marker; from
//! then on that maker's time line is followed. Sequence numbers are the next ones.

use super::rewrite::{OutgoingStream, Placed};
use crate::time::Instant;
use crate::transcode::EncodedFrame;

/// Who makes frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameMaker {
    /// Pipelines of one source, by its name. Their time line begins anew where a frame says so.
    Source(u32),
    /// Mixers, whose time line is the 20 ms grid and never begins anew.
    Mix,
}

/// How the time line of the maker heard last lies in a stream.
#[derive(Clone, Copy, Default, Debug)]
pub struct FrameTrack {
    heard: Option<(FrameMaker, u32)>,
}

impl FrameTrack {
    /// Something else is sent meanwhile: the next frame is placed anew.
    pub fn interrupt(&mut self) {
        self.heard = None;
    }

    /// Places a frame behind what the stream sent last.
    pub fn place(
        &mut self,
        stream: &mut OutgoingStream,
        maker: FrameMaker,
        frame: &EncodedFrame<'_>,
        now: Instant,
    ) -> Placed {
        let begins_anew = frame.restart && maker != FrameMaker::Mix;
        let kept = self
            .heard
            .filter(|(heard, _)| *heard == maker && !begins_anew);
        let (timestamp, marker) = match kept {
            Some((_, offset)) => (frame.timestamp.wrapping_add(offset), frame.marker),
            None => {
                // What was forwarded before is another source when it comes back.
                stream.forget_source();
                (stream.timestamp_at(now), true)
            }
        };
        let placed = stream.append(timestamp, marker, false, now);
        // The stream may have had to repair the timestamp.
        let offset = placed.timestamp.wrapping_sub(frame.timestamp);
        self.heard = Some((maker, offset));
        placed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rtp::rewrite::{SourceEpoch, SourcePosition};
    use crate::session::testing::Seeded;

    fn frame(timestamp: u32, restart: bool) -> EncodedFrame<'static> {
        EncodedFrame {
            payload: &[0],
            timestamp,
            marker: false,
            restart,
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(1000 + ms)
    }

    #[test]
    fn a_maker_is_followed_by_its_own_time_and_a_new_one_placed_by_the_clock() {
        let mut stream = OutgoingStream::new(&mut Seeded(1), 8000);
        let mut track = FrameTrack::default();
        let source = FrameMaker::Source(1);
        let first = track.place(&mut stream, source, &frame(70, true), at(0));
        let second = track.place(&mut stream, source, &frame(230, false), at(33));
        assert!(first.marker && !second.marker);
        assert_eq!(second.timestamp.wrapping_sub(first.timestamp), 160);
        assert_eq!(second.sequence.wrapping_sub(first.sequence), 1);
        let mixed = track.place(&mut stream, FrameMaker::Mix, &frame(9, true), at(53));
        assert!(mixed.marker);
        assert_eq!(mixed.timestamp.wrapping_sub(second.timestamp), 160);
        let next = track.place(&mut stream, FrameMaker::Mix, &frame(169, true), at(90));
        assert!(!next.marker);
        assert_eq!(next.timestamp.wrapping_sub(mixed.timestamp), 160);
    }

    #[test]
    fn what_was_forwarded_before_comes_back_as_another_source() {
        let mut stream = OutgoingStream::new(&mut Seeded(1), 8000);
        let position = |n: u32| SourcePosition {
            from: SourceEpoch {
                source: 1,
                epoch: 0,
            },
            sequence: u64::from(n),
            timestamp: n * 160,
            marker: false,
            is_event: false,
        };
        let before = stream.forward(position(10), at(0)).expect("the first");
        let mut track = FrameTrack::default();
        let own = track.place(&mut stream, FrameMaker::Mix, &frame(0, true), at(20));
        assert_eq!(own.timestamp.wrapping_sub(before.timestamp), 160);
        track.interrupt();
        let after = stream.forward(position(12), at(40)).expect("newer");
        assert!(after.marker);
        assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 320);
        assert_eq!(after.sequence.wrapping_sub(before.sequence), 2);
        let own = track.place(&mut stream, FrameMaker::Mix, &frame(320, false), at(60));
        assert!(own.marker);
        assert_eq!(own.timestamp.wrapping_sub(before.timestamp), 480);
    }
}
