//! One sample of every frame.

use crate::ipc::event::NumberedEvent;
use crate::ipc::hello::{Hello, Refusal, Role};
use crate::ipc::message::{ToControl, ToDataplane};
use crate::ipc::session::{SessionCounts, SessionEndReason, SessionSnapshot};

use super::payloads::*;
use super::requests::*;
pub(super) fn hello(role: Role) -> Hello {
    // The version stays 1 here: this pins the layout, not the number.
    Hello {
        protocol_version: 1,
        program_version: "0.1.0".into(),
        role,
        pid: 42,
        instance: INSTANCE,
    }
}

pub(super) fn to_dataplane() -> Vec<(String, ToDataplane)> {
    let mut messages = vec![
        (
            "Hello.Controller".to_owned(),
            ToDataplane::Hello(hello(Role::Controller { take_over: true })),
        ),
        (
            "Hello.Observer".to_owned(),
            ToDataplane::Hello(hello(Role::Observer)),
        ),
        (
            "Acknowledge".to_owned(),
            ToDataplane::Acknowledge {
                session: SESSION,
                event_number: 7,
            },
        ),
        ("Heartbeat".to_owned(), ToDataplane::Heartbeat),
    ];
    messages.extend(requests().into_iter().map(|(name, request)| {
        (
            format!("Request.{name}"),
            ToDataplane::Request {
                number: 300,
                request,
            },
        )
    }));
    messages
}

pub(super) fn to_control() -> Vec<(String, ToControl)> {
    let snapshot = SessionSnapshot {
        details: details(),
        last_event_number: 9,
    };
    let mut messages = vec![
        ("Hello".to_owned(), ToControl::Hello(hello(Role::Dataplane))),
        (
            "Refused.Version".to_owned(),
            ToControl::Refused(Refusal::Version {
                dataplane: 1,
                offered: 2,
            }),
        ),
        (
            "Refused.ControllerPresent".to_owned(),
            ToControl::Refused(Refusal::ControllerPresent { pid: 42 }),
        ),
        (
            "Refused.UserNotAllowed".to_owned(),
            ToControl::Refused(Refusal::UserNotAllowed { uid: 1000 }),
        ),
        (
            "Refused.NotAHello".to_owned(),
            ToControl::Refused(Refusal::NotAHello),
        ),
        (
            "Counts".to_owned(),
            ToControl::Counts(SessionCounts {
                session: SESSION,
                endpoints: 2,
                recordings: 1,
            }),
        ),
        (
            "SnapshotBegin".to_owned(),
            ToControl::SnapshotBegin { number: 300 },
        ),
        (
            "SnapshotPart".to_owned(),
            ToControl::SnapshotPart {
                number: 300,
                session: snapshot,
            },
        ),
        (
            "SnapshotEnd".to_owned(),
            ToControl::SnapshotEnd { number: 300 },
        ),
        ("Draining".to_owned(), ToControl::Draining),
        (
            "Displaced".to_owned(),
            ToControl::Displaced { by: INSTANCE },
        ),
        ("Heartbeat".to_owned(), ToControl::Heartbeat),
    ];
    let reasons = [
        ("IdleTimeout", SessionEndReason::IdleTimeout),
        ("EmptyTimeout", SessionEndReason::EmptyTimeout),
        ("InternalError", SessionEndReason::InternalError),
        ("Shutdown", SessionEndReason::Shutdown),
    ];
    messages.extend(reasons.map(|(name, reason)| {
        (
            format!("SessionEnded.{name}"),
            ToControl::SessionEnded {
                session: SESSION,
                reason,
            },
        )
    }));
    messages.extend(replies().into_iter().map(|(name, reply)| {
        (
            format!("Answer.{name}"),
            ToControl::Answer {
                number: 300,
                result: Ok(reply),
            },
        )
    }));
    messages.extend(errors().into_iter().map(|(name, error)| {
        (
            format!("Error.{name}"),
            ToControl::Answer {
                number: 300,
                result: Err(error),
            },
        )
    }));
    messages.extend(events().into_iter().map(|(name, event)| {
        (
            format!("Event.{name}"),
            ToControl::Event {
                session: SESSION,
                event: NumberedEvent { number: 5, event },
            },
        )
    }));
    messages
}
