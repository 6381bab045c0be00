//! A web server whose every answer the test says: the good ones, and those of servers that are slow,
//! lie about lengths, send without end, or send their visitors round in circles.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const STEP: Duration = Duration::from_millis(20);

/// What is answered at a path.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200 with these bytes and their length.
    Whole(Vec<u8>),
    /// Only the status.
    Status(u16),
    /// 302 to this location.
    Redirect(String),
    /// 200 with bytes until the visitor has enough.
    Endless,
    /// 200 that promises so many bytes and ends after these.
    Truncated(Vec<u8>, usize),
    /// 200 with a length, then one byte now and then.
    Drip,
    /// A connection that is accepted and never answered.
    Silent,
    /// 200 with these bytes, a piece at a time over this long.
    Slow(Vec<u8>, Duration),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// The server. Ends with the value.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<BTreeMap<String, Answer>>,
    asked: Mutex<Vec<Asked>>,
    stop: AtomicBool,
}

impl WebServer {
    /// On a free port of 127.0.0.1, knowing no path.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if served.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&served);
                // Visitors go when they like; that is no matter of the test's.
                thread::spawn(move || drop(stream.and_then(|stream| shared.serve(stream))));
            }
        });
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Says what is answered at a path; gives its URL.
    pub fn answer(&self, path: &str, answer: Answer) -> String {
        lock(&self.shared.answers).insert(path.to_owned(), answer);
        self.url(path)
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests for this path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = lock(&self.shared.asked);
        asked.iter().filter(|a| a.path == path).cloned().collect()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let asked = read_request(&stream)?;
        let path = asked.path.clone();
        lock(&self.asked).push(asked);
        let answer = lock(&self.answers).get(&path).cloned();
        self.write(&stream, answer.unwrap_or(Answer::Status(404)))
    }

    fn write(&self, mut to: &TcpStream, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Whole(body) => {
                head(to, 200, Some(body.len()), "")?;
                to.write_all(&body)
            }
            Answer::Status(status) => head(to, status, Some(0), ""),
            Answer::Redirect(location) => {
                head(to, 302, Some(0), &format!("Location: {location}\r\n"))
            }
            Answer::Truncated(body, promised) => {
                head(to, 200, Some(promised), "")?;
                to.write_all(&body)
            }
            Answer::Endless => {
                head(to, 200, None, "")?;
                while !self.stop.load(Ordering::Relaxed) {
                    to.write_all(&[0x55; 65_536])?;
                }
                Ok(())
            }
            Answer::Drip => {
                head(to, 200, Some(1_000_000), "")?;
                while !self.stop.load(Ordering::Relaxed) {
                    to.write_all(b"R")?;
                    thread::sleep(STEP);
                }
                Ok(())
            }
            Answer::Silent => {
                while !self.stop.load(Ordering::Relaxed) {
                    thread::sleep(STEP);
                }
                Ok(())
            }
            Answer::Slow(body, over) => {
                head(to, 200, Some(body.len()), "")?;
                let pieces = (over.as_millis() / STEP.as_millis()).max(1) as usize;
                for piece in body.chunks(body.len().div_ceil(pieces).max(1)) {
                    thread::sleep(STEP);
                    to.write_all(piece)?;
                }
                Ok(())
            }
        }
    }
}

fn head(mut to: &TcpStream, status: u16, length: Option<usize>, more: &str) -> io::Result<()> {
    let length = length.map_or(String::new(), |length| {
        format!("Content-Length: {length}\r\n")
    });
    write!(
        to,
        "HTTP/1.1 {status} Said so\r\n{length}{more}Connection: close\r\n\r\n"
    )
}

fn read_request(stream: &TcpStream) -> io::Result<Asked> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Asked { path, headers })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}
