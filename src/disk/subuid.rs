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
use crate::proc::{self, Exec, Exit};
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

/// How long one look at files may take. A tree that cannot be counted in a minute is
/// taken for too large.
const COUNTING: Duration = Duration::from_secs(60);

/// A removal may take many minutes; it is done in parts of this length, so that it can
/// be given up between two of them.
const PART: Duration = Duration::from_secs(2);

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
        for program in ["newuidmap", "newgidmap"] {
            if proc::find(program).is_none() {
                return Err(format!("{program} is not installed; run `apt install uidmap`"));
            }
        }
        if proc::find("unshare").is_none() {
            return Err("unshare is not installed; run `apt install util-linux`".to_owned());
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
        let largest = |text| ranges(text, name, number).max_by_key(|range| range.1);
        let (uids, gids) = (largest(subuid), largest(subgid));
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
    #[must_use]
    pub fn uid(self, slot: u16) -> u32 {
        self.uid + u32::from(slot)
    }

    /// Whether it is the uid of an app.
    #[must_use]
    pub const fn has(self, uid: u32) -> bool {
        uid >= self.uid && uid - self.uid < SLOTS
    }

    /// The words before a program that is to run as root of a namespace in which this
    /// app's user is [`INSIDE`], and nobody else is there.
    #[must_use]
    pub fn around(self, unshare: String, slot: u16) -> Vec<String> {
        let (uid, gid) = (self.uid(slot), self.gid + u32::from(slot));
        words(unshare, (uid, gid), INSIDE, 1)
    }

    /// A program that may do to the files of all apps what root may.
    fn as_root_of_range(self, program: &str) -> Exec {
        let mut words = words("unshare".into(), (self.uid, self.gid), 1, SLOTS).into_iter();
        let first = words.next().unwrap_or_default();
        Exec::new(&first).args(words).arg(program)
    }

    /// Gives directories, with all that is in them, to an app's user.
    ///
    /// # Errors
    /// When they belong to a user who is neither the server's user nor of the range.
    pub fn give(self, paths: &[&Path], slot: u16) -> io::Result<()> {
        give(self.as_root_of_range("chown"), paths, 1 + u32::from(slot))
    }

    /// Moves a directory.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn move_dir(self, from: &Path, to: &Path) -> io::Result<()> {
        let exec =
            self.as_root_of_range("mv").args(["--no-target-directory", "--"]).arg(from).arg(to);
        finish(exec).map(drop)
    }

    /// Removes a directory with everything in it, as long as `go_on` says so.
    ///
    /// # Errors
    /// When something cannot be removed, or it was interrupted.
    pub fn remove(self, path: &Path, go_on: &dyn Fn() -> bool) -> io::Result<()> {
        while go_on() {
            let exec = self.as_root_of_range("rm").args([
                "--recursive",
                "--force",
                "--one-file-system",
                "--",
            ]);
            match finish(exec.arg(path).deadline(PART)) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                other => return other.map(drop),
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Bytes and files on the disk that a directory with everything in it takes.
    ///
    /// # Errors
    /// When it cannot be read; [`io::ErrorKind::TimedOut`] after a minute.
    pub fn size(self, path: &Path) -> io::Result<(u64, u64)> {
        let counted = |unit| {
            let exec =
                self.as_root_of_range("du").args(["--summarize", "--one-file-system", unit, "--"]);
            let text = finish(exec.arg(path).deadline(COUNTING))?;
            let number = text.split_ascii_whitespace().next().and_then(|n| n.parse().ok());
            number.ok_or_else(|| io::Error::other("du said no number"))
        };
        Ok((counted("--block-size=1")?, counted("--inodes")?))
    }

    /// Lets everybody read a directory with everything in it. That is nobody else than
    /// the server: the directories above are closed to all others.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn open_up(self, path: &Path) -> io::Result<()> {
        let exec = self.as_root_of_range("chmod").args(["--recursive", "a+rX", "--"]).arg(path);
        finish(exec.deadline(COUNTING)).map(drop)
    }
}

/// Gives directories, with all that is in them, to this user, in the way that `chown` (as
/// whom it may run) does it: links are given, not followed, and a directory comes after what
/// is in it, so that a try that was interrupted begins again.
///
/// # Errors
/// When that is not allowed.
pub fn give(chown: Exec, paths: &[&Path], uid: u32) -> io::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let exec = chown.args(["--recursive", "--no-dereference"]);
    let exec = exec.arg(format!("{uid}:{uid}")).arg("--").args(paths).deadline(COUNTING);
    finish(exec).map(drop)
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

/// `unshare` with a mapping of `count` users from `outer` on to `inner` and up, and of
/// our own user to root. Its first form of the option, which newer ones read too.
fn words(unshare: String, outer: (u32, u32), inner: u32, count: u32) -> Vec<String> {
    vec![
        unshare,
        "--user".into(),
        "--map-root-user".into(),
        format!("--map-users={},{inner},{count}", outer.0),
        format!("--map-groups={},{inner},{count}", outer.1),
        "--".into(),
    ]
}

/// What it wrote; an error holds its last line.
fn finish(exec: Exec) -> io::Result<String> {
    let output = exec.run().map_err(io::Error::other)?;
    match output.exit {
        Exit::Code(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Exit::TimedOut => Err(io::ErrorKind::TimedOut.into()),
        exit => {
            let text = String::from_utf8_lossy(&output.stderr);
            let why = text.lines().rfind(|line| !line.is_empty());
            Err(io::Error::other(why.map_or_else(|| exit.to_string(), str::to_owned)))
        }
    }
}

/// The ranges of a user in a file such as `/etc/subuid`: first and count (subuid(5)).
fn ranges(text: &str, name: &str, number: u32) -> impl Iterator<Item = (u32, u32)> {
    let number = number.to_string();
    text.lines().filter_map(move |line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        // Uids end at 2^32 - 2 (credentials(7)).
        let fits = u32::checked_add(first, count).is_some_and(|end| end < u32::MAX);
        ((who == name || who == number) && first > 0 && fits).then_some((first, count))
    })
}

/// Where the next range could begin.
fn next_free(text: &str) -> u64 {
    let end = |line: &str| {
        let mut fields = line.trim().split(':').skip(1);
        let first: u64 = fields.next()?.parse().ok()?;
        Some(first.saturating_add(fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(end).max().unwrap_or(0).max(USUAL_FIRST)
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
    fn root_gives_a_tree_away_but_not_what_it_links_to() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, kept) = (dir.path().join("tree"), dir.path().join("kept"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(&kept, "x").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("a/b/link")).unwrap();
        give(Exec::new("chown"), &[&tree], 1_900_000_001).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        for path in [tree.clone(), tree.join("a"), tree.join("a/b"), tree.join("a/b/link")] {
            assert_eq!(owner(&path), 1_900_000_001, "{}", path.display());
        }
        assert_eq!(owner(&kept), 0);
    }

    #[test]
    fn the_words_name_one_user_for_a_sandbox_and_all_for_the_server() {
        let range = Range { uid: 100_000, gid: 300_000 };
        let around = range.around("/usr/bin/unshare".into(), 7).join(" ");
        assert_eq!(
            around,
            "/usr/bin/unshare --user --map-root-user --map-users=100007,1000,1 \
             --map-groups=300007,1000,1 --"
        );
        let all = format!("{:?}", range.as_root_of_range("rm").args_for_test());
        assert!(all.contains("--map-users=100000,1,60000"), "{all}");
    }
}
