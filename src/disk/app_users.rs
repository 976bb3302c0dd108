//! Whose an app's processes and files are, seen from the machine and from its sandbox.

use super::subuid::{self, INSIDE, Range};
use crate::proc::Exec;
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
    #[must_use]
    pub fn inside_uid(self, slot: u16) -> u32 {
        match self {
            Self::Shared | Self::Subordinate(_) => INSIDE,
            Self::Root => FIRST_UID + u32::from(slot),
        }
    }

    /// The uid that an app's files have on the machine; `None` when it is the server's own.
    #[must_use]
    pub fn outside_uid(self, slot: u16) -> Option<u32> {
        match self {
            Self::Shared => None,
            Self::Subordinate(range) => Some(range.uid(slot)),
            Self::Root => Some(self.inside_uid(slot)),
        }
    }

    /// Lets the server read all of a release, whatever its build has sealed.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn open_up(self, release: &Path) -> io::Result<()> {
        match self {
            Self::Subordinate(range) => range.open_up(release),
            // Nobody seals anything from root. Where the server shares its user, a file that
            // is closed to this user was meant to be.
            Self::Root | Self::Shared => Ok(()),
        }
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
        let given = match (self, others.first()) {
            (_, None) => Ok(()),
            (Self::Root, _) => subuid::give(Exec::new("chown"), &others, wanted),
            // The server reads what is in them; the directories above are closed to others.
            (Self::Subordinate(range), _) => others
                .iter()
                .try_for_each(|path| fs::set_permissions(path, Permissions::from_mode(0o755)))
                .and_then(|()| range.give(&others, slot)),
            (Self::Shared, _) => Err(io::Error::other("the server runs under another user")),
        };
        given.map_err(|error| {
            let path = others.first().map(|p| p.display().to_string()).unwrap_or_default();
            let advice = format!("as root, run `chown -R {wanted}:{wanted} {path}` once");
            io::Error::other(format!("{path} belongs to another user ({error}); {advice}"))
        })
    }
}
