//! The first frame each way.

use serde::{Deserialize, Serialize};

use crate::id::InstanceId;

/// Version of everything in `ipc`. Another version is refused.
pub const PROTOCOL_VERSION: u32 = 1;

/// Who speaks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender. Stays the first field in every version.
    pub protocol_version: u32,
    /// Version of the program, for people.
    pub program_version: String,
    /// What the sender is, or wants to be.
    pub role: Role,
    /// Process id.
    pub pid: u32,
    /// Names this run of the process.
    pub instance: InstanceId,
}

/// What one side of the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// The dataplane itself.
    Dataplane,
    /// The one control process; with `take_over` it displaces a living one.
    Controller {
        /// Displace the present controller.
        take_over: bool,
    },
    /// Reads snapshots, statistics and metrics; changes nothing.
    Observer,
}

/// Why a hello was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The versions differ.
    Version {
        /// The dataplane's.
        dataplane: u32,
        /// The one that was offered.
        offered: u32,
    },
    /// A controller is connected and lives.
    ControllerPresent {
        /// Its process id.
        pid: u32,
    },
    /// The peer's user may not connect (SO_PEERCRED).
    UserNotAllowed {
        /// Its user id.
        uid: u32,
    },
    /// The first frame was not a hello of a role that may connect.
    NotAHello,
}
