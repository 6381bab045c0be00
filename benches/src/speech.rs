//! What the parties say: a minute of talk by espeak-ng, made and encoded before anything is measured.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rtpbridge_tests::sound::Coding;

const TEXT: &str = "Good morning, this is the practice of doctor Miller. All of our lines are busy at \
    the moment, but please stay on the phone. If you would like to make an appointment, press one. If \
    you need a prescription, press two. For everything else just wait; somebody will be with you in \
    about three minutes. Did you know that you can also write to us? Our address is on the web page. \
    Thank you for your patience. Your call is important to us, and we shall take it as soon as we can. \
    By the way, from the first of next month on we are open on Thursdays until eight in the evening.";

/// The same speech in every codec, in frames of 20 ms.
#[derive(Clone, Debug)]
pub struct Speech {
    frames: Vec<(Coding, Arc<[Vec<u8>]>)>,
}

impl Speech {
    /// Has it spoken and encoded.
    ///
    /// # Errors
    /// espeak-ng or ffmpeg is not there or fails.
    pub fn render() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let wav = directory.path().join("speech.wav");
        let mut speak = Command::new("espeak-ng");
        speak.args(["-v", "en", "-s", "160", "-w"]).arg(&wav);
        finish("espeak-ng", speak.arg(TEXT))?;
        let mut frames = Vec::new();
        for coding in Coding::ALL {
            let pcm = pcm_at(coding.audio_hz(), &wav)?;
            frames.push((coding, coding.encode(&pcm).into()));
        }
        Ok(Self { frames })
    }

    /// All of it in one codec.
    pub fn frames(&self, coding: Coding) -> Arc<[Vec<u8>]> {
        let found = self.frames.iter().find(|(known, _)| *known == coding);
        found.map_or_else(|| Arc::from([]), |(_, frames)| Arc::clone(frames))
    }
}

fn pcm_at(rate_hz: u32, wav: &Path) -> Result<Vec<i16>, String> {
    let mut convert = Command::new("ffmpeg");
    convert.args(["-hide_banner", "-loglevel", "error", "-i"]);
    convert.arg(wav).args(["-ac", "1", "-f", "s16le", "-ar"]);
    let bytes = finish("ffmpeg", convert.args([&rate_hz.to_string(), "-"]))?;
    let samples = bytes.chunks_exact(2);
    Ok(samples
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect())
}

/// Runs a program that speech needs to its end; gives its standard output.
fn finish(name: &str, command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command
        .output()
        .map_err(|error| format!("speech needs {name}, which cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}: {said}", output.status));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_says_the_same_for_half_a_minute() {
        let speech = Speech::render().expect("espeak-ng and ffmpeg");
        let counts = Coding::ALL.map(|coding| speech.frames(coding).len());
        assert!(counts.iter().all(|count| *count > 1500), "{counts:?}");
        assert!(counts[0].abs_diff(counts[3]) < 3, "{counts:?}");
        let heard = Coding::Opus.decode(&speech.frames(Coding::Opus));
        let loudest = heard.iter().map(|sample| sample.unsigned_abs()).max();
        assert!(loudest > Some(3000), "{loudest:?}");
    }
}
