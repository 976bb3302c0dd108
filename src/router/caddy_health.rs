//! What Caddy is asked over its Unix sockets: whether it serves, and what it does with a host.

use super::RouterState;
use super::caddy_config::{ADMIN, CHECK};
use crate::http_client::{self, Patience};
use crate::proc::Cancel;
use crate::sync::EventFd;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two questions.
pub const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long one question to the router may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long it may take to say its configuration, and to go over to another.
const LOADING: Duration = Duration::from_secs(8);

/// No app has such a host.
pub const NO_HOST: &str = "-";

/// Asks Caddy whether it serves, and what it does with a host; and what is known of it.
pub struct CaddyHealth {
    /// The router's directory.
    pub dir: PathBuf,
    /// What the router is doing.
    pub state: Mutex<RouterState>,
    /// Signalled when a site has other rules.
    pub rules: EventFd,
    /// Ends whatever waits.
    pub stop: Cancel,
}

impl CaddyHealth {
    /// Asks once, in the old way that ends with the connection; the answer's status, and its
    /// body, lossy.
    fn ask(&self, socket: &str, request: &str, limit: Duration) -> io::Result<(u16, String)> {
        let patience = Patience { until: Instant::now() + limit, stop: &[self.stop.as_fd()] };
        let (status, body) = http_client::ask(&self.dir.join(socket), request, patience)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The configuration that it goes by.
    pub fn configuration(&self) -> io::Result<(u16, String)> {
        // Caddy wants an empty host on a Unix socket.
        self.ask(ADMIN, "GET /config/ HTTP/1.0\r\nHost: \r\n\r\n", LOADING)
    }

    /// Has it go over to another configuration: that of another version of ours, other settings of
    /// the owner, better ports. Caddy 2.6 cuts upgraded connections then, so nothing that happens
    /// in an app's life comes here. After one that it refuses, its versions up to 2.11 at least go
    /// on serving but take no further change.
    pub fn load(&self, configuration: &str) -> io::Result<(u16, String)> {
        let length = configuration.len();
        let request = format!(
            "POST /load HTTP/1.0\r\nHost: \r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{configuration}"
        );
        self.ask(ADMIN, &request, LOADING)
    }

    /// Whether it takes requests as it should.
    pub fn is_serving(&self) -> bool {
        self.found(NO_HOST).is_ok_and(|(status, _)| status == 404)
    }

    /// What it would do with a host.
    pub fn found(&self, host: &str) -> io::Result<(u16, String)> {
        self.ask(CHECK, &format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n"), ANSWER)
    }
}
