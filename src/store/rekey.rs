//! Another key for every sealed value (P19), and the values that are lost with a key.

use super::audit::{Act, append};
use super::columns::rows;
use super::{CANARY_TEXT, Store, StoreError};
use crate::model::RepoUrl;
use crate::sync::lock;
use crate::vault::{LOST, Place, Vault, key::Key};
use rusqlite::{Transaction, TransactionBehavior, params};
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

impl Store {
    /// The id of the key that the database is sealed with.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.vault().key_id().to_owned()
    }

    /// Seals every value with another key, in one transaction; older forms become the present
    /// one (P17). Nobody reads meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Vault`] names a value that does not open; nothing was changed then, nor
    /// when it could not be written.
    pub fn rekey(&self, key: Key) -> Result<(), StoreError> {
        let (_reader, mut writer) = (self.read(), lock(&self.writer));
        let (old, new) = (self.vault(), Vault::new(key));
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        reseal(&tx, &old, &new, None)?;
        append(&tx, &Act::new("shell", "rekey"))?;
        tx.commit()?;
        *lock(&self.vault) = Arc::new(new);
        // The write-ahead log has what the old key opens. Another process may be reading it.
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        if !matches!(writer.query_row(sql, [], |row| row.get(0)), Ok(0)) {
            log::warn!("values under the old key stay in the write-ahead log until a restart");
        }
        Ok(())
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
