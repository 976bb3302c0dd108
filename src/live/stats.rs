//! The feed of numbers: the machine, the server, the apps, each second.

use super::session::End;
use super::{Facts, Feed};
use crate::model::unix_millis;
use serde::Serialize;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two messages.
const EVERY: Duration = Duration::from_secs(1);

/// What the machine has and uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// All memory.
    pub memory_total_bytes: u64,
    /// Memory that programs could still get without swapping.
    pub memory_available_bytes: u64,
    /// Size of the disk.
    pub disk_total_bytes: u64,
    /// What an ordinary user could still write.
    pub disk_free_bytes: u64,
    /// Runnable threads on average over 1, 5 and 15 minutes.
    pub load_average: [f64; 3],
    /// How many threads can run at once.
    pub cores: usize,
    /// Seconds since the machine started.
    pub uptime_seconds: u64,
}

impl Machine {
    /// Reads the numbers; `disk` is any path on the disk that is meant. What the
    /// system does not tell is 0.
    pub fn read(disk: &Path) -> Self {
        let memory = proc_file("meminfo");
        let kib = |name| field(&memory, name).unwrap_or(0) * 1024;
        let load = proc_file("loadavg");
        let mut loads = load.split_whitespace().map(|n| n.parse().unwrap_or(0.0));
        let (disk_total_bytes, disk_free_bytes) = match rustix::fs::statvfs(disk) {
            Ok(disk) => (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize),
            Err(_) => (0, 0),
        };
        let uptime = proc_file("uptime");
        Self {
            memory_total_bytes: kib("MemTotal:"),
            memory_available_bytes: kib("MemAvailable:"),
            disk_total_bytes,
            disk_free_bytes,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: [(); 3].map(|()| loads.next().unwrap_or(0.0)),
            uptime_seconds: uptime.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(0),
        }
    }
}

/// Memory of this process in bytes, as the kernel counts it (resident).
pub fn own_memory() -> u64 {
    field(&proc_file("self/status"), "VmRSS:").unwrap_or(0) * 1024
}

fn proc_file(name: &str) -> String {
    fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// One viewer's place in time.
pub(super) struct StatsFeed<'a> {
    disk: &'a Path,
    facts: &'a dyn Facts,
    due: Instant,
}

impl<'a> StatsFeed<'a> {
    pub(super) fn new(disk: &'a Path, facts: &'a dyn Facts) -> Self {
        Self { disk, facts, due: Instant::now() }
    }

    fn message(&self) -> String {
        let (at, machine) = (unix_millis(), json!(Machine::read(self.disk)));
        let (memory, apps) = (own_memory(), self.facts.app_states());
        format!(
            r#"{{"at":{at},"machine":{machine},"server":{{"memoryBytes":{memory}}},"apps":{apps}}}"#
        )
    }
}

impl Feed for StatsFeed<'_> {
    fn next(&mut self, now: Instant, _: bool) -> Result<Option<String>, End> {
        if now < self.due {
            return Ok(None);
        }
        // A viewer that was slow gets the newest numbers, not all it has missed.
        self.due = (self.due + EVERY).max(now + EVERY / 2);
        Ok(Some(self.message()))
    }
}
