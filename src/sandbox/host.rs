//! What this machine has for running apps, found by trying it.

use super::bwrap::{Purpose, Sandbox};
use super::cgroup::Subtree;
use super::etc_files::Etc;
use super::limits::Limits;
use crate::disk::subuid::{self, INSIDE, Range};
use crate::inside;
use crate::proc::{self, Cancel, Exec};
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first uid of apps when the server runs as root; an app's slot is added to
/// it. Out of the range that systemd's list of uids keeps free (0x70000000 and up):
/// the ranges in `/etc/subuid` belong to people, who could become these uids.
const FIRST_UID: u32 = 1_900_000_000;

/// Open files that an app may have, when the machine allows as many.
const OPEN_FILES: u64 = 65_536;

/// How long the first sandbox may take; it takes some hundredths of a second, more on a machine
/// that has just started and is busy.
const TRYING_OUT: Duration = Duration::from_secs(20);

/// Programs that must be there, with the package that has them.
const NEEDED: [(&str, &str); 6] = [
    ("bwrap", "bubblewrap"),
    ("git", "git"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("chroot", "coreutils"),
    ("nice", "coreutils"),
];

/// Programs that make things better.
const OPTIONAL: [&str; 2] = ["ionice", "unshare"];

/// Whose processes an app's are, seen from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server's user's; sandboxes alone keep apps apart.
    SharedUser,
    /// Each app has a uid of its own, out of the range of the server's user.
    Subordinate(Range),
    /// Each app has a uid of its own, since the server runs as root.
    Root,
}

/// A machine on which sandboxes work.
#[derive(Debug)]
pub struct Machine {
    /// Whose processes an app's are.
    pub mode: Mode,
    /// Why apps share the server's user, where they do, and how to mend it.
    pub shared_because: Option<String>,
    /// bubblewrap's version; older ones lack options.
    pub bwrap: (u32, u32),
    /// Bytes of memory.
    pub memory: u64,
    /// Open files that a process inside may have.
    pub open_files: u64,
    /// The cgroups for apps, or why there are none.
    pub cgroups: Result<Subtree, String>,
    /// Whether the server has capabilities that its children inherit, from its unit's
    /// `AmbientCapabilities=`; bubblewrap does not start with any.
    ambient: bool,
    programs: BTreeMap<&'static str, PathBuf>,
    /// The files that stand in for the machine's own in `/etc`.
    pub etc: Etc,
}

impl Machine {
    /// Looks for everything and makes one sandbox for a try. `etc` is a
    /// directory for the files that stand in for the machine's own, `apps` the one
    /// with all apps.
    ///
    /// # Errors
    /// The sentence that says what is missing and how to mend it.
    pub fn probe(etc: &Path, apps: &Path, stop: &Cancel) -> Result<Self, String> {
        let mut programs = BTreeMap::new();
        for (name, package) in NEEDED {
            let path = proc::find(name).ok_or_else(|| missing(name, package))?;
            programs.insert(name, path);
        }
        for name in OPTIONAL {
            if let Some(path) = proc::find(name) {
                programs.insert(name, path);
            }
        }
        let (mode, shared_because) = if rustix::process::geteuid().is_root() {
            (Mode::Root, None)
        } else {
            match Range::of_this_user() {
                Ok(range) => (Mode::Subordinate(range), None),
                Err(why) => (Mode::SharedUser, Some(why)),
            }
        };
        let hard = getrlimit(Resource::Nofile).maximum;
        let etc = Etc::new(etc);
        etc.keep_filter()?;
        let mut machine = Self {
            mode,
            shared_because,
            bwrap: bwrap_version(stop),
            memory: memory(),
            open_files: hard.map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES)),
            cgroups: Subtree::of_this_service(),
            ambient: has_ambient_capabilities(&setting("/proc/self/status")),
            programs,
            etc,
        };
        let tried = machine.try_out(stop);
        match (tried, machine.mode) {
            (Ok(()), _) => Ok(machine),
            (Err(why), Mode::SharedUser | Mode::Root) => Err(machine.why_not(&why, &setting)),
            (Err(why), Mode::Subordinate(range)) => {
                machine.shared_because = Some(subuid::why_shared(&why, range, apps)?);
                // Better together in sandboxes than not at all, as long as it is said.
                machine.mode = Mode::SharedUser;
                machine.try_out(stop).map_err(|why| machine.why_not(&why, &setting))?;
                Ok(machine)
            }
        }
    }

    /// The uid that an app has inside its sandbox.
    #[must_use]
    pub fn inside_uid(&self, slot: u16) -> u32 {
        match self.mode {
            Mode::SharedUser | Mode::Subordinate(_) => INSIDE,
            Mode::Root => FIRST_UID + u32::from(slot),
        }
    }

    /// The uid that an app's files have on the machine; `None` when it is the server's own.
    #[must_use]
    pub fn outside_uid(&self, slot: u16) -> Option<u32> {
        match self.mode {
            Mode::SharedUser => None,
            Mode::Subordinate(range) => Some(range.uid(slot)),
            Mode::Root => Some(self.inside_uid(slot)),
        }
    }

    /// Lets the server read all of a release, whatever its build has sealed.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn open_up(&self, release: &Path) -> io::Result<()> {
        match self.mode {
            Mode::Subordinate(range) => range.open_up(release),
            // Nobody seals anything from root. Where the server shares its user, a file that
            // is closed to this user was meant to be.
            Mode::Root | Mode::SharedUser => Ok(()),
        }
    }

    /// The words before bubblewrap: what makes the user namespace in which an app's user
    /// is known, where there is one.
    pub fn user_namespace(&self, slot: u16) -> Vec<String> {
        match self.mode {
            Mode::Subordinate(range) => range.around(self.program("unshare"), slot),
            Mode::SharedUser if self.ambient => {
                let drop = ["--ambient-caps=-all", "--inh-caps=-all", "--"];
                let mut words = vec![self.program("setpriv")];
                words.extend(drop.map(String::from));
                words
            }
            Mode::SharedUser | Mode::Root => Vec::new(),
        }
    }

    /// The file through which a program enters a cgroup with these limits; `None` where
    /// there are no cgroups for apps.
    pub fn leaf(&self, limits: &Limits) -> Option<PathBuf> {
        let leaf = self.cgroups.as_ref().ok()?.leaf(limits);
        leaf.inspect_err(|e| log::warn!("an app's cgroup could not be made: {e}")).ok()
    }

    /// Gives directories to an app's user, so that the app may write to them. What is
    /// in them changes hands too when they were somebody else's: then the server ran
    /// under another user before, or without a range of uids.
    ///
    /// # Errors
    /// When they belong to somebody who is out of reach; the error says what to do.
    pub fn give(&self, slot: u16, paths: &[&Path]) -> io::Result<()> {
        let wanted = self.outside_uid(slot).unwrap_or(rustix::process::geteuid().as_raw());
        let mut others = Vec::new();
        for path in paths {
            if fs::symlink_metadata(path)?.uid() != wanted {
                others.push(*path);
            }
        }
        let given = match (self.mode, others.first()) {
            (_, None) => Ok(()),
            (Mode::Root, _) => subuid::give(Exec::new("chown"), &others, wanted),
            // The server reads what is in them; the directories above are closed to others.
            (Mode::Subordinate(range), _) => others
                .iter()
                .try_for_each(|path| fs::set_permissions(path, Permissions::from_mode(0o755)))
                .and_then(|()| range.give(&others, slot)),
            (Mode::SharedUser, _) => Err(io::Error::other("the server runs under another user")),
        };
        given.map_err(|error| {
            let path = others.first().map(|p| p.display().to_string()).unwrap_or_default();
            let advice = format!("as root, run `chown -R {wanted}:{wanted} {path}` once");
            io::Error::other(format!("{path} belongs to another user ({error}); {advice}"))
        })
    }

    /// The path of a program that the probe has found.
    pub fn program(&self, name: &str) -> String {
        let path = self.programs.get(name).map(|p| p.to_string_lossy().into_owned());
        path.unwrap_or_else(|| name.to_owned())
    }

    /// Whether the probe has found an optional program.
    pub fn has(&self, name: &str) -> bool {
        self.programs.contains_key(name)
    }

    /// The machine on which the tests run.
    #[cfg(test)]
    pub fn here(etc: &Path) -> Self {
        // Beside the directory of the program with the tests.
        let tests = std::env::current_exe().unwrap();
        let server = tests.parent().unwrap().with_file_name("server");
        Etc::new(etc).put_program(&server).unwrap();
        Self::probe(etc, etc, &Cancel::new().unwrap()).unwrap()
    }

    /// Runs a line of shell in a directory as an app, for tests: an ordinary user may not
    /// write to what an app owns.
    #[cfg(test)]
    pub fn as_app(&self, slot: u16, dir: &Path, script: &str) {
        let sandbox = Sandbox::new(self, Purpose::Build, slot).bind(dir, "/app").dir("/app");
        let output = sandbox.exec(&["/bin/sh", "-c", script]).run().unwrap();
        assert!(output.exit.is_success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes one sandbox with everything that a real one has.
    fn try_out(&self, stop: &Cancel) -> Result<(), String> {
        let sandbox = Sandbox::new(self, Purpose::Build, 0).env("TRIED", "yes\n");
        let exec = sandbox.exec(&["/bin/sh", "-c", "printf %s \"$TRIED\""]);
        let exec = exec.deadline(TRYING_OUT);
        let output = exec.run_until(stop).map_err(|e| e.to_string())?;
        if output.exit.is_success() && output.stdout == b"yes\n" {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        // Who does not know an option points to its help last.
        let why = text.lines().rfind(|line| !line.is_empty() && !line.starts_with("Try '"));
        Err(why.map_or_else(|| format!("it ended with {}", output.exit), str::to_owned))
    }

    /// The sentence for a sandbox that could not be made.
    fn why_not(&self, why: &str, setting: &dyn Fn(&str) -> String) -> String {
        if self.mode != Mode::Root {
            let is = |path: &str, value: &str| setting(path) == value;
            if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
                return "AppArmor keeps bubblewrap from making sandboxes on this Ubuntu; allow it, \
                        and nothing else, by writing \"abi <abi/4.0>, include <tunables/global> \
                        profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }\" into \
                        /etc/apparmor.d/bwrap and running `sudo systemctl reload apparmor`"
                    .to_owned();
            }
            if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
                return "this kernel lets only root make user namespaces, which sandboxes need; \
                        run `sudo sysctl -w kernel.unprivileged_userns_clone=1` and put the \
                        setting into /etc/sysctl.d"
                    .to_owned();
            }
            if is("/proc/sys/user/max_user_namespaces", "0") {
                return "this machine allows no user namespaces, which sandboxes need; run \
                        `sudo sysctl -w user.max_user_namespaces=10000` and put the setting \
                        into /etc/sysctl.d"
                    .to_owned();
            }
        }
        if why.contains(inside::PLACE) && why.contains("Permission denied") {
            return format!(
                "no program can be run from the data directory ({why}): its file system is most \
                 likely mounted with noexec; take that away or move the directory"
            );
        }
        format!(
            "bubblewrap could not make a sandbox on this machine ({why}); inside a container it \
             needs one that allows namespaces, elsewhere `bwrap --unshare-all --ro-bind / / true` \
             shows the reason"
        )
    }
}

/// Whether a `/proc/<pid>/status` shows ambient capabilities (capabilities(7)).
fn has_ambient_capabilities(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapAmb:"));
    set.is_some_and(|set| set.trim().bytes().any(|digit| digit != b'0'))
}

/// What a file of the kernel's settings says.
fn setting(path: &str) -> String {
    fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

fn missing(program: &str, package: &str) -> String {
    format!("{program} is not installed, and no app runs without it; run `apt install {package}`")
}

/// `bubblewrap 0.8.0` → `(0, 8)`.
fn bwrap_version(stop: &Cancel) -> (u32, u32) {
    let output = Exec::new("bwrap").arg("--version").run_until(stop);
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    parse_version(&text).unwrap_or((0, 0))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split_ascii_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Bytes of memory that the machine has.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("bubblewrap 0.8.0\n"), Some((0, 8)));
        assert_eq!(parse_version("bubblewrap 0.11.0"), Some((0, 11)));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn each_reason_for_no_sandboxes_has_its_own_sentence() {
        let machine = Machine {
            mode: Mode::SharedUser,
            shared_because: None,
            bwrap: (0, 8),
            memory: 1 << 30,
            open_files: 1024,
            cgroups: Err(String::new()),
            ambient: false,
            programs: BTreeMap::new(),
            etc: Etc::new(Path::new("/nonexistent")),
        };
        let when = |path: &'static str, value: &'static str| {
            machine.why_not("why", &|p| if p == path { value.into() } else { String::new() })
        };
        let ubuntu = when("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1");
        assert!(ubuntu.contains("/etc/apparmor.d/bwrap"), "{ubuntu}");
        let debian = when("/proc/sys/kernel/unprivileged_userns_clone", "0");
        assert!(debian.contains("unprivileged_userns_clone=1"), "{debian}");
        let none = when("/proc/sys/user/max_user_namespaces", "0");
        assert!(none.contains("max_user_namespaces"), "{none}");
        assert!(when("", "").contains("(why)"));
    }

    #[test]
    fn ambient_capabilities_are_seen() {
        assert!(has_ambient_capabilities("CapEff:\t1\nCapAmb:\t0000000000000400\n"));
        assert!(!has_ambient_capabilities("CapEff:\t1\nCapAmb:\t0000000000000000\n"));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory() > 64 << 20);
    }
}
