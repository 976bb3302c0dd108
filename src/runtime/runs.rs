//! Runs: commands of the owner, or of a job, that run once in an app's place, with its limits,
//! its environment and its data, and end with this server.

use super::launch::app_sandbox;
use super::once::Once;
use super::tools::Tools;
use crate::journal::{LogOf, Redactor};
use crate::model::{AnyError, AppId, RunId, ShellCommand, failed};
use crate::proc::{Cancel, Exit};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::store::{App, Run, StoreError};
use crate::sync::{lock, wait_while};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::Builder;
use std::time::Duration;

/// Runs at once, of all apps: each may take as much memory as an app.
const MOST: usize = 4;
/// Said when there are.
pub const BUSY: &str =
    "four commands are running already, the most there may be; wait until one ends, or cancel it";

/// Jobs at once, of one app and of all: one place is always left for the owner.
const MOST_JOBS_OF_APP: usize = 2;
const MOST_JOBS: usize = MOST - 1;
/// Said when there are.
pub const JOBS_BUSY: &str = "two jobs of the app or three of all are running already, the most \
    there may be; wait until one ends, or cancel it";

/// Said when none begins any more.
pub const STOPPING: &str = "the server is stopping";

const GOES_ON: &str = "its run before still goes on";
const NO_RELEASE: &str =
    "the app has no live release, in whose place a command could run; deploy it first";
const NO_THREAD: &str = "the system has no thread left for it; try again";

/// How long one may take to which nobody is attached, and one at somebody's terminal.
const DEADLINE: Duration = Duration::from_secs(60 * 60);
const CONSOLE_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs that are remembered, with their logs, of each job of an app and of its owner.
const KEPT: u32 = 20;
/// And of an app in all: names of jobs come and go.
const KEPT_IN_ALL: u32 = 100;

/// Bytes that one may write that has a log. Far fewer are kept; what goes on for ever ends.
const OUTPUT_CAP: usize = 100 << 20;

/// What became of those that were under way.
const WITH_SERVER: &str = "ended with the server";

/// Why a command was not run.
#[derive(Debug)]
pub enum RunError {
    /// It could not be now; what to do.
    Refused(&'static str),
    /// The database did not do its part.
    Store(StoreError),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(sentence) => f.write_str(sentence),
            Self::Store(error) => error.fmt(f),
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

impl Active {
    /// Why an app's run cannot begin now, that of a job or one of the owner's own.
    fn refusal(&self, app: &AppId, job: Option<&str>) -> Option<&'static str> {
        if self.closed {
            return Some(STOPPING);
        }
        if let Some(job) = job {
            let jobs = self.runs.values().filter_map(|(of, job, _)| Some((of, job.as_deref()?)));
            let jobs: Vec<_> = jobs.collect();
            // Before all else: a time at which it goes on is left out, and does not wait.
            if jobs.contains(&(app, job)) {
                return Some(GOES_ON);
            }
            let of_app = jobs.iter().filter(|(of, _)| *of == app).count();
            if of_app >= MOST_JOBS_OF_APP || jobs.len() >= MOST_JOBS {
                return Some(JOBS_BUSY);
            }
        }
        (self.runs.len() >= MOST).then_some(BUSY)
    }
}

impl Runs {
    /// Takes note that none of an earlier server is left, also where a job's owner looks.
    ///
    /// # Errors
    /// When that could not be written.
    pub fn new(tools: Arc<Tools>) -> Result<Self, StoreError> {
        for Run { app, job, .. } in tools.store.end_runs(None, WITH_SERVER)? {
            if let (Some(job), Some(app)) = (job, tools.store.app(&app)?) {
                note_failed(&tools, &app, &job, WITH_SERVER);
            }
        }
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
        let run = Builder::new().name("run".to_owned()).spawn(move || begun.logged(&command));
        run.map_err(|_| RunError::Refused(NO_THREAD))?;
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
    ) -> Result<Exit, AnyError> {
        let begun = self.begin(app, None)?;
        let cancel = begun.cancel.clone();
        begun.run(term, |sandbox| {
            let (name, cancel, at_most) = ("command", &cancel, CONSOLE_DEADLINE);
            Once { name, sandbox, cancel, must_end, at_most }.attached(command, streams)
        })
    }

    /// Ends a run; `false` when it has ended already.
    pub fn cancel(&self, id: &RunId) -> bool {
        let active = lock(&self.active);
        active.runs.get(id).map(|(.., cancel)| cancel.cancel()).is_some()
    }

    /// Ends the runs of an app's jobs, and `the_owners` own too or not.
    pub fn cancel_of(&self, app: &AppId, the_owners: bool) {
        let active = lock(&self.active);
        let is_meant = |job: &Option<String>| the_owners || job.is_some();
        let runs = active.runs.values().filter(|(of, job, _)| of == app && is_meant(job));
        runs.for_each(|(.., cancel)| cancel.cancel());
    }

    /// Ends all runs, waits until they have, and takes no more.
    pub fn shutdown(&self) {
        let mut active = lock(&self.active);
        active.closed = true;
        active.runs.values().for_each(|(.., cancel)| cancel.cancel());
        drop(wait_while(&self.one_ended, active, |active| !active.runs.is_empty()));
    }

    fn begin(self: &Arc<Self>, app: &AppId, job: Option<&str>) -> Result<Begun, RunError> {
        let app = self.tools.store.app(app)?.ok_or(RunError::Refused("the app is gone"))?;
        if app.live_release.is_none() {
            return Err(RunError::Refused(NO_RELEASE));
        }
        let cancel = Cancel::new().map_err(|_| RunError::Refused(NO_THREAD))?;
        let mut active = lock(&self.active);
        if let Some(why) = active.refusal(&app.id, job) {
            return Err(RunError::Refused(why));
        }
        let id = self.tools.store.begin_run(&app.id, job)?;
        let id = id.ok_or(RunError::Refused("the app is gone"))?;
        let job = job.map(str::to_owned);
        active.runs.insert(id.clone(), (app.id.clone(), job.clone(), cancel.clone()));
        // Of one that does not get so far, or panics.
        let result = "the server failed inside".to_owned();
        Ok(Begun { runs: Arc::clone(self), id, app, job, cancel, result })
    }
}

/// A run under way.
struct Begun {
    runs: Arc<Runs>,
    id: RunId,
    app: App,
    job: Option<String>,
    cancel: Cancel,
    /// How it ends, for its row.
    result: String,
}

impl Begun {
    /// Runs a line of shell, with its output in the run's log. How it ended is in its row.
    fn logged(self, command: &ShellCommand) {
        let (tools, cancel) = (Arc::clone(&self.runs.tools), self.cancel.clone());
        let (id, app) = (self.id.clone(), self.app.id.clone());
        let _ = self.run(None, |sandbox| {
            let redactor = Redactor::new(tools.store.secrets_of(&app)?);
            let log = tools.journal.begin(LogOf::Run(id), redactor);
            let log = log.map_err(failed("the run's log cannot be written"))?;
            let (name, cancel, at_most) = ("command", &cancel, DEADLINE);
            let must_end = &|| tools.layout.no_room();
            let once = Once { name, sandbox, cancel, must_end, at_most };
            let words = ["/bin/sh", "-c", command.as_str()];
            let exit = once.logged(&words, (&log, OUTPUT_CAP), &mut |_| {});
            log.note(&format!("Ended: {}", told(&exit)));
            exit
        });
    }

    /// Runs a command where the app's live release runs, and notes how it ended.
    fn run(
        mut self,
        term: Option<&str>,
        run: impl FnOnce(&Sandbox<'_>) -> Result<Exit, AnyError>,
    ) -> Result<Exit, AnyError> {
        let ended = match self.in_its_place(term, run) {
            Ok(Exit::Cancelled) if lock(&self.runs.active).closed => Err(WITH_SERVER.into()),
            ended => ended,
        };
        self.result = told(&ended);
        let tools = &*self.runs.tools;
        let Tools { store, journal, .. } = tools;
        let pruned = store.prune_runs(&self.app.id, KEPT, KEPT_IN_ALL).map(|gone| {
            journal.remove(&gone.into_iter().map(LogOf::Run).collect::<Vec<_>>());
        });
        if let Err(error) = pruned {
            log::error!("runs before {} could not be forgotten: {error}", self.id);
        }
        if let Some(job) = &self.job
            && !ended.as_ref().is_ok_and(|exit| exit.is_success())
        {
            note_failed(tools, &self.app, job, &self.result);
        }
        ended
    }

    fn in_its_place(
        &self,
        term: Option<&str>,
        run: impl FnOnce(&Sandbox<'_>) -> Result<Exit, AnyError>,
    ) -> Result<Exit, AnyError> {
        let (tools, app) = (&*self.runs.tools, &self.app);
        let release = app.live_release.as_ref().ok_or(NO_RELEASE)?;
        let host = tools.host.wait()?;
        let spec = tools.layout.start_spec(&app.id, release);
        let spec = spec.ok_or("the release's files are gone; deploy again")?;
        let env = tools.store.env_clear(&app.id)?;
        let place = (&*host, Purpose::Once);
        let mut sandbox = app_sandbox(tools, place, app, &spec, release, env)?;
        if let Some(term) = term {
            sandbox = sandbox.env("TERM", term);
        }
        run(&sandbox)
    }
}

impl Drop for Begun {
    /// Whatever happened, the next may come.
    fn drop(&mut self) {
        if let Err(error) = self.runs.tools.store.end_runs(Some(&self.id), &self.result) {
            log::error!("the end of run {} could not be noted: {error}", self.id);
        }
        lock(&self.runs.active).runs.remove(&self.id);
        self.runs.one_ended.notify_all();
    }
}

fn note_failed(tools: &Tools, app: &App, job: &str, why: &str) {
    let line = format!("The job {job} failed: {why}.");
    tools.journal.note_app(&app.id, &line);
    log::warn!("app {}: {line}", app.name);
}

fn told(ended: &Result<Exit, AnyError>) -> String {
    ended.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p32_no_app_takes_all_places_of_jobs_and_no_jobs_take_all_places() {
        let app = |id: &str| AppId::parse(id).unwrap();
        let (one, other) = (app("aaaaaaaaaa"), app("bbbbbbbbbb"));
        let mut active = Active::default();
        let mut begin = |number: u8, app: &AppId, job: Option<&str>| {
            let why = active.refusal(app, job);
            if why.is_none() {
                let id = RunId::from_random([number; 10]);
                let run = (app.clone(), job.map(str::to_owned), Cancel::new().unwrap());
                active.runs.insert(id, run);
            }
            why
        };
        assert_eq!(begin(1, &one, Some("a")), None);
        assert_eq!(begin(2, &one, Some("b")), None);
        assert_eq!(begin(3, &one, Some("c")), Some(JOBS_BUSY), "two are an app's most");
        assert_eq!(begin(3, &one, Some("b")), Some(GOES_ON), "which is no reason to wait");
        assert_eq!(begin(3, &other, Some("b")), None, "another app's has a place");
        assert_eq!(begin(4, &other, Some("c")), Some(JOBS_BUSY), "three are the most of all");
        assert_eq!(begin(4, &one, None), None, "the owner has a place");
        assert_eq!(begin(5, &one, None), Some(BUSY));
        assert_eq!(begin(5, &one, Some("a")), Some(GOES_ON), "even so");
    }
}
