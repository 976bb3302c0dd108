//! The feeds of logs: a deploy's until its end, an app's until it is removed.

use super::{Facts, Feed, Next};
use crate::journal::{Event, Journal, Subscription};
use crate::model::{AppId, DeployId};
use log::error;
use serde_json::json;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

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
    /// It is looked for at the next tick: a deploy that is queued has none yet.
    Awaited,
    Open(Box<Subscription>),
    /// Its last line was sent; the result follows as soon as the deploy is final.
    Ended,
    /// The result was sent.
    Over,
}

impl<'a> DeployFeed<'a> {
    pub(super) fn new(id: DeployId, journal: &'a Journal, facts: &'a dyn Facts) -> Self {
        Self { id, journal, facts, log: Log::Awaited }
    }

    fn open(&mut self) -> io::Result<()> {
        // Asked first: a deploy that ends meanwhile has its log by then.
        let ended = self.facts.deploy_ended(&self.id) == Some(true);
        match self.journal.follow_deploy(&self.id)? {
            Some(subscription) => self.log = Log::Open(Box::new(subscription)),
            None if ended => self.log = Log::Ended,
            None => {}
        }
        Ok(())
    }
}

impl Feed for DeployFeed<'_> {
    fn next(&mut self, _: Instant, tick: bool) -> Next {
        if matches!(self.log, Log::Awaited)
            && tick
            && let Err(why) = self.open()
        {
            error!("cannot follow the log of deploy {}: {why}", self.id);
            return Next::Failed;
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
            Log::Over => Next::Over("the deploy has ended"),
            // The log is complete a moment before the database says so.
            Log::Ended if self.facts.deploy_ended(&self.id) == Some(false) => Next::Nothing,
            Log::Ended => match self.facts.deploy_json(&self.id) {
                Some(deploy) => {
                    self.log = Log::Over;
                    Next::Message(format!(r#"{{"end":{deploy}}}"#))
                }
                None => Next::Over("deleted"),
            },
            _ if tick && self.facts.deploy_ended(&self.id).is_none() => Next::Over("deleted"),
            _ => Next::Nothing,
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let Log::Open(subscription) = &self.log else { return None };
        subscription.fd()
    }
}

/// An app's last lines, then live.
pub(super) struct AppFeed<'a> {
    id: AppId,
    facts: &'a dyn Facts,
    subscription: Subscription,
}

impl<'a> AppFeed<'a> {
    pub(super) fn new(id: AppId, journal: &Journal, facts: &'a dyn Facts) -> io::Result<Self> {
        let subscription = journal.follow_app(&id, PAST, || facts.app_redactor(&id))?;
        Ok(Self { id, facts, subscription })
    }
}

impl Feed for AppFeed<'_> {
    fn next(&mut self, _: Instant, tick: bool) -> Next {
        let (message, ended) = batch(self.subscription.read(BATCH));
        match message {
            Some(message) => Next::Message(message),
            None if ended || (tick && !self.facts.app_exists(&self.id)) => Next::Over("deleted"),
            None => Next::Nothing,
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.subscription.fd()
    }
}

/// The lines as one message, and whether the log has ended.
fn batch(events: Vec<Event>) -> (Option<String>, bool) {
    let ended = events.contains(&Event::End);
    let line = |event| if let Event::Line(line) = event { Some(line) } else { None };
    let lines: Vec<String> = events.into_iter().filter_map(line).collect();
    ((!lines.is_empty()).then(|| json!({ "lines": lines }).to_string()), ended)
}
