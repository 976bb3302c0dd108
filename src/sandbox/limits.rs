//! What an app, a build or a fetch may take of the machine.

use crate::disk::app_users::AppUsers;
use crate::store::App;

/// Processes and threads that an app may have when its owner says nothing; a runaway
/// fork stops here.
const APP_PROCESSES: u64 = 1024;
/// The same for a fetch or a build, which may well compile on many threads.
pub const BUILD_PROCESSES: u64 = 4096;

/// Bytes that each process may have when its owner says nothing and no cgroup holds all
/// together: runtimes write to less of what they ask for.
const LEAST_DATA: u64 = 1 << 30;

/// Bytes that Git may have. It takes 200 MiB for a pack of 500 MB with 200,000 files, a
/// dozen of which have 14 MB and differ little: with two threads, three such files in
/// memory for each (see its configuration).
pub const FETCH_MEMORY: u64 = 512 << 20;

/// CPU weight of an app, the kernel's default, and of a build beside it.
pub const APP_WEIGHT: u32 = 100;
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
    pub fn of_app(app: &App, of_machine: u64) -> Self {
        let number = |n: u32| (n > 0).then_some(n);
        let usual = Self::usual(of_machine);
        let memory = number(app.settings.memory.get()).map(|mib| u64::from(mib) << 20);
        Self {
            memory: memory.unwrap_or(usual.memory),
            data: memory.unwrap_or(usual.data),
            cpu: number(app.settings.cpu.get()),
            processes: number(app.settings.max_processes.get()).map_or(usual.processes, u64::from),
            ..usual
        }
    }

    /// What an app may take whose owner says nothing.
    pub fn usual(of_machine: u64) -> Self {
        let memory = of_machine / 4 * 3;
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
    pub const fn of_user(&self, users: AppUsers) -> u64 {
        match users {
            AppUsers::Root => 2 * self.processes + BUILD_PROCESSES,
            AppUsers::Subordinate(_) | AppUsers::Shared => self.processes,
        }
    }

    /// What Git may take: what a repository's host sends is its own choice, and Git keeps
    /// much of it in memory.
    pub fn of_fetch(of_machine: u64) -> Self {
        let build = Self::of_build(of_machine);
        Self { memory: build.memory.min(FETCH_MEMORY), data: FETCH_MEMORY, ..build }
    }

    /// What a build may take.
    pub fn of_build(of_machine: u64) -> Self {
        Self { processes: BUILD_PROCESSES, weight: BUILD_WEIGHT, ..Self::usual(of_machine) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_does_not_grant_more_memory_than_it_has() {
        let small = Limits::usual(512 << 20);
        assert_eq!((small.memory, small.data), (384 << 20, LEAST_DATA));
        let large = Limits::usual(8 << 30);
        assert_eq!((large.memory, large.data), (6 << 30, 6 << 30));
    }
}
