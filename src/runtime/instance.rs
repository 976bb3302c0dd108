//! One running app: its sandbox seen from outside.
//!
//! It is bubblewrap, which we started and which ends with the app's exit code, and its
//! child, the first process of the sandbox's pid namespace, see [`crate::inside`]. When that
//! one dies, the kernel kills everything inside; so it is what has to go before anybody can
//! say that nothing is left.

use crate::model::AppId;
use crate::proc::{Exit, Running, table};
use crate::sandbox::bwrap::Sandbox;
use crate::sandbox::memory_limit::MemoryLimit;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long bubblewrap may take to make the sandbox; it needs milliseconds.
const MAKING: Duration = Duration::from_secs(5);

/// How long killed processes may take to go.
pub const KILLED: Duration = Duration::from_secs(5);

/// What bubblewrap and a shell add to a signal's number when they report it as a code.
const SIGNALLED: i32 = 128;

/// bubblewrap's name in the table of processes.
const OUTER: &str = "bwrap";

/// The highest signal number (Linux).
const LAST_SIGNAL: i32 = 64;

/// A running app.
#[derive(Debug)]
pub struct Instance {
    outer: Running,
    /// The first process inside; `None` while it is not there yet or no more.
    inner: Option<Running>,
    /// Where bubblewrap notes the end, for a server that is not its parent.
    exit_file: Option<PathBuf>,
    exit: Option<Exit>,
    /// What it may take; `None` when that is not known.
    pub memory: Option<MemoryLimit>,
    /// Whether it has still to prove itself, and ends when this is dropped: whatever stops a
    /// deploy leaves nothing running.
    on_probation: bool,
}

impl Instance {
    fn new(outer: Running, exit_file: Option<PathBuf>, on_probation: bool) -> Self {
        Self { outer, inner: None, exit_file, exit: None, memory: None, on_probation }
    }

    /// Starts a command in a sandbox, with the two files of its log, as
    /// [`crate::journal::Journal::app_log_files`] opens them. Dropped before it is kept, it ends.
    ///
    /// # Errors
    /// When it could not be started.
    pub fn start(
        sandbox: &Sandbox<'_>,
        command: &str,
        [current, other]: &[File; 2],
    ) -> io::Result<Self> {
        let exec = sandbox.prepare(&["/bin/sh", "-c", command]);
        // Whatever fails before the first program inside begins stands in the log too.
        let outer = exec.spawn_detached(other, current)?;
        let mut instance = Self::new(outer, sandbox.exit_file.clone(), true);
        let until = Instant::now() + MAKING;
        while instance.inner.is_none() && instance.try_wait().is_none() && Instant::now() < until {
            // bubblewrap tells nobody when its child is there.
            std::thread::sleep(Duration::from_millis(2));
            instance.find_inner();
        }
        if !matches!(instance.memory, Some(MemoryLimit::Leaf(_))) {
            // The first program inside may not have set it yet.
            instance.memory = Some(MemoryLimit::Process(sandbox.limits.data));
        }
        Ok(instance)
    }

    /// Finds a running app again, of those in `apps`; `None` when it has ended.
    pub fn adopt((pid, start_ticks): (u32, u64), app: &AppId, exit_file: PathBuf) -> Option<Self> {
        let outer = Running::adopt(pid, start_ticks)?;
        // Machines start their programs in the same order each time, so after a reboot
        // the same pair can name something else, even a sandbox.
        if table::entry(pid)?.name != OUTER || !works_for(&table::arguments(pid), app) {
            return None;
        }
        let mut instance = Self::new(outer, Some(exit_file), false);
        instance.find_inner();
        Some(instance)
    }

    /// It has proved itself, and lives on.
    pub const fn keep(&mut self) {
        self.on_probation = false;
    }

    fn find_inner(&mut self) {
        if self.inner.is_some() {
            return;
        }
        let pid = self.outer.pid();
        // The programs that become bubblewrap have children of their own for a moment.
        let is_inner = |e: &table::Entry| e.parent == pid;
        let ready = table::entry(pid).is_some_and(|e| e.name == OUTER);
        let child = table::descendants(pid).into_iter().find(|e| ready && is_inner(e));
        self.inner = child.and_then(|e| Running::adopt(e.pid, e.start_ticks));
        self.memory = self.inner.as_ref().and_then(|inner| MemoryLimit::of(inner.pid()));
    }

    /// The pid to remember it by.
    pub const fn pid(&self) -> u32 {
        self.outer.pid()
    }

    /// The start time to remember it by.
    pub const fn start_ticks(&self) -> u64 {
        self.outer.start_ticks()
    }

    /// How it ended, or `None` while it runs. Once it has ended, whatever it left
    /// running inside is killed.
    pub fn try_wait(&mut self) -> Option<Exit> {
        if self.exit.is_none()
            && let Some(exit) = self.outer.try_wait()
        {
            let noted = || self.exit_file.as_deref().map_or(Exit::Unknown, noted_exit);
            self.exit = Some(if exit == Exit::Unknown { noted() } else { read_signal(exit) });
            if let Some(file) = &self.exit_file {
                let _ = fs::remove_file(file);
            }
            self.inner.iter().for_each(Running::kill);
        }
        self.exit
    }

    /// Every process inside but the first.
    pub fn processes(&self) -> Vec<table::Entry> {
        let Some(inner) = &self.inner else { return Vec::new() };
        table::descendants(inner.pid())
    }

    /// Asks every process inside to end (SIGTERM): the first one passes it on, and ends when
    /// the last of them has.
    pub fn terminate(&mut self) {
        self.find_inner();
        self.inner.iter().for_each(Running::terminate);
    }

    /// Ends everything inside, at once (SIGKILL).
    pub fn kill(&mut self) {
        self.find_inner();
        self.inner.iter().chain([&self.outer]).for_each(Running::kill);
    }

    /// Kills it and waits until nothing is left; `false` when something hangs in the kernel.
    pub fn end(&mut self) -> bool {
        self.kill();
        let gone = self.outer.wait(KILLED).is_some();
        self.try_wait();
        gone && self.inner.as_mut().is_none_or(|inner| inner.wait(KILLED).is_some())
    }

    /// Whether nothing of it is left, inside or outside.
    pub fn is_gone(&mut self) -> bool {
        let ended = self.try_wait().is_some();
        ended && self.inner.as_mut().is_none_or(|inner| inner.try_wait().is_some())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.on_probation && !self.end() {
            log::warn!("process {} was killed and does not go", self.pid());
        }
    }
}

impl AsFd for Instance {
    /// Readable once the app has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outer.as_fd()
    }
}

/// Whether these are the arguments of a sandbox that has a release of this app inside: wherever
/// that was, since the data directory may have been moved meanwhile.
fn works_for(arguments: &[String], app: &AppId) -> bool {
    let of_app = |path: &str| {
        let mut above = Path::new(path).ancestors().skip(1);
        let mut name = || above.next()?.file_name()?.to_str();
        name() == Some("releases") && name() == Some(app.as_str())
    };
    arguments.windows(2).any(|words| words[0] == "--bind" && of_app(&words[1]))
}

/// The app that a sandbox is of, by its arguments, which have a directory of it below `apps`.
/// Not by its name: it may not have become bubblewrap yet.
fn app_of(pid: u32, apps: &Path) -> Option<AppId> {
    let arguments = table::arguments(pid);
    let mut binds = arguments.windows(2).filter(|words| words[0] == "--bind");
    binds.find_map(|words| {
        let place = Path::new(&words[1]).strip_prefix(apps).ok()?;
        AppId::parse(place.iter().next()?.to_str()?).ok()
    })
}

/// How the command of a sandbox has ended, from the file that bubblewrap wrote
/// (`--json-status-fd`: one JSON object a line, the last one with the exit code).
/// [`Exit::Unknown`] when bubblewrap had no time to say: the machine went down, or it
/// was itself killed.
pub fn noted_exit(file: &Path) -> Exit {
    let text = fs::read_to_string(file).unwrap_or_default();
    let code = |line: &str| {
        let status: Value = serde_json::from_str(line).ok()?;
        i32::try_from(status.get("exit-code")?.as_i64()?).ok()
    };
    let code = text.lines().rev().find_map(code);
    code.map_or(Exit::Unknown, |code| read_signal(Exit::Code(code)))
}

/// bubblewrap ends with 128 + n when signal n ended what it ran.
fn read_signal(exit: Exit) -> Exit {
    match exit {
        Exit::Code(code) if code > SIGNALLED && code <= SIGNALLED + LAST_SIGNAL => {
            Exit::Signal(code - SIGNALLED)
        }
        other => other,
    }
}

/// The outermost process of each sandbox that works in `apps`, with its app. What a process
/// inside writes into its own arguments counts for nothing.
pub fn sandboxes(apps: &Path, table: &[table::Entry]) -> Vec<(AppId, table::Entry)> {
    let found: HashMap<u32, (AppId, table::Entry)> = table
        .iter()
        .filter(|entry| !entry.has_ended())
        .filter_map(|entry| Some((entry.pid, (app_of(entry.pid, apps)?, entry.clone()))))
        .collect();
    let parents: HashMap<u32, u32> = table.iter().map(|e| (e.pid, e.parent)).collect();
    let is_inside = |pid: u32| {
        // As many steps as there are processes: pids may be used again while they are read.
        let above = std::iter::successors(parents.get(&pid), |parent| parents.get(parent));
        above.take(parents.len()).any(|pid| found.contains_key(pid))
    };
    found.iter().filter(|(pid, _)| !is_inside(**pid)).map(|(_, sandbox)| sandbox.clone()).collect()
}

/// Kills every sandbox that works in this data directory and is not in `known`
/// (pids of [`Instance`]s): what a server that was killed left half done. Waits until
/// they are gone and answers how many there were.
#[must_use]
pub fn sweep(apps: &Path, known: &HashSet<u32>) -> usize {
    let until = Instant::now() + KILLED;
    let mut ended = 0;
    // One that is just being made may get its inner half between our look and its end,
    // and that half would live on alone.
    loop {
        let mut strays = sandboxes(apps, &table::all());
        strays.retain(|(_, outermost)| !known.contains(&outermost.pid));
        let killed = kill_all(strays.iter().map(|(_, outermost)| outermost), until);
        ended += killed;
        if killed == 0 || Instant::now() >= until {
            return ended;
        }
    }
}

/// Kills these processes, and waits for them to go. Answers how many of them there still were.
pub fn kill_all<'a>(processes: impl Iterator<Item = &'a table::Entry>, until: Instant) -> usize {
    let all = processes.filter_map(|entry| Running::adopt(entry.pid, entry.start_ticks));
    let mut all: Vec<Running> = all.collect();
    all.iter().for_each(Running::kill);
    for process in &mut all {
        process.wait(until.saturating_duration_since(Instant::now()));
    }
    all.len()
}

#[cfg(test)]
mod tests;
