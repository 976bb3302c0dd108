//! Log lines of builds and apps: files on disk, bounded memory, followers.
//!
//! A deploy's log is written here, line by line, clean and redacted
//! ([`Writer`]). An app's log is written by the app's own process, which
//! outlives this one; it is cleaned and redacted when it is read. Whoever
//! follows a log reads the file from a place of its own ([`Subscription`]), so
//! a follower that sleeps costs nothing.

mod app_log;
mod clean;
mod folded;
mod lines;
mod redact;
mod spelling;
mod subscription;
mod writer;

pub use lines::MAX_LINE;
pub use redact::Redactor;
pub use subscription::{Event, Subscription};
pub use writer::{MAX_DEPLOY_LOG, Writer, was_cut};

use crate::data_dir::DataDir;
use crate::model::{AppId, DeployId, Utc};
use crate::sync::{Bell, lock};
use app_log::{AppLog, open_to_read};
use log::warn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fchmod};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use writer::Channel;

/// Bytes after which an app's log is rotated; as much again is kept of what was
/// before.
pub const MAX_APP_LOG: u64 = 10 * 1024 * 1024;

/// Seconds between two looks at the size of the apps' logs. What an app writes in
/// between is on the disk besides the limit.
const LOOK_EVERY: i64 = 1;

/// Most lines that [`Journal::app_tail`] returns.
pub const MAX_TAIL: usize = 5_000;

/// Keeps the logs of one data directory. Dropping it joins its one thread.
pub struct Journal {
    shared: Arc<Shared>,
    stop: Arc<Bell>,
    rotator: Option<JoinHandle<()>>,
}

/// What writers, followers and the rotating thread share.
struct Shared {
    deploys: PathBuf,
    apps: PathBuf,
    max_app_log: u64,
    running: Mutex<HashMap<DeployId, Arc<Channel>>>,
    known: Mutex<HashMap<AppId, Arc<AppLog>>>,
}

impl Journal {
    /// Opens the journal in `logs/` of the data directory and starts the thread
    /// that rotates the logs of apps.
    ///
    /// # Errors
    /// When the directories cannot be made or the thread cannot be started.
    pub fn open(data: &DataDir) -> io::Result<Self> {
        Self::at(data.make_dir("logs/deploys")?, data.make_dir("logs/apps")?, MAX_APP_LOG)
    }

    fn at(deploys: PathBuf, apps: PathBuf, max_app_log: u64) -> io::Result<Self> {
        let (running, known) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { deploys, apps, max_app_log, running, known });
        let stop = Arc::new(Bell::new()?);
        let (theirs, until) = (Arc::clone(&shared), Arc::clone(&stop));
        let rotator = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || theirs.rotate_until(&until))?;
        Ok(Self { shared, stop, rotator: Some(rotator) })
    }

    /// Begins a deploy's log, `logs/deploys/<id>.log`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(&self, deploy: &DeployId, redactor: Redactor) -> io::Result<Writer> {
        let channel = Arc::new(Channel::default());
        // Known before the file is there: whoever finds the file finds its channel.
        lock(&self.shared.running).insert(deploy.clone(), Arc::clone(&channel));
        let options = &mut OpenOptions::new();
        let made = create_private(options.write(true).truncate(true), &self.deploy_log(deploy));
        let file = made.inspect_err(|_| {
            lock(&self.shared.running).remove(deploy);
        })?;
        Ok(Writer::new(deploy.clone(), Arc::clone(&self.shared), channel, file, redactor))
    }

    /// Follows a deploy's log from its first line. `None` when it has none (yet).
    ///
    /// # Errors
    /// When the file cannot be opened, or the system has no descriptor left.
    pub fn follow_deploy(&self, id: &DeployId) -> io::Result<Option<Subscription>> {
        let file = match open_to_read(&self.deploy_log(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Asked after opening: without a channel the log has ended, and the file is
        // complete.
        let channel = lock(&self.shared.running).get(id).cloned();
        Subscription::deploy(file, channel).map(Some)
    }

    /// Where a deploy's log is, or will be: plain text, clean and redacted.
    #[must_use]
    pub fn deploy_log(&self, id: &DeployId) -> PathBuf {
        self.shared.deploys.join(format!("{id}.log"))
    }

    /// The file for an app's process to write its output to, open for appending only.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub fn app_log_file(&self, app: &AppId) -> io::Result<File> {
        let log = self.shared.app(app);
        log.rotate(self.shared.max_app_log)?;
        log.append()
    }

    /// Writes a line of the platform's own into an app's log, with the time.
    pub fn note_app(&self, app: &AppId, line: &str) {
        let log = self.shared.app(app);
        let written = log.append().and_then(|mut file| {
            let break_before = if ends_inside_a_line(log.path())? { "\n" } else { "" };
            let line = clean::clean(line).replace('\n', " ");
            let now = Utc::now();
            file.write_all(format!("{break_before}[better-paas] {now} {line}\n").as_bytes())
        });
        if let Err(error) = written {
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
        let log = self.shared.app(app);
        log.rotate(self.shared.max_app_log)?;
        let redactor = redactor.and(&log.redactor());
        let place = log.place_of_last(lines)?;
        let mut last = VecDeque::new();
        let (mut cleaner, mut waiting) = (clean::Cleaner::new(), lines::Lines::default());
        let mut keep = |line: String| {
            last.push_back(line);
            if last.len() > lines {
                last.pop_front();
            }
        };
        for (file, mut at) in place.older.into_iter().chain([(place.file, place.offset)]) {
            // The end is asked once: an app that never stops writing ends this too.
            let end = file.metadata()?.len();
            let mut block = vec![0; 16 * 1024];
            while at < end {
                let read = file.read_at(&mut block, at)?;
                if read == 0 {
                    break;
                }
                at += read as u64;
                cleaner.push(&block[..read], waiting.buffer());
                std::iter::from_fn(|| waiting.next(&redactor)).for_each(&mut keep);
            }
        }
        cleaner.finish(waiting.buffer());
        std::iter::from_fn(|| waiting.last(&redactor)).for_each(&mut keep);
        Ok(last.into())
    }

    /// Follows an app's log, from its last lines on.
    ///
    /// # Errors
    /// When the log cannot be read, or the system has no descriptor left.
    pub fn follow_app(
        &self,
        app: &AppId,
        last_lines: usize,
        redactor: Redactor,
    ) -> io::Result<Subscription> {
        let log = self.shared.app(app);
        log.rotate(self.shared.max_app_log)?;
        Subscription::app(log, last_lines, redactor)
    }

    /// Sets what is kept out of an app's log from now on, for those who follow
    /// it already too: also what was replaced, for the lines from before hold it.
    pub fn set_redactor(&self, app: &AppId, redactor: &Redactor) {
        self.shared.app(app).set_redactor(redactor);
    }

    /// What is kept out of an app's log.
    #[must_use]
    pub fn redactor(&self, app: &AppId) -> Redactor {
        self.shared.app(app).redactor()
    }

    /// Deletes an app's log and the logs of these deploys of it.
    pub fn remove_app(&self, app: &AppId, deploys: &[DeployId]) {
        let log = self.shared.app(app);
        if let Err(error) = log.remove() {
            warn!("cannot remove the log of app {app}: {error}");
        }
        lock(&self.shared.known).remove(app);
        self.remove_deploys(deploys);
    }

    /// The apps that have a log.
    #[must_use]
    pub fn all_apps(&self) -> Vec<AppId> {
        named(&self.shared.apps, |name| AppId::parse(name).ok())
    }

    /// The deploys that have a log.
    #[must_use]
    pub fn all_deploys(&self) -> Vec<DeployId> {
        named(&self.shared.deploys, |name| DeployId::parse(name).ok())
    }

    /// Deletes the logs of these deploys; those that have none are passed over.
    pub fn remove_deploys(&self, deploys: &[DeployId]) {
        for deploy in deploys {
            match fs::remove_file(self.deploy_log(deploy)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!("cannot remove the log of deploy {deploy}: {error}");
                }
                _ => {}
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop.ring();
        if let Some(rotator) = self.rotator.take()
            && rotator.join().is_err()
        {
            warn!("the thread that rotates logs has panicked");
        }
    }
}

impl Shared {
    fn app(&self, app: &AppId) -> Arc<AppLog> {
        let new = || Arc::new(AppLog::new(self.apps.join(format!("{app}.log"))));
        Arc::clone(lock(&self.known).entry(app.clone()).or_insert_with(new))
    }

    fn rotate_until(&self, stop: &Bell) {
        let pause = Timespec { tv_sec: LOOK_EVERY, tv_nsec: 0 };
        loop {
            match poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&pause)) {
                Ok(0) => self.rotate_all(),
                Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
    }

    fn rotate_all(&self) {
        let Ok(entries) = fs::read_dir(&self.apps) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|n| n.strip_suffix(".log")).map(AppId::parse);
            let Some(Ok(id)) = id else { continue };
            if entry.metadata().is_ok_and(|m| m.len() > self.max_app_log)
                && let Err(error) = self.app(&id).rotate(self.max_app_log)
            {
                warn!("cannot rotate the log of app {id}: {error}; is the disk full?");
            }
        }
    }
}

/// Opens a file of ours for writing: made 0600 whatever the umask, mended if it
/// is looser (P25), never through a link.
fn create_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let file = options.create(true).mode(0o600).custom_flags(nofollow).open(path)?;
    fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    Ok(file)
}

/// Whose logs are in a directory; the older half of a log counts too.
fn named<T>(dir: &Path, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.split('.').next()?)).collect()
}

fn ends_inside_a_line(path: &Path) -> io::Result<bool> {
    let file = open_to_read(path)?;
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    Ok(file.read_at(&mut byte, last)? == 1 && byte != *b"\n")
}

#[cfg(test)]
#[path = "journal/journal_tests.rs"]
mod tests;
