//! What WebRTC endpoints cost beside plain RTP: memory, descriptors and threads of the dataplane,
//! CPU per handshake and per packet, and what is left when all of them are gone. Both kinds send
//! packets of the same size that the server only passes on.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rtpbridge_tests::harness::procfs;
use serde::Serialize;

use crate::calls::Call;
use crate::legs::Leg;
use crate::load::{Generator, Stretch};
use crate::processes;
use crate::report::{Row, median, rows};

/// Goodbyes take up to a second.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What to measure, and where.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Control address of the server.
    pub server: SocketAddr,
    /// Its control process.
    pub control: Pid,
    /// Its dataplane process.
    pub dataplane: Pid,
    /// WebRTC endpoints, and as many of plain RTP.
    pub endpoints: u32,
    /// How often both kinds send in turn.
    pub rounds: u32,
    /// Traffic before each measurement.
    pub warm_up: Duration,
    /// Traffic that is measured.
    pub measured: Duration,
}

/// What the dataplane holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Holdings {
    /// Proportional set size.
    pub pss_kib: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct WebrtcReport {
    /// Endpoints of each kind.
    pub endpoints: u32,
    /// From the offer to keys on both sides, mean per endpoint; the peer's work is part of it.
    pub connect_ms: f64,
    /// CPU of the dataplane for that.
    pub connect_cpu_ms: f64,
    /// Before the first endpoint.
    pub before: Holdings,
    /// With all WebRTC endpoints connected and after they have sent.
    pub with_webrtc: Holdings,
    /// With as many plain-RTP endpoints beside them.
    pub with_both: Holdings,
    /// When all are gone.
    pub after: Holdings,
    /// Growth by WebRTC per endpoint.
    pub webrtc_kib: f64,
    /// Growth by plain RTP per endpoint.
    pub plain_kib: f64,
    /// CPU per packet over that of plain RTP, median of the rounds.
    pub ratio_to_plain: Option<f64>,
    /// Stretches of traffic, in order.
    pub stretches: Vec<Row>,
}

/// Consent of endpoints that stand by lasts 30 s (RFC 7675).
pub const LONGEST_STRETCH: Duration = Duration::from_secs(25);

/// Runs the plan.
pub fn measure(plan: &Plan) -> Result<WebrtcReport, String> {
    let failed = |error: std::io::Error| error.to_string();
    // What the first one makes for all is not theirs.
    let first = Parties::set_up(plan.server, 2, Leg::bind_webrtc)?;
    first.end()?;
    let before = settle(plan.dataplane, None);
    let (cpu, start) = (processes::cpu_ns(&[plan.dataplane]), Instant::now());
    let mut webrtc = Parties::set_up(plan.server, plan.endpoints, Leg::bind_webrtc)?;
    let per_endpoint = f64::from(plan.endpoints) * 1e6;
    let connect_ms = start.elapsed().as_nanos() as f64 / per_endpoint;
    let connect_cpu = processes::cpu_ns(&[plan.dataplane]) - cpu;
    let mut runs = 0;
    let mut stretch = |parties: &mut Parties, what| {
        runs += 1;
        let stretch = Stretch {
            run: runs,
            warm_up: plan.warm_up,
            measured: plan.measured,
        };
        let pids = [plan.control, plan.dataplane];
        let run = parties.generator.run(stretch, &|| processes::cpu_ns(&pids));
        run.map(|outcome| Row::new(what, &outcome)).map_err(failed)
    };
    let mut stretches = vec![stretch(&mut webrtc, "webrtc")?];
    let with_webrtc = holdings(plan.dataplane);
    let mut plain = Parties::set_up(plan.server, plan.endpoints, Leg::bind_opus)?;
    webrtc.keep_alive()?;
    stretches.push(stretch(&mut plain, "plain")?);
    let with_both = holdings(plan.dataplane);
    for _ in 1..plan.rounds {
        keep_alive(&mut webrtc, &mut plain)?;
        stretches.push(stretch(&mut webrtc, "webrtc")?);
        keep_alive(&mut webrtc, &mut plain)?;
        stretches.push(stretch(&mut plain, "plain")?);
    }
    keep_alive(&mut webrtc, &mut plain)?;
    webrtc.end()?;
    plain.end()?;
    let after = settle(plan.dataplane, Some(before));
    let each = |from: Holdings, to: Holdings| {
        (to.pss_kib as f64 - from.pss_kib as f64) / f64::from(plan.endpoints)
    };
    Ok(WebrtcReport {
        endpoints: plan.endpoints,
        connect_ms,
        connect_cpu_ms: connect_cpu as f64 / per_endpoint,
        before,
        with_webrtc,
        with_both,
        after,
        webrtc_kib: each(before, with_webrtc),
        plain_kib: each(with_webrtc, with_both),
        ratio_to_plain: ratio(&stretches),
        stretches,
    })
}

impl WebrtcReport {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} endpoints of each kind; connecting takes {:.2} ms each, {:.2} ms of the dataplane's CPU\n\
             dataplane       PSS KiB  descriptors  threads\n",
            self.endpoints, self.connect_ms, self.connect_cpu_ms
        );
        for (when, holdings) in [
            ("before", self.before),
            ("with WebRTC", self.with_webrtc),
            ("and plain RTP", self.with_both),
            ("all removed", self.after),
        ] {
            text.push_str(&format!(
                "{when:<14} {:>8} {:>12} {:>8}\n",
                holdings.pss_kib, holdings.descriptors, holdings.threads
            ));
        }
        text.push_str(&format!(
            "memory per endpoint: WebRTC {:.1} KiB, plain RTP {:.1} KiB\n",
            self.webrtc_kib, self.plain_kib
        ));
        text.push_str(&rows(&self.stretches));
        if let Some(ratio) = self.ratio_to_plain {
            text.push_str(&format!("webrtc / plain: {ratio:.3}\n"));
        }
        text
    }
}

/// Calls of two with their traffic.
struct Parties {
    calls: Vec<Call>,
    generator: Generator,
}

impl Parties {
    fn set_up(
        server: SocketAddr,
        endpoints: u32,
        bind: fn(u32) -> std::io::Result<Leg>,
    ) -> Result<Self, String> {
        let legs: Result<Vec<Leg>, _> = (0..endpoints & !1).map(bind).collect();
        let mut legs = legs.map_err(|error| error.to_string())?;
        let mut calls: Vec<Call> = Vec::new();
        for pair in legs.chunks_mut(2) {
            calls.push(Call::set_up(server, pair)?.0);
        }
        let generator = Generator::new(legs).map_err(|error| error.to_string())?;
        Ok(Self { calls, generator })
    }

    fn keep_alive(&mut self) -> Result<(), String> {
        self.calls.iter_mut().for_each(Call::keep_alive);
        self.generator.legs().iter().try_for_each(Leg::keep_alive)
    }

    fn end(self) -> Result<(), String> {
        self.calls.into_iter().try_for_each(Call::end)
    }
}

/// Before each stretch: no connection and no consent outlasts two of the longest.
fn keep_alive(webrtc: &mut Parties, plain: &mut Parties) -> Result<(), String> {
    webrtc.keep_alive()?;
    plain.keep_alive()
}

fn holdings(pid: Pid) -> Holdings {
    Holdings {
        pss_kib: procfs::pss_kib(pid),
        descriptors: procfs::fd_count(pid),
        threads: procfs::thread_count(pid),
    }
}

/// The holdings when nothing changes any more, or when they are as they were before.
fn settle(pid: Pid, before: Option<Holdings>) -> Holdings {
    let deadline = Instant::now() + REMOVAL_LIMIT;
    let least = Instant::now() + Duration::from_millis(1500);
    loop {
        let now = holdings(pid);
        let is_back = before.is_none_or(|before| {
            (now.descriptors, now.threads) == (before.descriptors, before.threads)
        });
        if (is_back && Instant::now() > least) || Instant::now() > deadline {
            return now;
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

fn ratio(stretches: &[Row]) -> Option<f64> {
    let costs = |what: &'static str| {
        let rows = stretches.iter().filter(move |row| row.what == what);
        rows.map(|row| row.cpu_us_per_packet)
    };
    let pairs = costs("webrtc").zip(costs("plain"));
    median(pairs.map(|(webrtc, plain)| webrtc / plain).collect())
}
