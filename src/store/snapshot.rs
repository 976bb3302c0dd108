//! A copy of the database as it is at one moment, made beside those who write; and the copies
//! that are kept before an update changes anything (P30).

use super::{SCHEMA_VERSION, StoreError, connect, log_of, schema_version};
use crate::model::NEWEST_COPY;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The database's name, in the data directory and where a copy is kept.
pub const DATABASE: &str = "better-paas.db";
/// Where the copy before the newest one is.
const COPY_BEFORE: &str = "before-update/previous";

/// Writes a copy of the database at `path` to the new file `to`, which is the owner's alone. It
/// holds what was committed when it began, nobody waits for it, and it is on the disk in the end
/// (SQLite does not see to that here). Its values are as sealed as those that it was made of.
///
/// # Errors
/// `to` is there already, the disk is full, or the database cannot be read; no half of a copy
/// stays.
pub fn snapshot(path: &Path, to: &Path) -> Result<(), StoreError> {
    // SQLite fills an empty file, and keeps its mode.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    drop(made.map_err(StoreError::Disk)?);
    let name = to.to_string_lossy();
    let written = connect(path)
        .and_then(|from| Ok(from.execute("VACUUM INTO ?1", [&*name]).map(drop)?))
        .and_then(|()| File::open(to).and_then(|file| file.sync_all()).map_err(StoreError::Disk));
    if written.is_err() {
        // What is left says so itself when it is met.
        let _ = fs::remove_file(to);
    }
    written
}

/// Keeps a copy of the database at `path` in the place of the newest one, and that as the one
/// before it.
///
/// # Errors
/// As [`snapshot`].
pub fn keep(path: &Path) -> Result<(), StoreError> {
    let [newest, before] = [NEWEST_COPY, COPY_BEFORE].map(|name| path.with_file_name(name));
    let moved = || {
        if newest.exists() {
            let _ = fs::remove_dir_all(&before);
            fs::rename(&newest, &before)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&newest)
    };
    moved().map_err(|error| {
        StoreError::Sentence(format!("{} could not be made: {error}", newest.display()))
    })?;
    // One that is not there would be made by being opened.
    if path.exists() { snapshot(path, &newest.join(DATABASE)) } else { Ok(()) }
}

/// Whether a newer program has changed the database at `path` to a schema of its own.
///
/// # Errors
/// When it cannot be read.
pub fn is_newer(path: &Path) -> Result<bool, StoreError> {
    Ok(path.exists() && schema_version(&connect(path)?)? > SCHEMA_VERSION)
}

/// Puts the newest copy in the place of the database at `path`; what was written since is lost.
/// No server may run on it.
///
/// # Errors
/// When there is no copy, or the disk fails; then it can be tried again.
pub fn go_back(path: &Path) -> Result<(), StoreError> {
    let copies = [NEWEST_COPY, COPY_BEFORE].map(|name| path.with_file_name(name).join(DATABASE));
    let copy = copies.iter().find(|copy| copy.is_file()).ok_or(StoreError::Corrupt)?;
    let back = path.with_extension("back");
    let _ = fs::remove_file(&back);
    snapshot(copy, &back)?;
    // Left of the other one, it would be taken for the copy's.
    let _ = fs::remove_file(log_of(path));
    fs::rename(back, path).map_err(StoreError::Disk)
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_an_app;
    use super::*;
    use crate::store::Store;
    use crate::vault::{Vault, key::Key};
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_snapshot_is_whole_while_others_write() {
        let (store, app, dir) = with_an_app();
        let draft = store.app(&app).unwrap().unwrap().draft();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    assert!(store.update_app(&app, &draft).unwrap());
                }
            });
            for round in 0..20 {
                let to = dir.path().join(format!("copy-{round}"));
                snapshot(&dir.path().join("db"), &to).unwrap();
                assert_eq!(to.metadata().unwrap().mode() & 0o777, 0o600);
                let vault = Vault::new(Key::parse(&"07".repeat(32)).unwrap());
                assert_eq!(Store::open(&to, vault).unwrap().apps().unwrap().len(), 1);
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }

    #[test]
    fn a_snapshot_overwrites_nothing_and_leaves_no_half() {
        let (_store, _app, dir) = with_an_app();
        let (kept, new) = (dir.path().join("kept"), dir.path().join("new"));
        std::fs::write(&kept, "mine").unwrap();
        assert!(snapshot(&dir.path().join("db"), &kept).is_err());
        assert_eq!(std::fs::read(&kept).unwrap(), b"mine");
        std::fs::write(dir.path().join("bad"), vec![7; 8192]).unwrap();
        assert!(snapshot(&dir.path().join("bad"), &new).is_err());
        assert!(!new.exists());
    }
}
