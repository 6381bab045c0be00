//! What a mode beside the plain calls is told to do, and on whom.

use std::net::SocketAddr;
use std::time::Duration;

use nix::unistd::Pid;

use crate::load::{Generator, Outcome, Stretch};
use crate::processes;

/// What to measure, and where.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Control address of the server.
    pub server: SocketAddr,
    /// Its control process.
    pub control: Pid,
    /// Its dataplane process.
    pub dataplane: Pid,
    /// How many of what the mode is about.
    pub count: u32,
    /// How often the stretches are repeated.
    pub rounds: u32,
    /// Traffic before each measurement.
    pub warm_up: Duration,
    /// Traffic that is measured.
    pub measured: Duration,
}

impl Plan {
    /// Has a generator run one stretch, with the CPU time of both processes.
    pub fn run(&self, generator: &mut Generator, run: u32) -> Result<Outcome, String> {
        let stretch = Stretch {
            run,
            warm_up: self.warm_up,
            measured: self.measured,
        };
        let pids = [self.control, self.dataplane];
        generator
            .run(stretch, &|| processes::cpu_ns(&pids))
            .map_err(|error| error.to_string())
    }
}
