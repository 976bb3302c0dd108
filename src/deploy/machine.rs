//! What this machine has for running apps, found by trying it.

use super::sandbox::{Purpose, Sandbox};
use super::seccomp;
use crate::proc::{self, Exec};
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first uid of apps when the server runs as root; an app's slot is added to
/// it. Out of the range that systemd's list of uids keeps free (0x70000000 and up):
/// the ranges in `/etc/subuid` belong to people, who could become these uids.
const FIRST_UID: u32 = 1_900_000_000;

/// The uid inside when all apps share the server's user.
const SHARED_UID: u32 = 1000;

/// Open files that an app may have, when the machine allows as many.
const OPEN_FILES: u64 = 65_536;

/// Programs that must be there, with the package that has them.
const NEEDED: [(&str, &str); 7] = [
    ("bwrap", "bubblewrap"),
    ("git", "git"),
    ("setsid", "util-linux"),
    ("prlimit", "util-linux"),
    ("setpriv", "util-linux"),
    ("chroot", "coreutils"),
    ("nice", "coreutils"),
];

/// Programs that make things better.
const OPTIONAL: [&str; 2] = ["ionice", "choom"];

/// Whose processes an app's are, seen from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server's user's; sandboxes alone keep apps apart.
    SharedUser,
    /// Each app has a uid of its own: the server runs as root.
    OwnUsers,
}

/// A machine on which sandboxes work.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Whose processes an app's are.
    pub mode: Mode,
    /// bubblewrap's version; older ones lack options.
    pub bwrap: (u32, u32),
    /// Bytes of memory.
    pub memory: u64,
    /// Open files that a process inside may have.
    pub open_files: u64,
    programs: BTreeMap<&'static str, PathBuf>,
    /// Where the files live that stand in for the machine's own in `/etc`.
    etc: PathBuf,
}

impl Machine {
    /// Looks for everything and makes one sandbox for a try. `etc` is a
    /// directory for the files that stand in for the machine's own.
    ///
    /// # Errors
    /// The sentence that says what is missing and how to mend it.
    pub fn probe(etc: &Path) -> Result<Self, String> {
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
        let root = rustix::process::geteuid().is_root();
        let hard = getrlimit(Resource::Nofile).maximum;
        let filter = etc.join("seccomp");
        fs::write(&filter, seccomp::filter())
            .map_err(|e| format!("could not write {}: {e}", filter.display()))?;
        let machine = Self {
            mode: if root { Mode::OwnUsers } else { Mode::SharedUser },
            bwrap: bwrap_version(),
            memory: memory(),
            open_files: hard.map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES)),
            programs,
            etc: etc.to_owned(),
        };
        machine.try_out()?;
        Ok(machine)
    }

    /// The uid that an app has inside its sandbox.
    #[must_use]
    pub fn inside_uid(&self, slot: u16) -> u32 {
        match self.mode {
            Mode::SharedUser => SHARED_UID,
            Mode::OwnUsers => FIRST_UID + u32::from(slot),
        }
    }

    /// The uid that an app's files have on the machine; `None` when it is the server's own.
    #[must_use]
    pub fn outside_uid(&self, slot: u16) -> Option<u32> {
        (self.mode == Mode::OwnUsers).then(|| self.inside_uid(slot))
    }

    /// The path of a program that the probe has found.
    pub(super) fn program(&self, name: &str) -> String {
        let path = self.programs.get(name).map(|p| p.to_string_lossy().into_owned());
        path.unwrap_or_else(|| name.to_owned())
    }

    /// Whether the probe has found an optional program.
    pub(super) fn has(&self, name: &str) -> bool {
        self.programs.contains_key(name)
    }

    /// The file with the filter of system calls.
    pub(super) fn filter(&self) -> PathBuf {
        self.etc.join("seccomp")
    }

    /// The files that stand in for `/etc/passwd`, `/etc/group` and `/etc/hosts`,
    /// made when they are not there: with who lives on this machine left out, and
    /// with the sandbox's host name, which many programs look up.
    pub(super) fn accounts(&self, uid: u32) -> Vec<(PathBuf, &'static str)> {
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let files = [
            (
                "passwd",
                format!(
                    "root:x:0:0:root:/:/usr/sbin/nologin\n\
                     app:x:{uid}:{uid}:app:/tmp:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
                ),
            ),
            ("group", format!("root:x:0:\napp:x:{uid}:\nnogroup:x:65534:\n")),
            ("hosts", format!("{}\n127.0.0.1 app\n", hosts.trim_end())),
        ];
        let mut found = Vec::new();
        for (name, text) in files {
            let path = self.etc.join(format!("{name}-{uid}"));
            if fs::read_to_string(&path).is_ok_and(|now| now == text) {
                found.push((path, name));
                continue;
            }
            // Replaced, not rewritten: a running sandbox keeps the file that it has.
            let fresh = self.etc.join(format!("{name}-{uid}.tmp"));
            let made = fs::write(&fresh, &text)
                .and_then(|()| fs::set_permissions(&fresh, Permissions::from_mode(0o600)))
                .and_then(|()| match self.mode {
                    Mode::OwnUsers => chown(&fresh, Some(uid), Some(uid)),
                    Mode::SharedUser => Ok(()),
                })
                .and_then(|()| fs::rename(&fresh, &path));
            match made {
                Ok(()) => found.push((path, name)),
                Err(error) => log::warn!("could not write {}: {error}", path.display()),
            }
        }
        found
    }

    /// Makes one sandbox with everything that a real one has.
    fn try_out(&self) -> Result<(), String> {
        let sandbox = Sandbox::new(self, Purpose::Build, 0).env("TRIED", "yes\n");
        let exec = sandbox.exec(&["/bin/sh", "-c", "printf %s \"$TRIED\""]);
        let output = exec.deadline(Duration::from_secs(20)).run().map_err(|e| e.to_string())?;
        if output.exit.is_success() && output.stdout == b"yes\n" {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let why = text.lines().rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
        Err(self.why_not(why, &|setting| {
            fs::read_to_string(setting).map(|t| t.trim().to_owned()).unwrap_or_default()
        }))
    }

    /// The sentence for a sandbox that could not be made.
    fn why_not(&self, why: &str, setting: &dyn Fn(&str) -> String) -> String {
        if self.mode == Mode::SharedUser {
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
        format!(
            "bubblewrap could not make a sandbox on this machine ({why}); inside a container it \
             needs one that allows namespaces, elsewhere `bwrap --unshare-all --ro-bind / / true` \
             shows the reason"
        )
    }
}

fn missing(program: &str, package: &str) -> String {
    format!("{program} is not installed, and no app runs without it; run `apt install {package}`")
}

/// `bubblewrap 0.8.0` → `(0, 8)`.
fn bwrap_version() -> (u32, u32) {
    let output = Exec::new("bwrap").arg("--version").run();
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
            bwrap: (0, 8),
            memory: 1 << 30,
            open_files: 1024,
            programs: BTreeMap::new(),
            etc: PathBuf::from("/nonexistent"),
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
    fn this_machine_has_memory() {
        assert!(memory() > 64 << 20);
    }
}
