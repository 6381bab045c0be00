//! `rtpbridge-bench`: opens calls on a running rtpbridge, sends 50 packets a second per party, and
//! reports loss, latency, CPU time per packet, memory per call and set-up time, next to a minimal
//! forwarder under the same load in the same run.

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use rtpbridge_benches::calls::{Call, Recorded};
use rtpbridge_benches::disturb::{self, SlowDisk};
use rtpbridge_benches::forwarder::Forwarder;
use rtpbridge_benches::launch::{Launched, Wanted};
use rtpbridge_benches::legs::Leg;
use rtpbridge_benches::load::{Generator, Outcome, Stretch};
use rtpbridge_benches::plan::Plan;
use rtpbridge_benches::processes::{self, Table};
use rtpbridge_benches::report::{Memory, RecordedTotals, Report, Row, SetUp};
use rtpbridge_benches::{sound, webrtc};
use serde::Serialize;

/// Measures what calls cost on a running rtpbridge.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Control address of the server.
    #[arg(long, default_value = "127.0.0.1:9100")]
    server: String,
    /// Start the server from this directory of programs (target/release) for the run.
    #[arg(long, value_name = "DIR")]
    launch: Option<PathBuf>,
    /// A line for the configuration of the launched server, such as 'batch_window_us = 0'.
    #[arg(long, value_name = "KEY = VALUE", requires = "launch")]
    set: Vec<String>,
    /// Two-party calls.
    #[arg(long, default_value_t = 500)]
    calls: u32,
    /// Measured seconds of each stretch of traffic.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds of traffic before each measurement.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Also run the same load through the built-in forwarder, and give the ratio.
    #[arg(long)]
    floor: bool,
    /// The forwarder's batch window in microseconds.
    #[arg(long, default_value_t = 500)]
    floor_window_us: u64,
    /// How often the stretches (floor, server, recorded) are repeated; the median counts.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Also run with every call recorded to files in this directory (inside recording_dir).
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Instead of calls, measure this many WebRTC endpoints beside as many of plain RTP.
    #[arg(long, value_name = "ENDPOINTS", conflicts_with_all = ["calls", "floor", "record"])]
    webrtc: Option<u32>,
    /// Instead of calls that are passed on, measure this many between codecs, and conferences of five.
    #[arg(long, value_name = "CALLS", conflicts_with_all = ["calls", "floor", "record", "webrtc"])]
    sound: Option<u32>,
    /// Run the calls alone and beside this many sessions that play from a slow disk and slow web
    /// servers.
    #[arg(long, value_name = "SESSIONS", requires = "launch",
        conflicts_with_all = ["floor", "record", "webrtc", "sound"])]
    disturb: Option<u32>,
    /// Pin both server processes, and the floor, to this core.
    #[arg(long, value_name = "CORE")]
    server_core: Option<usize>,
    /// Pin the generator to this core.
    #[arg(long, value_name = "CORE")]
    generator_core: Option<usize>,
    /// Write the report as JSON to this file, - for standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rtpbridge-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let disk = match arguments.disturb {
        Some(_) => Some(SlowDisk::make()?),
        None => None,
    };
    let launched = match &arguments.launch {
        Some(programs) => Some(Launched::start(
            programs,
            &wanted(arguments, disk.as_ref()),
        )?),
        None => None,
    };
    let server = match &launched {
        Some(launched) => launched.address,
        None => resolve(&arguments.server)?,
    };
    if let Some(core) = arguments.generator_core {
        processes::pin_self(core)?;
    }
    if let Some(endpoints) = arguments.webrtc {
        let stretch = Duration::from_secs(arguments.warm_up + arguments.seconds);
        if stretch > webrtc::LONGEST_STRETCH {
            let most = webrtc::LONGEST_STRETCH.as_secs();
            return Err(
                format!("--warm-up and --seconds are at most {most} s with --webrtc").into(),
            );
        }
        let report = webrtc::measure(&plan(arguments, server, endpoints)?)?;
        return publish(arguments, &report, &report.table());
    }
    if let Some(calls) = arguments.sound {
        let report = sound::measure(&plan(arguments, server, calls)?)?;
        return publish(arguments, &report, &report.table());
    }
    if let Some(sessions) = arguments.disturb {
        let plan = plan(arguments, server, arguments.calls)?;
        let report = disturb::measure(&plan, sessions)?;
        return publish(arguments, &report, &report.table());
    }
    let mut bench = Bench::set_up(arguments, server)?;
    for round in 0..arguments.rounds {
        bench.round(round)?;
    }
    let report = bench.finish()?;
    publish(arguments, &report, &report.table())
}

fn wanted(arguments: &Arguments, disk: Option<&SlowDisk>) -> Wanted {
    let mut settings = arguments.set.clone();
    settings.extend(disk.map(|disk| format!("media_dir = {:?}", disk.media())));
    if arguments.sound.is_some() || disk.is_some() {
        // What is measured is the cost, not when the server would say that it is too much.
        settings.push("max_lateness_ms = 0".to_owned());
    }
    Wanted {
        core: arguments.server_core,
        connections: (arguments.calls + 10).max(1000),
        recordings: arguments.record.clone(),
        settings,
        preload: disk.map(|disk| disk.library().to_owned()),
    }
}

fn publish(arguments: &Arguments, report: &impl Serialize, table: &str) -> Result<(), Failure> {
    if let Some(target) = &arguments.json {
        let json = serde_json::to_string_pretty(report)?;
        if target == "-" {
            println!("{json}");
        } else {
            fs::write(target, json + "\n")?;
        }
    }
    if arguments.json.as_deref() != Some("-") {
        print!("{table}");
    }
    Ok(())
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let mut found = address.to_socket_addrs()?;
    Ok(found.next().ok_or("the server's name has no address")?)
}

/// Everything between the first call and the report.
struct Bench<'a> {
    arguments: &'a Arguments,
    server_pids: Vec<Pid>,
    calls: Vec<Call>,
    generator: Generator,
    floor: Option<(Forwarder, Generator)>,
    report: Report,
    recorded: Option<RecordedTotals>,
    runs: u32,
}

impl<'a> Bench<'a> {
    fn set_up(arguments: &'a Arguments, server: SocketAddr) -> Result<Self, Failure> {
        let mut legs = bind_legs(arguments.calls)?;
        let server_pids = processes_of(arguments, server)?.to_vec();
        let before_kib = processes::pss_kib(&server_pids);
        let mut calls = Vec::new();
        let mut times = Vec::new();
        for pair in legs.chunks_mut(2) {
            let (call, took) = Call::set_up(server, pair)?;
            calls.push(call);
            times.push(took.as_secs_f64() * 1000.0);
        }
        let floor = match arguments.floor {
            true => Some(set_up_floor(arguments)?),
            false => None,
        };
        Ok(Self {
            arguments,
            server_pids,
            report: Report {
                calls: calls.len(),
                set_up: set_up_times(times),
                memory: Memory {
                    before_kib,
                    ..Memory::default()
                },
                stretches: Vec::new(),
                ratio_to_floor: None,
                recording_adds_us_per_packet: None,
                recorded: None,
            },
            calls,
            generator: Generator::new(legs)?,
            floor,
            recorded: None,
            runs: 0,
        })
    }

    fn round(&mut self, round: u32) -> Result<(), Failure> {
        if let Some((forwarder, generator)) = &mut self.floor {
            let stretch = next_stretch(self.arguments, &mut self.runs);
            let before = forwarder.work();
            let outcome = generator.run(stretch, &|| forwarder.cpu_ns())?;
            let after = forwarder.work();
            let mut row = Row::new("floor", &outcome);
            row.system_calls_per_packet = Some(
                (after.system_calls - before.system_calls) as f64
                    / (after.packets - before.packets).max(1) as f64,
            );
            self.report.stretches.push(row);
        }
        self.keep_alive();
        let outcome = self.server_stretch()?;
        self.report.stretches.push(Row::new("server", &outcome));
        if round == 0 {
            let memory = &mut self.report.memory;
            memory.after_kib = processes::pss_kib(&self.server_pids);
            memory.per_call_kib =
                (memory.after_kib as f64 - memory.before_kib as f64) / self.calls.len() as f64;
        }
        self.keep_alive();
        if let Some(directory) = &self.arguments.record {
            self.recorded_stretch(&directory.clone(), round)?;
        }
        Ok(())
    }

    fn recorded_stretch(&mut self, directory: &std::path::Path, round: u32) -> Result<(), Failure> {
        for (index, call) in self.calls.iter_mut().enumerate() {
            let path = directory.join(format!("bench-{}-{round}-{index}.pcap", std::process::id()));
            call.record(&path.to_string_lossy())?;
        }
        let outcome = self.server_stretch()?;
        self.report.stretches.push(Row::new("recorded", &outcome));
        let totals = self.recorded.get_or_insert_default();
        for call in &mut self.calls {
            let Recorded { packets, dropped } = call.stop_recording()?;
            totals.packets += packets;
            totals.dropped += dropped;
        }
        Ok(())
    }

    fn server_stretch(&mut self) -> io::Result<Outcome> {
        let stretch = next_stretch(self.arguments, &mut self.runs);
        let pids = &self.server_pids;
        self.generator.run(stretch, &|| processes::cpu_ns(pids))
    }

    fn keep_alive(&mut self) {
        for call in &mut self.calls {
            call.keep_alive();
        }
    }

    fn finish(mut self) -> Result<Report, Failure> {
        for call in self.calls {
            call.end()?;
        }
        self.report.recorded = self.recorded;
        self.report.compare();
        Ok(self.report)
    }
}

/// Control and the dataplane, pinned as asked for. One call before anything is measured names the
/// dataplane and warms the code.
fn processes_of(arguments: &Arguments, server: SocketAddr) -> Result<[Pid; 2], Failure> {
    let control = processes::owner_of(Table::Tcp, server)
        .ok_or_else(|| format!("no process listens on {server}"))?;
    let mut probe = bind_legs(1)?;
    let (call, _) = Call::set_up(server, &mut probe)?;
    let dataplane = probe
        .first()
        .and_then(|leg| processes::owner_of(Table::Udp, leg.to))
        .ok_or("no process owns the media port")?;
    call.end()?;
    let pids = [control, dataplane];
    if let Some(core) = arguments.server_core {
        for pid in pids {
            processes::pin(pid, core)?;
        }
    }
    Ok(pids)
}

fn plan(arguments: &Arguments, server: SocketAddr, count: u32) -> Result<Plan, Failure> {
    let [control, dataplane] = processes_of(arguments, server)?;
    Ok(Plan {
        server,
        control,
        dataplane,
        count,
        rounds: arguments.rounds,
        warm_up: Duration::from_secs(arguments.warm_up),
        measured: Duration::from_secs(arguments.seconds),
    })
}

fn next_stretch(arguments: &Arguments, runs: &mut u32) -> Stretch {
    *runs += 1;
    Stretch {
        run: *runs,
        warm_up: Duration::from_secs(arguments.warm_up),
        measured: Duration::from_secs(arguments.seconds),
    }
}

fn bind_legs(calls: u32) -> io::Result<Vec<Leg>> {
    (0..calls * 2).map(Leg::bind).collect()
}

fn set_up_floor(arguments: &Arguments) -> io::Result<(Forwarder, Generator)> {
    let mut legs = bind_legs(arguments.calls)?;
    let parties: Vec<SocketAddr> = legs.iter().map(Leg::address).collect::<io::Result<_>>()?;
    let window = Duration::from_micros(arguments.floor_window_us);
    let forwarder = Forwarder::start(&parties, window, arguments.server_core)?;
    for (leg, address) in legs.iter_mut().zip(forwarder.addresses()) {
        leg.to = *address;
    }
    Ok((forwarder, Generator::new(legs)?))
}

fn set_up_times(mut times_ms: Vec<f64>) -> SetUp {
    times_ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (times_ms.len() as f64 * share) as usize;
        times_ms.get(index).copied().unwrap_or_default()
    };
    SetUp {
        mean_ms: times_ms.iter().sum::<f64>() / times_ms.len().max(1) as f64,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    }
}
