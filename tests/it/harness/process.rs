//! What the kernel says about a process, read from `/proc`.

use std::fs;
use std::path::{Path, PathBuf};

/// Resident memory in KiB; nothing when the process has gone.
pub fn resident_kib(pid: u32) -> Option<u64> {
    status_kib(pid, "VmRSS:")
}

/// A number of KiB that stands under this name in the status of a process.
pub fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Threads of a process.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Open files of a process.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Arguments of a process, separated by spaces.
pub fn arguments(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The field of `/proc/<pid>/stat` with this number, counted as in proc(5).
pub fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}

/// All processes of the machine.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Processes whose standard output or error is a file under this directory: the apps of a server, whose output goes
/// straight to its log files.
pub fn writing_into(directory: &Path) -> Vec<u32> {
    let into = |pid: u32, fd: u32| {
        let target: Option<PathBuf> = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
        target.is_some_and(|t| t.starts_with(directory))
    };
    all().into_iter().filter(|&pid| into(pid, 1) || into(pid, 2)).collect()
}

/// The same, and the sandboxes that have something of this directory inside. Where it is a mount that others do not see,
/// their output seems to go elsewhere.
pub fn of_apps(directory: &Path) -> Vec<u32> {
    let place = format!(" {}/apps/", directory.display());
    let sandboxes = all().into_iter().filter(|&pid| arguments(pid).contains(&place));
    writing_into(directory).into_iter().chain(sandboxes).collect()
}

/// Ends one process at once, by its id.
pub fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Sends a signal to one process; it may have ended already.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _gone = rustix::process::kill_process(pid, signal);
    }
}
