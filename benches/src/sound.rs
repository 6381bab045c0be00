//! What sound costs: CPU per packet of calls between two codecs and of conferences, with speech as
//! payload, beside calls that the server only passes on. Loss is told by both ends' counts: what the
//! server stands in for would else hide it.

use rtpbridge_tests::sound::Coding;
use serde::Serialize;

use crate::histogram::Quantiles;
use crate::legs::Leg;
use crate::parties::Parties;
use crate::plan::Plan;
use crate::report::{Row, median};
use crate::speech::Speech;

/// One kind of session.
struct Case {
    name: &'static str,
    parties: &'static [Coding],
    /// One in how many of the calls; one core cannot bear as many of the dearest.
    one_in: u32,
    bar: Bar,
}

/// What a packet may cost.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bar {
    /// It is what the others are compared with.
    None,
    /// Times the cost of passing on.
    Passthrough(f64),
    /// Microseconds.
    Micros(f64),
}

use Coding::{G722, Opus, Pcma, Pcmu};

const CASES: [Case; 5] = [
    Case {
        name: "PCMU-PCMU",
        parties: &[Pcmu, Pcmu],
        one_in: 1,
        bar: Bar::None,
    },
    Case {
        name: "PCMU-PCMA",
        parties: &[Pcmu, Pcma],
        one_in: 1,
        bar: Bar::Passthrough(1.3),
    },
    Case {
        name: "PCMU-G722",
        parties: &[Pcmu, G722],
        one_in: 1,
        bar: Bar::Micros(20.0),
    },
    Case {
        name: "PCMU-Opus",
        parties: &[Pcmu, Opus],
        one_in: 4,
        bar: Bar::Micros(60.0),
    },
    Case {
        name: "5 x PCMU",
        parties: &[Pcmu; 5],
        one_in: 1,
        bar: Bar::Micros(12.0),
    },
];

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct SoundReport {
    /// One row per kind of session.
    pub results: Vec<Verdict>,
    /// One row per stretch, in order.
    pub stretches: Vec<SoundRow>,
}

/// What one kind of session came to.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Codecs of the parties.
    pub what: &'static str,
    /// CPU of both processes per packet sent to a party, median of the rounds.
    pub cpu_us_per_packet: f64,
    /// That over passing on, median of the rounds.
    pub of_passthrough: f64,
    /// Packets lost in all rounds.
    pub lost: u64,
    bar: Bar,
}

/// One stretch of traffic.
#[derive(Debug, Serialize)]
pub struct SoundRow {
    /// Codecs of the parties.
    pub what: &'static str,
    /// Parties in all.
    pub parties: usize,
    /// Packets sent to the server.
    pub sent: u64,
    /// Of these, not counted by the server.
    pub lost_on_the_way_in: u64,
    /// Packets that came from the server.
    pub received: u64,
    /// Sent by the server and not among these.
    pub lost_on_the_way_out: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
    /// Received per second in the measured part.
    pub packets_per_second: f64,
    /// CPU of both processes per packet received.
    pub cpu_us_per_packet: f64,
    /// The generator's own share of its core.
    pub generator_busy: f64,
    /// How late the generator sent.
    pub generator_lateness: Quantiles,
    /// Whether the generator may have been the limit.
    pub generator_limited: bool,
}

/// Runs the plan, whose count is of two-party calls; conferences have as many parties in all.
pub fn measure(plan: &Plan) -> Result<SoundReport, String> {
    let speech = Speech::render()?;
    let mut stretches = Vec::new();
    for run in 1..=plan.rounds {
        for case in &CASES {
            stretches.push(stretch(plan, &speech, case, run)?);
        }
    }
    let results = CASES.iter().map(|case| verdict(case, &stretches));
    Ok(SoundReport {
        results: results.collect(),
        stretches,
    })
}

fn stretch(plan: &Plan, speech: &Speech, case: &Case, run: u32) -> Result<SoundRow, String> {
    let each = case.parties.len();
    let parties = (plan.count / case.one_in) as usize * 2;
    let sessions = (parties / each).max(1);
    let codings = case.parties.iter().cycle().take(sessions * each);
    let legs = (0..)
        .zip(codings)
        .map(|(index, coding)| Leg::bind_speaking(index, *coding, speech.frames(*coding)))
        .collect::<std::io::Result<Vec<Leg>>>();
    let legs = legs.map_err(|error| error.to_string())?;
    let mut parties = Parties::set_up(plan.server, legs, each)?;
    let outcome = plan.run(&mut parties.generator, run)?;
    let counted = parties.counted()?;
    parties.end()?;
    let row = Row::new(case.name, &outcome);
    Ok(SoundRow {
        what: case.name,
        parties: sessions * each,
        sent: outcome.sent,
        lost_on_the_way_in: outcome.sent.saturating_sub(counted.inbound),
        received: outcome.received,
        lost_on_the_way_out: counted.outbound.saturating_sub(outcome.received),
        send_errors: outcome.send_errors,
        packets_per_second: row.packets_per_second,
        cpu_us_per_packet: row.cpu_us_per_packet,
        generator_busy: row.generator_busy,
        generator_lateness: row.generator_lateness,
        generator_limited: row.generator_limited,
    })
}

fn verdict(case: &Case, stretches: &[SoundRow]) -> Verdict {
    let of = |what: &'static str| stretches.iter().filter(move |row| row.what == what);
    let costs = |what| of(what).map(|row| row.cpu_us_per_packet);
    let pairs = costs(case.name).zip(costs(CASES[0].name));
    Verdict {
        what: case.name,
        cpu_us_per_packet: median(costs(case.name).collect()).unwrap_or_default(),
        of_passthrough: median(pairs.map(|(cost, base)| cost / base).collect()).unwrap_or_default(),
        lost: of(case.name).map(SoundRow::lost).sum(),
        bar: case.bar,
    }
}

impl SoundRow {
    fn lost(&self) -> u64 {
        self.lost_on_the_way_in + self.lost_on_the_way_out
    }
}

impl SoundReport {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text =
            "what       parties  packets/s   lost  cpu us/pkt  generator: busy  p99 late us\n"
                .to_owned();
        for row in &self.stretches {
            text.push_str(&format!(
                "{:<9} {:>8} {:>10.0} {:>6} {:>11.3} {:>15.0}% {:>12}{}\n",
                row.what,
                row.parties,
                row.packets_per_second,
                row.lost(),
                row.cpu_us_per_packet,
                row.generator_busy * 100.0,
                row.generator_lateness.p99_us,
                match row.generator_limited {
                    true => "  THE GENERATOR MAY BE THE LIMIT",
                    false => "",
                },
            ));
        }
        text.push_str("median     cpu us/pkt   of passthrough   bar\n");
        for result in &self.results {
            text.push_str(&format!(
                "{:<9} {:>11.2} {:>16.2}   {}\n",
                result.what,
                result.cpu_us_per_packet,
                result.of_passthrough,
                match result.bar {
                    Bar::None => "-".to_owned(),
                    Bar::Passthrough(times) => format!("{times} x passthrough"),
                    Bar::Micros(us) => format!("{us} us"),
                }
            ));
        }
        text
    }
}
