//! The methods of the protocol by name, and what each needs of the connection's binding.

use rtpbridge_shared::vocab::Transport;

/// A method as a client named it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Method {
    /// The client's name for it; a metrics label.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) action: Action,
    /// The transport that the name promises.
    pub(super) transport: Option<Transport>,
}

/// What a method does. Several names may share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(super) enum Action {
    SessionCreate,
    SessionAttach,
    SessionDestroy,
    SessionInfo,
    ServerInfo,
    SessionList,
    SessionBridge,
    CreateFromOffer,
    CreateOffer,
    AcceptAnswer,
    Reinvite,
    AcceptOffer,
    UpdateDirection,
    Remove,
    IceRestart,
    SrtpRekey,
    CreateWithFile,
    FileSeek,
    FilePause,
    FileResume,
    CreateTone,
    DtmfInject,
    DtmfSetSensitive,
    Transfer,
    RecordingStart,
    RecordingStop,
    VadStart,
    VadStop,
    StatsSubscribe,
    StatsUnsubscribe,
    StatsSnapshot,
}

/// What a method needs of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// Works with and without a session.
    Nothing,
    /// No session may be bound.
    Unbound,
    /// A session must be bound.
    Session,
}

const fn any(name: &'static str, action: Action) -> Method {
    Method {
        name,
        action,
        transport: None,
    }
}

const fn rtp(name: &'static str, action: Action) -> Method {
    Method {
        name,
        action,
        transport: Some(Transport::Rtp),
    }
}

const fn webrtc(name: &'static str, action: Action) -> Method {
    Method {
        name,
        action,
        transport: Some(Transport::Webrtc),
    }
}

const METHODS: &[Method] = &[
    any("session.create", Action::SessionCreate),
    any("session.attach", Action::SessionAttach),
    any("session.destroy", Action::SessionDestroy),
    any("session.info", Action::SessionInfo),
    any("server.info", Action::ServerInfo),
    any("session.list", Action::SessionList),
    any("session.bridge", Action::SessionBridge),
    any("endpoint.create_from_offer", Action::CreateFromOffer),
    any("endpoint.create_offer", Action::CreateOffer),
    any("endpoint.accept_answer", Action::AcceptAnswer),
    any("endpoint.rtp.reinvite", Action::Reinvite),
    any("endpoint.update_remote_sdp", Action::Reinvite),
    any("endpoint.accept_offer", Action::AcceptOffer),
    any("endpoint.update_direction", Action::UpdateDirection),
    any("endpoint.remove", Action::Remove),
    any("endpoint.ice_restart", Action::IceRestart),
    any("endpoint.srtp_rekey", Action::SrtpRekey),
    any("endpoint.create_with_file", Action::CreateWithFile),
    any("endpoint.file.seek", Action::FileSeek),
    any("endpoint.file.pause", Action::FilePause),
    any("endpoint.file.resume", Action::FileResume),
    any("endpoint.create_tone", Action::CreateTone),
    any("endpoint.dtmf.inject", Action::DtmfInject),
    any("endpoint.dtmf.set_sensitive", Action::DtmfSetSensitive),
    any("endpoint.transfer", Action::Transfer),
    any("recording.start", Action::RecordingStart),
    any("recording.stop", Action::RecordingStop),
    any("vad.start", Action::VadStart),
    any("vad.stop", Action::VadStop),
    any("stats.subscribe", Action::StatsSubscribe),
    any("stats.unsubscribe", Action::StatsUnsubscribe),
    any("stats.snapshot", Action::StatsSnapshot),
    webrtc("endpoint.webrtc.create_from_offer", Action::CreateFromOffer),
    webrtc("endpoint.webrtc.create_offer", Action::CreateOffer),
    webrtc("endpoint.webrtc.accept_answer", Action::AcceptAnswer),
    webrtc("endpoint.webrtc.accept_offer", Action::AcceptOffer),
    webrtc("endpoint.webrtc.ice_restart", Action::IceRestart),
    rtp("endpoint.rtp.create_from_offer", Action::CreateFromOffer),
    rtp("endpoint.rtp.create_offer", Action::CreateOffer),
    rtp("endpoint.rtp.accept_answer", Action::AcceptAnswer),
    rtp("endpoint.rtp.srtp_rekey", Action::SrtpRekey),
];

impl Method {
    /// The method of this name.
    pub(super) fn from_name(name: &str) -> Option<&'static Method> {
        METHODS.iter().find(|method| method.name == name)
    }

    /// What it needs of the connection.
    pub(super) const fn needs(&self) -> Needs {
        match self.action {
            Action::ServerInfo | Action::SessionList => Needs::Nothing,
            Action::SessionCreate | Action::SessionAttach => Needs::Unbound,
            _ => Needs::Session,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for method in METHODS {
            let found = Method::from_name(method.name);
            assert_eq!(found, Some(method), "{} occurs twice", method.name);
        }
        assert_eq!(Method::from_name("session"), None);
    }
}
