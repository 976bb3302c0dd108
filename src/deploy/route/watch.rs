//! Watches Caddy: whether it is there, answers, and does what it was told.

use super::config::Layout;
use super::keeper::{AGAIN, Keeper, LOADING};
use super::table::Entry;
use super::{Host, State, admin, caddy};
use crate::proc::{Running, wait_any};
use crate::sync::lock;
use serde_json::Value;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a change may take until the router is seen to follow it. It needs
/// milliseconds, or two seconds when it is just being started again.
const CONFIRMING: Duration = Duration::from_secs(10);
/// How long one question to the router may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How often it must not answer in a row to be ended. Each time it had [`ANSWER`] for it,
/// and [`IDLE`] lies between two times: a machine out of breath has some 20 s.
const SILENT: u32 = 3;
/// How often its log is looked at and whether it answers; and its configuration where that
/// is in doubt.
const IDLE: Duration = Duration::from_secs(5);
const IN_DOUBT: Duration = Duration::from_secs(1);

/// No app has such a host.
const NO_HOST: &str = "-";

impl Keeper {
    /// Waits for Caddy's end, and brings it about when Caddy is there and says nothing any
    /// more; `false` when the server ends first.
    pub(super) fn watch(&self, mut running: Running) -> bool {
        let (mut asked, mut silent) = (Instant::now(), 0);
        while running.try_wait().is_none() {
            if asked.elapsed() >= IDLE {
                silent = if self.found(NO_HOST).is_ok() { 0 } else { silent + 1 };
                // Not `IDLE` after the question: a silent one takes its time.
                asked = Instant::now();
                if silent >= SILENT && !self.stop.is_cancelled() {
                    log::error!("the router has not answered {silent} times and is ended");
                    caddy::end(running);
                    return true;
                }
            }
            let pause = if self.doubts.load(Ordering::Relaxed) > 0 { IN_DOUBT } else { IDLE };
            if wait_any(&[running.as_fd(), self.stop.as_fd()], pause).is_err() {
                std::thread::sleep(AGAIN);
            }
            if self.stop.is_cancelled() {
                return false;
            }
            caddy::bound_output(&self.dir);
            self.settle_doubts();
        }
        true
    }

    /// Where it is not known whether a change was made, it has not been.
    fn settle_doubts(&self) {
        let doubts = self.doubts.load(Ordering::Relaxed);
        if doubts == 0 {
            return;
        }
        let (Ok(_held), Ok(right)) = (self.turn(), fs::read_to_string(self.config())) else {
            return;
        };
        if self.runs(&right) {
            self.doubts.store(doubts.saturating_sub(1), Ordering::Relaxed);
        } else if self.load(&right, LOADING).is_ok() {
            log::warn!("the router is back at the configuration that it should have");
        }
    }

    /// Whether Caddy says that it runs this configuration.
    pub(super) fn runs(&self, text: &str) -> bool {
        let admin = Layout::admin(&self.dir);
        let answer = admin::ask(&admin, "GET", "", "/config/", b"", ANSWER, &self.stop);
        let runs = answer.ok().and_then(|a| serde_json::from_str::<Value>(&a.body).ok());
        runs.is_some() && runs == serde_json::from_str(text).ok()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.found(NO_HOST).is_ok_and(|answer| answer.status == 404)
    }

    fn found(&self, host: &str) -> io::Result<admin::Answer> {
        admin::ask(&Layout::check(&self.dir), "GET", host, "/", b"", ANSWER, &self.stop)
    }

    /// Waits until the router is seen to follow a change. `Some` says why there is
    /// no router to ask. The app's host is asked for anew each time, for its owner may
    /// rename it meanwhile; and when the process before ends in this moment and leads the
    /// app's requests nowhere, `point` makes the change once more.
    pub(super) fn confirm(
        &self,
        host: Host<'_>,
        entry: &mut Entry,
        point: &dyn Fn() -> Result<Entry, String>,
    ) -> Result<Option<String>, String> {
        let until = Instant::now() + CONFIRMING;
        loop {
            let host = host()?;
            if self.table.is_overtaken(entry) {
                *entry = point()?;
            }
            let expected = format!("/{host}/{}", entry.name);
            let answer = self.found(&host);
            if answer.as_ref().is_ok_and(|a| a.status == 200 && a.body == expected) {
                return Ok(None);
            }
            let state = lock(&self.state).clone();
            if let State::Missing(why) = state {
                return Ok(Some(why));
            }
            if Instant::now() > until || self.stop.is_cancelled() {
                let why = match answer {
                    Ok(answer) => format!("it answers {} {}", answer.status, answer.body.trim()),
                    Err(error) => error.to_string(),
                };
                return Err(format!("the router did not confirm the new route: {why}"));
            }
            std::thread::sleep(AGAIN);
        }
    }
}
