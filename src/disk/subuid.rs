//! Users of the machine for apps when the server is an ordinary user: out of the
//! range that `/etc/subuid` and `/etc/subgid` give it.
//!
//! Everything goes through `unshare`, which has `newuidmap` make a user namespace
//! that knows two kinds of users: root in there is the server's own user, and the
//! app's (or every app's) is one out of the range. Who is root in there may give
//! files to those users, take them back, and become one of them; nothing else of
//! the machine is within reach. Since the server's user made the namespace, the
//! kernel lets the server send signals to everything inside (user_namespaces(7)).

use crate::data_dir::user;
use crate::proc::{self, Exec, Exit, Output};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Uids that a range must have: one for each slot of an app, see the database's schema.
const SLOTS: u32 = 60_000;

/// What `useradd` gives each user, and so what the advice says.
const USUAL: u64 = 65_536;

/// Where `useradd` begins to give out ranges.
const USUAL_FIRST: u64 = 100_000;

/// The uid and gid that an app has inside its sandbox.
pub const INSIDE: u32 = 1000;

/// How long a program may take that goes through what an app owns.
pub const GOING_THROUGH: Duration = Duration::from_secs(60);

/// Bytes of memory that such a program may have: what it takes grows with a tree that was
/// made for that.
const MEMORY: u64 = 128 << 20;

/// What `unshare`, `newuidmap` and bubblewrap say when a range of uids cannot be used on this
/// machine at all: an `unshare` without `--map-users`, a range that is not the user's, a
/// kernel or an AppArmor that forbids it.
const FOR_GOOD: [&str; 5] = [
    "unrecognized option",
    "invalid option",
    "not allowed",
    "Operation not permitted",
    "Permission denied",
];

/// The first of the uids and the first of the gids that belong to apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    uid: u32,
    gid: u32,
}

impl Range {
    /// The range of the user who runs this program.
    ///
    /// # Errors
    /// The sentence that says what is missing, and how to mend it.
    pub fn of_this_user() -> Result<Self, String> {
        let number = rustix::process::geteuid().as_raw();
        let name = user::name(number);
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let range = Self::read(&name, number, &read("/etc/subuid"), &read("/etc/subgid"))?;
        if proc::find("newuidmap").and(proc::find("newgidmap")).is_none() {
            return Err("newuidmap is not installed; run `apt install uidmap`".to_owned());
        }
        // Then a program that is root's by its mode is not (prctl(2)).
        let status = read("/proc/self/status");
        if status.lines().any(|line| line.split_ascii_whitespace().eq(["NoNewPrivs:", "1"])) {
            return Err("the server may not gain privileges, which newuidmap needs; \
                        take NoNewPrivileges= out of its unit, and what implies it for a service \
                        with User= (Restrict…=, Protect…=, SystemCallFilter=)"
                .to_owned());
        }
        Ok(range)
    }

    fn read(name: &str, number: u32, subuid: &str, subgid: &str) -> Result<Self, String> {
        let [uids, gids] = [subuid, subgid].map(|text| largest(text, name, number));
        let first = next_free(subuid).max(next_free(subgid));
        let line = format!(
            "add the line {name}:{first}:{USUAL} to /etc/subuid and to /etc/subgid \
             (`echo {name}:{first}:{USUAL} | sudo tee -a /etc/subuid /etc/subgid`)"
        );
        let one = |file: &str, found: Option<(u32, u32)>| match found {
            Some((first, count)) if count >= SLOTS => Ok(first),
            Some((_, count)) => Err(format!(
                "the range of {count} that {file} gives to {name} has no room for {SLOTS} apps; {line}"
            )),
            None => Err(format!("{file} gives {name} no range of its own; {line}")),
        };
        Ok(Self { uid: one("/etc/subuid", uids)?, gid: one("/etc/subgid", gids)? })
    }

    /// The uid that an app's processes and files have on the machine.
    pub fn uid(self, slot: u16) -> u32 {
        self.uid + u32::from(slot)
    }

    /// Whether it is the uid of an app.
    pub const fn has(self, uid: u32) -> bool {
        uid >= self.uid && uid - self.uid < SLOTS
    }

    /// The words before a program that is to run as root of a namespace in which this
    /// app's user is [`INSIDE`], and nobody else is there.
    pub fn around(self, slot: u16) -> Vec<String> {
        self.unshare(slot, INSIDE, 1)
    }

    /// What runs the argument list that follows so that it may do to the files of all apps
    /// what root may, and to no others than the server's own.
    pub fn as_root(self) -> Exec {
        as_we_are().args(self.unshare(0, 1, SLOTS))
    }

    /// `unshare` with a mapping of `count` users from this slot's on to `inner` and up, and of
    /// our own user to root. Its first form of the option, which newer ones read too.
    fn unshare(self, slot: u16, inner: u32, count: u32) -> Vec<String> {
        let map = |of: &str, first: u32| {
            format!("--map-{of}={},{inner},{count}", first + u32::from(slot))
        };
        let (users, groups) = (map("users", self.uid), map("groups", self.gid));
        ["unshare", "--user", "--map-root-user", &users, &groups, "--"].map(str::to_owned).into()
    }
}

/// What runs the argument list that follows as the server's user, with bounded memory.
pub fn as_we_are() -> Exec {
    Exec::new("prlimit").arg(format!("--data={MEMORY}"))
}

/// Runs an argument list that reads or removes what an app owns: as the server's user, and
/// where that may not be done, as root of the range.
///
/// # Errors
/// When it failed; [`io::ErrorKind::TimedOut`] at the deadline.
pub fn run_as_owner(words: &[&OsStr], deadline: Duration) -> io::Result<String> {
    let run = |exec: Exec| what_it_wrote(&exec.args(words).deadline(deadline).run()?);
    run(as_we_are()).or_else(|error| {
        let may_help = error.kind() != io::ErrorKind::TimedOut;
        match Range::of_this_user() {
            Ok(range) if may_help && !rustix::process::geteuid().is_root() => run(range.as_root()),
            _ => Err(error),
        }
    })
}

/// Why apps may share the server's user although it has a range, after a try with the
/// range has failed.
///
/// # Errors
/// When they may not. An app keeps its user as long as it runs: what may be well in a
/// moment, such as a busy machine, is waited for; and apps that had users of their own could
/// not write to their files any more.
pub fn why_shared(why: &str, range: Range, apps: &Path) -> Result<String, String> {
    if !FOR_GOOD.iter().any(|words| why.contains(words)) {
        return Err(format!(
            "a sandbox with a user of its own could not be made ({why}); it is tried again soon"
        ));
    }
    let reason = format!(
        "the range of uids in /etc/subuid could not be used ({why}); it takes util-linux 2.38 or \
         newer, uidmap, and on Ubuntu an AppArmor profile for /usr/bin/unshare like the one for \
         bubblewrap"
    );
    if has_files_of(range, apps) {
        return Err(format!("{reason}; apps here have users out of that range already"));
    }
    Ok(reason)
}

/// Whether a directory of an app belongs to a user out of the range.
fn has_files_of(range: Range, apps: &Path) -> bool {
    let entries = fs::read_dir(apps).into_iter().flatten().flatten();
    let directories =
        entries.flat_map(|app| ["data", "cache", "repo"].map(|name| app.path().join(name)));
    directories.into_iter().any(|p| fs::symlink_metadata(p).is_ok_and(|meta| range.has(meta.uid())))
}

/// What a program wrote.
///
/// # Errors
/// When it did not end well; [`io::ErrorKind::TimedOut`] at its deadline, and
/// [`io::ErrorKind::Interrupted`] when it was cancelled.
pub fn what_it_wrote(output: &Output) -> io::Result<String> {
    match output.exit {
        Exit::Cancelled => Err(io::ErrorKind::Interrupted.into()),
        Exit::Code(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Exit::TimedOut => Err(io::ErrorKind::TimedOut.into()),
        _ => Err(io::Error::other(why_failed(output))),
    }
}

/// Why a program failed: the last line that it wrote of it, else how it ended.
pub fn why_failed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    // Who does not know an option points to its help last.
    let why = text.lines().rfind(|line| !line.is_empty() && !line.starts_with("Try '"));
    why.map_or_else(|| format!("it ended with {}", output.exit), str::to_owned)
}

/// The lines of a file such as `/etc/subuid`: whose, first and count (subuid(5)).
fn lines(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some((fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// The first uid and the number of those in the largest range of a user.
fn largest(text: &str, name: &str, number: u32) -> Option<(u32, u32)> {
    let number = number.to_string();
    // Uids end at 2^32 - 2 (credentials(7)).
    let fits = |first: u64, count| {
        first > 0 && first.checked_add(count).is_some_and(|end| end < u32::MAX.into())
    };
    let own = lines(text)
        .filter(|(who, first, count)| (*who == name || *who == number) && fits(*first, *count));
    let (_, first, count) = own.max_by_key(|line| line.2)?;
    Some((first.try_into().ok()?, count.try_into().ok()?))
}

/// Where the next range could begin.
fn next_free(text: &str) -> u64 {
    lines(text).map(|(_, first, count)| first.saturating_add(count)).fold(USUAL_FIRST, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_this_user_is_found_by_name_and_by_number() {
        let text = "root:1:9\nothers:100000:65536\nme:165536:65536\n";
        let found = Range::read("me", 1001, text, "1001:300000:65536\n").unwrap();
        assert_eq!((found.uid(0), found.uid(59_999), found.gid), (165_536, 225_535, 300_000));
        let larger = "me:5000:10\nme:400000:65536\n";
        assert_eq!(Range::read("me", 1001, larger, text).unwrap().uid(7), 400_007);
    }

    #[test]
    fn without_a_usable_range_the_sentence_has_the_line_to_add() {
        let others = "others:100000:65536\n";
        let why = Range::read("me", 1001, others, "").unwrap_err();
        assert!(why.starts_with("/etc/subuid gives me no range"), "{why}");
        assert!(why.contains("me:165536:65536"), "{why}");
        let why = Range::read("me", 1001, "me:100000:65536\n", others).unwrap_err();
        assert!(why.starts_with("/etc/subgid gives me no range"), "{why}");
        let why = Range::read("me", 1001, "me:200000:1000\n", others).unwrap_err();
        assert!(why.contains("range of 1000") && why.contains("me:201000:65536"), "{why}");
        for bad in ["me", "me:x:y", "me:0:65536", "me:4294900000:70000", "me:-1:65536"] {
            assert!(Range::read("me", 1001, bad, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn apps_share_the_servers_user_only_when_their_own_cannot_be_had_for_good() {
        let range = Range { uid: rustix::process::geteuid().as_raw(), gid: 0 };
        let dir = tempfile::tempdir().unwrap();
        for passing in
            ["it ended with time limit", "unshare: fork failed: Resource temporarily unavailable"]
        {
            let why = why_shared(passing, range, dir.path()).unwrap_err();
            assert!(why.contains(passing) && why.contains("tried again"), "{why}");
        }
        let old = "unshare: unrecognized option '--map-users=100000,1000,1'";
        let forbidden = "newuidmap: write to uid_map failed: Operation not permitted";
        for lasting in [old, forbidden] {
            assert!(why_shared(lasting, range, dir.path()).unwrap().contains(lasting));
        }
        fs::create_dir_all(dir.path().join("aaaaaaaaaa/data")).unwrap();
        let why = why_shared(old, range, dir.path()).unwrap_err();
        assert!(why.contains("have users out of that range"), "{why}");
        let others = Range { uid: 1_000_000, gid: 0 };
        assert!(why_shared(old, others, dir.path()).is_ok());
    }

    #[test]
    fn the_words_name_one_user_for_a_sandbox_and_all_for_the_server() {
        let range = Range { uid: 100_000, gid: 300_000 };
        let around = range.around(7).join(" ");
        assert_eq!(
            around,
            "unshare --user --map-root-user --map-users=100007,1000,1 \
             --map-groups=300007,1000,1 --"
        );
        let all = format!("{:?}", range.as_root().args_for_test());
        assert!(all.contains("--map-users=100000,1,60000"), "{all}");
    }
}
