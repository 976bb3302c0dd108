//! The environment of an app: names in the clear, every value sealed (P14).

use super::{Store, StoreError, parsed};
use crate::model::{AppId, EnvName, EnvValue, Secret};
use crate::vault::{Form, Place};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// A variable as its owner may see it again.
#[derive(Debug)]
pub struct EnvEntry {
    /// Its name.
    pub name: EnvName,
    /// Its value; `None` when it is marked secret, for those are write-only.
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

impl Store {
    /// The variables in the owner's order, without the secret values.
    ///
    /// # Errors
    /// When a value does not open; it names which.
    pub fn env(&self, app: &AppId) -> Result<Vec<EnvEntry>, StoreError> {
        self.env_rows(&self.read(), app)?
            .into_iter()
            .map(|(name, stored, secret)| {
                let value = if secret { None } else { Some(self.open_env(app, &name, &stored)?) };
                Ok(EnvEntry { name, value, secret })
            })
            .collect()
    }

    /// The variables with every value opened, for the moment a process starts.
    ///
    /// # Errors
    /// When a value does not open; it names which. Nothing is left out quietly.
    pub fn env_clear(&self, app: &AppId) -> Result<Vec<(EnvName, Secret, bool)>, StoreError> {
        self.env_rows(&self.read(), app)?
            .into_iter()
            .map(|(name, stored, secret)| {
                let value = self.open_env(app, &name, &stored)?;
                Ok((name, value, secret))
            })
            .collect()
    }

    /// The values that are marked secret, as far as they open.
    pub(super) fn secret_env(
        &self,
        connection: &Connection,
        app: &AppId,
    ) -> Result<Vec<Secret>, StoreError> {
        let rows = self.env_rows(connection, app)?;
        let secret = rows.iter().filter(|(_, _, secret)| *secret);
        Ok(secret.filter_map(|(name, stored, _)| self.open_env(app, name, stored).ok()).collect())
    }

    /// Replaces an app's environment in one transaction. `false` when the app
    /// does not exist.
    ///
    /// # Errors
    /// [`StoreError::NothingToKeep`] when a new variable has no value.
    pub fn replace_env(&self, app: &AppId, inputs: &[EnvInput]) -> Result<bool, StoreError> {
        self.write_secrets(Some(app), |tx| {
            let exists = "SELECT EXISTS (SELECT 1 FROM apps WHERE id = ?1)";
            if !tx.query_row(exists, [app.as_str()], |row| row.get::<_, bool>(0))? {
                return Ok(false);
            }
            let mut sealed = Vec::with_capacity(inputs.len());
            for input in inputs {
                sealed.push(self.envelope_for(tx, app, input)?);
            }
            tx.execute("DELETE FROM env WHERE app_id = ?1", [app.as_str()])?;
            for (position, (input, value)) in inputs.iter().zip(&sealed).enumerate() {
                tx.execute(
                    "INSERT INTO env (app_id, name, value, secret, position) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![app.as_str(), input.name.as_str(), value, input.secret, position as i64],
                )?;
            }
            Ok(true)
        })
    }

    fn envelope_for(
        &self,
        tx: &Transaction<'_>,
        app: &AppId,
        input: &EnvInput,
    ) -> Result<String, StoreError> {
        let row = row_id(app, &input.name);
        if let Some(value) = &input.value {
            return Ok(self.vault.seal(&env_place(&row), value.as_str())?);
        }
        let sql = "SELECT value, secret FROM env WHERE app_id = ?1 AND name = ?2";
        let stored: Option<(String, bool)> = tx
            .query_row(sql, [app.as_str(), input.name.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        // A secret value stays write-only: it cannot be kept and made readable.
        let Some((stored, was_secret)) = stored else {
            return Err(StoreError::NothingToKeep(input.name.as_str().to_owned()));
        };
        if was_secret && !input.secret {
            return Err(StoreError::NothingToKeep(input.name.as_str().to_owned()));
        }
        // Older forms are upgraded by this write (P17); what does not open stays (P18).
        Ok(match self.vault.open(&env_place(&row), &stored) {
            Ok(opened) if opened.form != Form::V2 => {
                self.vault.seal(&env_place(&row), opened.secret.expose())?
            }
            _ => stored,
        })
    }

    fn env_rows(
        &self,
        connection: &Connection,
        app: &AppId,
    ) -> Result<Vec<(EnvName, String, bool)>, StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT name, value, secret FROM env WHERE app_id = ?1 ORDER BY position",
        )?;
        let mut rows = statement.query([app.as_str()])?;
        let mut env = Vec::new();
        while let Some(row) = rows.next()? {
            let name = parsed(&row.get::<_, String>(0)?, EnvName::parse)?;
            env.push((name, row.get(1)?, row.get(2)?));
        }
        Ok(env)
    }

    fn open_env(&self, app: &AppId, name: &EnvName, stored: &str) -> Result<Secret, StoreError> {
        Ok(self.vault.open(&env_place(&row_id(app, name)), stored)?.secret)
    }
}

fn row_id(app: &AppId, name: &EnvName) -> String {
    format!("{app}/{}", name.as_str())
}

fn env_place(row: &str) -> Place<'_> {
    Place { table: "env", column: "value", row, context: "" }
}
