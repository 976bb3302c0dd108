//! Who may come in: one function decides, in the only room that makes a [`Session`].
//!
//! Everything arrives as bytes and a [`Client`]; nothing here knows HTTP. Over
//! HTTP, over a WebSocket and with a ticket the same record of wrong tries
//! counts (P8).

pub mod hook;
mod lockout;
mod notice;
#[cfg(test)]
mod tests;
mod ticket;
#[cfg(test)]
mod timing_tests;
pub mod token;

use crate::data_dir::DataDir;
use crate::model::{Client, Secret, UnixMillis, unix_millis};
use crate::sync::lock;
use hook::Delivery;
use notice::{Line, RateLimitedLog};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Instant;
pub use ticket::LIFETIME as TICKET_LIFETIME;
use ticket::Tickets;
use token::InForce;

/// Milliseconds since the start, by a clock that never jumps when the time is set.
type Millis = u64;

/// Proof that a client showed the token. It ends with the token that opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which token opened it, counted since the start.
    epoch: u64,
}

/// What is decided about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a request goes on only when this says so"]
pub enum Verdict {
    /// It is the owner.
    Allowed(Session),
    /// This client is locked out, whatever it shows now (P8).
    Locked {
        /// Whole seconds until it may try again, rounded up, at least 1.
        retry_after_seconds: u32,
    },
    /// What was shown is wrong, and that was counted.
    Refused,
    /// Nothing was shown, and nothing was counted (P9).
    Anonymous,
}

/// Whether [`Auth::start`] made a new token, which the log must then show once (P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// It was made just now.
    Made,
    /// It was there, in the file or pinned by the environment.
    Kept,
}

/// A client that is locked out now (P13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// Who.
    pub client: Client,
    /// Wrong tries so far.
    pub failures: u32,
    /// When it may try again.
    pub until: UnixMillis,
}

/// The admin token in force, the record of wrong tries, the tickets. Share it by `Arc`.
pub struct Auth {
    data: DataDir,
    pinned: bool,
    clock: Box<dyn Fn() -> Millis + Send + Sync>,
    /// Hears of each lockout that is told in the log.
    lockouts: OnceLock<Box<dyn Fn(Client, String) + Send + Sync>>,
    inner: Mutex<Inner>,
}

struct Inner {
    force: InForce,
    lockouts: lockout::LockoutTable,
    tickets: Tickets,
    notices: RateLimitedLog,
}

impl Auth {
    /// Puts a token in force: the pinned one (P4; no file is read or made then),
    /// else the one in `admin_token.txt`, else a new one, which is saved there
    /// (P1).
    ///
    /// # Errors
    /// [`AuthError`] when the file is unreadable, holds no token, or cannot be written.
    pub fn start(pinned: Option<Secret>, data: &DataDir) -> Result<(Self, Fresh), AuthError> {
        let start = Instant::now();
        let clock = move || Millis::try_from(start.elapsed().as_millis()).unwrap_or(Millis::MAX);
        Self::start_at(pinned, data, clock)
    }

    fn start_at(
        pinned: Option<Secret>,
        data: &DataDir,
        clock: impl Fn() -> Millis + Send + Sync + 'static,
    ) -> Result<(Self, Fresh), AuthError> {
        let is_pinned = pinned.is_some();
        let (token, fresh) = match pinned {
            Some(token) => (token, Fresh::Kept),
            None => match token::read(data)? {
                Some(token) => (token, Fresh::Kept),
                None => (token::rotate_file(data)?, Fresh::Made),
            },
        };
        let inner = Inner {
            force: InForce::new(token),
            lockouts: lockout::LockoutTable::new(lockout::CAPACITY),
            tickets: Tickets::default(),
            notices: RateLimitedLog::default(),
        };
        let (clock, inner) = (Box::new(clock), Mutex::new(inner));
        let (data, lockouts) = (data.clone(), OnceLock::new());
        Ok((Self { data, pinned: is_pinned, clock, lockouts, inner }, fresh))
    }

    /// Has each lockout told that the log tells, and so at most ten a minute, by the thread of
    /// the request that brought it about: `tell` does not wait.
    pub fn tell_lockouts(&self, tell: impl Fn(Client, String) + Send + Sync + 'static) {
        // It is called once.
        let _ = self.lockouts.set(Box::new(tell));
    }

    /// The same bound for what the audit log says of deliveries that did nothing: what to say,
    /// if one more fits into this minute, with how many did not fit before it.
    #[must_use]
    pub fn admit_hook(&self, act: String) -> Option<String> {
        let line = self.lock().notices.ignored((self.clock)(), act);
        line.map(|(_, text)| text)
    }

    /// The token in force.
    #[must_use]
    pub fn token(&self) -> Secret {
        self.lock().force.token.clone()
    }

    /// Whether the environment pins the token (P4).
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Decides about a request that shows this token, or none (P3, P8, P9).
    pub fn decide(&self, presented: Option<&[u8]>, client: Client) -> Verdict {
        let Some(presented) = presented else { return Verdict::Anonymous };
        self.judge(client, |inner, _| {
            inner.force.is(presented).then_some(Session { epoch: inner.force.epoch })
        })
    }

    /// For how many seconds more a client is locked out, rounded up (P8).
    #[must_use]
    pub fn locked_out(&self, client: Client) -> Option<u32> {
        self.lock().lockouts.locked(client, (self.clock)())
    }

    /// Decides about a request over the Unix socket in the data directory.
    /// Only our own user and root get there, who could read the token anyway:
    /// being there is proof enough, also for the operator in whose shell a pinned
    /// token is not set, and who must be able to clear a lockout (P13). A wrong
    /// token is refused all the same, but not counted.
    pub fn decide_local(&self, presented: Option<&[u8]>) -> Verdict {
        let inner = self.lock();
        if presented.is_none_or(|token| inner.force.is(token)) {
            Verdict::Allowed(Session { epoch: inner.force.epoch })
        } else {
            Verdict::Refused
        }
    }

    /// Whether a webhook's delivery proves that its Git host sent it. Nothing is counted
    /// and nobody locked out: 256 random bits are not guessed, and who cannot guess them
    /// must not keep a Git host out that others use as well, nor the owner beside him. A bad
    /// one is only told in the log; over the socket in the data directory, without a client, not even that.
    #[must_use = "a delivery does something only when this says so"]
    pub fn is_genuine(&self, delivery: &Delivery<'_>, client: Option<Client>) -> bool {
        let genuine = delivery.is_genuine(unix_millis());
        if !genuine && let Some(client) = client {
            let line = self.lock().notices.hook(client, (self.clock)());
            write(line.as_ref());
        }
        genuine
    }

    /// A ticket that opens one WebSocket once, within [`TICKET_LIFETIME`].
    ///
    /// # Errors
    /// [`AuthError::NoRandomness`].
    pub fn open_ticket(&self, session: &Session) -> Result<Secret, AuthError> {
        self.lock().tickets.open(session, (self.clock)())
    }

    /// Decides about a WebSocket that shows this ticket. A bad ticket counts
    /// like a bad token (P8).
    pub fn redeem(&self, ticket: &[u8], client: Client) -> Verdict {
        self.judge(client, |inner, now| {
            let session = inner.tickets.take(ticket, now)?;
            (session.epoch == inner.force.epoch).then_some(session)
        })
    }

    /// Whether the token that opened the session is still in force (P5).
    #[must_use]
    pub fn is_alive(&self, session: &Session) -> bool {
        self.lock().force.epoch == session.epoch
    }

    /// Puts a new token in force and saves it; every session of the old one ends (P5).
    ///
    /// # Errors
    /// [`AuthError::Pinned`] when the environment pins the token, else the
    /// reason why it could not be saved; the old one stays in force then.
    pub fn rotate(&self) -> Result<Secret, AuthError> {
        if self.pinned {
            return Err(AuthError::Pinned);
        }
        let mut inner = self.lock();
        let token = token::rotate_file(&self.data)?;
        inner.force.adopt(token);
        // Another process may have rotated at the same moment; the file has the last word.
        inner.force.refresh(&self.data);
        Ok(inner.force.token.clone())
    }

    /// Who is locked out now, the soonest to be free first.
    #[must_use]
    pub fn lockouts(&self) -> Vec<Lockout> {
        let (inner, now) = (self.lock(), (self.clock)());
        let wall = unix_millis();
        let lockout = |(client, failures, left)| {
            let left = UnixMillis::try_from(left).unwrap_or(UnixMillis::MAX);
            Lockout { client, failures, until: wall.saturating_add(left) }
        };
        inner.lockouts.in_force(now).map(lockout).collect()
    }

    /// Forgets what a client did wrong; false when there was nothing.
    #[must_use = "it says whether there was a record"]
    pub fn clear(&self, client: Client) -> bool {
        self.lock().lockouts.forgive(client).is_some()
    }

    fn judge(
        &self,
        client: Client,
        check: impl FnOnce(&mut Inner, Millis) -> Option<Session>,
    ) -> Verdict {
        let (verdict, line) = self.lock().judge(client, (self.clock)(), check);
        write(line.as_ref());
        if let (Some((_, text)), Some(tell)) = (line, self.lockouts.get())
            && self.locked_out(client).is_some()
        {
            tell(client, text);
        }
        verdict
    }

    /// The state, up to date with the token file.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = lock(&self.inner);
        if !self.pinned {
            inner.force.refresh(&self.data);
        }
        inner
    }
}

impl Inner {
    fn judge(
        &mut self,
        client: Client,
        now: Millis,
        check: impl FnOnce(&mut Self, Millis) -> Option<Session>,
    ) -> (Verdict, Option<Line>) {
        // First, so that during a lockout even the right token learns nothing.
        if let Some(retry_after_seconds) = self.lockouts.locked(client, now) {
            return (Verdict::Locked { retry_after_seconds }, None);
        }
        if let Some(session) = check(self, now) {
            let forgiven = self.lockouts.forgive(client);
            let line = forgiven.and_then(|failures| self.notices.success(client, failures, now));
            return (Verdict::Allowed(session), line);
        }
        let failure = self.lockouts.fail(client, now);
        (Verdict::Refused, self.notices.failure(client, failure, now))
    }
}

/// Called when the lock is free: a log that stalls must not stall sign-ins.
fn write(line: Option<&Line>) {
    if let Some((level, text)) = line {
        log::log!(*level, "{text}");
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("pinned", &self.pinned).finish_non_exhaustive()
    }
}

/// Why there is no token, or no new one.
#[derive(Debug)]
pub enum AuthError {
    /// The environment pins the token, so it cannot be rotated (P5).
    Pinned,
    /// The token file cannot be read.
    Unreadable(io::Error),
    /// The token file cannot be written.
    Unwritable(io::Error),
    /// The token file holds no token.
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    NoRandomness,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str(
                "the admin token is pinned by ADMIN_TOKEN and cannot be rotated here; \
                 change ADMIN_TOKEN and restart the server, or unset it to use the token file",
            ),
            Self::Unreadable(why) => write!(f, "the admin token is not available: {why}"),
            Self::Unwritable(why) => write!(f, "a new admin token could not be saved: {why}"),
            Self::Malformed { path } => write!(
                f,
                "{} does not hold an admin token (one line of 32 to 256 visible ASCII characters); \
                 remove the file and start again to get a new one, or set ADMIN_TOKEN",
                path.display()
            ),
            Self::NoRandomness => f.write_str(
                "the system gave no random bytes to make a secret of; try again in a moment",
            ),
        }
    }
}

impl std::error::Error for AuthError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(why) | Self::Unwritable(why) => Some(why),
            Self::Pinned | Self::Malformed { .. } | Self::NoRandomness => None,
        }
    }
}
