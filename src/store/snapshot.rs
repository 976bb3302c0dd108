//! A copy of the database as it is at one moment, made beside those who write; and what makes one
//! a database that a server can begin with.

use super::audit::head;
use super::columns::rows;
use super::deploys::insert_queued;
use super::rekey::sealed_with;
use super::{Store, StoreError, look, random_id, schema_version};
use crate::model::{AppId, DeployId, Trigger, Wanted};
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What a copy is of.
#[derive(Debug)]
pub struct Snapshot {
    /// The schema's version.
    pub schema: i64,
    /// The key that opens its secrets.
    pub key_id: String,
    /// The end of the audit log's chain, where there is one.
    pub audit_head: Option<String>,
    /// Each app with its slot.
    pub apps: Vec<(AppId, u16)>,
}

/// Writes a copy of the database at `path` to the new file `to`, which is the owner's alone. It
/// holds what was committed when it began, nobody waits for it, and it is on the disk in the end
/// (SQLite does not see to that here). Its values are as sealed as those that it was made of.
///
/// # Errors
/// `to` is there already, the disk is full, or the database cannot be read; no half of a copy
/// stays.
pub fn snapshot(path: &Path, to: &Path) -> Result<Snapshot, StoreError> {
    // SQLite fills an empty file, and keeps its mode.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    drop(made.map_err(StoreError::Disk)?);
    let name = to.to_string_lossy();
    // One that is not there is not made: the next start is to see that it was lost.
    let written = look(path)
        .and_then(|from| Ok(from.execute("VACUUM INTO ?1", [&*name]).map(drop)?))
        .and_then(|()| File::open(to).and_then(|file| file.sync_all()).map_err(StoreError::Disk))
        .and_then(|()| about(to));
    if written.is_err() {
        // What is left says so itself when it is met.
        let _ = std::fs::remove_file(to);
    }
    written
}

fn about(copy: &Path) -> Result<Snapshot, StoreError> {
    let copy = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT id, slot FROM apps ORDER BY id";
    Ok(Snapshot {
        schema: schema_version(&copy)?,
        key_id: sealed_with(&copy)?,
        // A database that no server of this version has opened has no such log yet.
        audit_head: head(&copy).ok().filter(|head| !head.is_empty()),
        apps: rows(&copy, sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?,
    })
}

impl Store {
    /// Opens every secret of a copy with the key of this one.
    ///
    /// # Errors
    /// As [`Store::open`] and [`Store::open_secrets`].
    pub fn prove_copy(&self, copy: &Path) -> Result<(), StoreError> {
        Self::open(copy, (*self.vault()).clone())?.open_secrets()
    }

    /// Forgets all that runs and every release, since a backup has none, and queues a deploy of
    /// each app that ran. What came as an archive has to be sent again, and its deploy says so.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn deploy_all_again(&self) -> Result<(), StoreError> {
        let apps = self.apps()?;
        let ran = apps.iter().filter(|app| app.wanted == Wanted::Running);
        let mut deploys = Vec::new();
        for (app, release) in ran.filter_map(|app| Some((app, app.live_release.as_ref()?))) {
            let sent = self.deploy(release)?.is_some_and(|made| made.trigger == Trigger::Upload);
            let trigger = if sent { Trigger::Upload } else { Trigger::Manual };
            deploys.push((DeployId::from_random(random_id()?), &app.id, trigger));
        }
        self.write(|tx| {
            for (id, app, trigger) in &deploys {
                insert_queued(tx, id, app, *trigger, None)?;
            }
            let sql = "DELETE FROM processes; DELETE FROM draining; DELETE FROM workers; \
                       UPDATE apps SET live_deploy = NULL";
            Ok(tx.execute_batch(sql)?)
        })
    }
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
        for name in ["bad", "lost"] {
            assert!(snapshot(&dir.path().join(name), &new).is_err());
            assert!(!new.exists());
        }
        assert!(!dir.path().join("lost").exists(), "one that is lost is not made anew");
    }
}
