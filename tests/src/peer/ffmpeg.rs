//! ffmpeg as a party: one process streams sound over RTP, another records what arrives.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::party::socket_pair;
use super::sdp::Offer;
use crate::harness::process::Process;
use crate::harness::tool;
use crate::harness::wait::{SOON, eventually};

/// Writes a WAV file of noise, 8 kHz mono, and gives the PCMU samples that ffmpeg makes of it.
pub fn noise(wav: &Path, seconds: u32) -> Vec<u8> {
    let source = format!("anoisesrc=duration={seconds}:sample_rate=8000:amplitude=0.5:seed=42");
    let wav = wav.to_string_lossy();
    let encoded = format!("{wav}.ul");
    let quiet = ["-hide_banner", "-loglevel", "error", "-y"];
    let arguments = |input: &[&str], output: &[&str]| {
        tool::run("ffmpeg", &[&quiet[..], input, output].concat());
    };
    arguments(
        &["-f", "lavfi", "-i", &source],
        &["-c:a", "pcm_s16le", &wav],
    );
    arguments(
        &["-i", &wav],
        &["-c:a", "pcm_mulaw", "-f", "mulaw", &encoded],
    );
    fs::read(encoded).expect("encoded samples")
}

/// An even port that was free a moment ago, for a program that binds it itself.
pub fn free_port() -> SocketAddr {
    let (rtp, _rtcp) = socket_pair([127, 0, 0, 1].into());
    rtp.local_addr().expect("bound")
}

/// Starts streaming a WAV file in real time as PCMU from `from` to `to`.
pub fn stream(wav: &Path, from: SocketAddr, to: SocketAddr, log: PathBuf) -> Process {
    let wav = wav.to_string_lossy();
    let codec = ["-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"];
    stream_as((&["-i", &wav], &codec), (from, to), log)
}

/// Starts streaming any input in real time, encoded as the second arguments say, from one address to
/// another. Payloads have at most 160 bytes.
pub fn stream_as(
    (input, codec): (&[&str], &[&str]),
    (from, to): (SocketAddr, SocketAddr),
    log: PathBuf,
) -> Process {
    let target = format!("rtp://{to}?localrtpport={}&pkt_size=172", from.port());
    let mut command = Command::new("ffmpeg");
    command
        .args(["-hide_banner", "-loglevel", "error", "-re"])
        .args(input)
        .args(codec)
        .args(["-f", "rtp", &target]);
    Process::start("ffmpeg (streaming)", command, log)
}

/// A recording of what arrives at an address.
#[derive(Debug)]
pub struct Recorder {
    process: Process,
    output: PathBuf,
}

impl Recorder {
    /// Starts recording PCMU at `at` into raw samples, and waits until the port is bound.
    pub fn start(at: SocketAddr, directory: &Path) -> Self {
        let copy = ["-c:a", "copy", "-f", "mulaw"];
        Self::start_as(at, directory, (0, "PCMU/8000"), &copy)
    }

    /// Starts recording this codec into what ffmpeg is told to make of it.
    pub fn start_as(at: SocketAddr, directory: &Path, codec: (u8, &str), format: &[&str]) -> Self {
        let description = directory.join(format!("recorder-{}.sdp", at.port()));
        let output = directory.join(format!("recorder-{}.raw", at.port()));
        let mut offer = Offer::with_codecs(at, &[codec]);
        offer.attributes.push("recvonly".to_owned());
        fs::write(&description, offer.write()).expect("description");
        let mut command = Command::new("ffmpeg");
        command
            .args(["-hide_banner", "-loglevel", "error", "-y"])
            .args([
                "-protocol_whitelist",
                "file,udp,rtp",
                "-reorder_queue_size",
                "0",
                "-i",
            ])
            .arg(&description)
            .args(format)
            .args(["-flush_packets", "1"])
            .arg(&output);
        let process = Process::start(
            "ffmpeg (recording)",
            command,
            directory.join("recorder.log"),
        );
        let port = format!(":{:04X} ", at.port());
        eventually("ffmpeg listens", SOON, || {
            let bound = fs::read_to_string("/proc/net/udp").ok()?;
            bound.contains(&port).then_some(())
        });
        Self { process, output }
    }

    /// Waits until at least this many bytes are there or nothing more comes, ends the recording and
    /// gives all of them.
    pub fn finish(mut self, expected: usize) -> Vec<u8> {
        let mut seen = 0;
        let mut still = 0;
        eventually("the recording is whole or stands still", 6 * SOON, || {
            let size = fs::metadata(&self.output).map_or(0, |file| file.len()) as usize;
            still = if size == seen { still + 1 } else { 0 };
            seen = size;
            // 200 polls without growth are two seconds.
            (size >= expected || still > 200).then_some(())
        });
        // Anything too much would come now. ffmpeg flushes each packet; asked to end, it would first
        // wait for its socket.
        thread::sleep(Duration::from_millis(200));
        self.process.kill();
        fs::read(&self.output).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_themselves_lose_nothing_between_them() {
        let directory = tempfile::tempdir().expect("directory");
        let wav = directory.path().join("noise.wav");
        let expected = noise(&wav, 1);
        let (from, at) = (free_port(), free_port());
        let recorder = Recorder::start(at, directory.path());
        let mut stream = stream(&wav, from, at, directory.path().join("stream.log"));
        assert!(stream.wait(3 * SOON).success());
        let heard = recorder.finish(expected.len());
        assert_eq!(heard.len(), expected.len());
        assert!(heard == expected, "the samples differ");
    }
}
