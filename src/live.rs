//! WebSocket sessions: the log of a deploy or a run, an app's log, the machine's numbers.
//!
//! Each session lives on the thread of its own connection, from the request's
//! head to the last byte ([`Live::serve`]). It reads as well as it writes, and
//! it holds no queue: what comes next is fetched only when everything before
//! has gone out. What it needs to know of the database it asks
//! through [`Facts`], which the composition root provides.

mod handshake;
mod logs;
mod session;
mod session_limit;
mod stats;

pub use stats::{Machine, own_memory};

use crate::auth::{self, Auth};
use crate::gate::upgrade::Upgrade;
use crate::journal::{Journal, LogOf, Position, Redactor};
use crate::model::{AppId, DeployId, RunId};
use handshake::Refusal;
use log::debug;
use logs::LogFeed;
use session::{End, Session};
use session_limit::{SessionLimit, SessionSlot};
use stats::StatsFeed;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whose log a session is told.
#[derive(Debug)]
pub enum Followed {
    /// An app's: it ends when the app is removed.
    App(AppId),
    /// One that ends with what it is of.
    Ending(LogOf),
}

/// What the sessions ask about apps and deploys.
pub trait Facts: Send + Sync {
    /// The result, a deploy or run as the API shows it, a JSON object; `None` when there is none.
    fn json(&self, of: &Followed) -> Option<String>;
    /// Whether nothing more will happen to it once its log has ended; `None` when there is no
    /// such thing.
    fn ended(&self, of: &Followed) -> Option<bool>;
    /// What must not appear in the app's log.
    ///
    /// # Errors
    /// When that is not known: then nobody may see the log.
    fn app_redactor(&self, id: &AppId) -> io::Result<Redactor>;
    /// Each app's `id`, `status`, `url` and `lastDeployId`, a JSON array.
    fn app_states(&self) -> String;
}

/// How patient sessions are, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct LiveLimits {
    /// Time between two pings.
    pub ping_every: Duration,
    /// Time to answer one.
    pub pong_within: Duration,
    /// Time in which a peer must take what waits for it.
    pub stalled_after: Duration,
    /// Time between two looks at what has no event of its own, such as the token
    /// in force and all the times above; half of the second that P5 allows.
    pub tick: Duration,
    /// Sessions at once.
    pub sessions: usize,
    /// Sessions at once of one client.
    pub per_client: usize,
}

impl Default for LiveLimits {
    fn default() -> Self {
        Self {
            // Often enough for proxies, many of which end what is silent for a minute.
            ping_every: Duration::from_secs(20),
            // A phone that changes its network is back by then.
            pong_within: Duration::from_secs(10),
            stalled_after: Duration::from_secs(10),
            tick: Duration::from_millis(500),
            // Each has a thread. An open page has two, and few owners have more than a few pages;
            // nobody takes more than a quarter of all.
            sessions: 64,
            per_client: 16,
        }
    }
}

/// What [`Live`] is made of.
pub struct Settings {
    /// Decides who comes in, and for how long.
    pub auth: Arc<Auth>,
    /// Has the logs.
    pub journal: Arc<Journal>,
    /// Knows the rest.
    pub facts: Box<dyn Facts>,
    /// The data directory: the disk that it is on is the one whose size is reported.
    pub data_dir: PathBuf,
    /// An origin that may connect besides the server's own (P23), `https://host[:port]`.
    pub dashboard_origin: Option<String>,
}

/// All WebSocket sessions of the server. Share it by `Arc`.
pub struct Live {
    settings: Settings,
    limits: LiveLimits,
    seats: SessionLimit,
}

impl Live {
    /// Gets ready; nothing runs until a connection is served.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(settings: Settings) -> io::Result<Self> {
        Ok(Self { settings, limits: LiveLimits::default(), seats: SessionLimit::new()? })
    }

    /// Serves one request for a WebSocket: answers with a refusal, or holds the
    /// session until it ends. When it returns nothing more is said.
    pub fn serve(&self, upgrade: Upgrade) {
        let mut stream = &upgrade.stream;
        let served = match self.admit(&upgrade) {
            Ok((owner, feed, key, _seat)) => handshake::accept(stream, &key).map(|()| {
                Session::new(upgrade.stream, upgrade.leftover, feed, self, owner).run();
            }),
            Err(Refusal(answer)) => {
                let whole = answer.whole(false, upgrade.source.https, false);
                whole.and_then(|whole| stream.write_all(&whole))
            }
        };
        if let Err(error) = served {
            debug!("a WebSocket's client went away: {error}");
        }
    }

    /// Ends all sessions with a close frame (1001), and refuses new ones. They are over
    /// when their connections are.
    pub fn shutdown(&self) {
        self.seats.close();
    }

    /// Judges a request, in this order: lockout, origin, token, seat, path, the rest. A foreign
    /// page's token does not count: it could lock out the owner who looks at the page.
    fn admit(
        &self,
        upgrade: &Upgrade,
    ) -> Result<(auth::Session, Box<dyn Feed + '_>, String, SessionSlot), Refusal> {
        handshake::check_lockout(upgrade, &self.settings.auth)?;
        handshake::check_origin(upgrade, self.settings.dashboard_origin.as_deref())?;
        let owner = handshake::authenticate(upgrade, &self.settings.auth)?;
        (upgrade.prove)();
        let seat = self.seats.take(upgrade.source.client, &self.limits)?;
        let feed = self.feed(&upgrade.path, handshake::from(upgrade)?)?;
        let key = handshake::accept_key(upgrade)?;
        Ok((owner, feed, key, seat))
    }

    /// What is sent at each of the four paths, a log from this place on.
    fn feed(&self, path: &str, from: Option<Position>) -> Result<Box<dyn Feed + '_>, Refusal> {
        let Settings { journal, facts, data_dir, .. } = &self.settings;
        let segments: Vec<&str> = path.split('/').collect();
        let (named, code, text) = match segments[..] {
            ["", "ws", "stats"] => {
                return Ok(Box::new(StatsFeed::new(data_dir, &**facts)));
            }
            ["", "ws", "deploys", id] => (
                DeployId::parse(id).ok().map(|id| Followed::Ending(LogOf::Deploy(id))),
                "deploy_not_found",
                "there is no deploy with this id; GET /api/apps/{id}/deploys lists an app's",
            ),
            ["", "ws", "runs", id] => (
                RunId::parse(id).ok().map(|id| Followed::Ending(LogOf::Run(id))),
                "run_not_found",
                "there is no run with this id; GET /api/apps/{id}/runs lists an app's",
            ),
            ["", "ws", "apps", id, "log"] => (
                AppId::parse(id).ok().map(Followed::App),
                "app_not_found",
                "there is no app with this id; GET /api/apps lists them",
            ),
            _ => (
                None,
                "not_found",
                "there is no WebSocket at this path; GET /api/openapi.json names those there are",
            ),
        };
        let of = named.filter(|of| facts.ended(of).is_some());
        let of = of.ok_or_else(|| Refusal::new(404, code, text))?;
        Ok(Box::new(LogFeed::new(of, from, journal, &**facts)))
    }
}

/// What a session sends.
trait Feed {
    /// The next message, a JSON text, or the end; nothing: wait for its descriptor or the next
    /// tick. `tick` says that it is time for a look at the facts.
    fn next(&mut self, now: Instant, tick: bool) -> Result<Option<String>, End>;

    /// Readable when there may be a next message.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests;
