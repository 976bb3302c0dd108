//! Puts a backup in the place of what is there: into a directory of its own first, where all of it
//! is proved, and then by renaming. What it replaces stays.

use super::archive::{DATABASE, Header, Member, odd, read};
use crate::data_dir::DataDir;
use crate::disk::removal::remove_tree;
use crate::disk::space::Space;
use crate::disk::subuid::run_as_owner;
use crate::disk::tree::{ENTER, inside};
use crate::model::{AnyError, AppId, Utc, failed};
use crate::proc::Cancel;
use crate::store::{Act, Store};
use crate::vault::Vault;
use crate::vault::key::{self, Key};
use rustix::fs::{AtFlags, Mode, OFlags, chmodat, mkdirat, open, openat, openat2, symlinkat};
use rustix::fs::{fchmod, syncfs};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, rename};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tar::EntryType;

/// What a backup replaces: what stands in it, and what was made of the database before.
const REPLACED: [&str; 5] = [DATABASE, "better-paas.db-wal", "better-paas.db-shm", "apps", "sites"];

/// Where a backup is unpacked, in the data directory.
pub const RESTORING: &str = "restoring";

/// A file that is not there yet.
const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// Replaces what is in a data directory that nobody works in by a backup; a key becomes the
/// directory's when it `is_new`. The apps that ran are deployed again when a server starts.
/// Answers what the backup is of, and where that is which was there.
///
/// # Errors
/// What is wrong with the backup, or that there is no room; nothing was changed then.
pub fn restore(
    data: &DataDir,
    backup: OwnedFd,
    (key, is_new): (&Key, bool),
) -> Result<(Header, PathBuf), AnyError> {
    let new = data.join(RESTORING);
    remove_tree(&new, &|| true)?;
    data.make_dir(&format!("{RESTORING}/apps"))?;
    let unpacked = unpack(&new, backup).and_then(|header| {
        let store = Store::open(&new.join(DATABASE), Vault::new(key.clone()))?;
        store.open_secrets()?;
        store.deploy_all_again()?;
        store.append_audit(&Act::new("shell", "restore"))?;
        Ok((header, store.apps()?.into_iter().map(|app| app.id).collect::<Vec<_>>()))
    });
    let (header, apps) = unpacked.map_err(|error| {
        // What stays is in nobody's way, and the next try removes it.
        let _ = remove_tree(&new, &|| true);
        failed("nothing was changed")(error)
    })?;
    let top = open(&new, ENTER, Mode::empty())?;
    syncfs(&top)?;
    let now = Utc::now().rfc_3339().replace(':', "-");
    let before = data.make_dir(&format!("before-restore-{now}"))?;
    // Without a database no server starts: killed in between, this is done again.
    let names: Vec<_> = REPLACED.into_iter().chain(is_new.then_some(key::FILE)).collect();
    put_aside(data, &before, &names, || if is_new { key.save(data, key::FILE) } else { Ok(()) })?;
    rename(new.join("apps"), data.join("apps"))?;
    let kept = apps.iter().try_for_each(|app| keep_data(data, &before, app));
    rename(new.join(DATABASE), data.join(DATABASE))?;
    // What is left of it is what opening an older database has made.
    remove_tree(&new, &|| true)?;
    syncfs(&top)?;
    kept.map_err(failed("all is restored but what is not in the backup, which was to stay"))?;
    Ok((header, before))
}

/// Puts all of these aside and does what follows, or leaves them where they were.
fn put_aside(
    data: &DataDir,
    before: &Path,
    names: &[&str],
    then: impl FnOnce() -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    let put = |name: &str| match rename(data.join(name), before.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("{} could not be put aside", data.join(name).display()))(error))
        }
        _ => Ok(()),
    };
    names.iter().try_for_each(|name| put(name)).and_then(|()| then()).map_err(|error| {
        // The database comes last: a server begins with it.
        for name in names.iter().rev() {
            let _ = rename(before.join(name), data.join(name));
        }
        let _ = fs::remove_dir(before);
        failed("nothing was changed")(error)
    })
}

/// An app of which the backup has no data keeps what it has.
fn keep_data(data: &DataDir, before: &Path, app: &AppId) -> Result<(), AnyError> {
    let name = format!("apps/{app}/data");
    let (old, new) = (before.join(&name), data.join(&name));
    if new.exists() || !old.exists() {
        return Ok(());
    }
    data.make_dir(&format!("apps/{app}"))?;
    // Only its owner may move a directory to another one (rename(2)).
    let words = ["mv", "--no-target-directory", "--"].map(OsStr::new);
    let words = [&words[..], &[old.as_os_str(), new.as_os_str()]].concat();
    let moved = run_as_owner(&words, Duration::from_secs(60));
    moved.map(drop).map_err(failed(format!("{} stays there", old.display())))
}

fn unpack(new: &Path, backup: OwnedFd) -> Result<Header, AnyError> {
    let top = open(new, ENTER, Mode::empty())?;
    let header = read(backup, &Cancel::new()?, &mut |member, content| {
        let space = Space::of(new)?;
        if space.room() < member.size || space.room_for_files() == 0 {
            return Err(odd(&member.path, "has no room on this disk; free some space"));
        }
        put(&top, member, content)
    })?;
    if new.join(DATABASE).is_file() { Ok(header) } else { Err("there is no database in it".into()) }
}

/// Puts a member into its place, where nothing may be yet. Everything is the server's own: each
/// app gets its files back with its next deploy.
fn put(top: &OwnedFd, member: &Member, content: &mut dyn Read) -> Result<(), AnyError> {
    let Member { path, mode, .. } = member;
    if path.iter().count() == 3 {
        // The directory of an app, above its `/data`.
        let _ = mkdirat(top, path.parent().unwrap_or(path), Mode::RWXU);
    }
    let (above, name) = path.parent().zip(path.file_name()).ok_or("a member has no name")?;
    let above = openat2(top, Path::new(".").join(above), ENTER, Mode::empty(), inside())
        .map_err(failed(format!("no directory in it leads to {path:?}")))?;
    let twice = |error| match error {
        Errno::EXIST => odd(path, "is there twice"),
        error => error.into(),
    };
    match member.kind {
        EntryType::Directory => {
            mkdirat(&above, name, Mode::RWXU).map_err(twice)?;
            // Whoever has a directory can always enter it.
            let mode = Mode::from_raw_mode(mode | 0o700);
            chmodat(&above, name, mode, AtFlags::empty())?;
        }
        EntryType::Symlink => symlinkat(&member.target, &above, name).map_err(twice)?,
        _ => {
            let file = openat(&above, name, NEW, Mode::RUSR | Mode::WUSR).map_err(twice)?;
            let mut file = File::from(file);
            io::copy(content, &mut file)?;
            fchmod(&file, Mode::from_raw_mode(*mode))?;
            let modified = UNIX_EPOCH.checked_add(Duration::from_secs(member.modified));
            file.set_modified(modified.ok_or_else(|| odd(path, "is of no time"))?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
