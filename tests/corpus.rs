//! The fuzz targets over their corpus, and over a fixed number of reproducible changes to it.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rtpbridge_tests::fuzz::TARGETS;

const CHANGES_PER_SEED: u64 = 3000;
/// Whole sessions take longer than parsing.
const CHANGES_PER_SCRIPT: u64 = 300;

/// Seeds that lie elsewhere in the repository.
fn further_seeds(target: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    (target == "sdp").then(|| root.join("dataplane/core/src/sdp/samples"))
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<PathBuf> = [Some(own), further_seeds(target)]
        .into_iter()
        .flatten()
        .flat_map(|directory| fs::read_dir(directory).expect("a corpus"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| fs::read(file).expect("a seed"))
        .collect()
}

fn changed(seed: &[u8], dice: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..dice.random_range(1..6) {
        let at = dice.random_range(0..=bytes.len());
        match dice.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => {
                let mut noise = vec![0; dice.random_range(0..24)];
                dice.fill_bytes(&mut noise);
                bytes.splice(at..at, noise);
            }
            2 => {
                let end = (at + dice.random_range(0..60)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = dice.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = dice.random();
                }
            }
        }
    }
    bytes
}

#[test]
fn nothing_in_or_near_the_corpus_breaks_a_target() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has seeds");
        let mut dice = StdRng::seed_from_u64(seeds.len() as u64);
        let changes = match *name {
            "session" => CHANGES_PER_SCRIPT,
            _ => CHANGES_PER_SEED,
        };
        target(&[]);
        for seed in &seeds {
            target(seed);
            for _ in 0..changes {
                target(&changed(seed, &mut dice));
            }
        }
    }
}
