//! The feed of a log: a deploy's or a run's until its end, an app's until it is removed.

use super::session::End;
use super::{Facts, Feed, Followed};
use crate::journal::{Begin, Journal, LogOf, Position, Subscription};
use log::error;
use serde_json::json;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;
use tungstenite::protocol::frame::coding::CloseCode;

/// Bytes after which no further line goes into a message. With one line of
/// 8 KiB more, and each byte escaped, it stays under 32 KiB.
const BATCH: usize = 7 * 1024;

/// Lines of an app's past that a session begins with.
const PAST: usize = 200;

/// A log from its first line, an app's last ones, or another place, then live, then the result of
/// what it is of.
pub(super) struct LogFeed<'a> {
    of: Followed,
    from: Option<Position>,
    journal: &'a Journal,
    facts: &'a dyn Facts,
    log: Log,
}

enum Log {
    /// It is looked for at the next tick: a deploy that is queued has none yet, and a run at the
    /// owner's terminal has none at all.
    Awaited,
    Open(Box<Subscription>),
    /// Its last line was sent; the result follows as soon as that is final.
    Ended,
    /// The result was sent.
    Over,
}

impl<'a> LogFeed<'a> {
    pub(super) fn new(
        of: Followed,
        from: Option<Position>,
        journal: &'a Journal,
        facts: &'a dyn Facts,
    ) -> Self {
        Self { of, from, journal, facts, log: Log::Awaited }
    }

    fn open(&mut self) -> io::Result<()> {
        // Asked first: what ends meanwhile has its log by then.
        let ended = self.facts.ended(&self.of) == Some(true);
        let found = match &self.of {
            Followed::App(id) => {
                let begin = self.from.map_or(Begin::Last(PAST), Begin::At);
                Some(self.journal.follow_app(id, begin, || self.facts.app_redactor(id))?)
            }
            Followed::Ending(of) => self.journal.follow(of, self.from.unwrap_or_default())?,
        };
        match found {
            Some(subscription) => self.log = Log::Open(Box::new(subscription)),
            None if ended => self.log = Log::Ended,
            None => {}
        }
        Ok(())
    }
}

impl Feed for LogFeed<'_> {
    fn next(&mut self, _: Instant, tick: bool) -> Result<Option<String>, End> {
        if matches!(self.log, Log::Awaited)
            && tick
            && let Err(why) = self.open()
        {
            error!("cannot follow the log of {:?}: {why}", self.of);
            return Err(End::Close(CloseCode::Error, "this failed inside the server"));
        }
        if let Log::Open(subscription) = &mut self.log {
            let lines = subscription.read(BATCH);
            let place = subscription.place();
            if subscription.is_over() {
                self.log = Log::Ended;
            }
            if !lines.is_empty() {
                let mut message = json!({ "lines": lines });
                if let Some(place) = place {
                    message["at"] = place.to_string().into();
                }
                return Ok(Some(message.to_string()));
            }
        }
        match self.log {
            Log::Over => over(match self.of {
                Followed::Ending(LogOf::Run(_)) => "the run has ended",
                _ => "the deploy has ended",
            }),
            // The log is complete a moment before the database says so.
            Log::Ended if self.facts.ended(&self.of) == Some(false) => Ok(None),
            Log::Ended => match self.facts.json(&self.of) {
                Some(shown) => {
                    self.log = Log::Over;
                    Ok(Some(format!(r#"{{"end":{shown}}}"#)))
                }
                None => over("deleted"),
            },
            _ if tick && self.facts.ended(&self.of).is_none() => over("deleted"),
            _ => Ok(None),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let Log::Open(subscription) = &self.log else { return None };
        subscription.fd()
    }
}

fn over(reason: &'static str) -> Result<Option<String>, End> {
    Err(End::Close(CloseCode::Normal, reason))
}
