//! The saved GitHub token.

use super::columns::first;
use super::{Store, StoreError};
use crate::model::{Secret, UnixMillis, unix_millis};
use crate::vault::Place;
use rusqlite::{Connection, params};

const GITHUB_TOKEN: Place<'static> =
    Place { table: "settings", column: "value", row: "github_token", context: "" };

impl Store {
    /// Saves the token that serves apps on `https://github.com` that have none.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn save_github_token(&self, token: &Secret) -> Result<(), StoreError> {
        let sealed = self.vault.seal(&GITHUB_TOKEN, token.expose())?;
        self.write_secrets(None, |tx| {
            tx.execute(
                "INSERT INTO settings (name, value, saved_at) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value, saved_at = excluded.saved_at",
                params![GITHUB_TOKEN.row, sealed, unix_millis()],
            )?;
            Ok(())
        })
    }

    /// When the GitHub token was saved; `None` when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn github_token_saved_at(&self) -> Result<Option<UnixMillis>, StoreError> {
        let sql = "SELECT saved_at FROM settings WHERE name = ?1";
        first(&self.read(), sql, [GITHUB_TOKEN.row], |row| Ok(row.get(0)?))
    }

    /// Removes the GitHub token; `false` when there was none.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn delete_github_token(&self) -> Result<bool, StoreError> {
        self.write_secrets(None, |tx| {
            Ok(tx.execute("DELETE FROM settings WHERE name = ?1", [GITHUB_TOKEN.row])? == 1)
        })
    }

    pub(super) fn github_token(
        &self,
        connection: &Connection,
    ) -> Result<Option<Secret>, StoreError> {
        let sql = "SELECT value FROM settings WHERE name = ?1";
        let stored =
            first(connection, sql, [GITHUB_TOKEN.row], |row| Ok(row.get::<_, String>(0)?))?;
        stored.map(|s| Ok(self.vault.open(&GITHUB_TOKEN, &s)?.secret)).transpose()
    }
}
