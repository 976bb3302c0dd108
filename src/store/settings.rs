//! The saved GitHub token.

use super::columns::first;
use super::{Store, StoreError};
use crate::model::{Secret, UnixMillis, unix_millis};
use crate::vault::{LOST, Place};
use rusqlite::{Connection, Transaction, params};

const GITHUB_TOKEN: Place<'static> =
    Place { table: "settings", column: "value", row: "github_token", context: "" };

impl Store {
    /// Saves the token that serves apps on `https://github.com` that have none, or removes it.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_github_token(&self, token: Option<&Secret>) -> Result<(), StoreError> {
        self.write_secrets(None, |tx| self.write_github_token(tx, token))
    }

    pub(super) fn write_github_token(
        &self,
        tx: &Transaction<'_>,
        token: Option<&Secret>,
    ) -> Result<(), StoreError> {
        tx.execute("DELETE FROM settings WHERE name = ?1", [GITHUB_TOKEN.row])?;
        if let Some(token) = token {
            let sealed = self.vault().seal(&GITHUB_TOKEN, token.expose())?;
            let sql = "INSERT INTO settings (name, value, saved_at) VALUES (?1, ?2, ?3)";
            tx.execute(sql, params![GITHUB_TOKEN.row, sealed, unix_millis()])?;
        }
        Ok(())
    }

    /// When the GitHub token was saved; `None` when there is none, or it was lost with the key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn github_token_saved_at(&self) -> Result<Option<UnixMillis>, StoreError> {
        let sql = "SELECT saved_at FROM settings WHERE name = ?1 AND value <> ?2";
        first(&self.read(), sql, [GITHUB_TOKEN.row, LOST], |row| Ok(row.get(0)?))
    }

    pub(super) fn github_token(
        &self,
        connection: &Connection,
    ) -> Result<Option<Secret>, StoreError> {
        let sql = "SELECT value FROM settings WHERE name = ?1";
        let stored =
            first(connection, sql, [GITHUB_TOKEN.row], |row| Ok(row.get::<_, String>(0)?))?;
        stored.map(|s| Ok(self.vault().open(&GITHUB_TOKEN, &s)?.secret)).transpose()
    }
}
