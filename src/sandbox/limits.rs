//! What an app or a build may take of the machine, and what of that is really in force.

use super::cgroup::{self, Shortage};
use super::host::{Machine, Mode};
use crate::proc::table;
use crate::store::App;
use std::fs;
use std::path::PathBuf;

/// Processes and threads that an app may have when its owner says nothing; a runaway
/// fork stops here.
const APP_PROCESSES: u64 = 1024;
/// The same for a fetch or a build, which may well compile on many threads.
const BUILD_PROCESSES: u64 = 4096;

/// Bytes that each process may have when its owner says nothing and no cgroup holds all
/// together: runtimes write to less of what they ask for.
const LEAST_DATA: u64 = 1 << 30;

/// Bytes that Git may have. It takes 200 MiB for a pack of 500 MB with 200,000 files, a
/// dozen of which have 14 MB and differ little: with two threads, three such files in
/// memory for each (see its configuration).
pub const FETCH_MEMORY: u64 = 512 << 20;

/// CPU weight of an app, the kernel's default, and of a build beside it.
const APP_WEIGHT: u32 = 100;
const BUILD_WEIGHT: u32 = 10;

/// What may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, of all processes together, where a cgroup holds it.
    pub memory: u64,
    /// Otherwise bytes that each process may have asked for (`RLIMIT_DATA`).
    pub data: u64,
    /// CPU time in percent of one core; `None` is as much as there is.
    pub cpu: Option<u32>,
    /// Whose turn it is when there is not enough CPU time for all.
    pub weight: u32,
    /// Processes and threads.
    pub processes: u64,
}

impl Limits {
    /// What an app may take: what its owner says, otherwise three quarters of the memory
    /// (who takes more is most likely wrong, and the others need the rest).
    #[must_use]
    pub fn of_app(app: &App, machine: &Machine) -> Self {
        let number = |n: u32| (n > 0).then_some(n);
        let usual = Self::usual(machine);
        let memory = number(app.settings.memory.get()).map(|mib| u64::from(mib) << 20);
        Self {
            memory: memory.unwrap_or(usual.memory),
            data: memory.unwrap_or(usual.data),
            cpu: number(app.settings.cpu.get()),
            weight: APP_WEIGHT,
            processes: number(app.settings.max_processes.get()).map_or(usual.processes, u64::from),
        }
    }

    /// What an app may take whose owner says nothing.
    #[must_use]
    pub fn usual(machine: &Machine) -> Self {
        let memory = machine.memory / 4 * 3;
        Self {
            memory,
            data: memory.max(LEAST_DATA),
            cpu: None,
            weight: APP_WEIGHT,
            processes: APP_PROCESSES,
        }
    }

    /// Processes that an app's user may have where no cgroup holds them. The kernel counts
    /// the user's in the sandbox's user namespace, but under root's server there is none and
    /// it counts all over the machine: then there must be room for the release before this
    /// one and for a build, or the app's own next deploy would take the live one down. (A
    /// build itself may not use that room: with its smaller limit it ends first.)
    #[must_use]
    pub const fn of_user(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Root => 2 * self.processes + BUILD_PROCESSES,
            Mode::Subordinate(_) | Mode::SharedUser => self.processes,
        }
    }

    /// What Git may take: what a repository's host sends is its own choice, and Git keeps
    /// much of it in memory.
    #[must_use]
    pub fn of_fetch(machine: &Machine) -> Self {
        let build = Self::of_build(machine);
        Self { memory: build.memory.min(FETCH_MEMORY), data: FETCH_MEMORY, ..build }
    }

    /// What a build may take.
    #[must_use]
    pub fn of_build(machine: &Machine) -> Self {
        Self { processes: BUILD_PROCESSES, weight: BUILD_WEIGHT, ..Self::usual(machine) }
    }
}

/// Who holds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The app's cgroup: for all its processes together.
    Cgroup,
    /// Each process by itself.
    Process,
    /// The app's user.
    User,
    /// Nobody.
    None,
}

/// One limit as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// MiB, percent of one core, or processes; `None` is no limit.
    pub value: Option<u64>,
    /// Who holds it.
    pub by: Holder,
    /// What there is to say about it.
    pub note: Option<String>,
}

/// The limits of an app as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Memory, in MiB.
    pub memory: Held,
    /// CPU time, in percent of one core.
    pub cpu: Held,
    /// Processes and threads.
    pub processes: Held,
}

/// What is in force for an app: what the kernel says of its process, or what its next
/// start gets.
#[must_use]
pub fn report(app: &App, machine: &Machine) -> Report {
    let wanted = Limits::of_app(app, machine);
    let running = app.process.as_ref().filter(|p| p.ended.is_none());
    let inside = running.and_then(|p| innermost(p.pid));
    let in_group = match (&machine.cgroups, inside) {
        (Ok(subtree), Some(pid)) => subtree.limits_of(pid),
        (Ok(_), None) => Some(wanted.clone()),
        (Err(_), _) => None,
    };
    let Some(real) = in_group else {
        let of_process = inside.and_then(limits_of_process);
        let next = Limits { processes: wanted.of_user(machine.mode), ..wanted.clone() };
        return without_cgroups(&wanted, &of_process.unwrap_or(next), machine);
    };
    let held = |value: Option<u64>, wanted: Option<u64>, unit| Held {
        value,
        by: if value.is_some() { Holder::Cgroup } else { Holder::None },
        note: (value != wanted).then(|| from_the_next_start(wanted, unit)),
    };
    Report {
        memory: held(Some(real.memory >> 20), Some(wanted.memory >> 20), "MiB"),
        cpu: held(real.cpu.map(u64::from), wanted.cpu.map(u64::from), "%"),
        processes: held(Some(real.processes), Some(wanted.processes), "processes"),
    }
}

fn without_cgroups(wanted: &Limits, real: &Limits, machine: &Machine) -> Report {
    let why =
        machine.cgroups.as_ref().err().map_or("the kernel refused its cgroup", String::as_str);
    let together = if real.data >> 20 == wanted.data >> 20 {
        format!("each process may take this much, and nothing limits all of them together: {why}")
    } else {
        from_the_next_start(Some(wanted.data >> 20), "MiB")
    };
    let counted = match machine.mode {
        Mode::SharedUser => "counted in the app's sandbox".to_owned(),
        Mode::Subordinate(_) => "counted for the app's user".to_owned(),
        Mode::Root => format!(
            "the app's own limit is {0}; without a cgroup the kernel counts all processes of its \
             user, so {0} for the release before it and {BUILD_PROCESSES} for a build are added: \
             {why}",
            wanted.processes
        ),
    };
    let processes = if real.processes == wanted.of_user(machine.mode) {
        counted
    } else {
        from_the_next_start(Some(wanted.processes), "processes")
    };
    Report {
        memory: Held { value: Some(real.data >> 20), by: Holder::Process, note: Some(together) },
        cpu: Held {
            value: None,
            by: Holder::None,
            note: wanted.cpu.map(|percent| format!("{percent} % is not in force: {why}")),
        },
        processes: Held { value: Some(real.processes), by: Holder::User, note: Some(processes) },
    }
}

fn from_the_next_start(wanted: Option<u64>, unit: &str) -> String {
    let wanted = wanted.map_or("no limit".to_owned(), |wanted| format!("{wanted} {unit}"));
    format!("{wanted} from the app's next start on")
}

/// The app's first process: bubblewrap is two, the second in the sandbox.
fn innermost(pid: u32) -> Option<u32> {
    table::first_child(pid).and_then(table::first_child)
}

/// What the kernel holds a process to (proc_pid_limits(5)).
fn limits_of_process(pid: u32) -> Option<Limits> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let soft = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let (data, processes) = (soft("Max data size")?, soft("Max processes")?);
    Some(Limits { memory: data, data, cpu: None, weight: APP_WEIGHT, processes })
}

/// The limit of memory that a process is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryLimit {
    /// In a leaf of ours, with all processes of its app together.
    Leaf(PathBuf),
    /// By itself, in bytes.
    Process(u64),
}

impl MemoryLimit {
    /// What the kernel says of a process.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let leaf = cgroup::leaf_of(pid).map(Self::Leaf);
        leaf.or_else(|| limits_of_process(pid).map(|limits| Self::Process(limits.data)))
    }

    /// What is known of it once the app has ended, badly: the kernel counts what it ends in a
    /// leaf; a process that gets no more memory ends in its own way, and may say so.
    #[must_use]
    pub fn exceeded(&self, says_so: &dyn Fn() -> bool) -> Option<String> {
        match self {
            Self::Leaf(leaf) => {
                let limit = cgroup::read(leaf).memory >> 20;
                match cgroup::ended_for_memory(leaf)? {
                    Shortage::Limit => Some(format!("over its memory limit of {limit} MiB")),
                    Shortage::Machine => Some("the machine had no memory left".to_owned()),
                }
            }
            Self::Process(bytes) => says_so()
                .then(|| format!("it may have been over its memory limit of {} MiB", bytes >> 20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_does_not_grant_more_memory_than_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = Machine::here(dir.path());
        let mut with = |memory| {
            machine.memory = memory;
            Limits::usual(&machine)
        };
        let small = with(512 << 20);
        assert_eq!((small.memory, small.data), (384 << 20, LEAST_DATA));
        let large = with(8 << 30);
        assert_eq!((large.memory, large.data), (6 << 30, 6 << 30));
    }
}
