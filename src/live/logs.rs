//! The feeds of logs: a deploy's until its end, an app's until it is removed.

use super::{Facts, Next};
use crate::journal::{Event, Journal, Subscription};
use crate::model::{AppId, DeployId};
use log::error;
use serde_json::json;
use std::io;
use std::os::fd::BorrowedFd;

/// Bytes after which no further line goes into a message. With one line of
/// 8 KiB more, and each byte escaped, it stays under 32 KiB.
const BATCH: usize = 7 * 1024;

/// Lines of an app's past that a session begins with.
const PAST: usize = 200;

/// A deploy's log from its first line, then live, then its result.
pub(super) struct DeployFeed<'a> {
    id: DeployId,
    journal: &'a Journal,
    facts: &'a dyn Facts,
    log: Log,
}

enum Log {
    /// The deploy is queued: there is no log yet.
    Awaited,
    Open(Box<Subscription>),
    /// Its last line was sent; the result follows as soon as the deploy is final.
    Ended,
    /// It cannot be read.
    Broken,
}

impl<'a> DeployFeed<'a> {
    pub(super) fn new(id: DeployId, journal: &'a Journal, facts: &'a dyn Facts) -> Self {
        let mut feed = Self { id, journal, facts, log: Log::Awaited };
        feed.open();
        feed
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.log {
            Log::Open(subscription) => subscription.fd(),
            _ => None,
        }
    }

    pub(super) fn next(&mut self, tick: bool) -> Next {
        if matches!(self.log, Log::Awaited) && tick {
            // Asked first: a deploy that ends meanwhile has its log by then.
            let ended = self.facts.deploy_ended(&self.id) == Some(true);
            self.open();
            if ended && matches!(self.log, Log::Awaited) {
                self.log = Log::Ended;
            }
        }
        if let Log::Open(subscription) = &mut self.log {
            let (message, ended) = batch(subscription.read(BATCH));
            if ended {
                self.log = Log::Ended;
            }
            if let Some(message) = message {
                return Next::Message(message);
            }
        }
        match self.log {
            Log::Ended => self.result(),
            Log::Broken => Next::Failed,
            _ if tick && self.facts.deploy_ended(&self.id).is_none() => Next::Over(None, "deleted"),
            _ => Next::Nothing,
        }
    }

    fn result(&self) -> Next {
        let deploy = match self.facts.deploy_ended(&self.id) {
            Some(true) => self.facts.deploy_json(&self.id),
            // The log is complete a moment before the database says so.
            Some(false) => return Next::Nothing,
            None => None,
        };
        match deploy {
            Some(deploy) => {
                Next::Over(Some(format!(r#"{{"end":{deploy}}}"#)), "the deploy has ended")
            }
            None => Next::Over(None, "deleted"),
        }
    }

    fn open(&mut self) {
        match self.journal.follow_deploy(&self.id) {
            Ok(Some(subscription)) => self.log = Log::Open(Box::new(subscription)),
            Ok(None) => {}
            Err(why) => {
                error!("cannot follow the log of deploy {}: {why}", self.id);
                self.log = Log::Broken;
            }
        }
    }
}

/// An app's last lines, then live.
pub(super) struct AppFeed<'a> {
    id: AppId,
    facts: &'a dyn Facts,
    subscription: Subscription,
}

impl<'a> AppFeed<'a> {
    pub(super) fn new(id: AppId, journal: &'a Journal, facts: &'a dyn Facts) -> io::Result<Self> {
        let subscription = journal.follow_app(&id, PAST, || facts.app_redactor(&id))?;
        Ok(Self { id, facts, subscription })
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.subscription.fd()
    }

    pub(super) fn next(&mut self, tick: bool) -> Next {
        let (message, ended) = batch(self.subscription.read(BATCH));
        match message {
            Some(message) => Next::Message(message),
            None if ended || (tick && !self.facts.app_exists(&self.id)) => {
                Next::Over(None, "deleted")
            }
            None => Next::Nothing,
        }
    }
}

/// The lines as one message, and whether the log has ended.
fn batch(events: Vec<Event>) -> (Option<String>, bool) {
    let mut lines = Vec::new();
    let mut ended = false;
    for event in events {
        match event {
            Event::Line(line) => lines.push(line),
            Event::End => ended = true,
        }
    }
    ((!lines.is_empty()).then(|| json!({ "lines": lines }).to_string()), ended)
}
