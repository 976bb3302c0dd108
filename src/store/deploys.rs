//! Deploys: the queue, the step each has reached, the history.

use super::apps::{Process, write_process};
use super::{Store, StoreError, parsed, random_id};
use crate::model::{AppId, DeployId, DeployStatus, Trigger, UnixMillis, Wanted, unix_millis};
use rusqlite::{Row, Transaction, params};

/// A deploy that waits to begin.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Whose it is.
    pub app: AppId,
    /// The deploy.
    pub deploy: DeployId,
    /// Whether it uses a release that is there already.
    pub is_rollback: bool,
}

/// One deploy.
#[derive(Debug, Clone)]
pub struct Deploy {
    /// Its identifier.
    pub id: DeployId,
    /// The app that it deploys.
    pub app: AppId,
    /// How far it has come.
    pub status: DeployStatus,
    /// Who asked for it.
    pub trigger: Trigger,
    /// The commit's hash, once fetched.
    pub commit: Option<String>,
    /// The first line of the commit's message, once fetched.
    pub commit_message: Option<String>,
    /// Why it failed, in one sentence.
    pub error: Option<String>,
    /// The deploy whose release it uses, when that is not its own: a rollback.
    pub release: Option<DeployId>,
    /// When it was asked for.
    pub created_at: UnixMillis,
    /// When its first step began.
    pub started_at: Option<UnixMillis>,
    /// When it became live or failed.
    pub finished_at: Option<UnixMillis>,
}

const SELECT: &str = "SELECT id, app_id, status, trigger, commit_hash, commit_message, error, \
     created_at, started_at, finished_at, release FROM deploys";

/// It became live or failed.
const ENDED: &str = "status IN ('live', 'failed')";

/// It waits or is under way; word for word as in the index of those.
const NOT_ENDED: &str = "status NOT IN ('live', 'failed')";

/// It is under way.
const BEGUN: &str = "status NOT IN ('live', 'failed', 'queued')";

/// It ends now, which is ?1; by a clock that was set back, no earlier than it began.
const ENDS: &str = "finished_at = max(?1, created_at, COALESCE(started_at, 0))";

/// Ends the deploy of an app that waits in the queue.
fn fail_waiting(tx: &Transaction<'_>, app: &AppId, why: &str) -> Result<(), StoreError> {
    tx.execute(
        &format!(
            "UPDATE deploys SET status = 'failed', error = ?3, {ENDS} \
             WHERE app_id = ?2 AND status = 'queued'"
        ),
        params![unix_millis(), app.as_str(), why],
    )?;
    Ok(())
}

/// Queues a deploy in place of one that waits; `false` when the app does not exist.
pub(super) fn insert_queued(
    tx: &Transaction<'_>,
    id: &DeployId,
    app: &AppId,
    trigger: Trigger,
) -> Result<bool, StoreError> {
    fail_waiting(tx, app, "replaced by a newer request before it began")?;
    let inserted = tx.execute(
        "INSERT INTO deploys (id, app_id, status, trigger, created_at) \
         SELECT ?1, id, 'queued', ?3, ?4 FROM apps WHERE id = ?2",
        params![id.as_str(), app.as_str(), trigger.as_str(), unix_millis()],
    )?;
    Ok(inserted == 1)
}

impl Store {
    /// Puts a deploy into the queue; one of the same app that still waits there
    /// is replaced. `None` when the app does not exist.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn queue_deploy(
        &self,
        app: &AppId,
        trigger: Trigger,
    ) -> Result<Option<Deploy>, StoreError> {
        self.queue(app, trigger, None)
    }

    /// Puts a rollback to an earlier deploy into the queue, like any deploy. `None` when
    /// the app has no such deploy, or it was never live.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn queue_rollback(&self, app: &AppId, to: &DeployId) -> Result<Option<Deploy>, StoreError> {
        let Some(to) = self.deploy(to)? else { return Ok(None) };
        if to.app != *app || to.status != DeployStatus::Live {
            return Ok(None);
        }
        self.queue(app, Trigger::Rollback, Some(&to))
    }

    fn queue(
        &self,
        app: &AppId,
        trigger: Trigger,
        to: Option<&Deploy>,
    ) -> Result<Option<Deploy>, StoreError> {
        let id = DeployId::from_random(random_id()?);
        let queued = self.write(|tx| {
            let queued = insert_queued(tx, &id, app, trigger)?;
            if let Some(to) = to {
                let release = to.release.as_ref().unwrap_or(&to.id).as_str();
                tx.execute(
                    "UPDATE deploys SET release = ?2, commit_hash = ?3, commit_message = ?4 \
                     WHERE id = ?1",
                    params![id.as_str(), release, to.commit, to.commit_message],
                )?;
            }
            Ok(queued)
        })?;
        if queued { self.deploy(&id) } else { Ok(None) }
    }

    /// Forgets an app's deploys beyond its `keep` newest, but never the live one, nor one
    /// whose release another uses or is among the `releases` that [`Store::old_releases`]
    /// keeps. Answers which, so that their logs can go with them.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn prune_history(
        &self,
        app: &AppId,
        keep: u32,
        releases: u32,
    ) -> Result<Vec<DeployId>, StoreError> {
        self.write(|tx| {
            let mut statement = tx.prepare(&format!(
                "DELETE FROM deploys WHERE app_id = ?1 AND {ENDED} \
                 AND id IS NOT (SELECT live_deploy FROM apps WHERE id = ?1) \
                 AND id NOT IN (SELECT release FROM deploys WHERE app_id = ?1 AND release NOT NULL) \
                 AND id NOT IN ({KEPT_BESIDES}) AND seq <= \
                 (SELECT seq FROM deploys WHERE app_id = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?3) \
                 RETURNING id"
            ))?;
            let mut rows = statement.query(params![app.as_str(), releases, keep])?;
            let mut pruned = Vec::new();
            while let Some(row) = rows.next()? {
                pruned.push(parsed(&row.get::<_, String>(0)?, DeployId::parse)?);
            }
            Ok(pruned)
        })
    }

    /// The deploys in the queue, the oldest first, at most one of each app.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn queued(&self) -> Result<Vec<Queued>, StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT app_id, id, release IS NOT NULL FROM deploys WHERE status = 'queued' \
             ORDER BY seq",
        )?;
        let mut rows = statement.query([])?;
        let mut queued = Vec::new();
        while let Some(row) = rows.next()? {
            let (app, id): (String, String) = (row.get(0)?, row.get(1)?);
            queued.push(Queued {
                app: parsed(&app, AppId::parse)?,
                deploy: parsed(&id, DeployId::parse)?,
                is_rollback: row.get(2)?,
            });
        }
        Ok(queued)
    }

    /// One deploy, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn deploy(&self, id: &DeployId) -> Result<Option<Deploy>, StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
        let mut rows = statement.query([id.as_str()])?;
        rows.next()?.map(read_deploy).transpose()
    }

    /// An app's deploys, newest first: at most `limit`, and only those older
    /// than `before` when it is given.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn deploys(
        &self,
        app: &AppId,
        before: Option<&DeployId>,
        limit: u32,
    ) -> Result<Vec<Deploy>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE app_id = ?1 AND (?2 IS NULL OR seq < (SELECT seq FROM deploys WHERE id = ?2)) \
             ORDER BY seq DESC LIMIT ?3"
        );
        let connection = self.read();
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows =
            statement.query(params![app.as_str(), before.map(DeployId::as_str), limit])?;
        let mut deploys = Vec::new();
        while let Some(row) = rows.next()? {
            deploys.push(read_deploy(row)?);
        }
        Ok(deploys)
    }

    /// The identifiers of all of an app's deploys, for the removal of their logs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn deploy_ids(&self, app: &AppId) -> Result<Vec<DeployId>, StoreError> {
        let connection = self.read();
        let mut statement =
            connection.prepare_cached("SELECT id FROM deploys WHERE app_id = ?1")?;
        let mut rows = statement.query([app.as_str()])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            ids.push(parsed(&row.get::<_, String>(0)?, DeployId::parse)?);
        }
        Ok(ids)
    }

    /// Notes the step that a deploy has reached; the first one starts its clock.
    /// `false` when the deploy has ended or is gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_step(&self, id: &DeployId, step: DeployStatus) -> Result<bool, StoreError> {
        self.write(|tx| {
            let changed = tx.execute(
                &format!(
                    "UPDATE deploys SET status = ?2, \
                     started_at = COALESCE(started_at, max(?3, created_at)) \
                     WHERE id = ?1 AND {NOT_ENDED}"
                ),
                params![id.as_str(), step.as_str(), unix_millis()],
            )?;
            Ok(changed == 1)
        })
    }

    /// Notes which commit a deploy builds.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_commit(&self, id: &DeployId, hash: &str, message: &str) -> Result<(), StoreError> {
        self.write(|tx| {
            let sql = "UPDATE deploys SET commit_hash = ?2, commit_message = ?3 WHERE id = ?1";
            tx.execute(sql, [id.as_str(), hash, message])?;
            Ok(())
        })
    }

    /// Ends a deploy with the reason why it failed.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn fail_deploy(&self, id: &DeployId, error: &str) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute(
                &format!(
                    "UPDATE deploys SET status = 'failed', error = ?3, {ENDS} \
                     WHERE id = ?2 AND {NOT_ENDED}"
                ),
                params![unix_millis(), id.as_str(), error],
            )?;
            Ok(())
        })
    }

    /// Ends the deploy of an app that waits in the queue, if there is one.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn fail_waiting(&self, app: &AppId, why: &str) -> Result<(), StoreError> {
        self.write(|tx| fail_waiting(tx, app, why))
    }

    /// Makes a deploy's release the live one, in one transaction with its
    /// process and the owner's wish to have it running; without a process it is a
    /// static site. `false`, and nothing
    /// changed, when the deploy has ended or the app is gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn go_live(
        &self,
        id: &DeployId,
        app: &AppId,
        process: Option<&Process>,
    ) -> Result<bool, StoreError> {
        self.write(|tx| {
            let changed = tx.execute(
                &format!(
                    "UPDATE deploys SET status = 'live', {ENDS} WHERE id = ?2 AND {NOT_ENDED}"
                ),
                params![unix_millis(), id.as_str()],
            )?;
            if changed == 0 {
                return Ok(false);
            }
            tx.execute(
                "UPDATE apps SET live_deploy = ?2, wanted = ?3, is_static = ?4 WHERE id = ?1",
                params![app.as_str(), id.as_str(), Wanted::Running.as_str(), process.is_none()],
            )?;
            write_process(tx, app, process)?;
            Ok(true)
        })
    }

    /// At start: every deploy that was under way ended with the server that ran
    /// it. Queued ones stay queued. Answers those that were ended.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn fail_interrupted(&self) -> Result<Vec<Deploy>, StoreError> {
        self.write(|tx| {
            let mut statement = tx.prepare(&format!("{SELECT} WHERE {BEGUN}"))?;
            let mut rows = statement.query([])?;
            let mut interrupted = Vec::new();
            while let Some(row) = rows.next()? {
                interrupted.push(read_deploy(row)?);
            }
            tx.execute(
                &format!(
                    "UPDATE deploys SET status = 'failed', {ENDS}, error = \
                     'the server stopped while this deploy was ' || status || '; deploy again' \
                     WHERE {BEGUN}"
                ),
                [unix_millis()],
            )?;
            Ok(interrupted)
        })
    }

    /// The releases of an app that are no longer needed: all but the live one, those that
    /// deploys under way use, and the `keep` others that were live last.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn old_releases(&self, app: &AppId, keep: u32) -> Result<Vec<DeployId>, StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(&format!(
            "SELECT id FROM deploys WHERE app_id = ?1 AND {ENDED} \
             AND id NOT IN (SELECT COALESCE(release, id) FROM deploys WHERE app_id = ?1 \
                            AND ({NOT_ENDED} \
                                 OR id IS (SELECT live_deploy FROM apps WHERE id = ?1))) \
             AND id NOT IN ({KEPT_BESIDES})"
        ))?;
        let mut rows = statement.query(params![app.as_str(), keep])?;
        let mut old = Vec::new();
        while let Some(row) = rows.next()? {
            old.push(parsed(&row.get::<_, String>(0)?, DeployId::parse)?);
        }
        Ok(old)
    }
}

/// The releases of app ?1, besides its live one, of which ?2 are kept: those that were live
/// last.
const KEPT_BESIDES: &str = "SELECT COALESCE(release, id) AS used FROM deploys \
     WHERE app_id = ?1 AND status = 'live' AND COALESCE(release, id) IS NOT \
     (SELECT COALESCE(d.release, d.id) FROM apps JOIN deploys d ON d.id = live_deploy \
      WHERE apps.id = ?1) GROUP BY used ORDER BY max(seq) DESC LIMIT ?2";

fn read_deploy(row: &Row<'_>) -> Result<Deploy, StoreError> {
    let text = |i: usize| row.get::<_, String>(i);
    Ok(Deploy {
        id: parsed(&text(0)?, DeployId::parse)?,
        app: parsed(&text(1)?, AppId::parse)?,
        status: parsed(&text(2)?, DeployStatus::parse)?,
        trigger: parsed(&text(3)?, Trigger::parse)?,
        commit: row.get(4)?,
        commit_message: row.get(5)?,
        error: row.get(6)?,
        created_at: row.get(7)?,
        started_at: row.get(8)?,
        finished_at: row.get(9)?,
        release: row
            .get::<_, Option<String>>(10)?
            .map(|id| parsed(&id, DeployId::parse))
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::with_an_app;

    #[test]
    fn the_live_release_and_five_others_are_kept_and_stay_in_the_history() {
        let (store, app, _dir) = with_an_app();
        let deploy = |live| {
            let id = store.queue_deploy(&app, Trigger::Manual).unwrap().unwrap().id;
            if live {
                assert!(store.go_live(&id, &app, None).unwrap());
            } else {
                store.fail_deploy(&id, "broken").unwrap();
            }
            id
        };
        let lived: Vec<_> = (0..8).map(|_| deploy(true)).collect();
        let failed: Vec<_> = (0..4).map(|_| deploy(false)).collect();
        let mut old = store.old_releases(&app, 5).unwrap();
        old.retain(|id| !failed.contains(id));
        assert_eq!(old, lived[..2], "the live one and five others are kept");
        assert_eq!(store.prune_history(&app, 2, 5).unwrap().len(), 2 + 2);
        let known = store.deploy_ids(&app).unwrap();
        assert!(lived[2..].iter().chain(&failed[2..]).all(|id| known.contains(id)));
        assert_eq!(known.len(), 6 + 2);
    }
}
