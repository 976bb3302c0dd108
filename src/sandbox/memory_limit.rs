//! The limit of memory that a process is really held to, and whether it was over it.

use super::cgroup;
use super::limits::{APP_WEIGHT, Limits};
use std::fs;
use std::path::PathBuf;

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
    pub fn of(pid: u32) -> Option<Self> {
        let leaf = cgroup::leaf_of(pid).map(Self::Leaf);
        leaf.or_else(|| limits_of_process(pid).map(|limits| Self::Process(limits.data)))
    }

    /// What is known of it once the app has ended, badly: the kernel counts what it ends in a
    /// leaf; a process that gets no more memory ends in its own way, and may say so.
    pub fn exceeded(&self, says_so: &dyn Fn() -> bool) -> Option<String> {
        match self {
            Self::Leaf(leaf) => cgroup::ended_for_memory(leaf),
            Self::Process(bytes) => says_so()
                .then(|| format!("it may have been over its memory limit of {} MiB", bytes >> 20)),
        }
    }
}

/// What the kernel holds a process to (proc_pid_limits(5)).
pub fn limits_of_process(pid: u32) -> Option<Limits> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let soft = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let (data, processes) = (soft("Max data size")?, soft("Max processes")?);
    Some(Limits { memory: data, data, cpu: None, weight: APP_WEIGHT, processes })
}
