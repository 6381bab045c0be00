//! What WebRTC endpoints cost beside plain RTP: memory, descriptors and threads of the dataplane,
//! CPU per handshake and per packet, and what is left when all of them are gone. Both kinds send
//! packets of the same size that the server only passes on.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rtpbridge_tests::harness::procfs;
use serde::Serialize;

use crate::legs::Leg;
use crate::parties::Parties;
use crate::plan::Plan;
use crate::processes;
use crate::report::{Row, median, rows};

/// Goodbyes take up to a second.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

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
    // What the first one makes for all is not theirs.
    let first = pairs(plan.server, 2, Leg::bind_webrtc)?;
    first.end()?;
    let before = settle(plan.dataplane, None);
    let (cpu, start) = (processes::cpu_ns(&[plan.dataplane]), Instant::now());
    let mut webrtc = pairs(plan.server, plan.count, Leg::bind_webrtc)?;
    let per_endpoint = f64::from(plan.count) * 1e6;
    let connect_ms = start.elapsed().as_nanos() as f64 / per_endpoint;
    let connect_cpu = processes::cpu_ns(&[plan.dataplane]) - cpu;
    let mut runs = 0;
    let mut stretch = |parties: &mut Parties, what| {
        runs += 1;
        let outcome = plan.run(&mut parties.generator, runs)?;
        Ok::<_, String>(Row::new(what, &outcome))
    };
    let mut stretches = vec![stretch(&mut webrtc, "webrtc")?];
    let with_webrtc = holdings(plan.dataplane);
    let mut plain = pairs(plan.server, plan.count, Leg::bind_opus)?;
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
        (to.pss_kib as f64 - from.pss_kib as f64) / f64::from(plan.count)
    };
    Ok(WebrtcReport {
        endpoints: plan.count,
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

fn pairs(
    server: SocketAddr,
    endpoints: u32,
    bind: fn(u32) -> std::io::Result<Leg>,
) -> Result<Parties, String> {
    let legs: Result<Vec<Leg>, _> = (0..endpoints & !1).map(bind).collect();
    Parties::set_up(server, legs.map_err(|error| error.to_string())?, 2)
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
