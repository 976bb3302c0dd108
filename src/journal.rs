//! Log lines of builds and apps: files on disk, bounded memory, followers.
//!
//! The log of a deploy, or of a run, is written here, line by line, clean and redacted
//! ([`Writer`]). An app's log is written by the first process of its sandbox, which
//! outlives this one ([`Rotating`]); it is cleaned and redacted when it is read. A
//! follower reads the file from a place of its own ([`Subscription`]), so
//! a follower that sleeps costs nothing.

mod app_log;
mod clean;
mod lines;
mod pages;
mod redact;
mod rotating;
mod spellings;
mod subscription;
mod writer;

pub use lines::MAX_LINE;
pub use pages::{Edge, Page, Wanted};
pub use redact::Redactor;
pub use rotating::{Position, Rotating};
pub use subscription::{Begin, Subscription};
pub use writer::{MAX_DEPLOY_LOG, MAX_RUN_LOG, Writer};

use crate::data_dir::{DataDir, gone_is_fine, named};
use crate::model::{AppId, DeployId, RunId, Utc};
use crate::sync::lock;
use app_log::AppLog;
use log::warn;
use rustix::fs::{Mode, OFlags, fchmod};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use writer::Running;

/// Bytes of each of the two files of an app's log: 10 MiB in all (`deploys.md`).
pub const HALF_APP_LOG: u64 = 5 * 1024 * 1024;

/// A link in place of a log is not followed.
const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// Most lines that [`Journal::app_tail`] returns.
pub const MAX_TAIL: usize = 5_000;

/// What a log is of that ends, and is written here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogOf {
    /// A deploy.
    Deploy(DeployId),
    /// A command that ran once.
    Run(RunId),
}

/// Keeps the logs of one data directory.
pub struct Journal {
    deploys: PathBuf,
    runs: PathBuf,
    apps: PathBuf,
    half_app_log: u64,
    running: Running,
    /// Of each app while it is followed: one that nobody looks at takes no memory.
    hidden: Mutex<HashMap<AppId, Weak<Mutex<Redactor>>>>,
}

impl Journal {
    /// Opens the journal in `logs/` of the data directory.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(data: &DataDir) -> io::Result<Self> {
        Ok(Self {
            deploys: data.make_dir("logs/deploys")?,
            runs: data.make_dir("logs/runs")?,
            apps: data.make_dir("logs/apps")?,
            half_app_log: HALF_APP_LOG,
            running: Running::default(),
            hidden: Mutex::default(),
        })
    }

    /// Begins a log.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(&self, of: LogOf, redactor: Redactor) -> io::Result<Writer> {
        // Known before the file is there: a reader that finds the file finds it running.
        lock(&self.running).insert(of.clone());
        let options = &mut OpenOptions::new();
        let made = create_private(options.write(true).truncate(true), &self.file(&of));
        let file = made.inspect_err(|_| {
            lock(&self.running).remove(&of);
        })?;
        Ok(Writer::new(of, Arc::clone(&self.running), file, redactor))
    }

    /// Follows a log from a place on, by default its first line. `None` when there is none (yet).
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn follow(&self, of: &LogOf, from: Position) -> io::Result<Option<Subscription>> {
        let path = self.file(of);
        let running = Arc::clone(&self.running);
        let file = found(open_to_read(&path))?;
        Ok(file.map(|file| Subscription::ending(of.clone(), running, path, file, from)))
    }

    /// Some lines of a log; none when there is no such log (yet).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn page(&self, of: &LogOf, wanted: &Wanted) -> io::Result<Page> {
        let file = found(open_to_read(&self.file(of)))?;
        file.map_or_else(|| Ok(Page::default()), |file| pages::of_file(&file, wanted))
    }

    /// Some lines of an app's log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn app_page(&self, app: &AppId, wanted: &Wanted, not: &Redactor) -> io::Result<Page> {
        pages::of_app(&self.app(app).open()?, wanted, not)
    }

    /// Where a log is, or will be: plain text, clean and redacted.
    pub fn file(&self, of: &LogOf) -> PathBuf {
        match of {
            LogOf::Deploy(id) => self.deploys.join(format!("{id}.log")),
            LogOf::Run(id) => self.runs.join(format!("{id}.log")),
        }
    }

    /// The two files for an app's process to write its output to, as [`Rotating`] does; that
    /// which is being written to comes first.
    ///
    /// # Errors
    /// When they cannot be opened or made.
    pub fn app_log_files(&self, app: &AppId) -> io::Result<[File; 2]> {
        self.app(app).open()?.into_files()
    }

    /// Writes a line of the platform's own into an app's log, with the time.
    pub fn note_app(&self, app: &AppId, line: &str) {
        let line = own_line(line);
        let log = self.app(app).open();
        if let Err(error) = log.and_then(|log| log.append_line(&line)) {
            warn!("cannot write to the log of app {app}: {error}");
        }
    }

    /// The last lines of an app's log, oldest first, at most [`MAX_TAIL`].
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn app_tail(
        &self,
        app: &AppId,
        lines: usize,
        redactor: &Redactor,
    ) -> io::Result<Vec<String>> {
        let lines = lines.min(MAX_TAIL);
        let (mut last, ..) = self.app(app).last(lines, redactor)?;
        let mut found: Vec<_> = std::iter::from_fn(|| last.last(redactor)).collect();
        // One that is too long has become several.
        found.drain(..found.len().saturating_sub(lines));
        Ok(found)
    }

    /// Follows an app's log. `redactor` is asked once, at a moment from
    /// which on [`Journal::hide_also`] is heard.
    ///
    /// # Errors
    /// When the log cannot be read; those of `redactor`.
    pub fn follow_app(
        &self,
        app: &AppId,
        begin: Begin,
        redactor: impl FnOnce() -> io::Result<Redactor>,
    ) -> io::Result<Subscription> {
        let mut all = lock(&self.hidden);
        let known = all.entry(app.clone()).or_default();
        let hidden = known.upgrade().unwrap_or_default();
        *known = Arc::downgrade(&hidden);
        drop(all);
        Subscription::app(&self.app(app), begin, hidden, redactor)
    }

    /// Keeps more out of an app's log for those who follow it already. What was replaced
    /// stays hidden too: the lines from before hold it.
    pub fn hide_also(&self, app: &AppId, redactor: &Redactor) {
        if let Some(hidden) = lock(&self.hidden).get(app).and_then(Weak::upgrade) {
            let mut hidden = lock(&hidden);
            *hidden = hidden.and(redactor);
        }
    }

    /// Deletes an app's log and these others of it.
    pub fn remove_app(&self, app: &AppId, logs: &[LogOf]) {
        if let Err(error) = self.app(app).remove() {
            warn!("cannot remove the log of app {app}: {error}");
        }
        lock(&self.hidden).remove(app);
        self.remove(logs);
    }

    /// The apps that have a log.
    pub fn all_apps(&self) -> Vec<AppId> {
        named(&self.apps, |name| AppId::parse(whose(name)).ok())
    }

    /// What else has a log.
    pub fn all(&self) -> Vec<LogOf> {
        let deploys = named(&self.deploys, |name| DeployId::parse(whose(name)).ok());
        let runs = named(&self.runs, |name| RunId::parse(whose(name)).ok());
        deploys.into_iter().map(LogOf::Deploy).chain(runs.into_iter().map(LogOf::Run)).collect()
    }

    /// Deletes logs; what has none is passed over.
    pub fn remove(&self, logs: &[LogOf]) {
        for path in logs.iter().map(|of| self.file(of)) {
            if let Err(error) = gone_is_fine(fs::remove_file(&path)) {
                warn!("cannot remove the log {}: {error}", path.display());
            }
        }
    }

    fn app(&self, app: &AppId) -> AppLog {
        AppLog { path: self.apps.join(format!("{app}.log")), half: self.half_app_log }
    }
}

/// A line as the platform itself writes it into an app's log: clean, with the time.
pub fn own_line(text: &str) -> String {
    format!("[better-paas] {} {}", Utc::now(), clean::clean(text).replace('\n', " "))
}

/// Opens a file of ours for writing: made 0600 whatever the umask, mended if it
/// is looser (P25), never through a link.
fn create_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.create(true).mode(0o600).custom_flags(NOFOLLOW).open(path)?;
    fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    Ok(file)
}

/// Whose log this is the name of; the older half of a log counts too.
fn whose(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

fn found(file: io::Result<File>) -> io::Result<Option<File>> {
    match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

fn open_to_read(path: &Path) -> io::Result<File> {
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(nofollow).open(path)
}

#[cfg(test)]
mod tests;
