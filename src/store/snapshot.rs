//! A copy of the database as it is at one moment, made beside those who write.

use super::{StoreError, connect};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

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
        let _ = std::fs::remove_file(to);
    }
    written
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
