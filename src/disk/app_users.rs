//! Whose an app's processes and files are, seen from the machine and from its sandbox.

use super::subuid::{GOING_THROUGH, INSIDE, Range, as_we_are, what_it_wrote};
use crate::proc::{Cancel, Exec};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// The first uid of apps when the server runs as root; an app's slot is added to
/// it. Out of the range that systemd's list of uids keeps free (0x70000000 and up):
/// the ranges in `/etc/subuid` belong to people, who could become these uids.
const FIRST_UID: u32 = 1_900_000_000;

/// Whose processes an app's are, seen from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppUsers {
    /// The server's user's; sandboxes alone keep apps apart.
    Shared,
    /// Each app has a uid of its own, out of the range of the server's user.
    Subordinate(Range),
    /// Each app has a uid of its own, since the server runs as root.
    Root,
}

impl AppUsers {
    /// The uid that an app has inside its sandbox.
    pub fn inside_uid(self, slot: u16) -> u32 {
        match self {
            Self::Shared | Self::Subordinate(_) => INSIDE,
            Self::Root => FIRST_UID + u32::from(slot),
        }
    }

    /// The uid that an app's files have on the machine; `None` when it is the server's own.
    pub fn outside_uid(self, slot: u16) -> Option<u32> {
        match self {
            Self::Shared => None,
            Self::Subordinate(range) => Some(range.uid(slot)),
            Self::Root => Some(self.inside_uid(slot)),
        }
    }

    /// Lets everybody read all of a release, whatever its build has sealed. That is nobody
    /// else than the server: the directories above are closed to all others.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn open_up(self, release: &Path, cancel: &Cancel) -> io::Result<()> {
        // Nobody seals anything from root. Where the server shares its user, a file that
        // is closed to this user was meant to be.
        let Self::Subordinate(range) = self else { return Ok(()) };
        let exec = range.as_root().args(["chmod", "--recursive", "a+rX", "--"]).arg(release);
        what_it_wrote(&exec.deadline(GOING_THROUGH).run_until(cancel)?).map(drop)
    }

    /// Gives directories to an app's user, so that the app may write to them. What is
    /// in them is given too when they were another user's: then the server ran
    /// under another user before, or without a range of uids.
    ///
    /// # Errors
    /// When they belong to a user who is out of reach; the error says what to do.
    pub fn give(self, slot: u16, paths: &[&Path]) -> io::Result<()> {
        let wanted = self.outside_uid(slot).unwrap_or(rustix::process::geteuid().as_raw());
        let mut others = Vec::new();
        for path in paths {
            if fs::symlink_metadata(path)?.uid() != wanted {
                others.push(*path);
            }
        }
        let Some(first) = others.first() else { return Ok(()) };
        let given = match self {
            Self::Root => give(as_we_are(), &others, wanted),
            // The server reads what is in them; the directories above are closed to others.
            Self::Subordinate(range) => others
                .iter()
                .try_for_each(|path| fs::set_permissions(path, Permissions::from_mode(0o755)))
                .and_then(|()| give(range.as_root(), &others, 1 + u32::from(slot))),
            Self::Shared => Err(io::Error::other("the server runs under another user")),
        };
        given.map_err(|error| {
            let path = first.display();
            let advice = format!("as root, run `chown -R {wanted}:{wanted} {path}` once");
            io::Error::other(format!("{path} belongs to another user ({error}); {advice}"))
        })
    }
}

/// Gives directories, with all that is in them, to this user, as `chown` does it: links are
/// given, not followed, and a directory comes after what is in it, so that a try that was
/// interrupted begins again.
fn give(exec: Exec, paths: &[&Path], uid: u32) -> io::Result<()> {
    let exec = exec.args(["chown", "--recursive", "--no-dereference"]);
    let exec = exec.arg(format!("{uid}:{uid}")).arg("--").args(paths);
    what_it_wrote(&exec.deadline(GOING_THROUGH).run()?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        give(as_we_are(), &[&tree], 1_900_000_001).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        for path in [tree.clone(), tree.join("a"), tree.join("a/b"), tree.join("a/b/link")] {
            assert_eq!(owner(&path), 1_900_000_001, "{}", path.display());
        }
        assert_eq!(owner(&kept), 0);
    }
}
