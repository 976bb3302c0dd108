//! A server with a router, and visitors who come through it.

use super::wait::let_pass;
use super::{Answer, Http, RawConn, Server, Setup, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two connections of the second client, which shall not take the machine for itself.
const NOW_AND_THEN: Duration = Duration::from_millis(10);

/// What the router may take to start on a busy machine.
pub const STARTING: Duration = Duration::from_secs(30);

/// An app that says its version and holds WebSockets.
pub fn release(version: &str) -> Vec<(&str, &str)> {
    vec![
        ("Procfile", "web: python3 main.py\n"),
        ("main.py", include_str!("../fixtures/live/main.py")),
        ("version", version),
    ]
}

/// What the server says of its router.
pub fn router(owner: &mut Http) -> Value {
    owner.get("/api/system").expect(200).json()["router"].clone()
}

/// Starts a server and waits until its router serves.
#[track_caller]
pub fn start(setup: Setup) -> Server {
    let server = setup.start();
    until_running(&server);
    server
}

#[track_caller]
pub fn until_running(server: &Server) {
    let mut owner = server.owner();
    until("the router runs", STARTING, || router(&mut owner)["state"] == "running");
}

/// The pid of the server's Caddy.
#[track_caller]
pub fn caddy(server: &Server) -> u32 {
    let file = server.data().join("router/caddy.pid");
    let text = std::fs::read_to_string(file).expect("a pid file");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
}

/// What the router finds first for an app.
pub fn led_to(server: &Server, app: &str) -> String {
    let dir = server.data().join("router/apps").join(app);
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let first = names.map(|e| e.file_name().to_string_lossy().into_owned()).min();
    first.and_then(|name| Some(name.split_once('.')?.1.to_owned())).unwrap_or_default()
}

/// One request; nothing when there is no certificate.
pub fn https_once(server: &Server, host: &str, path: &str, arguments: &[&str]) -> Option<Answer> {
    let port = server.setup().router("HTTPS_PORT").port();
    let authority = server.data().join("router/storage/pki/authorities/local/root.crt");
    let output = Command::new("curl")
        .args(["-sS", "-i", "--http1.1", "--max-time", "3", "--resolve"])
        .arg(format!("{host}:{port}:127.0.0.1"))
        .arg("--cacert")
        .arg(authority)
        .args(arguments)
        .arg(format!("https://{host}:{port}{path}"))
        .output()
        .expect("curl");
    Answer::read(&mut output.stdout.as_slice(), false).ok()
}

/// The same once the certificate is there.
#[track_caller]
pub fn https(server: &Server, host: &str, path: &str, arguments: &[&str]) -> Answer {
    let mut answer = None;
    until(&format!("https://{host}{path}"), STARTING, || {
        answer = https_once(server, host, path, arguments);
        answer.is_some()
    });
    answer.expect("an answer")
}

pub fn private() -> Setup {
    Setup::routed().env("PRIVATE_TLS", "true").env("DASHBOARD_DOMAIN", "paas.localhost")
}

/// A client that asks in a tight loop over one connection, or now and then over a new one.
pub struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What it got: how often each text, and what was no good answer.
#[derive(Debug, Default)]
pub struct Seen {
    pub texts: BTreeMap<String, usize>,
    pub failures: Vec<String>,
}

impl Client {
    pub fn start(router: SocketAddr, host: &str, keeps: bool) -> Self {
        let host = host.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let mut connection = None;
            while !stopped.load(Ordering::Relaxed) {
                if !keeps {
                    connection = None;
                    let_pass(NOW_AND_THEN);
                }
                match ask(router, &host, &mut connection) {
                    Ok(text) => *seen.texts.entry(text).or_default() += 1,
                    Err(failure) => {
                        seen.failures.push(failure);
                        connection = None;
                    }
                }
            }
            seen
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client")
    }
}

/// One request; a connection that ends is a failure like any other.
pub fn ask(
    router: SocketAddr,
    host: &str,
    connection: &mut Option<RawConn>,
) -> Result<String, String> {
    // A request may be held while an app that cannot run twice makes room for itself.
    let limit = Duration::from_secs(60);
    if connection.is_none() {
        *connection = Some(RawConn::open(router, None, limit).map_err(|e| e.to_string())?);
    }
    let open = connection.as_mut().expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    open.try_send(request.as_bytes()).map_err(|e| e.to_string())?;
    let answer = open.try_answer(false).map_err(|e| e.to_string())?;
    match answer.status {
        200 => Ok(answer.text()),
        status => Err(format!("{status} {}", answer.text())),
    }
}
