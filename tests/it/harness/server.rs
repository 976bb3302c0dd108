//! The server as a process: a temporary data directory, a cleared environment, its log, its end.

use super::program::{follow, read_all};
pub use super::program::{mode, run};

use super::http::Http;
use super::process;
use super::wait::until_some;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Starting takes milliseconds; a busy machine may take its time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longer than its end takes; the tests of the promise (10 s) measure it.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// How to start a server; a copy of it starts another one on the same data.
#[derive(Clone)]
pub struct Setup {
    home: Arc<TempDir>,
    env: BTreeMap<String, String>,
    user: Option<String>,
    instead: Vec<(String, PathBuf)>,
    shell: Vec<String>,
    low_ports: bool,
    landlock: bool,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Setup {
    /// A fresh data directory, a free port of the loopback interface, no router, nothing else set.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("bpaas-").tempdir().expect("a directory");
        let (home, env, shell) = (Arc::new(home), BTreeMap::new(), Vec::new());
        let mut setup = Self {
            home,
            env,
            user: None,
            instead: Vec::new(),
            shell,
            low_ports: false,
            landlock: true,
        };
        let data = setup.data();
        setup = setup.env("DATA_DIR", data.to_str().expect("UTF-8"));
        setup.env("ROUTER", "off").listen("127.0.0.1:0")
    }

    /// The same with a router, on free ports of the loopback interface.
    pub fn routed() -> Self {
        let http = free_port();
        let https = std::iter::repeat_with(free_port).find(|port| *port != http).expect("another");
        Self::new()
            .without("ROUTER")
            .env("ROUTER_BIND", "127.0.0.1")
            .env("HTTP_PORT", &http.to_string())
            .env("HTTPS_PORT", &https.to_string())
    }

    /// Where the router listens, by the name of the variable that says so.
    pub fn router(&self, variable: &str) -> SocketAddr {
        let port = self.env.get(variable).expect("a router").parse().expect("a port");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The data directory. The server makes it.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A place for files beside the data directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Sets a variable of the server's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Leaves a variable out.
    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub fn listen(self, address: &str) -> Self {
        self.env("LISTEN_ADDR", address)
    }

    pub fn token(self, token: &str) -> Self {
        self.env("ADMIN_TOKEN", token)
    }

    /// `X-Forwarded-For` from loopback says who the client is, so that one machine can play many.
    pub fn trust_proxy(self) -> Self {
        self.env("TRUST_PROXY", "true")
    }

    /// A line of shell that runs in the server's process before it becomes the server (`umask 0`, `ulimit -n 100`).
    pub fn shell(mut self, line: &str) -> Self {
        self.shell.push(line.to_owned());
        self
    }

    /// Runs the server as an ordinary user: the one that `scripts/test` made when it runs as root, else whoever runs
    /// the tests.
    #[expect(clippy::wrong_self_convention, reason = "who runs it, as in `sudo --user`")]
    pub fn as_user(mut self) -> Self {
        if rustix::process::getuid().is_root() {
            let name = std::env::var("BETTER_PAAS_TEST_USER")
                .expect("BETTER_PAAS_TEST_USER names an ordinary user; scripts/test makes one");
            let home = self.home.path();
            run(Command::new("chown").arg(&name).arg(home));
            self.user = Some(name);
        }
        self
    }

    /// Lets an ordinary user's server have ports below 1024, as `AmbientCapabilities=` of its unit does. Takes root,
    /// and [`Setup::as_user`].
    pub fn with_low_ports(mut self) -> Self {
        self.low_ports = true;
        self
    }

    /// Takes Landlock away, as far as this server can see. Takes root.
    pub fn without_landlock(mut self) -> Self {
        self.landlock = false;
        self
    }

    /// Gives the user no subordinate uids, as far as this server can see. Takes root.
    pub fn without_subordinate_uids(self) -> Self {
        self.instead_of("/etc/subuid", Path::new("/dev/null"))
    }

    /// Shows this server another file in the place of one of the machine's. Takes root, and [`Setup::as_user`].
    pub fn instead_of(mut self, place: &str, file: &Path) -> Self {
        self.instead.push((place.to_owned(), file.to_owned()));
        self
    }

    /// The program with these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let program = self.program();
        let mut command = match &self.user {
            None if self.shell.is_empty() => Command::new(&program),
            None => Command::new("/bin/sh"),
            Some(user) => {
                let mut c = Command::new("setpriv");
                if !self.instead.is_empty() {
                    let mount = |(place, file): &(String, PathBuf)| {
                        format!("mount --bind '{}' '{place}' && ", file.display())
                    };
                    let mounts: String = self.instead.iter().map(mount).collect();
                    c = Command::new("unshare");
                    let script = format!("{mounts}exec \"$@\"");
                    c.args(["--mount", "sh", "-c", &script, "sh", "setpriv"]);
                }
                c.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
                if self.low_ports {
                    c.args(["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]);
                }
                c.args(["--", "/bin/sh"]);
                c
            }
        };
        if self.user.is_some() || !self.shell.is_empty() {
            let mut script = self.shell.join("; ");
            script.push_str("\nexec \"$0\" \"$@\"");
            command.args(["-c", &script]).arg(&program);
        }
        command.args(arguments);
        if !self.landlock {
            let mut outer = Command::new("python3");
            outer
                .args(["-c", include_str!("../fixtures/without_landlock.py")])
                .arg(command.get_program())
                .args(command.get_args());
            command = outer;
        }
        command.env_clear().current_dir(self.home.path()).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path()).envs(&self.env);
        command
    }

    /// The compiled server; a copy where an ordinary user cannot reach it.
    fn program(&self) -> PathBuf {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_server"));
        let everybody = |p: &Path| p.metadata().is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
        if self.user.is_none() || built.ancestors().all(everybody) {
            return built;
        }
        let copy = self.home.path().join("server");
        if !copy.exists() {
            std::fs::copy(&built, &copy).expect("a copy of the server");
            std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("a mode");
        }
        copy
    }

    /// Starts the program and waits for nothing; this is where what it says goes.
    pub fn spawn(&self, arguments: &[&str], output: fn() -> Stdio) -> Child {
        let mut command = self.command(arguments);
        command.stdout(output()).stderr(output()).spawn().expect("the server starts")
    }

    /// Runs the program to its end: an operator's command, or a start that should fail.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let mut child = self.spawn(arguments, Stdio::piped);
        let out = read_all(child.stdout.take().expect("piped"));
        let err = read_all(child.stderr.take().expect("piped"));
        let status = wait(&mut child, START_LIMIT).unwrap_or_else(|| {
            child.kill().expect("killed");
            panic!("`server {}` is still running", arguments.join(" "))
        });
        Finished {
            code: status.code(),
            stdout: out.join().expect("output"),
            stderr: err.join().expect("output"),
        }
    }

    /// Starts the server and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(finished) => panic!("the server did not start: {finished:#?}"),
        }
    }

    /// Starts the server and waits until it listens or ends.
    pub fn try_start(self) -> Result<Server, Finished> {
        let mut child = self.spawn(&[], Stdio::piped);
        let log = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            follow(child.stdout.take().expect("piped"), Arc::clone(&log)),
            follow(child.stderr.take().expect("piped"), Arc::clone(&log)),
        ];
        let ended = until_some("the server listens or ends", START_LIMIT, || {
            if !listening(&log.lock().expect("log")).is_empty() {
                return Some(None);
            }
            child.try_wait().expect("a status").map(Some)
        });
        if let Some(status) = ended {
            readers.into_iter().for_each(|r| r.join().expect("a reader"));
            let stderr = log.lock().expect("log").clone();
            return Err(Finished { code: status.code(), stdout: String::new(), stderr });
        }
        Ok(Server { child, setup: self, log, readers })
    }
}

/// A running server. Its end is by pid, and no app of it stays behind.
pub struct Server {
    child: Child,
    setup: Setup,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// A server on a fresh data directory.
    #[track_caller]
    pub fn start() -> Self {
        Setup::new().start()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    pub fn data(&self) -> PathBuf {
        self.setup.data()
    }

    /// Where it listens, in the order of its log; the first one is there as soon as it has started.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        listening(&self.log())
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// Everything that it has printed so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Waits until the log holds a text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        super::until(&format!("{text:?} in the log"), Duration::from_secs(60), || {
            self.log().contains(text)
        });
    }

    /// The token in force.
    pub fn token(&self) -> String {
        if let Some(pinned) = self.setup.env.get("ADMIN_TOKEN") {
            return pinned.clone();
        }
        let file = self.data().join("admin_token.txt");
        std::fs::read_to_string(file).expect("a token file").trim().to_owned()
    }

    /// A client with the right token.
    pub fn owner(&self) -> Http {
        Http::new(self.address()).bearer(&self.token())
    }

    /// A client of the router that asks for this host.
    pub fn visitor(&self, host: &str) -> Http {
        Http::new(self.setup.router("HTTP_PORT")).host(host)
    }

    /// A client without a token.
    pub fn stranger(&self) -> Http {
        Http::new(self.address())
    }

    /// Runs an operator's command beside it, with the same environment.
    pub fn operator(&self, arguments: &[&str]) -> Finished {
        self.setup.run(arguments)
    }

    /// The end of a power cut.
    pub fn kill9(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a status");
    }

    /// Sends a signal; returns how it ended, and after how long.
    pub fn end_by(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        process::signal(self.pid(), signal);
        let status = wait(&mut self.child, STOP_LIMIT);
        let status =
            status.unwrap_or_else(|| panic!("running after {STOP_LIMIT:?}: {}", self.log()));
        (status, begin.elapsed())
    }

    /// A clean end.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        self.end_by(Signal::TERM)
    }

    /// Ends it cleanly and starts it again on the same data, with a changed setup.
    #[track_caller]
    pub fn restart_with(mut self, change: impl FnOnce(Setup) -> Setup) -> Self {
        self.terminate();
        let setup = self.setup.clone();
        drop(self);
        change(setup).start()
    }

    #[track_caller]
    pub fn restart(self) -> Self {
        self.restart_with(|s| s)
    }

    /// Ends it cleanly and leaves its data.
    pub fn stop(mut self) -> Setup {
        self.terminate();
        self.setup.clone()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running() {
            process::signal(self.pid(), Signal::TERM);
            if wait(&mut self.child, STOP_LIMIT).is_none() {
                let _gone = self.child.kill();
                let _gone = self.child.wait();
            }
        }
        // Apps survive their server by design. The last holder of the data directory ends them.
        if Arc::strong_count(&self.setup.home) == 1 {
            process::of_apps(&self.data()).into_iter().for_each(process::kill);
            if self.setup.user.is_some() {
                // Files of apps belong to other users; root may remove them all.
                let _ = std::fs::remove_dir_all(self.data());
            }
        }
        for reader in self.readers.drain(..) {
            let _panicked = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}---", self.log.lock().expect("log"));
        }
    }
}

/// A port that nobody has: none that the system gives to connections, and none that apps get.
pub fn free_port() -> u16 {
    let mut tries = (0..1000).map(|_| 10_000 + u16::from_be_bytes(super::random()) % 10_000);
    tries.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port")
}

/// The addresses in `listening on http://ADDRESS` lines.
fn listening(log: &str) -> Vec<SocketAddr> {
    let after = |line: &str| {
        let (_, rest) = line.split_once("listening on http://")?;
        rest.split_whitespace().next()?.trim_end_matches('/').parse().ok()
    };
    log.lines().filter_map(after).collect()
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        super::wait::let_pass(Duration::from_millis(5));
    }
}
