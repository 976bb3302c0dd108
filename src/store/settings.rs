//! Secrets of the whole server: the saved GitHub token, and where findings are told.

use super::columns::first;
use super::{Store, StoreError};
use crate::model::{Secret, UnixMillis, unix_millis};
use crate::vault::{LOST, Place};
use rusqlite::{Connection, Transaction, params};

/// Which one.
#[derive(Debug, Clone, Copy)]
pub enum Setting {
    /// The token that serves apps on `https://github.com` that have none.
    GithubToken,
    /// The address that findings are sent to.
    NotificationUrl,
}

impl Setting {
    /// All of them.
    pub(super) const ALL: [Self; 2] = [Self::GithubToken, Self::NotificationUrl];

    const fn place(self) -> Place<'static> {
        let row = match self {
            Self::GithubToken => "github_token",
            Self::NotificationUrl => "notification_url",
        };
        Place { table: "settings", column: "value", row, context: "" }
    }
}

impl Store {
    /// Saves a setting, or removes it.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_setting(&self, which: Setting, value: Option<&Secret>) -> Result<(), StoreError> {
        self.write_secrets(None, |tx| self.write_setting(tx, which, value))
    }

    pub(super) fn write_setting(
        &self,
        tx: &Transaction<'_>,
        which: Setting,
        value: Option<&Secret>,
    ) -> Result<(), StoreError> {
        let place = which.place();
        tx.execute("DELETE FROM settings WHERE name = ?1", [place.row])?;
        if let Some(value) = value {
            let sealed = self.vault().seal(&place, value.expose())?;
            let sql = "INSERT INTO settings (name, value, saved_at) VALUES (?1, ?2, ?3)";
            tx.execute(sql, params![place.row, sealed, unix_millis()])?;
        }
        Ok(())
    }

    /// When it was saved; `None` when there is none, or it was lost with the key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn setting_saved_at(&self, which: Setting) -> Result<Option<UnixMillis>, StoreError> {
        let sql = "SELECT saved_at FROM settings WHERE name = ?1 AND value <> ?2";
        first(&self.read(), sql, [which.place().row, LOST], |row| Ok(row.get(0)?))
    }

    /// The setting, if there is one.
    ///
    /// # Errors
    /// When the database does not answer, or it does not open.
    pub fn setting(&self, which: Setting) -> Result<Option<Secret>, StoreError> {
        self.setting_in(&self.read(), which)
    }

    pub(super) fn setting_in(
        &self,
        connection: &Connection,
        which: Setting,
    ) -> Result<Option<Secret>, StoreError> {
        let (place, sql) = (which.place(), "SELECT value FROM settings WHERE name = ?1");
        let stored = first(connection, sql, [place.row], |row| Ok(row.get::<_, String>(0)?))?;
        stored.map(|s| Ok(self.vault().open(&place, &s)?.secret)).transpose()
    }
}
