//! The only room in which the code of others runs: Git, builds and apps.
//!
//! A sandbox is bubblewrap with its own mount, pid, ipc and uts namespaces, a
//! read-only system, a private `/tmp`, no capabilities, no way to more
//! privileges, and of the data directory nothing but what is bound in by name.
//! The network is the host's. System calls that no app needs are refused, see
//! [`super::seccomp`].
//!
//! * Each app has a uid of its own. The tree stands under [`CAGE`] and is entered
//!   with `chroot` and `setpriv`: the kernel makes no user namespace for a process
//!   in a chroot (EPERM), so the app cannot get at that part of the kernel either.
//!   A server that runs as root just does so; for an ordinary user's, all of it
//!   happens in a user namespace that knows the app's user, see [`crate::disk::subuid`].
//! * Where an ordinary user has no range of uids, all apps share the server's: in a
//!   user namespace in which everything is uid 1000; further ones are off.
//!
//! The command, its environment and its limits travel over standard input to the first
//! program inside, which is this one again ([`crate::inside`]). As options of bubblewrap
//! values would be in its arguments, which everybody can read; in its environment, an
//! `LD_PRELOAD` of the owner's would run inside `chroot` and `setpriv` while they are still
//! root. (bubblewrap's `--args 0` is no way out: it closes descriptor 0, the host's `/proc`
//! takes that number, and the app finds the host's files under `/proc/1/fd/0/..`.)

use super::etc_files;
use super::host::Host;
use super::limits::Limits;
use crate::disk::app_users::AppUsers;
use crate::inside::{self, Inside};
use crate::model::Secret;
use crate::proc::Exec;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where root's server builds the tree: not the root of its mount namespace.
const CAGE: &str = "/cage";

/// The name of the machine inside: every `/etc/hosts` has it, and many programs look it up.
const HOSTNAME: &str = "localhost";

/// How long what runs inside may take when its caller says nothing: helpers that take a moment.
const USUAL_DEADLINE: Duration = Duration::from_secs(60);

/// What `/tmp` and `/dev/shm` may take of a small machine's memory where a cgroup counts
/// them: room for a compiler's temporary files.
const LEAST_IN_MEMORY: u64 = 256 << 20;

/// Opens the file that is its first argument as descriptor 3, since bubblewrap reads its
/// filter of system calls from an open file; enters the cgroup that the second one names;
/// empties and opens the file that is the third one as descriptor 4, where bubblewrap writes
/// how the command has ended, also when nobody waits for it; says by the fourth whom the kernel
/// is to take first when memory runs out; has what stands in for `/etc/passwd` and `/etc/group`,
/// for the uid that is the fifth, in descriptors 5 and 6 (who lives on this machine is left out);
/// and becomes the rest.
const WITH_FILES: &str = r#"
group=$1 exit=$2 oom=$3 uid=$4 && shift 4
echo 0 >"$group" || exit 125
echo "$oom" >/proc/self/oom_score_adj || exit 125
exec "$@" 3<"$0" 4>"$exit" 5<<PASSWD 6<<GROUP
root:x:0:0:root:/:/usr/sbin/nologin
app:x:$uid:$uid:app:/tmp:/bin/sh
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
PASSWD
root:x:0:
app:x:$uid:
nogroup:x:65534:
GROUP
"#;

/// Directories of a system without a merged `/usr`, or links into it with one.
const SYSTEM_DIRS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Open files that a process may have, when the machine allows as many.
const OPEN_FILES: u64 = 65_536;

/// Bytes that a build may write into one file: no real program is as large, and a disk
/// is full quickly.
const BUILD_FILE_SIZE: u64 = 8 << 30;

/// What a sandbox is for; it decides limits and what happens to it when the server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Git. Dies with the server.
    Fetch,
    /// A build command. Lowest priority, dies with the server.
    Build,
    /// An app. Outlives the server.
    Run,
    /// A command in an app's place, with its limits. Dies with the server.
    Once,
}

/// A sandbox being described; [`Sandbox::prepare`] turns it into a program to run.
#[must_use]
pub struct Sandbox<'a> {
    host: &'a Host,
    purpose: Purpose,
    slot: u16,
    binds: Vec<(PathBuf, &'static str)>,
    /// Directories below `/run`, which have the same name inside: it may use the sockets in them.
    pub sockets: Vec<PathBuf>,
    /// A directory of ours that it may read, and its name inside.
    pub shown: Option<(PathBuf, &'static str)>,
    dir: String,
    env: Vec<(String, Secret)>,
    file_size: Option<u64>,
    /// Where it is noted how the command ends, if anywhere. The command does not see the file.
    pub exit_file: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
    port: Option<u16>,
    /// Its first process stays and writes its log: what it is started with as standard output
    /// and standard error are the two files of that, of so many bytes each
    /// ([`crate::journal::Rotating`]).
    pub log: Option<u64>,
    /// What each line in that log begins with.
    pub label: String,
}

impl<'a> Sandbox<'a> {
    /// A sandbox that can see the system and nothing else. `slot` is the app's
    /// own small number; where apps have uids of their own it decides which.
    pub fn new(host: &'a Host, purpose: Purpose, slot: u16) -> Self {
        let (limits, file_size) = match purpose {
            Purpose::Run | Purpose::Once => (Limits::usual(host.memory), None),
            Purpose::Fetch => (Limits::of_fetch(host.memory), None),
            Purpose::Build => (Limits::of_build(host.memory), Some(BUILD_FILE_SIZE)),
        };
        Self {
            host,
            purpose,
            slot,
            binds: Vec::new(),
            sockets: Vec::new(),
            shown: None,
            dir: "/".into(),
            env: Vec::new(),
            file_size,
            exit_file: None,
            limits,
            port: None,
            log: None,
            label: String::new(),
        }
    }

    /// Lets it read and write a directory of ours, under another name.
    pub fn bind(mut self, outside: &Path, inside: &'static str) -> Self {
        self.binds.push((outside.to_owned(), inside));
        self
    }

    /// Gives it a TCP port to listen on, as `PORT`. It gets no other but from the kernel.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self.env("PORT", port.to_string())
    }

    /// Starts the command in this directory.
    pub fn dir(mut self, dir: impl Into<String>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Bytes that it may write into one file, if that is less than what is usual for its
    /// purpose; a program that goes on is ended by the kernel.
    pub fn file_size(mut self, bytes: u64) -> Self {
        self.file_size = Some(self.file_size.map_or(bytes, |usual| usual.min(bytes)));
        self
    }

    /// Sets a variable that is no secret; a later one of the same name wins.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secret_env(name, Secret::new(value.into()))
    }

    /// Sets a variable.
    pub fn secret_env(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.env.push((name.into(), value));
        self
    }

    /// Makes the cgroup and the files that it needs, and gives the program that runs `command`,
    /// an argument list, inside.
    pub fn prepare(&self, command: &[&str]) -> Exec {
        let group = self.host.make_cgroup(&self.limits);
        let mut args = self.namespaces();
        if self.log.is_some() {
            args.push("--as-pid-1".into());
        }
        self.system(&mut args, self.in_memory(group.is_some()));
        let prefix = self.prefix();
        for place in &self.binds {
            args.extend(bind(place));
            args.push(format!("{prefix}{}", place.1));
        }
        if let Some((outside, inside)) = &self.shown {
            read_only(&mut args, outside, prefix, Path::new(inside));
        }
        add(&mut args, &["--remount-ro", "/", "--"]);
        args.extend(self.descend());
        add(&mut args, &[inside::PLACE, inside::COMMAND]);
        // By this it is found like bubblewrap itself, when that was killed and it was not.
        args.extend(self.binds.first().map(bind).into_iter().flatten());
        // Strings, numbers and lists of them always are JSON.
        let message = serde_json::to_vec(&self.inside(command, group.is_some()));
        let nowhere = Path::new("/dev/null");
        Exec::new("/bin/sh")
            .args(["-c", WITH_FILES])
            .arg(&self.host.etc.filter)
            .arg(group.as_deref().unwrap_or(nowhere))
            .arg(self.exit_file.as_deref().unwrap_or(nowhere))
            // When memory runs out, the kernel takes a build first, then an app, and the
            // server last.
            .arg(if self.is_app() { "200" } else { "800" })
            .arg(self.host.users.inside_uid(self.slot).to_string())
            .args(self.behind_others())
            .args(self.host.user_namespace(self.slot))
            .args(["bwrap", "--seccomp", "3", "--json-status-fd", "4"])
            .args(args)
            .stdin_bytes(message.unwrap_or_default())
            .deadline(USUAL_DEADLINE)
    }

    /// What the first program inside is told. A cgroup holds memory and processes better than
    /// limits of a process can.
    fn inside<'b>(&'b self, command: &[&'b str], in_cgroup: bool) -> Inside<'b> {
        let of_user = || self.limits.of_user(self.host.users);
        let processes = if self.is_app() { of_user() } else { self.limits.processes };
        let env = self.env.iter().map(|(name, value)| (name.into(), value.expose().into()));
        Inside {
            command: command.iter().map(|word| (*word).into()).collect(),
            dir: self.dir.as_str().into(),
            env: env.collect(),
            open_files: Some(OPEN_FILES),
            file_size: self.file_size,
            data: (!in_cgroup).then_some(self.limits.data),
            processes: (!in_cgroup).then_some(processes),
            port: self.port,
            log: self.log,
            label: self.label.as_str().into(),
        }
    }

    /// Bytes that `/tmp` and `/dev/shm` take at most, each. What is in them counts for the
    /// sandbox's cgroup; without one nobody else counts it.
    fn in_memory(&self, in_cgroup: bool) -> u64 {
        let quarter = self.host.memory / 4;
        if in_cgroup { quarter.max(LEAST_IN_MEMORY) } else { quarter.min(self.limits.memory) / 2 }
    }

    fn is_app(&self) -> bool {
        matches!(self.purpose, Purpose::Run | Purpose::Once)
    }

    /// Where the tree is built.
    fn prefix(&self) -> &'static str {
        if self.host.users == AppUsers::Shared { "" } else { CAGE }
    }

    fn namespaces(&self) -> Vec<String> {
        let mut args = Vec::new();
        add(&mut args, &["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
        add(&mut args, &["--unshare-cgroup-try", "--hostname", HOSTNAME, "--cap-drop", "ALL"]);
        if self.host.users == AppUsers::Shared {
            add(&mut args, &["--unshare-user", "--uid", "1000", "--gid", "1000"]);
            if self.host.bwrap >= (0, 8) {
                add(&mut args, &["--disable-userns"]);
            }
        } else {
            for needed in ["CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"] {
                add(&mut args, &["--cap-add", needed]);
            }
        }
        if self.purpose != Purpose::Run {
            // An app has a session of its own already; one more would hide it from `ps -s`.
            // Without one, a build could type into the terminal that started the server.
            add(&mut args, &["--die-with-parent", "--new-session"]);
        }
        args
    }

    /// The read-only system: `/usr`, the chosen parts of `/etc`, and fresh `/proc`, `/dev`, `/tmp`.
    fn system(&self, args: &mut Vec<String>, in_memory: u64) {
        let prefix = self.prefix();
        if !prefix.is_empty() {
            // `chroot` and `setpriv` themselves are run from here.
            system_dirs(args, "");
            add(args, &["--perms", "0755", "--dir", prefix]);
        }
        system_dirs(args, prefix);
        let seen: Vec<_> =
            etc_files::seen_of(Path::new("/etc")).chain(self.sockets.iter().cloned()).collect();
        // Made by name: what bubblewrap makes on the way is closed to others than root.
        let above = seen.iter().flat_map(|path| path.ancestors().skip(1));
        let above: BTreeSet<&Path> = above.chain([Path::new("/etc"), Path::new("/var")]).collect();
        for dir in above.into_iter().filter(|dir| dir.parent().is_some()) {
            add(args, &["--perms", "0755", "--dir", &format!("{prefix}{}", dir.display())]);
        }
        for source in seen {
            read_only(args, &source, prefix, &source);
        }
        for (descriptor, name) in [("5", "passwd"), ("6", "group")] {
            let place = format!("{prefix}/etc/{name}");
            add(args, &["--perms", "0644", "--ro-bind-data", descriptor, &place]);
        }
        if !self.sockets.is_empty() {
            // Many programs know their sockets by the older name.
            add(args, &["--symlink", "/run", &format!("{prefix}/var/run")]);
        }
        read_only(args, &self.host.etc.program, prefix, Path::new(inside::PLACE));
        let (proc, dev) = (format!("{prefix}/proc"), format!("{prefix}/dev"));
        // Written to, it would let an app set back whom the kernel takes first.
        add(args, &["--proc", &proc, "--remount-ro", &proc, "--dev", &dev]);
        for dir in ["/tmp", "/dev/shm"] {
            add(args, &["--perms", "1777"]);
            if self.host.bwrap >= (0, 7) {
                add(args, &["--size", &in_memory.to_string()]);
            }
            add(args, &["--tmpfs", &format!("{prefix}{dir}")]);
        }
        // Otherwise it is one more place in memory to fill.
        add(args, &["--remount-ro", &dev]);
    }

    /// What gives up the last privileges, where there are any.
    fn descend(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.host.users != AppUsers::Shared {
            let uid = self.host.users.inside_uid(self.slot);
            add(&mut words, &["chroot", CAGE, "setpriv", "--clear-groups", "--no-new-privs"]);
            add(&mut words, &["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]);
            add(&mut words, &[&format!("--reuid={uid}"), &format!("--regid={uid}"), "--"]);
        }
        words
    }

    /// The words that put the program after them behind others.
    const fn behind_others(&self) -> &[&str] {
        match self.purpose {
            Purpose::Run | Purpose::Once => &[],
            // Mostly it waits for the network: behind apps, but not behind everything.
            Purpose::Fetch => &["nice", "-n", "5"],
            Purpose::Build => &["nice", "-n", "19", "ionice", "-c", "3"],
        }
    }
}

fn add(args: &mut Vec<String>, words: &[&str]) {
    args.extend(words.iter().map(|&word| word.to_owned()));
}

/// The words that let a sandbox read what is on this machine, by another name.
fn read_only(args: &mut Vec<String>, source: &Path, prefix: &str, inside: &Path) {
    let inside = format!("{prefix}{}", inside.display());
    add(args, &["--ro-bind", &source.to_string_lossy(), &inside]);
}

/// The words that begin to bind a directory, and that a sandbox of an app is known by.
fn bind((outside, _): &(PathBuf, &'static str)) -> [String; 2] {
    ["--bind".into(), outside.to_string_lossy().into_owned()]
}

fn system_dirs(args: &mut Vec<String>, prefix: &str) {
    add(args, &["--ro-bind", "/usr", &format!("{prefix}/usr")]);
    for name in SYSTEM_DIRS {
        let path = Path::new("/").join(name);
        if let Ok(target) = path.read_link() {
            add(args, &["--symlink", &target.to_string_lossy(), &format!("{prefix}/{name}")]);
        } else if path.is_dir() {
            read_only(args, &path, prefix, &path);
        }
    }
}

#[cfg(test)]
mod tests;
