//! Parts of the control package that more than one of its programs uses: the admin interface (served
//! by `rtpbridge-control`, spoken by `rtpbridgectl`), the supervisor and the admin tool. What only
//! `rtpbridge-control` needs lives in its `main.rs`.

pub mod admin;
pub mod ctl;
pub mod supervise;
