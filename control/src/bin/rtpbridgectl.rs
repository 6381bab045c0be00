//! `rtpbridgectl`: the operator's tool. Everything is in `rtpbridge_control::ctl`.

use std::process::ExitCode;

use clap::Parser;
use rtpbridge_control::ctl;

fn main() -> ExitCode {
    ctl::run(ctl::Cli::parse())
}
