//! Who hears whom, and how: a pure function of what the endpoints are. Made anew when an endpoint
//! comes, goes or changes, never per packet.

use std::ops::Range;

use rtpbridge_shared::vocab::Codec;

use super::input::EndpointKey;

/// What routing needs to know of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointView {
    /// Which endpoint.
    pub key: EndpointKey,
    /// Bridges do not feed bridges.
    pub is_bridge: bool,
    /// Its party's audio is to be routed: connected or playing, and the direction allows it.
    pub sends: bool,
    /// Its party is to be sent audio.
    pub receives: bool,
    /// What it is sending.
    pub incoming: Option<Codec>,
    /// What it is to be sent.
    pub outgoing: Option<Codec>,
    /// The longest packet that it sent to somebody who does not take such, ms.
    pub longest_ms: u16,
    /// The longest packet that it takes, ms.
    pub maxptime_ms: Option<u16>,
}

/// Where a destination's audio comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Feed {
    /// From nowhere.
    Nothing,
    /// One source with the destination's codec: payloads pass untouched.
    Forward {
        /// Whose.
        source: EndpointKey,
    },
    /// One source with another codec.
    Transcode {
        /// Whose.
        source: EndpointKey,
        /// The source's codec.
        from: Codec,
        /// The destination's.
        to: Codec,
    },
    /// Several sources.
    Mix {
        /// Whose, in key order.
        sources: Vec<EndpointKey>,
    },
}

/// What becomes of a source's audio on its way to one destination. Telephone-events pass beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handling {
    /// Nothing: one of the two has no codec.
    EventsOnly,
    /// See [`Feed::Forward`].
    Forward,
    /// See [`Feed::Transcode`].
    Transcode,
    /// See [`Feed::Mix`].
    Mix,
}

/// One way from a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where to.
    pub destination: EndpointKey,
    /// How.
    pub handling: Handling,
}

/// All routes of a session.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RoutePlan {
    routes: Vec<Route>,
    sources: Vec<(EndpointKey, Range<usize>)>,
    feeds: Vec<(EndpointKey, Feed)>,
}

impl Feed {
    /// Whether a destination fed like this hears no break when it is fed like `next`.
    pub fn goes_on_as(&self, next: &Feed) -> bool {
        match (self, next) {
            (Feed::Mix { .. }, Feed::Mix { .. }) => true,
            _ => self == next,
        }
    }
}

impl RoutePlan {
    /// Decides for all endpoints.
    pub fn build(views: &[EndpointView]) -> Self {
        let feeds: Vec<_> = views
            .iter()
            .map(|destination| (destination.key, feed(destination, views)))
            .collect();
        let mut routes = Vec::new();
        let mut sources = Vec::new();
        for source in views {
            let start = routes.len();
            for (destination, (_, feed)) in views.iter().zip(&feeds) {
                if hears(destination, source) {
                    routes.push(Route {
                        destination: destination.key,
                        handling: handling(feed),
                    });
                }
            }
            sources.push((source.key, start..routes.len()));
        }
        Self {
            routes,
            sources,
            feeds,
        }
    }

    /// Where a source's packets go.
    pub fn routes_from(&self, source: EndpointKey) -> &[Route] {
        self.sources
            .iter()
            .find(|(key, _)| *key == source)
            .and_then(|(_, range)| self.routes.get(range.clone()))
            .unwrap_or_default()
    }

    /// What [`routes_from`](Self::routes_from) reads, as address and length.
    pub(super) fn visit_lists(&self, visit: &impl Fn(*const u8, usize)) {
        visit(self.sources.as_ptr().cast(), size_of_val(&self.sources[..]));
        visit(self.routes.as_ptr().cast(), size_of_val(&self.routes[..]));
    }

    /// Where a destination's audio comes from.
    pub fn feed(&self, destination: EndpointKey) -> &Feed {
        self.feeds
            .iter()
            .find(|(key, _)| *key == destination)
            .map_or(&Feed::Nothing, |(_, feed)| feed)
    }

    /// All destinations and what feeds them.
    pub fn feeds(&self) -> impl Iterator<Item = (EndpointKey, &Feed)> {
        self.feeds.iter().map(|(key, feed)| (*key, feed))
    }
}

fn hears(destination: &EndpointView, source: &EndpointView) -> bool {
    destination.key != source.key
        && destination.receives
        && source.sends
        && !(destination.is_bridge && source.is_bridge)
}

fn feed(destination: &EndpointView, views: &[EndpointView]) -> Feed {
    let mut sources = views.iter().filter(|source| hears(destination, source));
    let (Some(first), second) = (sources.next(), sources.next()) else {
        return Feed::Nothing;
    };
    let Some(to) = destination.outgoing else {
        return Feed::Nothing;
    };
    if let Some(second) = second {
        let mut keys = vec![first.key, second.key];
        keys.extend(sources.map(|source| source.key));
        keys.sort_unstable();
        return Feed::Mix { sources: keys };
    }
    let source = first.key;
    match first.incoming {
        None => Feed::Nothing,
        // L16 is never on the wire: it stands for PCM that passes through a pipeline.
        Some(from) if from == to && to != Codec::L16 && takes_packets(destination, first) => {
            Feed::Forward { source }
        }
        Some(from) => Feed::Transcode { source, from, to },
    }
}

fn takes_packets(destination: &EndpointView, source: &EndpointView) -> bool {
    let longest = destination.maxptime_ms;
    longest.is_none_or(|longest| source.longest_ms <= longest)
}

fn handling(feed: &Feed) -> Handling {
    match feed {
        Feed::Nothing => Handling::EventsOnly,
        Feed::Forward { .. } => Handling::Forward,
        Feed::Transcode { .. } => Handling::Transcode,
        Feed::Mix { .. } => Handling::Mix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(key: u32, codec: Codec) -> EndpointView {
        EndpointView {
            key: EndpointKey(key),
            is_bridge: false,
            sends: true,
            receives: true,
            incoming: Some(codec),
            outgoing: Some(codec),
            longest_ms: 0,
            maxptime_ms: None,
        }
    }

    fn forward(source: u32) -> Feed {
        Feed::Forward {
            source: EndpointKey(source),
        }
    }

    #[test]
    fn two_of_one_codec_hear_each_other_untouched() {
        let plan = RoutePlan::build(&[view(1, Codec::Pcmu), view(2, Codec::Pcmu)]);
        assert_eq!(plan.feed(EndpointKey(1)), &forward(2));
        assert_eq!(plan.feed(EndpointKey(2)), &forward(1));
        let route = Route {
            destination: EndpointKey(2),
            handling: Handling::Forward,
        };
        assert_eq!(plan.routes_from(EndpointKey(1)), [route]);
        assert_eq!(plan.routes_from(EndpointKey(9)), []);
    }

    #[test]
    fn packets_that_are_too_long_are_made_anew() {
        let mut source = view(1, Codec::Pcmu);
        source.longest_ms = 60;
        let mut destination = view(2, Codec::Pcmu);
        destination.maxptime_ms = Some(60);
        let plan = RoutePlan::build(&[source, destination]);
        assert_eq!(plan.feed(EndpointKey(2)), &forward(1));
        destination.maxptime_ms = Some(20);
        let plan = RoutePlan::build(&[source, destination]);
        let made_anew = Feed::Transcode {
            source: EndpointKey(1),
            from: Codec::Pcmu,
            to: Codec::Pcmu,
        };
        assert_eq!(plan.feed(EndpointKey(2)), &made_anew);
    }

    #[test]
    fn two_codecs_are_transcoded_and_three_parties_mixed() {
        let pair = [view(1, Codec::Pcmu), view(2, Codec::Opus)];
        let transcode = Feed::Transcode {
            source: EndpointKey(2),
            from: Codec::Opus,
            to: Codec::Pcmu,
        };
        assert_eq!(RoutePlan::build(&pair).feed(EndpointKey(1)), &transcode);
        let three = [pair[0], pair[1], view(3, Codec::Pcmu)];
        let mix = Feed::Mix {
            sources: vec![EndpointKey(1), EndpointKey(3)],
        };
        assert_eq!(RoutePlan::build(&three).feed(EndpointKey(2)), &mix);
    }

    #[test]
    fn one_way_parties_only_hear_or_are_only_heard() {
        let mut speaker = view(1, Codec::Pcmu);
        speaker.receives = false;
        let mut listeners = [view(2, Codec::Pcmu), view(3, Codec::Pcmu)];
        for listener in &mut listeners {
            listener.sends = false;
        }
        let plan = RoutePlan::build(&[speaker, listeners[0], listeners[1]]);
        assert_eq!(plan.feed(EndpointKey(1)), &Feed::Nothing);
        assert_eq!(plan.feed(EndpointKey(2)), &forward(1));
        assert_eq!(plan.feed(EndpointKey(3)), &forward(1));
        assert_eq!(plan.routes_from(EndpointKey(1)).len(), 2);
        assert_eq!(plan.routes_from(EndpointKey(2)), []);
    }

    #[test]
    fn bridges_do_not_feed_bridges() {
        let mut bridges = [view(1, Codec::L16), view(2, Codec::L16)];
        for bridge in &mut bridges {
            bridge.is_bridge = true;
        }
        let plan = RoutePlan::build(&[bridges[0], bridges[1], view(3, Codec::Pcmu)]);
        let decoded = Feed::Transcode {
            source: EndpointKey(3),
            from: Codec::Pcmu,
            to: Codec::L16,
        };
        assert_eq!(plan.feed(EndpointKey(1)), &decoded);
        assert_eq!(plan.feed(EndpointKey(2)), &decoded);
        assert_eq!(plan.routes_from(EndpointKey(1)).len(), 1);
    }

    #[test]
    fn without_a_codec_only_events_pass() {
        let mut deaf = view(1, Codec::Pcmu);
        deaf.outgoing = None;
        let plan = RoutePlan::build(&[deaf, view(2, Codec::Pcmu)]);
        let route = Route {
            destination: EndpointKey(1),
            handling: Handling::EventsOnly,
        };
        assert_eq!(plan.routes_from(EndpointKey(2)), [route]);
    }
}
