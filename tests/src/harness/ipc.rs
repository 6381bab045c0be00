//! The socket between the processes, spoken with the shared crate's framing: a stand-in for a
//! controller or observer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rtpbridge_shared::id::InstanceId;
use rtpbridge_shared::ipc::frame;
use rtpbridge_shared::ipc::hello::{Hello, PROTOCOL_VERSION, Role};
use rtpbridge_shared::ipc::message::{ToControl, ToDataplane};

/// The first frame of whoever comes in this role.
pub fn hello(role: Role, version: u32) -> ToDataplane {
    ToDataplane::Hello(Hello {
        protocol_version: version,
        program_version: "test".to_owned(),
        role,
        pid: std::process::id(),
        instance: InstanceId::random(),
    })
}

/// A connection to the dataplane.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
}

impl Link {
    /// Connects and says hello in this role and version; gives the first frame of the answer.
    pub fn open(socket: &Path, role: Role, version: u32) -> (Self, Option<ToControl>) {
        let stream = UnixStream::connect(socket).expect("the dataplane listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        let mut link = Self { stream };
        link.send(&hello(role, version));
        let answer = link.receive();
        (link, answer)
    }

    /// As [`Link::open`] with the version that is spoken.
    pub fn observe(socket: &Path) -> (Self, Option<ToControl>) {
        Self::open(socket, Role::Observer, PROTOCOL_VERSION)
    }

    /// Sends one frame.
    pub fn send(&mut self, message: &ToDataplane) {
        let mut bytes = Vec::new();
        frame::encode(message, &mut bytes).expect("encodes");
        let _ = self.stream.write_all(&bytes);
    }

    /// Sends bytes that may be no frame.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame; none when the dataplane closes.
    pub fn receive(&mut self) -> Option<ToControl> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some(frame::decode(&body).expect("the dataplane's frames decode"))
    }

    /// The next frame that is no heartbeat; none when the dataplane closes.
    pub fn receive_message(&mut self) -> Option<ToControl> {
        loop {
            match self.receive()? {
                ToControl::Heartbeat => self.send(&ToDataplane::Heartbeat),
                message => return Some(message),
            }
        }
    }
}
