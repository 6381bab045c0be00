//! Which role may ask what. An observer reads; only the controller changes anything.

use super::hello::Role;
use super::message::Request;

/// What a request needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads only.
    Observe,
    /// Changes something.
    Control,
}

/// What `request` needs. A new request has no default: it must be put in one of the two rows.
pub const fn access(request: &Request) -> Access {
    match request {
        Request::SessionInfo { .. }
        | Request::Snapshot
        | Request::StatsSnapshot { .. }
        | Request::Metrics
        | Request::Status => Access::Observe,
        Request::SessionCreate(_)
        | Request::SessionDestroy { .. }
        | Request::SessionAttach { .. }
        | Request::SessionRelease { .. }
        | Request::EndpointCreateFromOffer(_)
        | Request::EndpointCreateOffer(_)
        | Request::EndpointAcceptAnswer(_)
        | Request::EndpointReinvite(_)
        | Request::EndpointAcceptOffer(_)
        | Request::EndpointUpdateDirection(_)
        | Request::EndpointRemove { .. }
        | Request::EndpointIceRestart { .. }
        | Request::EndpointSrtpRekey { .. }
        | Request::EndpointTransfer(_)
        | Request::DtmfInject(_)
        | Request::DtmfSetSensitive(_)
        | Request::FileCreate(_)
        | Request::FileFetched(_)
        | Request::FileSeek(_)
        | Request::FilePause { .. }
        | Request::FileResume { .. }
        | Request::ToneCreate(_)
        | Request::RecordingStart(_)
        | Request::RecordingStop { .. }
        | Request::VadStart(_)
        | Request::VadStop { .. }
        | Request::StatsSubscribe(_)
        | Request::StatsUnsubscribe { .. }
        | Request::BridgeCreate(_)
        | Request::SetLogLevel { .. } => Access::Control,
    }
}

/// Whether a peer with `role` may send `request`.
pub const fn permits(role: Role, request: &Request) -> bool {
    match (role, access(request)) {
        (Role::Controller { .. }, _) | (Role::Observer, Access::Observe) => true,
        (Role::Observer, Access::Control) | (Role::Dataplane, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn observers_read_and_controllers_do_all() {
        let session = SessionId::from_bytes([1; 16]);
        let change = Request::SessionDestroy { session };
        let controller = Role::Controller { take_over: false };
        assert!(permits(controller, &change));
        assert!(permits(controller, &Request::Snapshot));
        assert!(!permits(Role::Observer, &change));
        assert!(permits(Role::Observer, &Request::SessionInfo { session }));
        assert!(!permits(Role::Dataplane, &Request::Status));
    }
}
