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

use super::etc_files::EtcFiles;
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

/// How long what runs inside may take when its caller says nothing: helpers that take a moment.
const USUAL_DEADLINE: Duration = Duration::from_secs(60);

/// What `/tmp` and `/dev/shm` may take of a small machine's memory where a cgroup counts
/// them: room for a compiler's temporary files.
const LEAST_IN_MEMORY: u64 = 256 << 20;

/// Opens the file that is its first argument as descriptor 3, since bubblewrap reads its
/// filter of system calls from an open file; enters the cgroup that the second one names,
/// if any; empties and opens the file that is the third one, if any, as descriptor 4, where
/// bubblewrap writes how the command has ended, also when nobody waits for it; says by the
/// fourth whom the kernel is to take first when memory runs out; and becomes the rest.
const WITH_FILES: &str = r#"
group=$1 exit=$2 oom=$3 && shift 3
if [ -n "$group" ]; then
    echo 0 >"$group" || exit 125
fi
echo "$oom" >/proc/self/oom_score_adj || exit 125
if [ -n "$exit" ]; then
    exec "$@" 3<"$0" 4>"$exit"
fi
exec "$@" 3<"$0"
"#;

/// Directories of a system without a merged `/usr`, or links into it with one.
const SYSTEM_DIRS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

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
}

/// A sandbox being described; [`Sandbox::prepare`] turns it into a program to run.
pub struct Sandbox<'a> {
    host: &'a Host,
    purpose: Purpose,
    slot: u16,
    uid: u32,
    binds: Vec<(PathBuf, &'static str)>,
    sockets: Vec<PathBuf>,
    dir: String,
    env: Vec<(String, Secret)>,
    file_size: Option<u64>,
    exit_file: Option<PathBuf>,
    limits: Limits,
    port: Option<u16>,
    log: Option<u64>,
}

impl<'a> Sandbox<'a> {
    /// A sandbox that can see the system and nothing else. `slot` is the app's
    /// own small number; where apps have uids of their own it decides which.
    #[must_use]
    pub fn new(host: &'a Host, purpose: Purpose, slot: u16) -> Self {
        let uid = host.users.inside_uid(slot);
        let (binds, sockets, env) = (Vec::new(), Vec::new(), Vec::new());
        let (limits, file_size) = match purpose {
            Purpose::Run => (Limits::usual(host.memory), None),
            Purpose::Fetch => (Limits::of_fetch(host.memory), None),
            Purpose::Build => (Limits::of_build(host.memory), Some(BUILD_FILE_SIZE)),
        };
        let (exit_file, port, log, dir) = (None, None, None, "/".into());
        Self {
            host,
            purpose,
            slot,
            uid,
            binds,
            sockets,
            dir,
            env,
            file_size,
            exit_file,
            limits,
            port,
            log,
        }
    }

    /// Lets it read and write a directory of ours, under another name.
    #[must_use]
    pub fn bind(mut self, outside: &Path, inside: &'static str) -> Self {
        self.binds.push((outside.to_owned(), inside));
        self
    }

    /// Lets it use the sockets in a directory below `/run`, which has the same name inside.
    #[must_use]
    pub fn sockets(mut self, directory: PathBuf) -> Self {
        self.sockets.push(directory);
        self
    }

    /// Has it noted in this file how the command ends. The command does not see the file.
    #[must_use]
    pub fn exit_to(mut self, file: PathBuf) -> Self {
        self.exit_file = Some(file);
        self
    }

    /// Where it is noted how the command ends, if anywhere.
    #[must_use]
    pub fn exit_file(&self) -> Option<&Path> {
        self.exit_file.as_deref()
    }

    /// Gives it a TCP port to listen on, as `PORT`. It gets no other but from the kernel.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self.env("PORT", port.to_string())
    }

    /// Keeps its first process, which writes its log: what it is started with as standard
    /// output and standard error are the two files of that, of `half` bytes each
    /// ([`crate::journal::Rotating`]).
    #[must_use]
    pub fn log(mut self, half: u64) -> Self {
        self.log = Some(half);
        self
    }

    /// Starts the command in this directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<String>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Bytes that it may write into one file, if that is less than what is usual for its
    /// purpose; a program that goes on is ended by the kernel.
    #[must_use]
    pub fn file_size(mut self, bytes: u64) -> Self {
        self.file_size = Some(self.file_size.map_or(bytes, |usual| usual.min(bytes)));
        self
    }

    /// What it may take of the machine, in place of what is usual for its purpose.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Bytes that each process may have where no cgroup holds all of them.
    #[must_use]
    pub const fn data_limit(&self) -> u64 {
        self.limits.data
    }

    /// Sets a variable that is no secret; a later one of the same name wins.
    #[must_use]
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secret_env(name, Secret::new(value.into()))
    }

    /// Sets a variable.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.env.push((name.into(), value));
        self
    }

    /// Makes the cgroup and the files that it needs, and gives the program that runs `command`,
    /// an argument list, inside.
    #[must_use]
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
        self.bind_sockets(&mut args);
        args.extend(["--remount-ro".into(), "/".into(), "--".into()]);
        args.extend(self.descend());
        args.extend([inside::PLACE.into(), inside::COMMAND.into()]);
        // By this it is found like bubblewrap itself, when that was killed and it was not.
        args.extend(self.binds.first().map(bind).into_iter().flatten());
        let (bwrap, exit_file) = (self.host.program("bwrap"), self.exit_file.clone());
        let status: &[&str] = if exit_file.is_some() { &["--json-status-fd", "4"] } else { &[] };
        let message = self.inside(command, group.is_some()).message();
        // When memory runs out, the kernel takes a build first, then an app, and the
        // server last.
        let oom = if self.purpose == Purpose::Run { "200" } else { "800" };
        Exec::new("/bin/sh")
            .args(["-c", WITH_FILES])
            .arg(self.host.etc.filter())
            .arg(group.unwrap_or_default())
            .arg(exit_file.unwrap_or_default())
            .arg(oom)
            .args(self.nice())
            .args(self.host.user_namespace(self.slot))
            .args([bwrap.as_str(), "--seccomp", "3"])
            .args(status)
            .args(args)
            .stdin_bytes(message)
            .deadline(USUAL_DEADLINE)
    }

    /// What the first program inside is told. A cgroup holds memory and processes better than
    /// limits of a process can.
    fn inside<'b>(&'b self, command: &[&'b str], in_cgroup: bool) -> Inside<'b> {
        let processes = match self.purpose {
            Purpose::Run => self.limits.of_user(self.host.users),
            Purpose::Fetch | Purpose::Build => self.limits.processes,
        };
        let env = self.env.iter().map(|(name, value)| (name.into(), value.expose().into()));
        Inside {
            command: command.iter().map(|word| (*word).into()).collect(),
            dir: self.dir.as_str().into(),
            env: env.collect(),
            limits: inside::ResourceLimits {
                open_files: Some(self.host.open_files),
                file_size: self.file_size,
                data: (!in_cgroup).then_some(self.limits.data),
                processes: (!in_cgroup).then_some(processes),
            },
            port: self.port,
            log: self.log,
        }
    }

    /// Bytes that `/tmp` and `/dev/shm` take at most, each. What is in them counts for the
    /// sandbox's cgroup; without one nobody else counts it.
    fn in_memory(&self, in_cgroup: bool) -> u64 {
        let quarter = self.host.memory / 4;
        if in_cgroup { quarter.max(LEAST_IN_MEMORY) } else { quarter.min(self.limits.memory) / 2 }
    }

    fn bind_sockets(&self, args: &mut Vec<String>) {
        let prefix = self.prefix();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|&w| w.to_owned()));
        if !self.sockets.is_empty() {
            // Many programs know their sockets by the older name.
            add(&["--symlink", "/run", &format!("{prefix}/var/run")]);
        }
        for directory in &self.sockets {
            // What bubblewrap makes on the way would be closed to the app.
            let above: Vec<_> = directory.ancestors().skip(1).collect();
            for above in above.iter().rev().skip(1) {
                add(&["--perms", "0755", "--dir", &format!("{prefix}{}", above.display())]);
            }
            let directory = directory.to_string_lossy();
            add(&["--ro-bind", &directory, &format!("{prefix}{directory}")]);
        }
    }

    /// Where the tree is built.
    fn prefix(&self) -> &'static str {
        if self.host.users == AppUsers::Shared { "" } else { CAGE }
    }

    fn namespaces(&self) -> Vec<String> {
        let mut args = vec!["--unshare-pid", "--unshare-ipc", "--unshare-uts"];
        args.extend(["--unshare-cgroup-try", "--hostname", "app", "--cap-drop", "ALL"]);
        match self.host.users {
            AppUsers::Shared => {
                args.extend(["--unshare-user", "--uid", "1000", "--gid", "1000"]);
                if self.host.bwrap >= (0, 8) {
                    args.push("--disable-userns");
                }
            }
            AppUsers::Subordinate(_) | AppUsers::Root => {
                for needed in ["CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"] {
                    args.extend(["--cap-add", needed]);
                }
            }
        }
        if self.purpose != Purpose::Run {
            // An app has a session of its own already; one more would hide it from `ps -s`.
            // Without one, a build could type into the terminal that started the server.
            args.extend(["--die-with-parent", "--new-session"]);
        }
        args.into_iter().map(String::from).collect()
    }

    /// The read-only system: `/usr`, the chosen parts of `/etc`, and fresh `/proc`, `/dev`, `/tmp`.
    fn system(&self, args: &mut Vec<String>, in_memory: u64) {
        let prefix = self.prefix();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|&w| w.to_owned()));
        if !prefix.is_empty() {
            // `chroot` and `setpriv` themselves are run from here.
            system_dirs(&mut add, "");
            add(&["--perms", "0755", "--dir", prefix]);
        }
        system_dirs(&mut add, prefix);
        let of_machine: Vec<PathBuf> = EtcFiles::of_machine().collect();
        // Made by name: what bubblewrap makes on the way is closed to others than root.
        let above = of_machine.iter().flat_map(|path| path.ancestors().skip(1));
        let above: BTreeSet<&Path> = above.chain([Path::new("/etc"), Path::new("/var")]).collect();
        for dir in above.into_iter().filter(|dir| dir.parent().is_some()) {
            add(&["--perms", "0755", "--dir", &format!("{prefix}{}", dir.display())]);
        }
        for source in of_machine {
            let source = source.to_string_lossy();
            add(&["--ro-bind", &source, &format!("{prefix}{source}")]);
        }
        for (source, name) in self.host.etc.make_accounts(self.uid) {
            add(&["--ro-bind", &source.to_string_lossy(), &format!("{prefix}/etc/{name}")]);
        }
        let program = self.host.etc.program();
        add(&["--ro-bind", &program.to_string_lossy(), &format!("{prefix}{}", inside::PLACE)]);
        let (proc, dev) = (format!("{prefix}/proc"), format!("{prefix}/dev"));
        // Written to, it would let an app set back whom the kernel takes first.
        add(&["--proc", &proc, "--remount-ro", &proc, "--dev", &dev]);
        let size = in_memory.to_string();
        for dir in ["/tmp", "/dev/shm"] {
            add(&["--perms", "1777"]);
            if self.host.bwrap >= (0, 7) {
                add(&["--size", &size]);
            }
            add(&["--tmpfs", &format!("{prefix}{dir}")]);
        }
        // Otherwise it is one more place in memory to fill.
        add(&["--remount-ro", &dev]);
    }

    /// What gives up the last privileges, where there are any.
    fn descend(&self) -> Vec<String> {
        if self.host.users == AppUsers::Shared {
            return Vec::new();
        }
        let uid = self.uid;
        let program = |name: &str| self.host.program(name);
        vec![
            program("chroot"),
            CAGE.into(),
            program("setpriv"),
            format!("--reuid={uid}"),
            format!("--regid={uid}"),
            "--clear-groups".into(),
            "--inh-caps=-all".into(),
            "--ambient-caps=-all".into(),
            "--bounding-set=-all".into(),
            "--no-new-privs".into(),
            "--".into(),
        ]
    }

    /// The programs that put it behind others and become the next one.
    fn nice(&self) -> Vec<String> {
        let host = self.host;
        match self.purpose {
            Purpose::Run => Vec::new(),
            // Mostly it waits for the network: behind apps, but not behind everything.
            Purpose::Fetch => vec![host.program("nice"), "-n".into(), "5".into()],
            Purpose::Build => {
                let mut words = vec![host.program("nice"), "-n".into(), "19".into()];
                if host.has("ionice") {
                    words.extend([host.program("ionice"), "-c".into(), "3".into()]);
                }
                words
            }
        }
    }
}

/// The words that begin to bind a directory, and that a sandbox of an app is known by.
fn bind((outside, _): &(PathBuf, &'static str)) -> [String; 2] {
    ["--bind".into(), outside.to_string_lossy().into_owned()]
}

fn system_dirs(add: &mut impl FnMut(&[&str]), prefix: &str) {
    add(&["--ro-bind", "/usr", &format!("{prefix}/usr")]);
    for name in SYSTEM_DIRS {
        let (source, inside) = (format!("/{name}"), format!("{prefix}/{name}"));
        let path = Path::new(&source);
        if let Ok(target) = path.read_link() {
            add(&["--symlink", &target.to_string_lossy(), &inside]);
        } else if path.is_dir() {
            add(&["--ro-bind", &source, &inside]);
        }
    }
}

#[cfg(test)]
mod tests;
