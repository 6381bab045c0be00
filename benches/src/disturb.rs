//! Whether a slow disk and slow web servers are felt by calls that have nothing to do with them: the
//! same calls run alone and beside sessions that play files of a disk that stalls at every read, and
//! URLs of servers that answer with a byte now and then, or not at all.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rtpbridge_tests::harness::http;
use rtpbridge_tests::harness::web::{Answer, WebServer};
use serde::Serialize;
use serde_json::json;

use crate::calls::Call;
use crate::legs::Leg;
use crate::parties::Parties;
use crate::plan::Plan;
use crate::report::{Row, median, rows};

/// Part of the file's name by which the library knows whose reads to delay.
const FILE: &str = "slow-disk.wav";
const UNDERRUNS: &str = "rtpbridge_file_underruns_total";
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A directory of sound whose reads stall, for a server that loads [`SlowDisk::library`].
#[derive(Debug)]
pub struct SlowDisk {
    directory: tempfile::TempDir,
    library: PathBuf,
}

impl SlowDisk {
    /// Writes the file and compiles the library.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn make() -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let directory = tempfile::TempDir::with_prefix("rtpbridge-bench-").map_err(failed)?;
        let (code, library) = (path(&directory, "slow.c"), path(&directory, "slow.so"));
        fs::write(&code, LIBRARY).map_err(failed)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &code])
            .arg("-ldl")
            .status();
        match compiled {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("cc: {status}")),
            Err(error) => return Err(format!("a slow disk needs cc: {error}")),
        }
        let media = path(&directory, "media");
        fs::create_dir(&media).map_err(failed)?;
        fs::write(media.join(FILE), hum()).map_err(failed)?;
        Ok(Self { directory, library })
    }

    /// To be loaded by the server.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// To be the server's `media_dir`.
    pub fn media(&self) -> PathBuf {
        path(&self.directory, "media")
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct DisturbReport {
    /// Two-party calls, which are measured.
    pub calls: u32,
    /// Sessions that play from the disk and the web.
    pub disturbing: u32,
    /// Frames for which the disk was too late, in all: how slow it was.
    pub underruns: f64,
    /// p99 of the calls' latency beside the others over that without, median of the rounds.
    pub p99_ratio: f64,
    /// The same of the median latency.
    pub p50_ratio: f64,
    /// Stretches of traffic, in order.
    pub stretches: Vec<Row>,
}

/// Runs the plan, whose count is of calls, beside so many disturbing sessions.
pub fn measure(plan: &Plan, disturbing: u32) -> Result<DisturbReport, String> {
    let legs: Result<Vec<Leg>, _> = (0..plan.count * 2).map(Leg::bind).collect();
    let legs = legs.map_err(|error| error.to_string())?;
    let mut calls = Parties::set_up(plan.server, legs, 2)?;
    let web = WebServer::start();
    let mut stretches = Vec::new();
    let mut run = 0;
    let mut stretch = |calls: &mut Parties, what| {
        run += 1;
        calls.keep_alive()?;
        let outcome = plan.run(&mut calls.generator, run)?;
        stretches.push(Row::new(what, &outcome));
        calls.keep_alive()
    };
    for round in 0..plan.rounds {
        // What changes with time shall not always hit the same one.
        let is_first_alone = round % 2 == 0;
        if is_first_alone {
            stretch(&mut calls, "alone")?;
        }
        let disturbance = Disturbance::start(plan.server, disturbing, &web)?;
        stretch(&mut calls, "disturbed")?;
        disturbance.end()?;
        if !is_first_alone {
            stretch(&mut calls, "alone")?;
        }
    }
    calls.end()?;
    let underruns = metric(plan.server, UNDERRUNS)?;
    if underruns == 0.0 {
        return Err("the disk was not slow: no frame was late".into());
    }
    let ratio = |of: fn(&Row) -> u64| {
        let quantile = |what: &'static str| {
            let rows = stretches.iter().filter(move |row| row.what == what);
            rows.map(move |row| of(row) as f64)
        };
        let pairs = quantile("disturbed").zip(quantile("alone"));
        median(
            pairs
                .map(|(with, without)| with / without.max(1.0))
                .collect(),
        )
        .unwrap_or_default()
    };
    Ok(DisturbReport {
        calls: plan.count,
        disturbing,
        underruns,
        p99_ratio: ratio(|row| row.latency.p99_us),
        p50_ratio: ratio(|row| row.latency.p50_us),
        stretches,
    })
}

impl DisturbReport {
    /// The table for people.
    pub fn table(&self) -> String {
        format!(
            "{} calls, alone and beside {} sessions on a slow disk and slow web servers\n{}\
             the disk was too late for {} frames\n\
             latency, disturbed / alone: p50 {:.3}, p99 {:.3} (bar 1.1)\n",
            self.calls,
            self.disturbing,
            rows(&self.stretches),
            self.underruns,
            self.p50_ratio,
            self.p99_ratio,
        )
    }
}

/// Sessions that play what comes slowly, each held by a thread of its own: their requests take as
/// long as the disk does.
struct Disturbance {
    stop: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<Result<(), String>>>,
}

impl Disturbance {
    /// Returns when all of them play or wait.
    fn start(server: SocketAddr, count: u32, web: &WebServer) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, told) = mpsc::channel();
        let mut sessions = Vec::new();
        for index in 0..count {
            let answer = match index % 3 {
                0 => Answer::Drip,
                1 => Answer::Silent,
                _ => Answer::Slow(hum(), Duration::from_secs(60)),
            };
            let url = web.answer(&format!("/{index}.wav"), answer);
            let (stop, ready) = (Arc::clone(&stop), ready.clone());
            sessions.push(thread::spawn(move || {
                let outcome = disturb(server, index, &url, &ready, &stop);
                // Nobody waits for the news of one that is told to stop.
                let _ = ready.send(outcome.clone());
                outcome
            }));
        }
        let begun = Self { stop, sessions };
        for _ in 0..count {
            let news = told.recv().map_err(|error| error.to_string())?;
            news?;
        }
        Ok(begun)
    }

    fn end(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        for session in self.sessions {
            session
                .join()
                .map_err(|_| "a disturbing session's thread panicked")??;
        }
        Ok(())
    }
}

/// One session: a listener, the file and the URL.
fn disturb(
    server: SocketAddr,
    index: u32,
    url: &str,
    ready: &Sender<Result<(), String>>,
    stop: &AtomicBool,
) -> Result<(), String> {
    let leg = Leg::bind(index).map_err(|error| error.to_string())?;
    let (mut call, _) = Call::set_up(server, &mut [leg])?;
    call.play(json!({"source": FILE, "loop_count": null}))?;
    call.play(json!({"source": url, "loop_count": null, "timeout_ms": 60_000}))?;
    let _ = ready.send(Ok(()));
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_INTERVAL);
        call.keep_alive();
    }
    call.end()
}

fn metric(server: SocketAddr, name: &str) -> Result<f64, String> {
    let answer = http::try_request(server, "GET", "/metrics", &[]);
    let text = answer.map_err(|error| error.to_string())?.text();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| format!("no metric {name}"))
}

/// Twenty seconds of a quiet hum: 48 kHz, stereo, 16 bits.
fn hum() -> Vec<u8> {
    const RATE_HZ: u32 = 48_000;
    let bytes = RATE_HZ * 4 * 20;
    let mut wav = Vec::with_capacity(44 + bytes as usize);
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + bytes).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    wav.extend_from_slice(&RATE_HZ.to_le_bytes());
    wav.extend_from_slice(&(RATE_HZ * 4).to_le_bytes());
    wav.extend_from_slice(b"\x04\0\x10\0data");
    wav.extend_from_slice(&bytes.to_le_bytes());
    for n in 0..bytes / 4 {
        let turn = std::f64::consts::TAU * 200.0 * f64::from(n) / f64::from(RATE_HZ);
        let sample = ((turn.sin() * 3000.0) as i16).to_le_bytes();
        wav.extend_from_slice(&sample);
        wav.extend_from_slice(&sample);
    }
    wav
}

fn path(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}

/// Every read of the file takes 0.6 s longer, which is more than it brings of sound, and in which the
/// reading thread can do nothing else.
const LIBRARY: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdio.h>
    #include <string.h>
    #include <time.h>
    #include <unistd.h>
    ssize_t read(int fd, void *bytes, size_t count) {
        static ssize_t (*real)(int, void *, size_t);
        if (!real) real = dlsym(RTLD_NEXT, "read");
        char link[64], path[512];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length < 0 ? 0 : length] = 0;
        if (strstr(path, ".wav")) {
            struct timespec pause = {0, 600000000};
            nanosleep(&pause, 0);
        }
        return real(fd, bytes, count);
    }
"#;
