//! The environment of an app: names in the clear, every value sealed (P14).

use super::app::EnvMark;
use super::columns::{exists, first, rows};
use super::{Store, StoreError, random_id};
use crate::model::{AppId, EnvName, EnvValue, Secret};
use crate::vault::{Place, VaultError, Why};
use data_encoding::HEXLOWER;
use rusqlite::{Connection, Transaction, params};

/// A variable as its owner may see it again.
#[derive(Debug)]
pub struct EnvEntry {
    /// Its name.
    pub name: EnvName,
    /// Its value; `None` when it is marked secret, for those are write-only, or was lost.
    pub value: Option<Secret>,
    /// Whether it is marked secret.
    pub secret: bool,
}

/// A variable as its owner writes it.
#[derive(Debug)]
pub struct EnvInput {
    /// Its name.
    pub name: EnvName,
    /// Its value; `None` keeps the stored one.
    pub value: Option<EnvValue>,
    /// Whether nobody may read it again.
    pub secret: bool,
}

/// Its name, its value as far as that opens, and whether it is marked secret.
pub(super) type Variable = (EnvName, Result<Secret, VaultError>, bool);

impl Store {
    /// The variables in the owner's order, without the secret values.
    ///
    /// # Errors
    /// When a value does not open; it names which.
    pub fn env(&self, app: &AppId) -> Result<Vec<EnvEntry>, StoreError> {
        let entry = |(name, value, secret): Variable| {
            let lost = value.as_ref().is_err_and(|error| error.why == Why::Lost);
            let value = if secret || lost { None } else { Some(value?) };
            Ok(EnvEntry { name, value, secret })
        };
        self.variables(&self.read(), app)?.into_iter().map(entry).collect()
    }

    /// The variables with every value opened, for the moment a process starts.
    ///
    /// # Errors
    /// When a value does not open; it names which. Nothing is left out quietly.
    pub fn env_clear(&self, app: &AppId) -> Result<Vec<(EnvName, Secret, bool)>, StoreError> {
        let open = |(name, value, secret): Variable| Ok((name, value?, secret));
        self.variables(&self.read(), app)?.into_iter().map(open).collect()
    }

    /// The marks of the variables in the owner's order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn env_marks(&self, app: &AppId) -> Result<Vec<EnvMark>, StoreError> {
        let sql = "SELECT name, mark, secret FROM env WHERE app_id = ?1 ORDER BY position";
        rows(&self.read(), sql, [app], |row| {
            Ok(EnvMark { name: row.get(0)?, mark: row.get(1)?, secret: row.get(2)? })
        })
    }

    /// The values that are marked secret, as far as they open.
    pub(super) fn secret_env(
        &self,
        connection: &Connection,
        app: &AppId,
    ) -> Result<Vec<Secret>, StoreError> {
        let secret = self.variables(connection, app)?.into_iter().filter(|(_, _, secret)| *secret);
        Ok(secret.filter_map(|(_, value, _)| value.ok()).collect())
    }

    pub(super) fn variables(
        &self,
        connection: &Connection,
        app: &AppId,
    ) -> Result<Vec<Variable>, StoreError> {
        let sql = "SELECT name, value, secret FROM env WHERE app_id = ?1 ORDER BY position";
        rows(connection, sql, [app], |row| {
            let (name, stored): (EnvName, String) = (row.get(0)?, row.get(1)?);
            let opened = self.vault().open(&env_place(&row_id(app, &name)), &stored);
            Ok((name, opened.map(|opened| opened.secret), row.get(2)?))
        })
    }

    /// Replaces an app's environment in one transaction. `false` when the app
    /// does not exist.
    ///
    /// # Errors
    /// [`StoreError::NothingToKeep`] when a new variable has no value.
    pub fn replace_env(&self, app: &AppId, inputs: &[EnvInput]) -> Result<bool, StoreError> {
        self.write_secrets(Some(app), |tx| {
            if !exists(tx, "SELECT 1 FROM apps WHERE id = ?1", [app])? {
                return Ok(false);
            }
            self.write_env(tx, app, inputs)?;
            Ok(true)
        })
    }

    pub(super) fn write_env(
        &self,
        tx: &Transaction<'_>,
        app: &AppId,
        inputs: &[EnvInput],
    ) -> Result<(), StoreError> {
        let sealed = inputs.iter().map(|input| self.envelope_for(tx, app, input));
        let sealed: Vec<_> = sealed.collect::<Result<_, _>>()?;
        tx.execute("DELETE FROM env WHERE app_id = ?1", [app])?;
        for (position, (input, (value, mark))) in inputs.iter().zip(&sealed).enumerate() {
            tx.execute(
                "INSERT INTO env (app_id, name, value, secret, position, mark) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![app, input.name, value, input.secret, position as i64, mark],
            )?;
        }
        Ok(())
    }

    /// What is stored of a value, and its mark.
    fn envelope_for(
        &self,
        tx: &Transaction<'_>,
        app: &AppId,
        input: &EnvInput,
    ) -> Result<(String, String), StoreError> {
        let row = row_id(app, &input.name);
        let sql = "SELECT value, secret, mark FROM env WHERE app_id = ?1 AND name = ?2";
        let stored: Option<(String, bool, String)> =
            first(tx, sql, params![app, input.name], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        if let Some(value) = &input.value {
            let is_it = |stored: &str| {
                let opened = self.vault().open(&env_place(&row), stored);
                opened.is_ok_and(|opened| opened.secret.expose() == value.as_str())
            };
            let mark = match stored {
                Some((stored, _, mark)) if is_it(&stored) => mark,
                _ => HEXLOWER.encode(&random_id()?),
            };
            return Ok((self.vault().seal(&env_place(&row), value.as_str())?, mark));
        }
        // A secret value stays write-only: it cannot be kept and made readable.
        let kept = stored.filter(|(_, was_secret, _)| input.secret || !was_secret);
        let (stored, _, mark) =
            kept.ok_or_else(|| StoreError::NothingToKeep(input.name.as_str().to_owned()))?;
        Ok((self.kept(&env_place(&row), stored)?, mark))
    }
}

fn row_id(app: &AppId, name: &EnvName) -> String {
    format!("{app}/{}", name.as_str())
}

fn env_place(row: &str) -> Place<'_> {
    Place { table: "env", column: "value", row, context: "" }
}
