//! The control process of rtpbridge (WebSocket and HTTP towards clients, the Unix socket towards the
//! dataplane; it never sees a media packet), and what its sibling programs `rtpbridge` and
//! `rtpbridgectl` share with it: the admin interface, the supervisor and the admin tool.

pub mod admin;
pub mod api;
pub mod app;
pub mod clock;
pub mod confine;
pub mod ctl;
pub mod dataplane;
pub mod event;
pub mod fetch;
pub mod listeners;
pub mod metrics;
pub mod operator;
pub mod process;
pub mod serve;
pub mod session;
pub mod shutdown;
pub mod supervise;
pub mod takeover;

mod lock;
