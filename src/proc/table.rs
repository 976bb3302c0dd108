//! What `/proc` says of processes: who they are, who started them, since when.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;

/// Bytes that are read of arguments and environment: as many as the kernel takes for one of them
/// (execve(2)). A process may say that its own are as large as all memory (PR_SET_MM).
const LONGEST: u64 = 128 << 10;

/// One line of the process table (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The process.
    pub pid: u32,
    /// Its program's name, at most 15 bytes; a process may change it.
    pub name: String,
    /// `Z` and `X` are the states of a process that has ended.
    pub state: char,
    /// The process that started it, or took it over.
    pub parent: u32,
    /// When it started, in clock ticks since the machine did. Together with the
    /// pid it names one process for ever, since pids are used again.
    pub start_ticks: u64,
}

impl Entry {
    /// It has ended, and only its parent has not taken notice yet.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The entry of one process, or `None` when there is no such process.
pub fn entry(pid: u32) -> Option<Entry> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

/// Every process that this one may see.
pub fn all() -> Vec<Entry> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|name| entry(name.file_name().to_str()?.parse().ok()?)).collect()
}

/// Every process that descends from `pid`, parents before children, without `pid` itself.
pub fn descendants(pid: u32) -> Vec<Entry> {
    descendants_in(all(), pid)
}

/// The same by a table that was read before.
pub fn descendants_in(table: Vec<Entry>, pid: u32) -> Vec<Entry> {
    let mut children: HashMap<u32, Vec<Entry>> = HashMap::new();
    for entry in table {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut found: Vec<Entry> = children.remove(&pid).unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        let more = children.remove(&found[next].pid).unwrap_or_default();
        found.extend(more);
        next += 1;
    }
    found
}

/// The first process that a process has started of those that still run, without a look
/// at all others.
pub fn first_child(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The user that a process acts as, by the numbers of this process's user namespace.
/// Told of every process, also of one that lets nobody look into it.
pub fn effective_uid(pid: u32) -> Option<u32> {
    let text = fs::read(format!("/proc/{pid}/status")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // Real, effective, saved, and that of the file system.
    text.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// The arguments of a process; empty when it is gone. A process may change them.
pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = its_own(pid, "cmdline");
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Whether a process has this in its arguments or, where we may read that, its environment.
pub fn shows(pid: u32, what: &[u8]) -> bool {
    let has = |name| its_own(pid, name).windows(what.len()).any(|part| part == what);
    has("cmdline") || has("environ")
}

/// What a process may write itself, as far as it is read.
fn its_own(pid: u32, name: &str) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/{name}")) {
        // What comes before an error counts.
        let _ = file.take(LONGEST).read_to_end(&mut text);
    }
    text
}

/// Reads a line of `/proc/<pid>/stat`. The name stands in parentheses and may
/// itself hold parentheses and spaces, so the last one ends it.
fn parse_stat(text: &str) -> Option<Entry> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Fields are counted from 1 in the manual: `state` is the third.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Entry {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let line = "42 (a) R 1 (b c) S 7 42 42 0 -1 4194304 91 0 0 0 0 0 0 0 20 0 1 0 123456 0 0";
        let entry = parse_stat(line).unwrap();
        assert_eq!(entry.name, "a) R 1 (b c");
        assert_eq!((entry.pid, entry.parent, entry.start_ticks), (42, 7, 123_456));
        assert!(!entry.has_ended());
        for bad in ["", "x", "1 (a)", "1 (a) S", "1 (a) S 1 2 3", "a (b) S 1 2 3 4"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    /// Has the kernel take a mapping of its own for its arguments (prctl(2), PR_SET_MM_MAP), 64 MiB
    /// of it, and says whether that was done.
    const BOASTING: &str = r#"
import ctypes, struct, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.sbrk.restype = ctypes.c_void_p
size = 64 << 20
place = libc.mmap(None, size, 1, 0x22, -1, 0)
stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
field = lambda number: int(stat[number - 3])
map = [field(n) for n in (26, 27, 45, 46, 47)] + [libc.sbrk(0), field(28), place, place + size]
map = struct.pack("12QIi", *map, field(50), field(51), 0, 0, -1)
print(libc.prctl(35, 14, map, ctypes.c_ulong(len(map)), ctypes.c_ulong(0)), flush=True)
time.sleep(60)
"#;

    #[test]
    fn of_a_process_that_claims_endless_arguments_the_beginning_is_read() {
        use std::process::{Command, Stdio};
        let mut python = Command::new("python3");
        let python = python.args(["-c", BOASTING]).stdout(Stdio::piped()).spawn();
        let mut boaster = python.unwrap();
        let mut said = [0];
        boaster.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let claimed = File::open(format!("/proc/{}/cmdline", boaster.id())).unwrap();
        let mut all = Vec::new();
        claimed.take(2 * LONGEST).read_to_end(&mut all).unwrap();
        let read = its_own(boaster.id(), "cmdline").len() as u64;
        boaster.kill().unwrap();
        boaster.wait().unwrap();
        // A kernel without CONFIG_CHECKPOINT_RESTORE has no such call, and its processes no way.
        assert!(said == *b"-" || all.len() as u64 == 2 * LONGEST, "it claims {}", all.len());
        assert!(read <= LONGEST, "{read}");
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = entry(std::process::id()).unwrap();
        assert!(me.start_ticks > 0 && !me.has_ended());
        assert!(descendants(me.parent).iter().any(|e| e.pid == me.pid));
        assert!(!arguments(me.pid).is_empty());
        assert!(shows(me.pid, b"better_paas") && !shows(me.pid, b"no such word, I hope\0"));
        assert_eq!(effective_uid(me.pid), Some(rustix::process::geteuid().as_raw()));
        assert_eq!(first_child(u32::MAX), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // Other tests of this process have children too, of other threads.
        let seen = std::iter::successors(Some(me.parent), |pid| first_child(*pid)).nth(1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.is_some());
    }
}
