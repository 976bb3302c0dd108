//! The live checklist (P28): facts in, findings out. Nothing here looks at anything itself.
//!
//! A finding that is not well says what is wrong, and then what mends it: a command that can be
//! pasted, or the place in the dashboard.

mod access;
mod apps;
mod machine;
pub mod steady;
#[cfg(test)]
mod tests;

use crate::model::{AppId, UnixMillis, unix_millis};
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Characters of a glance.
const GLANCE: usize = 200;

/// How long what a browser said of its clock holds.
const SEEN: Duration = Duration::from_secs(3600);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Pass,
    /// It could be better.
    Warn,
    /// It is to be mended now.
    Fail,
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was checked, and of what: the same at each look.
    pub id: String,
    /// How bad it is.
    pub level: Level,
    /// What is so.
    pub sentence: String,
    /// What to do, commands between backticks; empty where all is well.
    pub mend: String,
    /// The app that it is about.
    pub app_id: Option<AppId>,
}

impl Finding {
    fn new(level: Level, id: &str, sentence: impl Into<String>, mend: impl Into<String>) -> Self {
        let (id, sentence, mend) = (id.to_owned(), sentence.into(), mend.into());
        Self { id, level, sentence, mend, app_id: None }
    }

    fn pass(id: &str, sentence: impl Into<String>) -> Self {
        Self::new(Level::Pass, id, sentence, "")
    }

    fn warn(id: &str, sentence: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Level::Warn, id, sentence, mend)
    }

    fn fail(id: &str, sentence: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Level::Fail, id, sentence, mend)
    }
}

/// What is known; what is not, nothing is said of.
#[derive(Debug, Default)]
pub struct Facts {
    /// When it was gathered.
    pub now: UnixMillis,
    /// What a command line of this program begins with, such as `sudo better-paas`.
    pub command: String,
    /// Whether `server install` has put it here, with settings in a file.
    pub is_installed: bool,
    /// The admin token.
    pub token: Option<Token>,
    /// Where the encryption key in force lies beside what it opens, if it does.
    pub key_in_data: Option<Option<String>>,
    /// Files of the server that other users may read or write.
    pub open_files: Option<Vec<String>>,
    /// How many values in the database are not encrypted.
    pub cleartext: Option<u64>,
    /// What is wrong with the audit log's chain, if anything is.
    pub audit: Option<Option<String>>,
    /// The backups.
    pub backups: Option<Backups>,
    /// When this program was released.
    pub built_at: Option<UnixMillis>,
    /// The file system of the data.
    pub disk: Option<Disk>,
    /// The machine's memory, in bytes.
    pub memory: Option<Memory>,
    /// Whether the machine's clock is set by others' (NTP).
    pub clock_is_set: Option<bool>,
    /// By how many seconds this machine's clock is ahead of the owner's browser.
    pub ahead_of_browser: Option<i64>,
    /// Whether what was installed waits for a restart of the machine.
    pub reboot_required: bool,
    /// What the system's packages wait for.
    pub updates: Option<Updates>,
    /// What keeps apps apart, by name, and what is missing where something is.
    pub fences: Vec<(&'static str, Option<String>)>,
    /// What is wrong with the router while it should run, if anything is.
    pub router: Option<String>,
    /// TCP ports that others on the Internet may reach, besides those that are meant to be.
    pub open_ports: Option<Vec<u16>>,
    /// How the owner's requests come.
    pub way: Way,
    /// The apps.
    pub apps: Vec<App>,
}

/// The admin token.
#[derive(Debug, Default)]
pub struct Token {
    /// It is `ADMIN_TOKEN`'s.
    pub is_pinned: bool,
    /// When its file was written.
    pub made_at: Option<UnixMillis>,
    /// A process, by number and name, whose arguments or environment show it.
    pub shown_by: Option<(u32, String)>,
}

/// The backups.
#[derive(Debug, Default)]
pub struct Backups {
    /// Hours between two; 0 for none.
    pub interval_hours: u16,
    /// When the newest whole one was made.
    pub newest_at: Option<UnixMillis>,
    /// Since when there could have been one.
    pub since: UnixMillis,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// A damaged one: its path, and what is wrong.
    pub damaged: Option<(String, String)>,
    /// Whether something takes them to another machine, or they are on another file system.
    pub is_elsewhere: bool,
    /// Why the newest one could not be taken there.
    pub command_error: Option<String>,
}

/// The file system of the data.
#[derive(Debug, Default)]
pub struct Disk {
    /// Bytes free.
    pub free: u64,
    /// Bytes in all.
    pub all: u64,
    /// Where it is mounted.
    pub mount: String,
    /// Why no deploy goes on.
    pub too_little: Option<String>,
    /// Whether that is near.
    pub is_short: bool,
}

/// The machine's memory, in bytes.
#[derive(Debug, Default)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs can still get.
    pub available: u64,
    /// Swap space.
    pub swap: u64,
    /// What of that is free.
    pub swap_free: u64,
}

/// What the system's packages wait for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Updates {
    /// Updates that are for security.
    pub security: usize,
    /// When the system last asked which there are.
    pub asked_at: Option<UnixMillis>,
}

/// How the owner's requests come, of those that had the right token.
#[derive(Debug, Default, Clone)]
pub struct Way {
    /// Whether there was one.
    pub is_known: bool,
    /// The last one from the Internet came over plain HTTP, from here.
    pub plain_from: Option<String>,
    /// The last one came from this address with the header of a proxy that is not trusted.
    pub proxy: Option<String>,
    /// Whether some proxy is trusted already.
    pub trusts: bool,
    /// `TRUST_PROXY=true` beside a port, this one, that is open to everybody.
    pub open_beside_proxy: Option<u16>,
}

/// An app.
#[derive(Debug)]
pub struct App {
    /// Its identifier.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// Why it ends again and again, if it does.
    pub looping: Option<String>,
    /// Why its last deploy failed, and whether a release before it serves on.
    pub failed: Option<(String, bool)>,
    /// Jobs that failed or were missed: their names, and how.
    pub jobs: Vec<(String, String)>,
    /// What is wrong with host names.
    pub hosts: Vec<Host>,
}

/// What is wrong with a host name.
#[derive(Debug)]
pub struct Host {
    /// The name.
    pub name: String,
    /// In a sentence.
    pub trouble: String,
    /// Whether visitors notice.
    pub is_noticed: bool,
    /// Whether a record of the name service is to be set.
    pub leads_elsewhere: bool,
}

/// What requests tell the checklist, and what it has found: for all who ask.
#[derive(Debug, Default)]
pub struct Board {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    way: Way,
    /// By how many seconds the clock was ahead of a browser's, and when that was seen.
    ahead: Option<(i64, Instant)>,
    lasting: Vec<Finding>,
}

impl Board {
    /// An owner's request came like this.
    pub fn note_way(&self, change: impl FnOnce(&mut Way)) {
        change(&mut lock(&self.known).way);
    }

    /// An owner's browser has this time.
    pub fn note_browser(&self, its: UnixMillis) {
        let ahead = unix_millis().saturating_sub(its) / 1000;
        lock(&self.known).ahead = Some((ahead, Instant::now()));
    }

    /// How the owner's requests came, and by how much the clock is ahead as far as that is known.
    #[must_use]
    pub fn noted(&self) -> (Way, Option<i64>) {
        let known = lock(&self.known);
        let ahead = known.ahead.filter(|(_, seen)| seen.elapsed() < SEEN);
        (known.way.clone(), ahead.map(|(ahead, _)| ahead))
    }

    /// What has lasted, as it was found last.
    #[must_use]
    pub fn lasting(&self) -> Vec<Finding> {
        lock(&self.known).lasting.clone()
    }

    /// Puts that down.
    pub fn set_lasting(&self, findings: Vec<Finding>) {
        lock(&self.known).lasting = findings;
    }
}

/// What the facts come to: the worst first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let all = [access::CHECKS, machine::CHECKS].concat();
    let mut found: Vec<Finding> = all.iter().filter_map(|check| check(facts)).collect();
    found.extend(machine::ports(facts));
    found.extend(machine::fences(facts));
    found.extend(apps::findings(facts));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    found
}

/// What is worth a glance of what others have said: the beginning of its first line.
#[must_use]
pub fn glance(said: &str) -> String {
    said.lines().next().unwrap_or_default().chars().take(GLANCE).collect()
}

/// One check.
type Check = fn(&Facts) -> Option<Finding>;

const HOUR: UnixMillis = 60 * 60 * 1000;
const DAY: UnixMillis = 24 * HOUR;

/// A command of this program.
fn ours(facts: &Facts, arguments: &str) -> String {
    format!("`{} {arguments}`", facts.command)
}

/// What puts a setting in force.
fn set(facts: &Facts, setting: &str) -> String {
    if facts.is_installed {
        format!(
            "`printf '\\n{setting}\\n' | sudo tee -a /etc/better-paas.conf && sudo better-paas install`"
        )
    } else {
        format!("start the server anew with `{setting}` in its environment")
    }
}
