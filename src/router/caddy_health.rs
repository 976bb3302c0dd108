//! Watches Caddy: whether it is there, answers, and does what it was told.

use super::caddy_config::CaddyConfig;
use super::{RouterState, admin_client, caddy};
use crate::proc::{Cancel, Running, wait_any};
use crate::sync::lock;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two questions.
pub const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long a change may take until the router is seen to follow it. It needs
/// milliseconds, or two seconds when it is just being started again.
const CONFIRMING: Duration = Duration::from_secs(10);
/// How long one question to the router may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How often it must not answer in a row to be ended. Each time it had [`ANSWER`] for it,
/// and [`IDLE`] lies between two times: a machine out of breath has some 20 s.
const SILENT: u32 = 3;
/// How often its log is looked at, whether it answers, and whether it could have better ports.
const IDLE: Duration = Duration::from_secs(5);
/// How often in a row a better port must be found free: a server that restarts comes back to it.
const FREE: u32 = 3;

/// No app has such a host.
pub const NO_HOST: &str = "-";

/// What ends the watch.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Caddy's end.
    End,
    /// That of the server.
    Stop,
    /// It can listen where it should and does not.
    BetterPorts,
}

/// Asks Caddy whether it serves, and what it does with a host; and what is known of it.
pub struct CaddyHealth {
    /// The router's directory.
    pub dir: PathBuf,
    /// What the router is doing.
    pub state: Mutex<RouterState>,
    /// Ends whatever waits.
    pub stop: Cancel,
}

impl CaddyHealth {
    /// Waits for Caddy's end, and brings it about when Caddy is there and says nothing any
    /// more.
    pub fn watch(&self, mut running: Running, could_move: &dyn Fn() -> bool) -> Seen {
        let (mut asked, mut silent, mut free) = (Instant::now(), 0, 0);
        while running.try_wait().is_none() {
            if asked.elapsed() >= IDLE {
                silent = if self.found(NO_HOST).is_ok() { 0 } else { silent + 1 };
                free = if could_move() { free + 1 } else { 0 };
                // Not `IDLE` after the question: a silent one takes its time.
                asked = Instant::now();
                if silent >= SILENT && !self.stop.is_cancelled() {
                    log::error!("the router has not answered {silent} times and is ended");
                    caddy::end(running);
                    return Seen::End;
                }
            }
            if wait_any(&[running.as_fd(), self.stop.as_fd()], IDLE).is_err() {
                std::thread::sleep(ASK_AGAIN);
            }
            if self.stop.is_cancelled() {
                return Seen::Stop;
            }
            if free >= FREE {
                return Seen::BetterPorts;
            }
            caddy::bound_output(&self.dir);
        }
        Seen::End
    }

    /// Whether it takes requests as it should.
    pub fn is_serving(&self) -> bool {
        self.found(NO_HOST).is_ok_and(|(status, _)| status == 404)
    }

    fn found(&self, host: &str) -> io::Result<(u16, String)> {
        admin_client::ask(&CaddyConfig::check(&self.dir), "GET /", host, "", ANSWER, &self.stop)
    }

    /// Waits until the router is seen to follow a change of the table, which `point` makes and
    /// names. `Some` says why there is no router to ask. The app's host is asked for anew each
    /// time, for its owner may rename it meanwhile; and the change is made once more when the
    /// process before ends in this moment and leads the app's requests nowhere.
    pub fn confirm(
        &self,
        host: &dyn Fn() -> Result<String, String>,
        point: &mut dyn FnMut() -> Result<String, String>,
    ) -> Result<Option<String>, String> {
        let until = Instant::now() + CONFIRMING;
        loop {
            let host = host()?;
            let expected = format!("/{host}/{}", point()?);
            let answer = self.found(&host);
            if answer.as_ref().is_ok_and(|(status, body)| *status == 200 && *body == expected) {
                return Ok(None);
            }
            if let RouterState::Missing(why) = &*lock(&self.state) {
                return Ok(Some(why.clone()));
            }
            if Instant::now() > until || self.stop.is_cancelled() {
                let why = match answer {
                    Ok((status, body)) => format!("it answers {status} {}", body.trim()),
                    Err(error) => error.to_string(),
                };
                return Err(format!("the router did not confirm the new route: {why}"));
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }
}
