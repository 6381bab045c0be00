use std::task::{Context, Poll};

use futures_util::task::noop_waker;
use rtpbridge_shared::id::EndpointId;

use super::*;
use crate::event::queue::{Capacity, Delivery};

const LONG: Duration = Duration::from_secs(30);

fn client() -> Arc<Mailbox> {
    Arc::new(Mailbox::new(Capacity {
        events: 16,
        critical: 16,
    }))
}

fn bodies(client: &Mailbox) -> Vec<Body> {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut seen = Vec::new();
    while let Poll::Ready(delivery) = client.poll_next(&mut cx) {
        if let Delivery::Event(event) = delivery {
            seen.push(event.body);
        }
    }
    seen
}

/// A registry in which `client` holds the session.
fn held_by(client: &Arc<Mailbox>) -> (Registry, SessionId) {
    let registry = Registry::new();
    let session = SessionId::random();
    let created = registry.begin_create(session, 1, Limit::from_setting(0));
    created.expect("no limit");
    assert!(registry.finish_create(session, client));
    (registry, session)
}

#[tokio::test]
async fn a_release_is_told_before_anybody_else_can_claim_the_session() {
    let client = client();
    let (registry, session) = held_by(&client);
    let mut told = false;
    let held = registry.release(session, &client, LONG, || {
        told = true;
        assert!(registry.inner.try_lock().is_err(), "claims have to wait");
    });
    assert!(held && told);
    let again = registry.release(session, &client, LONG, || panic!("not held any more"));
    assert!(!again);
}

#[tokio::test]
async fn a_creation_that_was_carried_out_cannot_be_abandoned() {
    let client = client();
    let (registry, session) = held_by(&client);
    assert!(!registry.abandon_create(session, true));
    assert!(registry.begin_end(session, Body::Unbound));
    assert_eq!(registry.population(), 1);
    registry.finish_end(session);
    assert_eq!(registry.population(), 0);
    assert_eq!(bodies(&client), [Body::Unbound]);

    let pending = SessionId::random();
    let created = registry.begin_create(pending, 1, Limit::from_setting(0));
    created.expect("no limit");
    assert!(registry.abandon_create(pending, true));
    assert_eq!(registry.population(), 0);
    assert!(lock(&registry.inner).condemned.contains(&pending));
    // The late outcome leads to its destruction, and to nothing else.
    assert!(!registry.finish_create(pending, &client));
    registry.finish_end(pending);
    assert!(lock(&registry.inner).condemned.is_empty());
}

#[tokio::test]
async fn an_end_that_failed_is_due_again_and_keeps_its_farewell() {
    let client = client();
    let (registry, session) = held_by(&client);
    let farewell = Body::Lost(LossReason::Kicked);
    assert!(registry.begin_end(session, farewell.clone()));
    registry.retry_end(session, LONG);
    registry.retry_end(session, 2 * LONG);
    let now = Instant::now();
    assert_eq!(registry.take_expired(now + LONG), []);
    assert_eq!(registry.take_expired(now + 3 * LONG), [session]);
    assert_eq!(registry.next_deadline(), None);
    registry.retry_end(session, LONG);
    registry.finish_end(session);
    assert_eq!(registry.next_deadline(), None);
    assert_eq!(bodies(&client), [farewell]);
}

#[tokio::test]
async fn what_is_told_here_never_swallows_what_the_dataplane_tells_later() {
    let client = client();
    let (registry, session) = held_by(&client);
    let event = |number| NumberedEvent {
        number,
        event: Event::ToneFinished {
            endpoint: EndpointId::random(),
        },
    };
    registry.route(session, event(1));
    let mut inner = lock(&registry.inner);
    let entry = inner.sessions.get_mut(&session).expect("held");
    entry.tell(session, Body::Unbound);
    entry.tell(session, Body::Unbound);
    drop(inner);
    registry.route(session, event(2));
    assert_eq!(bodies(&client).len(), 4);
}
