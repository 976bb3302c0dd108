//! The way out of being root: a command becomes the owner of the data before it touches it, and
//! what an update wants of the data a program does that is the server's user from its start.

use super::account::{self, SERVER};
use super::layout::{HOME, KEY};
use crate::config::FILE;
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Becomes the owner of a data directory, for good, when root runs this and it is not root's.
/// Where its owner is no user of this machine nothing changes, and opening it says so.
///
/// # Errors
/// When root did not wholly get rid of itself; then nothing may go on.
pub fn become_owner(data: &Path) -> Result<(), String> {
    let Ok(about) = fs::metadata(data) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || about.uid() == 0 {
        return Ok(());
    }
    let Some((uid, gid)) = account::find(|_, uid| uid == about.uid()) else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let failed = |why: String| format!("could not become the owner of {}: {why}", data.display());
    // The groups while that is still allowed, and the user last.
    setgroups(&[])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|error| failed(error.to_string()))?;
    // What root has read may still be in memory. What the kernel does by itself here can be
    // switched off (proc_sys_fs(5), suid_dumpable).
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if hidden.is_ok() && has_become(uid, gid) {
        Ok(())
    } else {
        Err(failed("something of root is left".to_owned()))
    }
}

/// As the service's unit has it.
const LOAD_KEY: &str = "-p LoadCredential=better_paas_secret_key:/etc/better-paas.key ";

/// A line that runs another one as the service's program is run: its user, its settings, and its
/// key, which so goes through no argument. It has a minute, and writes below `place` alone.
pub(super) fn as_server(place: impl Display, line: &str) -> String {
    let key = if Path::new(KEY).exists() { LOAD_KEY } else { "" };
    format!(
        "systemd-run -q --collect --wait --pipe -p User={SERVER} -p WorkingDirectory={HOME} \
         -p EnvironmentFile=-{FILE} {key}-p RuntimeMaxSec=60 -p UMask=0077 \
         -p NoNewPrivileges=yes -p ProtectSystem=strict -p PrivateTmp=yes \
         -p ReadWritePaths={place} {line}"
    )
}

/// Whether this process is that user alone, and there is no way back.
fn has_become(uid: Uid, gid: Gid) -> bool {
    let users = getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [uid; 3]);
    let groups = getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [gid; 3]);
    let has_none = getgroups().is_ok_and(|groups| groups.is_empty());
    let root = Uid::from_raw(0);
    users && groups && has_none && setresuid(root, root, root).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_still_be_root_has_not_become_anybody_else() {
        let (uid, gid) = (Uid::current(), Gid::current());
        assert!(!has_become(Uid::from_raw(4_000_000_000), gid));
        if uid.is_root() {
            assert!(!has_become(uid, gid), "there is a way back");
        }
    }

    #[test]
    fn nothing_changes_where_there_is_nobody_to_become() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(become_owner(directory.path()), Ok(()));
        assert_eq!(become_owner(&directory.path().join("none")), Ok(()));
        assert_eq!(Uid::effective(), Uid::from_raw(rustix::process::geteuid().as_raw()));
    }
}
