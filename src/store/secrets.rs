//! What no log may show of an app: the secrets it has, and those it had.
//!
//! A running release still prints a secret that was replaced, and so do the
//! lines from before, also after the next start of the server. So whatever is
//! replaced or removed stays known, sealed like the rest, until the app goes.

use super::columns::rows;
use super::settings::Setting;
use super::{Store, StoreError};
use crate::model::{AppId, Secret};
use crate::vault::{Place, Why};
use rusqlite::{Connection, Transaction, params};

/// Secrets that are remembered of one app, the newest: more than its two logs of
/// 10 MiB see replaced, short enough to look for in each line.
const REMEMBERED: u32 = 64;
/// Characters of their envelopes together: room for the values of a whole environment. All
/// of them are in memory in every spelling that is looked for, fifty times what they are.
const REMEMBERED_CHARACTERS: u32 = 256 * 1024;

impl Store {
    /// Everything about an app that no log may show: its credential, the webhook's secret, the
    /// environment values that are marked secret, and what these were before. A value that does
    /// not open is left out: nothing that runs ever gets it, so no log can show it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn secrets_of(&self, id: &AppId) -> Result<Vec<Secret>, StoreError> {
        let connection = self.read();
        let mut secrets = self.secrets_now(&connection, id)?;
        secrets.extend(self.replaced(&connection, id)?);
        Ok(secrets)
    }

    /// Opens every secret that something could want, but for those that were given up as lost.
    ///
    /// # Errors
    /// When one does not open; it names which.
    pub fn open_secrets(&self) -> Result<(), StoreError> {
        let judged = |opened: Result<(), StoreError>| match opened {
            Err(StoreError::Vault(error)) if error.why == Why::Lost => Ok(()),
            opened => opened,
        };
        for setting in Setting::ALL {
            judged(self.setting(setting).map(drop))?;
        }
        for app in self.apps()? {
            for (_, value, _) in self.variables(&self.read(), &app.id)? {
                judged(value.map(drop).map_err(StoreError::Vault))?;
            }
            judged(self.credential(&self.read(), &app.id).map(drop))?;
            judged(self.webhook_secret(&app.id).map(drop))?;
        }
        Ok(())
    }

    /// Runs `work`, which may change secrets of this app, or of any app, in one transaction with
    /// the note of what was replaced.
    pub(super) fn write_secrets<T>(
        &self,
        app: Option<&AppId>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write(|tx| {
            let apps = match app {
                Some(app) => vec![app.clone()],
                None => rows(tx, "SELECT id FROM apps", [], |row| Ok(row.get(0)?))?,
            };
            let before = apps.iter().map(|app| self.secrets_now(tx, app));
            let before: Vec<_> = before.collect::<Result<_, _>>()?;
            let value = work(tx)?;
            for (app, before) in apps.iter().zip(&before) {
                self.remember(tx, app, before)?;
            }
            Ok(value)
        })
    }

    /// Notes those secrets that the app has no longer.
    fn remember(
        &self,
        tx: &Transaction<'_>,
        app: &AppId,
        before: &[Secret],
    ) -> Result<(), StoreError> {
        let mut known = self.secrets_now(tx, app)?;
        known.extend(self.replaced(tx, app)?);
        for secret in before {
            if known.iter().all(|k| k.expose() != secret.expose()) {
                let sealed = self.vault().seal(&place(app), secret.expose())?;
                let sql = "INSERT INTO replaced_secrets (app_id, value) \
                           SELECT id, ?2 FROM apps WHERE id = ?1";
                tx.execute(sql, params![app, sealed])?;
            }
        }
        tx.execute(
            "DELETE FROM replaced_secrets WHERE app_id = ?1 AND seq IN (SELECT seq FROM (SELECT \
             seq, count(*) OVER newest AS ones, sum(length(value)) OVER newest AS characters \
             FROM replaced_secrets WHERE app_id = ?1 WINDOW newest AS (ORDER BY seq DESC)) \
             WHERE ones > ?2 OR characters > ?3)",
            params![app, REMEMBERED, REMEMBERED_CHARACTERS],
        )?;
        Ok(())
    }

    fn secrets_now(&self, connection: &Connection, id: &AppId) -> Result<Vec<Secret>, StoreError> {
        let mut secrets = self.secret_env(connection, id)?;
        for found in [self.credential(connection, id), self.hook_secret(connection, id)] {
            match found {
                Err(StoreError::Vault(error)) => log::error!("{error}"),
                other => secrets.extend(other?),
            }
        }
        Ok(secrets)
    }

    fn replaced(&self, connection: &Connection, app: &AppId) -> Result<Vec<Secret>, StoreError> {
        let sql = "SELECT value FROM replaced_secrets WHERE app_id = ?1";
        let stored = rows(connection, sql, [app], |row| Ok(row.get::<_, String>(0)?))?;
        let open = |stored: String| {
            let opened = self.vault().open(&place(app), &stored);
            opened.map(|opened| opened.secret).inspect_err(|error| log::error!("{error}")).ok()
        };
        Ok(stored.into_iter().filter_map(open).collect())
    }
}

fn place(app: &AppId) -> Place<'_> {
    Place { table: "replaced_secrets", column: "value", row: app.as_str(), context: "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EnvName, EnvValue, MAX_ENV_TOTAL};
    use crate::store::tests::with_an_app;
    use crate::store::{App, AppDraft, EnvInput, TokenChange};

    fn known(store: &Store, app: &AppId) -> Vec<String> {
        let secrets = store.secrets_of(app).unwrap();
        let mut texts: Vec<_> = secrets.iter().map(|s| s.expose().to_owned()).collect();
        texts.sort();
        texts
    }

    fn set(store: &Store, app: &AppId, value: &str, secret: bool) {
        let name = EnvName::parse("NAME").unwrap();
        let value = Some(EnvValue::parse(value).unwrap());
        store.replace_env(app, &[EnvInput { name, value, secret }]).unwrap();
    }

    #[test]
    fn what_was_replaced_or_removed_stays_known_until_the_app_goes() {
        let (store, app, _dir) = with_an_app();
        for value in ["first", "second", "second"] {
            set(&store, &app, value, true);
        }
        set(&store, &app, "third", false);
        assert_eq!(known(&store, &app), ["first", "second"]);

        for change in [TokenChange::Set(Secret::new("of git".into())), TokenChange::Remove] {
            let App { name, git_repo, settings, .. } = store.app(&app).unwrap().unwrap();
            let draft = AppDraft { name, git_repo, git_token: change, settings };
            assert!(store.update_app(&app, &draft).unwrap());
        }
        store.set_webhook_secret(&app, Some(&Secret::new("of hooks".to_owned()))).unwrap();
        store.set_webhook_secret(&app, None).unwrap();
        assert_eq!(known(&store, &app), ["first", "of git", "of hooks", "second"]);
        let rows = "SELECT count(*) FROM replaced_secrets";
        let count = || store.read().query_row(rows, [], |r| r.get::<_, u32>(0)).unwrap();
        assert_eq!(count(), 4);
        store.delete_app(&app).unwrap();
        assert_eq!((known(&store, &app), count()), (Vec::new(), 0));
    }

    #[test]
    fn p18_every_secret_opens_but_for_those_that_were_given_up() {
        let (store, app, _dir) = with_an_app();
        set(&store, &app, "value", true);
        store.open_secrets().unwrap();
        let stored = |value: &str| {
            store.write(|tx| Ok(tx.execute("UPDATE env SET value = ?1", [value])?)).unwrap();
            store.open_secrets()
        };
        assert!(stored(crate::vault::LOST).is_ok());
        assert!(stored("enc:v2:00000000:AAAA").is_err(), "it is of another key");
    }

    #[test]
    fn of_the_replaced_ones_the_newest_stay_known() {
        let (store, app, _dir) = with_an_app();
        for n in 0..REMEMBERED + 10 {
            set(&store, &app, &format!("value {n:03}"), true);
        }
        let known = known(&store, &app);
        assert_eq!(known.len(), REMEMBERED as usize + 1);
        assert_eq!(known[0], "value 009");
        // Fewer when they are long: each is in memory in every spelling.
        for n in 0..20 {
            set(&store, &app, &n.to_string().repeat(15_000), true);
        }
        let known = self::known(&store, &app);
        let bytes: usize = known.iter().map(String::len).sum();
        assert!((MAX_ENV_TOTAL..2 * MAX_ENV_TOTAL).contains(&bytes), "{bytes}");
        assert!(known.contains(&"18".repeat(15_000)), "the one before the present one");
    }
}
