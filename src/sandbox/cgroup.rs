//! Limits for an app as a whole: cgroup v2, where the service was given a subtree of it.
//!
//! The kernel wants processes in the leaves alone (cgroups(7), "no internal processes"), so
//! the server itself must be in a leaf of its subtree. systemd puts it there with
//! `Delegate=yes` and `DelegateSubgroup=`; without the second it could not start the server
//! again while apps run in leaves beside it, so then we leave it alone.

use super::limits::Limits;
use crate::disk::removal::random_name;
use rustix::fs::{Access, access, getxattr};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What limits need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// The leaf for the server's own processes: the name for `DelegateSubgroup=`.
const SERVER: &str = "server";

/// What the names of our leaves begin with.
const LEAF: &str = "bpaas";

/// bubblewrap's own processes, which are in an app's leaf too.
const BUBBLEWRAP: u64 = 2;

/// The time in which a program that has a leaf must have entered it.
const ENTERED: Duration = Duration::from_secs(60);

/// Microseconds in which an app may use its share of CPU time; the kernel's default.
const PERIOD: u64 = 100_000;

/// What else to write into the service's unit.
const ADVICE: &str = "add Delegate=yes and DelegateSubgroup=server to the service's unit \
                      (systemd 254 or newer) and start it again";

/// A system of before 2020 or so, or one that was told to be like that.
const NO_CGROUP2: &str = "this machine has no cgroup v2; start its kernel with \
                          systemd.unified_cgroup_hierarchy=1, or take a newer system";

/// Where every system with cgroup v2 alone has it (systemd(1), and all that are like it).
const MOUNT: &str = "/sys/fs/cgroup";

/// A subtree of cgroups that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtree {
    base: PathBuf,
}

impl Subtree {
    /// The subtree that this service was given, with its controllers on.
    ///
    /// # Errors
    /// Why there is none, and how to get one.
    pub fn of_this_service() -> Result<Self, String> {
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::find(&cgroup, Path::new(MOUNT), &is_delegated)
    }

    fn find(
        cgroup: &str,
        mount: &Path,
        is_delegated: &dyn Fn(&Path) -> bool,
    ) -> Result<Self, String> {
        if !mount.join("cgroup.controllers").exists() {
            return Err(NO_CGROUP2.to_owned());
        }
        let own = own_directory(cgroup, mount).ok_or_else(|| {
            format!(
                "the server has no cgroup of its own; run it as a systemd service, and {ADVICE}"
            )
        })?;
        let base = match own.parent() {
            Some(above) if own.ends_with(SERVER) && is_delegated(above) => above.to_owned(),
            _ if is_delegated(&own) => {
                return Err(format!(
                    "the service's cgroup has no subgroup for the server; {ADVICE}"
                ));
            }
            _ => return Err(format!("the service has no cgroups of its own; {ADVICE}")),
        };
        let offered = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &&str| offered.split_ascii_whitespace().any(|word| word == *name);
        if let Some(missing) = CONTROLLERS.iter().find(|name| !has(name)) {
            return Err(format!("the cgroup of the service has no {missing} controller"));
        }
        let on = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
        fs::write(base.join("cgroup.subtree_control"), on)
            .map_err(|e| format!("the cgroups of the service could not be used: {e}"))?;
        Ok(Self { base })
    }

    /// Makes a leaf with these limits and answers the file through which a process enters it.
    ///
    /// # Errors
    /// When the kernel does not take one of the limits.
    pub fn make_leaf(&self, limits: &Limits) -> io::Result<PathBuf> {
        self.clear();
        let leaf = self.base.join(format!("{LEAF}{}", random_name()));
        fs::create_dir_all(&leaf)?;
        fs::write(leaf.join("memory.max"), limits.memory.to_string())?;
        // One process less would leave a crippled app; it is started again whole.
        fs::write(leaf.join("memory.oom.group"), "1")?;
        // Not there without swap. What is limited in memory shall not take the disk instead.
        let _ = fs::write(leaf.join("memory.swap.max"), "0");
        let quota = limits.cpu.map(|percent| u64::from(percent) * PERIOD / 100);
        let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
        fs::write(leaf.join("cpu.max"), format!("{quota} {PERIOD}"))?;
        fs::write(leaf.join("cpu.weight"), limits.weight.to_string())?;
        fs::write(leaf.join("pids.max"), (limits.processes + BUBBLEWRAP).to_string())?;
        Ok(leaf.join("cgroup.procs"))
    }

    /// Removes the leaves that nobody is in any more; the kernel keeps the others.
    fn clear(&self) {
        let Ok(entries) = fs::read_dir(&self.base) else { return };
        for entry in entries.flatten() {
            let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(LEAF));
            let made = entry.metadata().and_then(|meta| meta.modified()).ok();
            // A sandbox may be about to enter a new one.
            let old = made.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > ENTERED);
            if ours && old {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The leaf of ours that a process is in.
pub fn leaf_of(pid: u32) -> Option<PathBuf> {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    own_directory(&cgroup, Path::new(MOUNT))
        .filter(|own| own.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LEAF)))
}

/// Why the kernel has ended processes in a leaf for their memory, if it has; `oom_kill` counts
/// those, for whatever shortage, and `oom` how often it was the leaf's own limit.
pub fn ended_for_memory(leaf: &Path) -> Option<String> {
    let events = fs::read_to_string(leaf.join("memory.events")).ok()?;
    let has = |name: &str| {
        let mut lines = events.lines().filter_map(|line| line.split_once(' '));
        lines.any(|(event, count)| event == name && count != "0")
    };
    has("oom_kill").then(|| {
        if has("oom") {
            format!("over its memory limit of {} MiB", read(leaf).memory >> 20)
        } else {
            "the machine had no memory left".to_owned()
        }
    })
}

/// What a leaf's files say.
pub fn read(leaf: &Path) -> Limits {
    let text = |name: &str| fs::read_to_string(leaf.join(name)).unwrap_or_default();
    let number = |name: &str| text(name).trim().parse().unwrap_or(u64::MAX);
    let cpu = text("cpu.max").split(' ').next().and_then(|quota| quota.parse::<u64>().ok());
    let cpu = cpu.and_then(|quota| u32::try_from(quota * 100 / PERIOD).ok());
    let processes = number("pids.max").saturating_sub(BUBBLEWRAP);
    let memory = number("memory.max");
    Limits { memory, data: memory, cpu, weight: 100, processes }
}

/// A process's own directory, by the path in a line `0::/path` of its `/proc/<pid>/cgroup`
/// (cgroups(7)).
fn own_directory(cgroup: &str, mount: &Path) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty()).then(|| mount.join(path))
}

/// Whether a cgroup was handed over to us. An ordinary user may write to it then; root,
/// who may write to all, looks for systemd's mark.
fn is_delegated(directory: &Path) -> bool {
    if rustix::process::geteuid().is_root() {
        return ["user.delegate", "trusted.delegate"].iter().any(|name| {
            let mut value = [0; 8];
            matches!(getxattr(directory, *name, &mut value), Ok(1) if value[0] == b'1')
        });
    }
    ["cgroup.procs", "cgroup.subtree_control"]
        .iter()
        .all(|file| access(directory.join(file), Access::WRITE_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::memory_limit::MemoryLimit;

    struct Tree {
        dir: tempfile::TempDir,
    }

    impl Tree {
        /// A hierarchy in which these cgroups are there, with everything in them that the kernel would make.
        fn new(groups: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for group in groups.iter().chain(&[""]) {
                let path = dir.path().join(group);
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
                fs::write(path.join("cgroup.procs"), "").unwrap();
            }
            Self { dir }
        }

        fn find(&self, own: &str, delegated: &[&str]) -> Result<Subtree, String> {
            let delegated: Vec<_> = delegated.iter().map(|d| self.dir.path().join(d)).collect();
            let cgroup = format!("1:name=x:/\n0::/{own}\n");
            Subtree::find(&cgroup, self.dir.path(), &|path| delegated.iter().any(|d| d == path))
        }

        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.dir.path().join(path)).unwrap()
        }
    }

    #[test]
    fn a_service_with_a_subgroup_gives_its_apps_leaves_beside_it() {
        let tree = Tree::new(&["s/paas.service/server", "s/paas.service"]);
        let both = ["s/paas.service", "s/paas.service/server"];
        let subtree = tree.find("s/paas.service/server", &both).unwrap();
        assert_eq!(subtree.base, tree.dir.path().join("s/paas.service"));
        assert_eq!(tree.text("s/paas.service/cgroup.subtree_control"), "+memory +cpu +pids");
        let (memory, data) = (64 << 20, 64 << 20);
        let limits = Limits { memory, data, cpu: Some(150), weight: 100, processes: 20 };
        let procs = subtree.make_leaf(&limits).unwrap();
        let leaf = procs.parent().unwrap();
        assert_eq!(fs::read_to_string(leaf.join("memory.max")).unwrap(), "67108864");
        assert_eq!(fs::read_to_string(leaf.join("cpu.max")).unwrap(), "150000 100000");
        assert_eq!(fs::read_to_string(leaf.join("memory.oom.group")).unwrap(), "1");
        assert_eq!(read(leaf), limits);
        let free = Limits { cpu: None, ..limits };
        let second = subtree.make_leaf(&free).unwrap();
        assert_eq!(read(second.parent().unwrap()), free);
        for (oom, oom_kill, why) in [
            (0, 0, None),
            (1, 0, None),
            (1, 2, Some("over its memory limit of 64 MiB")),
            (0, 1, Some("the machine had no memory left")),
        ] {
            let events =
                format!("low 0\nhigh 0\nmax 9\noom {oom}\noom_kill {oom_kill}\noom_group_kill 1\n");
            fs::write(leaf.join("memory.events"), events).unwrap();
            let limit = MemoryLimit::Leaf(leaf.to_owned());
            assert_eq!(limit.exceeded(&|| false).as_deref(), why, "{oom} {oom_kill}");
        }
        assert!(leaf.exists(), "a sandbox may still be about to enter it");
    }

    #[test]
    fn without_a_usable_subtree_the_reason_says_what_to_do() {
        let tree = Tree::new(&["s/paas.service", "s"]);
        let nothing = tree.find("s/paas.service", &[]).unwrap_err();
        assert!(nothing.contains("DelegateSubgroup=server"), "{nothing}");
        let no_subgroup = tree.find("s/paas.service", &["s/paas.service"]).unwrap_err();
        assert!(
            no_subgroup.contains("no subgroup") && no_subgroup.contains("254"),
            "{no_subgroup}"
        );
        let outside = tree.find("", &[""]).unwrap_err();
        assert!(outside.contains("no cgroup of its own") && outside.contains(ADVICE), "{outside}");
        fs::write(tree.dir.path().join("s/cgroup.controllers"), "cpu pids\n").unwrap();
        assert!(tree.find("s/server", &["s"]).unwrap_err().contains("no memory controller"));
        let old = Subtree::find("1:x:/\n", Path::new("/proc"), &|_| true).unwrap_err();
        assert!(old.contains("unified_cgroup_hierarchy=1"), "{old}");
        assert!(!tree.dir.path().join("s/cgroup.subtree_control").exists(), "nothing was touched");
    }
}
