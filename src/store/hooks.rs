//! Webhooks: the secret of each app, sealed, and the deliveries that were taken.

use super::columns::{exists, first};
use super::deploy_row::Deploy;
use super::deploys::insert_queued;
use super::{Store, StoreError, random_id};
use crate::model::{AppId, DeployId, Secret, Trigger};
use crate::vault::Place;
use rusqlite::{Connection, Transaction, params};

/// Names of deliveries that are remembered of one app: those of the last thousand
/// pushes, at two names each. Who replays an older one must have kept it that long.
/// None is forgotten for its age: a clock that jumps ahead would open the door to all.
const KEPT: u32 = 2_000;

/// What became of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// It queued this deploy.
    Queued(Box<Deploy>),
    /// It was taken before; nothing happened.
    Before,
    /// The app does not exist.
    NoApp,
}

impl Store {
    /// Stores an app's webhook secret in place of any before it, or removes it; `false` when
    /// the app does not exist.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_webhook_secret(
        &self,
        app: &AppId,
        secret: Option<&Secret>,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE apps SET webhook_secret = ?2 WHERE id = ?1";
        self.write_secrets(Some(app), |tx| {
            let sealed = secret.map(|secret| self.vault().seal(&place(app), secret.expose()));
            Ok(tx.execute(sql, params![app, sealed.transpose()?])? == 1)
        })
    }

    /// An app's webhook secret; `None` when it has none or does not exist.
    ///
    /// # Errors
    /// When it does not open, or the database does not answer.
    pub fn webhook_secret(&self, app: &AppId) -> Result<Option<Secret>, StoreError> {
        self.hook_secret(&self.read(), app)
    }

    pub(super) fn hook_secret(
        &self,
        connection: &Connection,
        app: &AppId,
    ) -> Result<Option<Secret>, StoreError> {
        let sql = "SELECT webhook_secret FROM apps WHERE id = ?1";
        let stored = first(connection, sql, [app], |row| Ok(row.get::<_, Option<String>>(0)?))?;
        stored.flatten().map(|s| Ok(self.vault().open(&place(app), &s)?.secret)).transpose()
    }

    /// Queues a deploy for a delivery, unless one of its names is known: both or
    /// neither of the two is written.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn queue_delivered(&self, app: &AppId, names: &[String]) -> Result<Delivered, StoreError> {
        let id = DeployId::from_random(random_id()?);
        self.write(|tx| {
            forget(tx, app)?;
            for name in names {
                if is_known(tx, app, name)? {
                    return Ok(Delivered::Before);
                }
            }
            let Some(deploy) = insert_queued(tx, &id, app, Trigger::Webhook, None)? else {
                return Ok(Delivered::NoApp);
            };
            for name in names {
                tx.execute(
                    "INSERT INTO hook_deliveries (app_id, delivery) VALUES (?1, ?2) \
                     ON CONFLICT DO NOTHING",
                    params![app, name],
                )?;
            }
            Ok(Delivered::Queued(Box::new(deploy)))
        })
    }
}

fn place(app: &AppId) -> Place<'_> {
    Place { table: "apps", column: "webhook_secret", row: app.as_str(), context: "" }
}

fn is_known(tx: &Transaction<'_>, app: &AppId, name: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM hook_deliveries WHERE app_id = ?1 AND delivery = ?2";
    exists(tx, sql, params![app, name])
}

/// Keeps the table small: all but the newest go.
fn forget(tx: &Transaction<'_>, app: &AppId) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM hook_deliveries WHERE app_id = ?1 AND seq <= \
         (SELECT seq FROM hook_deliveries WHERE app_id = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        params![app, KEPT],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::with_an_app;

    fn count(store: &Store) -> i64 {
        store.read().query_row("SELECT count(*) FROM hook_deliveries", [], |r| r.get(0)).unwrap()
    }

    #[test]
    fn a_delivery_is_taken_once_under_any_of_its_names() {
        let (store, app, _dir) = with_an_app();
        let take = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
            store.queue_delivered(&app, &names).unwrap()
        };
        let Delivered::Queued(deploy) = take(&["id 1", "body 1"]) else { panic!("not queued") };
        assert_eq!(deploy.trigger, Trigger::Webhook);
        assert!(matches!(take(&["id 1", "body 2"]), Delivered::Before));
        assert!(matches!(take(&["id 2", "body 1"]), Delivered::Before));
        assert_eq!(count(&store), 2, "what was not taken leaves no names");
        assert!(matches!(take(&["id 2", "body 2"]), Delivered::Queued(_)));
        let nobody = AppId::parse("zzzzzzzzzz").unwrap();
        assert!(matches!(store.queue_delivered(&nobody, &["x".into()]), Ok(Delivered::NoApp)));
        assert_eq!(count(&store), 4);
    }

    #[test]
    fn all_but_the_newest_deliveries_are_forgotten() {
        let (store, app, _dir) = with_an_app();
        let knows = |name: &str| store.write(|tx| is_known(tx, &app, name)).unwrap();
        store.queue_delivered(&app, &["oldest".into(), "old".into()]).unwrap();
        store
            .write(|tx| {
                for n in 0..KEPT - 1 {
                    let sql = "INSERT INTO hook_deliveries (app_id, delivery) VALUES (?1, ?2)";
                    tx.execute(sql, params![app, format!("many {n}")])?;
                }
                Ok(())
            })
            .unwrap();
        store.queue_delivered(&app, &["newest".into()]).unwrap();
        assert!(!knows("oldest") && knows("old") && knows("newest"));
        assert_eq!(count(&store), i64::from(KEPT) + 1);
    }
}
