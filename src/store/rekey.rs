//! Another key for every sealed value (P19), and the values that are lost with a key.

use super::audit::{Act, append};
use super::columns::{first, rows};
use super::{CANARY_TEXT, Store, StoreError, look};
use crate::model::{AnyError, RepoUrl};
use crate::sync::lock;
use crate::vault::{LOST, Place, Vault, key::Key};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::path::Path;
use std::sync::Arc;

/// Where sealed values stand, besides the canary: table, column, what names the row, what finds
/// it, the repository whose origin is sealed with it, and what its owner calls it.
const SEALED: [[&str; 6]; 5] = [
    ["apps", "git_token", "id", "id = ?1", "git_repo", "name || ': Git token'"],
    ["apps", "webhook_secret", "id", "id = ?1", "NULL", "name || ': webhook secret'"],
    ["env", "value", "app_id || '/' || name", VARIABLE, "NULL", OF_APP],
    ["settings", "value", "name", "name = ?1", "NULL", "'settings: ' || name"],
    ["replaced_secrets", "value", "app_id", "app_id = ?1", "NULL", "''"],
];
const VARIABLE: &str = "app_id = substr(?1, 1, 10) AND name = substr(?1, 12)";
const OF_APP: &str = "(SELECT a.name FROM apps a WHERE a.id = app_id) || ': ' || name";

/// The id of the key that the database at `path` is sealed with.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn wanted_key(path: &Path) -> Result<String, StoreError> {
    sealed_with(&look(path)?)
}

pub(super) fn sealed_with(connection: &Connection) -> Result<String, StoreError> {
    let sql = "SELECT value FROM meta WHERE name = 'canary'";
    let canary: Option<String> = first(connection, sql, [], |row| Ok(row.get(0)?))?;
    let id = canary.as_deref().and_then(|canary| canary.split(':').nth(2));
    Ok(id.ok_or(StoreError::Corrupt)?.to_owned())
}

impl Store {
    /// The id of the key that the database is sealed with.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.vault().key_id().to_owned()
    }

    /// Seals every value with another key, in one transaction; older forms become the present
    /// one (P17). Nobody reads meanwhile. When all are sealed, and before any of it holds,
    /// `save` puts the key where the next start looks for it.
    ///
    /// # Errors
    /// [`StoreError::Vault`] names a value that does not open; nothing was changed then, nor
    /// when the key was not saved or it could not be written.
    pub fn rekey(
        &self,
        key: Key,
        save: impl FnOnce() -> Result<(), AnyError>,
    ) -> Result<(), StoreError> {
        let (_reader, mut writer) = (self.read(), lock(&self.writer));
        let (old, new) = (self.vault(), Vault::new(key));
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        reseal(&tx, &old, &new, None)?;
        append(&tx, &Act::new("shell", "rekey"))?;
        save().map_err(|error| StoreError::Sentence(error.to_string()))?;
        tx.commit()?;
        *lock(&self.vault) = Arc::new(new);
        // The write-ahead log has what the old key opens. Another process may be reading it.
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        if !matches!(writer.query_row(sql, [], |row| row.get(0)), Ok(0)) {
            log::warn!("values under the old key stay in the write-ahead log until a restart");
        }
        Ok(())
    }

    /// How many values are not of the present form: in the clear, or of a form before it (P17).
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn count_older_forms(&self) -> Result<u64, StoreError> {
        let connection = self.read();
        let count = |[table, column, ..]: [&str; 6]| {
            let sql = format!(
                "SELECT count(*) FROM {table} WHERE {column} NOT LIKE 'enc:v2:%' \
                 AND {column} <> '{LOST}'"
            );
            Ok(connection.query_row(&sql, [], |row| row.get::<_, u64>(0))?)
        };
        SEALED.into_iter().map(count).sum()
    }

    /// What does not open with the key of this store, as its owner calls it. Only with `for_good`
    /// is it marked as lost, and the key the database's from then on.
    ///
    /// # Errors
    /// When the database does not answer or could not be written.
    pub fn mark_lost(&self, for_good: bool) -> Result<Vec<String>, StoreError> {
        let (vault, mut lost, mut writer) = (self.vault(), Vec::new(), lock(&self.writer));
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        reseal(&tx, &vault, &vault, Some(&mut lost))?;
        // Nobody can keep these out of logs any more, which is all that they are for.
        tx.execute("DELETE FROM replaced_secrets WHERE value = ?1", [LOST])?;
        lost.retain(|name| !name.is_empty());
        for name in &lost {
            append(&tx, &Act::new("shell", format!("rekey --mark-lost {name}")))?;
        }
        if for_good {
            tx.commit()?;
        }
        Ok(lost)
    }
}

/// Seals with the new vault what the old one opens. What it does not is marked and named in the
/// list, or an error without one.
fn reseal(
    tx: &Transaction<'_>,
    old: &Vault,
    new: &Vault,
    mut lost: Option<&mut Vec<String>>,
) -> Result<(), StoreError> {
    for [table, column, row, is_row, repo, name] in SEALED {
        let sql = format!(
            "SELECT {row}, {repo}, {name}, {column} FROM {table} WHERE {column} <> '{LOST}'"
        );
        let found: Vec<(String, Option<RepoUrl>, String, String)> =
            rows(tx, &sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
        let sql = format!("UPDATE {table} SET {column} = ?3 WHERE {is_row} AND {column} = ?2");
        let mut update = tx.prepare(&sql)?;
        for (row, repo, name, stored) in found {
            let context = repo.as_ref().map_or("", RepoUrl::origin);
            let place = Place { table, column, row: &row, context };
            let sealed = match (old.open(&place, &stored), &mut lost) {
                (Ok(opened), _) => new.seal(&place, opened.secret.expose())?,
                (Err(error), None) => return Err(error.into()),
                (Err(_), Some(lost)) => {
                    lost.push(name);
                    LOST.to_owned()
                }
            };
            update.execute(params![row, stored, sealed])?;
        }
    }
    let canary = new.seal(&Place::CANARY, CANARY_TEXT)?;
    tx.execute("UPDATE meta SET value = ?1 WHERE name = 'canary'", [canary])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_an_app;
    use super::*;

    #[test]
    fn p19_a_key_is_saved_when_every_value_is_sealed_with_it_and_not_before() {
        let (store, _app, dir) = with_an_app();
        let path = dir.path().join("db");
        let (key, before) = (Key::parse(&"08".repeat(32)).unwrap(), store.key_id());
        let refused = store.rekey(key.clone(), || Err("the disk is full".into()));
        assert_eq!(refused.unwrap_err().to_string(), "the disk is full");
        assert_eq!((&store.key_id(), &wanted_key(&path).unwrap()), (&before, &before));
        let bad = "INSERT INTO settings VALUES ('n', 'enc:v2:00000000:AAAA', 1)";
        store.change(bad, []).unwrap();
        let refused = store.rekey(key.clone(), || panic!("saved with a value that does not open"));
        assert!(matches!(refused, Err(StoreError::Vault(_))));
        store.change("DELETE FROM settings", []).unwrap();
        store.rekey(key.clone(), || Ok(())).unwrap();
        assert_eq!((store.key_id(), wanted_key(&path).unwrap()), (key.id(), key.id()));
    }
}
