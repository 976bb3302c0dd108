//! Runs: commands of the owner, or of a job, that run once in an app's place, with its limits,
//! its environment and its data, and end with this server.

use super::launch::app_sandbox;
use super::once::{Ended, Once};
use super::tools::Tools;
use crate::journal::{LogOf, Redactor};
use crate::model::{AnyError, AppId, DeployId, RunId, ShellCommand, failed};
use crate::proc::{Cancel, Exit};
use crate::sandbox::bwrap::Purpose;
use crate::store::{App, StoreError};
use crate::sync::{lock, wait_while};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::Builder;
use std::time::Duration;

/// Runs at once, of all apps: each may take as much memory as an app.
const MOST: usize = 4;

/// How long one may take to which nobody is attached, and one at somebody's terminal.
const DEADLINE: Duration = Duration::from_secs(60 * 60);
const CONSOLE_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs that are remembered, with their logs, of each job of an app and of its owner.
const KEPT: u32 = 20;

/// Bytes that one may write that has a log. Far fewer are kept; what goes on for ever ends.
const OUTPUT_CAP: usize = 100 << 20;

/// What became of those that were under way.
const WITH_SERVER: &str = "ended with the server";

/// Why a command was not run.
#[derive(Debug)]
pub enum RunError {
    /// No such app.
    NoApp,
    /// The app has no live release, in whose place it could run.
    NoRelease,
    /// There are as many as may be.
    Busy,
    /// The server is stopping.
    Stopping,
    /// The database did not do its part.
    Store(StoreError),
    /// The system did not.
    System(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoApp => f.write_str("there is no such app"),
            Self::NoRelease => f.write_str(
                "the app has no live release, in whose place a command could run; deploy it first",
            ),
            Self::Busy => write!(
                f,
                "{MOST} commands are running already, which is the most; wait until one has \
                 ended, or cancel it"
            ),
            Self::Stopping => f.write_str("the server is stopping"),
            Self::Store(error) => error.fmt(f),
            Self::System(error) => write!(f, "the command could not be started: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// All runs under way. Share it by `Arc`.
pub struct Runs {
    tools: Arc<Tools>,
    active: Mutex<Active>,
    one_ended: Condvar,
}

#[derive(Default)]
struct Active {
    runs: HashMap<RunId, (AppId, Option<String>, Cancel)>,
    closed: bool,
}

impl Runs {
    /// Takes note that none of an earlier server is left.
    ///
    /// # Errors
    /// When that could not be written.
    pub fn new(tools: Arc<Tools>) -> Result<Self, StoreError> {
        tools.store.end_interrupted_runs(WITH_SERVER)?;
        Ok(Self { tools, active: Mutex::default(), one_ended: Condvar::new() })
    }

    /// Starts a line of shell on a thread of its own, with its output in a log. How it ended
    /// is in its row of the database.
    ///
    /// # Errors
    /// [`RunError`]; nothing runs then.
    pub fn start(
        self: &Arc<Self>,
        app: &AppId,
        command: &ShellCommand,
        job: Option<&str>,
    ) -> Result<RunId, RunError> {
        let begun = self.begin(app, job)?;
        let (id, command) = (begun.id.clone(), command.clone());
        let run = move || begun.logged(command.as_str());
        if let Err(error) = Builder::new().name("run".to_owned()).spawn(run) {
            let error = RunError::System(error);
            self.tools.store.end_run(&id, &error.to_string())?;
            return Err(error);
        }
        Ok(id)
    }

    /// Runs an argument list with these as its input, output and errors, to its end, or until
    /// `must_end` says why it has to. Where they are a terminal, `term` says which one.
    ///
    /// # Errors
    /// The sentence that says why it was not run, or had to end.
    pub fn attach(
        self: &Arc<Self>,
        app: &AppId,
        command: &[&str],
        (streams, term): ([OwnedFd; 3], Option<&str>),
        must_end: &(dyn Fn() -> Option<String> + Sync),
    ) -> Result<Ended, AnyError> {
        let begun = self.begin(app, None)?;
        begun.run(term, must_end, CONSOLE_DEADLINE, |once| once.attached(command, streams))
    }

    /// Whether a run of a job is under way.
    #[must_use]
    pub fn is_running(&self, app: &AppId, job: &str) -> bool {
        let active = lock(&self.active);
        active.runs.values().any(|(of, name, _)| of == app && name.as_deref() == Some(job))
    }

    /// Ends a run; `false` when it has ended already.
    pub fn cancel(&self, id: &RunId) -> bool {
        let active = lock(&self.active);
        active.runs.get(id).map(|(.., cancel)| cancel.cancel()).is_some()
    }

    /// Ends all runs of an app.
    pub fn cancel_all_of(&self, app: &AppId) {
        let active = lock(&self.active);
        active.runs.values().filter(|(of, ..)| of == app).for_each(|(.., c)| c.cancel());
    }

    /// Ends all runs, waits until they have, and takes no more.
    pub fn shutdown(&self) {
        let mut active = lock(&self.active);
        active.closed = true;
        active.runs.values().for_each(|(.., cancel)| cancel.cancel());
        drop(wait_while(&self.one_ended, active, |active| !active.runs.is_empty()));
    }

    fn begin(self: &Arc<Self>, app: &AppId, job: Option<&str>) -> Result<Begun, RunError> {
        let app = self.tools.store.app(app)?.ok_or(RunError::NoApp)?;
        let release = app.live_release.clone().ok_or(RunError::NoRelease)?;
        let cancel = Cancel::new().map_err(RunError::System)?;
        let mut active = lock(&self.active);
        if active.closed {
            return Err(RunError::Stopping);
        }
        if active.runs.len() >= MOST {
            return Err(RunError::Busy);
        }
        let id = self.tools.store.begin_run(&app.id, job)?.ok_or(RunError::NoApp)?;
        let job = job.map(str::to_owned);
        active.runs.insert(id.clone(), (app.id.clone(), job.clone(), cancel.clone()));
        Ok(Begun { runs: Arc::clone(self), id, app, release, job, cancel })
    }
}

/// A run under way.
struct Begun {
    runs: Arc<Runs>,
    id: RunId,
    app: App,
    release: DeployId,
    job: Option<String>,
    cancel: Cancel,
}

impl Begun {
    /// Runs a line of shell, with its output in the run's log.
    fn logged(self, command: &str) {
        let tools = Arc::clone(&self.runs.tools);
        let (id, app) = (self.id.clone(), self.app.id.clone());
        let no_room = || tools.layout.no_room();
        let ended = self.run(None, &no_room, DEADLINE, |once| {
            let redactor = Redactor::new(tools.store.secrets_of(&app)?);
            let log = tools.journal.begin(&id, redactor);
            let log = log.map_err(failed("the run's log cannot be written"))?;
            let words = ["/bin/sh", "-c", command];
            let ended = once.logged(&words, (&log, OUTPUT_CAP), &mut |_| {})?;
            log.note(&format!("Ended: {ended}"));
            Ok(ended)
        });
        if let Err(why) = ended {
            log::warn!("run {id} of app {app}: {why}");
        }
    }

    /// Runs a command where the app's live release runs, and notes how it ended.
    fn run(
        self,
        term: Option<&str>,
        must_end: &(dyn Fn() -> Option<String> + Sync),
        at_most: Duration,
        run: impl FnOnce(&Once<'_>) -> Result<Ended, AnyError>,
    ) -> Result<Ended, AnyError> {
        let ended = match self.in_its_place(term, must_end, at_most, run) {
            Ok(Ended::With(Exit::Cancelled)) if lock(&self.runs.active).closed => {
                Err(WITH_SERVER.into())
            }
            ended => ended,
        };
        let tools = &self.runs.tools;
        let result = ended.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        let noted = tools.store.end_run(&self.id, &result);
        let pruned = tools.store.prune_runs(&self.app.id, self.job.as_deref(), KEPT);
        match noted.and(pruned) {
            Ok(gone) => tools.journal.remove(&gone.iter().map(LogOf::from).collect::<Vec<_>>()),
            Err(error) => log::error!("the end of run {} could not be noted: {error}", self.id),
        }
        ended
    }

    fn in_its_place(
        &self,
        term: Option<&str>,
        must_end: &(dyn Fn() -> Option<String> + Sync),
        at_most: Duration,
        run: impl FnOnce(&Once<'_>) -> Result<Ended, AnyError>,
    ) -> Result<Ended, AnyError> {
        let (tools, app) = (&*self.runs.tools, &self.app);
        let host = tools.host.wait()?;
        let spec = tools.layout.start_spec(&app.id, &self.release);
        let spec = spec.ok_or("the release's files are gone; deploy again")?;
        let env = tools.store.env_clear(&app.id)?;
        let place = (&*host, Purpose::Once);
        let mut sandbox = app_sandbox(tools, place, app, &spec, &self.release, env)?;
        if let Some(term) = term {
            sandbox = sandbox.env("TERM", term);
        }
        run(&Once { sandbox: &sandbox, cancel: &self.cancel, must_end, at_most })
    }
}

impl Drop for Begun {
    /// Whatever happened, the next may come.
    fn drop(&mut self) {
        lock(&self.runs.active).runs.remove(&self.id);
        self.runs.one_ended.notify_all();
    }
}
