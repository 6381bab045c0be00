//! What the README says first is what works first.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::wait::SOON;
use rtpbridge_tests::peer::{audio, ffmpeg, script};

const RATE_HZ: usize = 8000;

/// The program of the README's first call.
fn first_call() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once("<<'END'\n").expect("a program");
    let (program, _) = rest.split_once("\nEND\n").expect("its end");
    program.to_owned()
}

/// The samples of a WAV file with a plain header.
fn samples(wav: &Path) -> Vec<i16> {
    let bytes = fs::read(wav).unwrap();
    let head = bytes.windows(4).position(|word| word == b"data").unwrap();
    let pairs = bytes[head + 8..].chunks_exact(2);
    pairs
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

#[test]
fn the_first_call_works_as_it_is_pasted() {
    let server = Server::builder().supervised().start();
    let mut program = first_call();
    // Other tests run beside this one: only the ports are not those of the README.
    let own = server.address().to_string();
    let [talker, listener] = [(); 2].map(|()| ffmpeg::free_port().port().to_string());
    let places = [
        ("127.0.0.1:9100", own),
        ("40000", talker),
        ("40002", listener),
    ];
    for (place, (written, _)) in places.iter().enumerate() {
        assert!(program.contains(written), "{written} in:\n{program}");
        program = program.replace(written, &format!("<place {place}>"));
    }
    for (place, (_, here)) in places.iter().enumerate() {
        program = program.replace(&format!("<place {place}>"), here);
    }
    let file = server.path("first_call.py");
    fs::write(&file, program).unwrap();
    let mut python = Command::new(script::python());
    python.arg("-").current_dir(server.directory());
    let input = File::open(&file).unwrap().into();
    let log = server.path("first_call.log");
    let mut python = Process::start_with_input("the first call", python, log, input);
    let ended = python.wait(3 * SOON);
    let said = python.log();
    assert!(ended.success(), "{said}");
    assert!(
        said.contains("'packets_lost': 0"),
        "the statistics are shown: {said}"
    );
    let heard = samples(&server.path("heard.wav"));
    let seconds = heard.len() as f64 / RATE_HZ as f64;
    assert!((2.9..3.1).contains(&seconds), "{seconds} s were heard");
    let pitch = audio::pitch(&heard);
    assert!(
        (438.0..442.0).contains(&pitch),
        "a tone of {pitch} Hz was heard"
    );
    assert!(server.sessions().is_empty(), "the call has ended");
}
