//! A running rtpbridge: both processes with directories and ports of their own, either started here
//! one by one (so that a test decides when control comes back) or by the supervisor.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::http::{self, Response};
use super::ports::PortBlock;
use super::process::Process;
use super::procfs;
use super::wait::{SOON, eventually};

const DEFAULT_MEDIA_PORTS: u16 = 180;
/// A shell script for a command line: runs it with descriptor 0 passed as sd_listen_fds(3) has it.
const PASS_INPUT_AS_SOCKET: &str = "exec 3<&0 0</dev/null; \
    LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=control exec \"$0\" \"$@\"";

/// Who starts the two processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Startup {
    /// The harness, one by one.
    Separate,
    /// `rtpbridge`.
    Supervised,
}

/// What a server shall be like.
#[derive(Debug)]
pub struct ServerBuilder {
    startup: Startup,
    media_ports: u16,
    settings: BTreeMap<String, String>,
    arguments: Vec<String>,
}

impl ServerBuilder {
    /// Has the supervisor start both processes.
    #[must_use]
    pub fn supervised(mut self) -> Self {
        self.startup = Startup::Supervised;
        self
    }

    /// Sets a configuration key to a TOML value.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    /// Sets a configuration key to a TOML string.
    #[must_use]
    pub fn set_text(self, key: &str, value: impl AsRef<str>) -> Self {
        let quoted = format!("{:?}", value.as_ref());
        self.set(key, quoted)
    }

    /// How many ports the media range shall have at least.
    #[must_use]
    pub fn media_ports(mut self, count: u16) -> Self {
        self.media_ports = count;
        self
    }

    /// A further command-line argument for the started programs.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Writes the configuration, starts everything and waits until /health says ok.
    pub fn start(self) -> Server {
        let mut server = self.prepare();
        match server.startup {
            Startup::Supervised => server.start_supervisor(),
            Startup::Separate => {
                server.start_dataplane();
                server.start_control();
            }
        }
        server.wait_healthy();
        server
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(mut self) -> Server {
        let directory = TempDir::with_prefix("rtpbridge-test-").expect("temporary directory");
        let ports = PortBlock::reserve(self.media_ports);
        let (first, last) = ports.media();
        let address = SocketAddr::from(([127, 0, 0, 1], ports.listener()));
        for name in ["run", "recordings", "media", "cache"] {
            let path = directory.path().join(name);
            fs::create_dir(&path).expect("directory");
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .expect("mode");
        }
        let mut defaults = BTreeMap::new();
        let mut text = |key: &str, value: String| defaults.insert(key.to_owned(), value);
        text("listen", format!("\"{address}\""));
        text("rtp_port_range", format!("[{first}, {last}]"));
        // The machine may be busy with other tests; that must refuse nobody.
        text("max_lateness_ms", "0".to_owned());
        for (key, name) in [
            ("runtime_dir", "run"),
            ("recording_dir", "recordings"),
            ("media_dir", "media"),
            ("cache_dir", "cache"),
        ] {
            text(key, format!("{:?}", directory.path().join(name)));
        }
        defaults.append(&mut self.settings);
        let config: String = defaults
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        fs::write(directory.path().join("rtpbridge.toml"), config).expect("configuration file");
        Server {
            startup: self.startup,
            supervisor: None,
            control: None,
            dataplane: None,
            arguments: self.arguments,
            address,
            directory,
            ports,
        }
    }
}

/// A running server. Its processes end and its directories go when it is dropped.
#[derive(Debug)]
pub struct Server {
    startup: Startup,
    // Control before the dataplane: dropped in this order.
    supervisor: Option<Process>,
    control: Option<Process>,
    dataplane: Option<Process>,
    arguments: Vec<String>,
    address: SocketAddr,
    directory: TempDir,
    ports: PortBlock,
}

impl Server {
    /// What to change before starting.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            startup: Startup::Separate,
            media_ports: DEFAULT_MEDIA_PORTS,
            settings: BTreeMap::new(),
            arguments: Vec::new(),
        }
    }

    /// A server with the default configuration.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Where HTTP and WebSocket are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A free address for something else that belongs to the test.
    pub fn other_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.listener()))
    }

    /// First and last port of `rtp_port_range`.
    pub fn media_ports(&self) -> (u16, u16) {
        self.ports.media()
    }

    /// The directory that holds everything of this server.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.path("rtpbridge.toml")
    }

    /// Something in the server's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An absolute path for a recording.
    pub fn recording_path(&self, name: &str) -> String {
        let path = self.path("recordings").join(name);
        path.to_string_lossy().into_owned()
    }

    /// The socket between the processes.
    pub fn ipc_socket(&self) -> PathBuf {
        self.path("run").join("dataplane.sock")
    }

    /// A new client without a session.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// A new client with a session, and the session's id.
    pub fn session(&self) -> (Client, String) {
        Client::with_session(self.address)
    }

    /// GET on the control address.
    pub fn get(&self, path: &str) -> Response {
        http::get(self.address, path)
    }

    /// Waits until /health says ok.
    pub fn wait_healthy(&self) {
        eventually("/health says ok", 2 * SOON, || {
            let health = http::try_request(self.address, "GET", "/health", &[]).ok()?;
            (health.status == 200).then_some(())
        });
    }

    /// The value of a metric without labels, or with exactly the labels written in `name`.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").text();
        metric_in(&metrics, name).unwrap_or_else(|| panic!("no metric {name} in:\n{metrics}"))
    }

    /// A metric that does not exist before its first increment.
    pub fn metric_or_zero(&self, name: &str) -> f64 {
        metric_in(&self.get("/metrics").text(), name).unwrap_or(0.0)
    }

    /// The array of GET /sessions.
    pub fn sessions(&self) -> Vec<Value> {
        let listed = self.get("/sessions").json();
        listed.as_array().expect("an array").clone()
    }

    /// Process id of control.
    pub fn control_pid(&self) -> Pid {
        self.find_pid(self.control.as_ref(), "rtpbridge-control")
            .expect("control runs")
    }

    /// Process id of the dataplane.
    pub fn dataplane_pid(&self) -> Pid {
        self.find_pid(self.dataplane.as_ref(), "rtpbridge-dataplane")
            .expect("the dataplane runs")
    }

    /// Process id of control, if it runs at this moment.
    pub fn try_control_pid(&self) -> Option<Pid> {
        self.find_pid(self.control.as_ref(), "rtpbridge-control")
    }

    /// Process id of the dataplane, if it runs at this moment.
    pub fn try_dataplane_pid(&self) -> Option<Pid> {
        self.find_pid(self.dataplane.as_ref(), "rtpbridge-dataplane")
    }

    fn find_pid(&self, own: Option<&Process>, name: &str) -> Option<Pid> {
        match &self.supervisor {
            Some(supervisor) => procfs::child_named(supervisor.pid(), name),
            None => own.map(Process::pid),
        }
    }

    /// Sends a signal to control, whoever started it.
    pub fn signal_control(&self, signal: Signal) {
        kill(self.control_pid(), signal).expect("control can be signalled");
    }

    /// Sends a signal to the dataplane, whoever started it.
    pub fn signal_dataplane(&self, signal: Signal) {
        kill(self.dataplane_pid(), signal).expect("the dataplane can be signalled");
    }

    /// The supervisor.
    pub fn supervisor(&mut self) -> &mut Process {
        self.supervisor.as_mut().expect("a supervised server")
    }

    /// The control process that the harness started.
    pub fn control(&mut self) -> &mut Process {
        self.control.as_mut().expect("control was started here")
    }

    /// The dataplane process that the harness started.
    pub fn dataplane(&mut self) -> &mut Process {
        self.dataplane
            .as_mut()
            .expect("the dataplane was started here")
    }

    /// Starts (or starts again) the dataplane.
    pub fn start_dataplane(&mut self) {
        self.dataplane = Some(self.launch("rtpbridge-dataplane"));
    }

    /// Starts (or starts again) control.
    pub fn start_control(&mut self) {
        self.control = Some(self.launch("rtpbridge-control"));
    }

    /// Starts control with something more in its environment.
    pub fn start_control_with(&mut self, name: &str, value: &str) {
        let mut command = self.command("rtpbridge-control");
        command.env(name, value).args(&self.arguments);
        let log = self.path("rtpbridge-control.log");
        self.control = Some(Process::start("rtpbridge-control", command, log));
    }

    /// Starts control as a service manager does that holds the control address: with the listening
    /// socket as descriptor 3.
    pub fn start_control_behind(&mut self, listener: &TcpListener) {
        let program = self.command("rtpbridge-control");
        let mut command = program_command_of(Path::new("/bin/sh"));
        command
            .args(["-c", PASS_INPUT_AS_SOCKET])
            .arg(program.get_program())
            .args(program.get_args())
            .args(&self.arguments);
        let socket = listener.try_clone().expect("a descriptor is free");
        let input = Stdio::from(OwnedFd::from(socket));
        let log = self.path("rtpbridge-control.log");
        let control = Process::start_with_input("rtpbridge-control", command, log, input);
        self.control = Some(control);
    }

    /// Starts a control beside the living one, which is given back: the new one takes over from it.
    pub fn start_successor(&mut self) -> Process {
        let successor = self.launch("rtpbridge-control");
        let living = self.control.replace(successor);
        living.expect("control was started here")
    }

    /// Runs one of the programs under `wrapper`, a command line that ends with a program to start.
    pub fn start_under(&self, wrapper: &mut Command, program: &str) -> Process {
        let inner = self.command(program);
        wrapper.arg(inner.get_program()).args(inner.get_args());
        for (name, _) in inner.get_envs() {
            wrapper.env_remove(name);
        }
        let wrapper = std::mem::replace(wrapper, Command::new("true"));
        Process::start(program, wrapper, self.path(&format!("{program}.log")))
    }

    /// Takes the processes that [`Self::start_under`] started as this server's own.
    pub fn adopt(&mut self, dataplane: Process, control: Process) {
        self.dataplane = Some(dataplane);
        self.control = Some(control);
    }

    /// `rtpbridgectl` for this server.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("rtpbridgectl");
        let output = command.args(arguments).stdin(Stdio::null()).output();
        output.expect("rtpbridgectl runs")
    }

    /// Starts the supervisor.
    pub fn start_supervisor(&mut self) {
        self.supervisor = Some(self.launch("rtpbridge"));
    }

    /// Kills control with -9 and waits until it is gone.
    pub fn kill_control(&mut self) {
        self.control().kill();
    }

    /// A command line of one of the programs with this server's configuration.
    pub fn command(&self, program: &str) -> Command {
        let mut command = program_command(program);
        command.arg("--config").arg(self.config_file());
        command
    }

    /// What the processes have printed so far.
    pub fn logs(&self) -> String {
        [&self.supervisor, &self.dataplane, &self.control]
            .into_iter()
            .flatten()
            .map(Process::log)
            .collect()
    }

    fn launch(&self, program: &str) -> Process {
        let mut command = self.command(program);
        command.args(&self.arguments);
        Process::start(program, command, self.path(&format!("{program}.log")))
    }
}

/// The bare command of one of the programs, without any configuration from this environment.
pub fn program_command(program: &str) -> Command {
    program_command_of(&binary(program))
}

fn program_command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if name.starts_with("RTPBRIDGE_") || name == "RUNTIME_DIRECTORY" {
            command.env_remove(name);
        }
    }
    command
}

/// Path of one of the programs: `TEST_BIN_DIR`, or the directory the test itself was built into.
pub fn binary(program: &str) -> PathBuf {
    let directory = std::env::var_os("TEST_BIN_DIR").map_or_else(
        || {
            let own = std::env::current_exe().expect("own path");
            let profile = own.parent().and_then(Path::parent);
            profile.expect("target/PROFILE/deps").to_path_buf()
        },
        PathBuf::from,
    );
    let path = directory.join(program);
    assert!(
        path.exists(),
        "{} is missing: `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// A metric's value in the text format.
pub fn metric_in(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    })
}
