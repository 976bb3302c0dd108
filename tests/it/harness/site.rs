//! A server with one owner whose apps are watched from outside.

use super::apps::{PLAIN, create};
use super::{GitServer, Http, Server, Setup, process, until_some};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until this file is there: in a build's cache, where a test can put it.
pub const HELD_BUILD: &str = "touch /cache/begun; until [ -e /cache/go ]; do sleep 0.02; done";

/// Ends as it is told to by its visitor. `FIXED` is a second port, of its own choice.
pub const FRAGILE: &str = "\
import http.server, os, signal, socket, time
if os.environ.get('STUBBORN'): signal.signal(signal.SIGTERM, lambda *_: open('/data/asked' + os.environ['PORT'], 'w'))
while os.path.exists('/data/hold'): time.sleep(0.02)
if os.environ.get('FIXED'):
    fixed = socket.create_server(('127.0.0.1', int(os.environ['FIXED'])))
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        if self.path == '/exit': os._exit(7)
        if self.path == '/kill': os.kill(os.getpid(), signal.SIGKILL)
        self.send_response(200); self.send_header('Content-Length', '22'); self.end_headers()
        self.wfile.write(b'VERSION one')
        while self.path == '/wait' and not os.path.exists('/data/finish'): time.sleep(0.02)
        self.wfile.write(b' to its end')
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
";

/// Its answer.
pub const WHOLE: &str = "VERSION one to its end";

pub fn files(main: &str) -> [(&'static str, &str); 2] {
    [PLAIN[0], ("main.py", main)]
}

/// A server, its owner, and what is needed to kill and start it again.
pub struct Site {
    pub git: GitServer,
    pub server: Server,
    pub owner: Http,
}

impl Site {
    pub fn new() -> Self {
        Self::with(Setup::new().as_user().start())
    }

    pub fn with(server: Server) -> Self {
        let git = GitServer::start();
        git.commit("fragile", &files(FRAGILE));
        let owner = server.owner();
        Self { git, server, owner }
    }

    /// An app that is checked over HTTP.
    #[track_caller]
    pub fn app(&mut self, name: &str) -> String {
        let app = json!({"name": name, "gitRepo": self.git.url("fragile"), "healthPath": "/"});
        create(&mut self.owner, &app)
    }

    pub fn set_env(&mut self, app: &str, name: &str, value: &str) {
        let env = json!({"env": [{"name": name, "value": value, "secret": false}]});
        self.owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    }

    pub fn change(&mut self, app: &str, change: &Value) {
        self.owner.patch(&format!("/api/apps/{app}"), change).expect(200);
    }

    pub fn place(&self, app: &str) -> PathBuf {
        self.server.data().join("apps").join(app)
    }

    pub fn start_again(&mut self) {
        self.server = self.server.setup().clone().start();
        self.owner = self.server.owner();
    }

    pub fn log(&mut self, app: &str) -> String {
        self.owner.get(&format!("/api/apps/{app}/log")).expect(200).text()
    }

    /// Waits until a deploy has reached a step.
    #[track_caller]
    pub fn reaches(&mut self, deploy: &str, step: &str) {
        until_some(&format!("the deploy is {step}"), LIMIT, || {
            let now = self.owner.get(&format!("/api/deploys/{deploy}")).expect(200).json();
            assert_ne!(now["status"], "failed", "{now}");
            (now["status"] == step).then_some(())
        });
    }

    /// Changes the database while no server has it.
    pub fn change_database(&self, sql: &str) {
        let file = self.server.data().join("better-paas.db");
        let connection = rusqlite::Connection::open(file).expect("the database");
        connection.execute_batch(sql).expect("a change");
    }
}

/// The arguments of the sandboxes that have something of this directory inside.
pub fn sandboxes(place: &Path) -> Vec<String> {
    let place = format!("--bind {}/", place.display());
    process::all().into_iter().map(process::arguments).filter(|a| a.contains(&place)).collect()
}

impl Site {
    /// Whether a Git waits for an answer of the host.
    pub fn git_asks(&self) -> bool {
        let url = self.git.url("fragile");
        let asks = |words: String| words.contains("remote-http") && words.contains(&url);
        process::all().into_iter().map(process::arguments).any(asks)
    }
}

pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}
