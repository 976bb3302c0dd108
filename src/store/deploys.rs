//! Deploys: the queue, the step each has reached, the history.

use super::app::Process;
use super::apps::write_process;
use super::deploy_row::{Deploy, SELECT, read_deploy};
use super::{Store, StoreError, parsed, random_id};
use crate::model::{AppId, DeployId, DeployStatus, Trigger, Wanted, unix_millis};
use rusqlite::{OptionalExtension, Transaction, params};

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

/// It became live or failed.
const ENDED: &str = "status IN ('live', 'failed')";

/// It waits or is under way; word for word as in the index of those.
const NOT_ENDED: &str = "status NOT IN ('live', 'failed')";

/// It is under way.
const BEGUN: &str = "status NOT IN ('live', 'failed', 'queued')";

/// Now, which is ?1; by a clock that was set back, no earlier than anything of it before.
const NOW: &str = "max(?1, created_at, COALESCE(started_at, 0), COALESCE(fetching_at, 0), \
     COALESCE(building_at, 0), COALESCE(starting_at, 0), COALESCE(checking_at, 0))";

/// Ends the deploy of an app that waits in the queue.
fn fail_waiting(tx: &Transaction<'_>, app: &AppId, why: &str) -> Result<(), StoreError> {
    tx.execute(
        &format!(
            "UPDATE deploys SET status = 'failed', error = ?3, finished_at = {NOW} \
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

/// Gives a restart the release of what is live, and its commit.
fn follow_live(tx: &Transaction<'_>, restart: &DeployId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE deploys SET (release, commit_hash, commit_message, commit_author) = \
         (SELECT COALESCE(d.release, d.id), d.commit_hash, d.commit_message, d.commit_author \
          FROM apps JOIN deploys d ON d.id = live_deploy WHERE apps.id = deploys.app_id) \
         WHERE id = ?1",
        [restart.as_str()],
    )?;
    Ok(())
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

    /// Puts a restart into the queue: a deploy of the release that is live. One that waits
    /// there already does the same and more, and stays. `false` when the app has no live
    /// release.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn queue_restart(&self, app: &AppId) -> Result<bool, StoreError> {
        let id = DeployId::from_random(random_id()?);
        self.write(|tx| {
            let live = "SELECT live_deploy IS NOT NULL FROM apps WHERE id = ?1";
            if !tx.query_row(live, [app.as_str()], |row| row.get(0)).optional()?.unwrap_or(false) {
                return Ok(false);
            }
            let waits =
                "SELECT EXISTS (SELECT 1 FROM deploys WHERE app_id = ?1 AND status = 'queued')";
            if tx.query_row(waits, [app.as_str()], |row| row.get(0))? {
                return Ok(true);
            }
            insert_queued(tx, &id, app, Trigger::Restart)?;
            follow_live(tx, &id)?;
            Ok(true)
        })
    }

    /// Has a restart use the release that is live by now: the deploy that it waited for may
    /// have made another.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn follow_live(&self, restart: &DeployId) -> Result<(), StoreError> {
        self.write(|tx| follow_live(tx, restart))
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
                    "UPDATE deploys SET release = ?2, commit_hash = ?3, commit_message = ?4, \
                     commit_author = ?5 WHERE id = ?1",
                    params![id.as_str(), release, to.commit, to.commit_message, to.commit_author],
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

    /// Notes the step that a deploy has reached, one of those that take time; the first one starts its
    /// clock.
    /// `false` when the deploy has ended or is gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_step(&self, id: &DeployId, step: DeployStatus) -> Result<bool, StoreError> {
        self.write(|tx| {
            let changed = tx.execute(
                &format!(
                    "UPDATE deploys SET status = ?3, {step}_at = {NOW}, \
                     started_at = COALESCE(started_at, {NOW}) WHERE id = ?2 AND {NOT_ENDED}",
                    step = step.as_str()
                ),
                params![unix_millis(), id.as_str(), step.as_str()],
            )?;
            Ok(changed == 1)
        })
    }

    /// Notes which commit a deploy builds.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_commit(
        &self,
        id: &DeployId,
        hash: &str,
        message: &str,
        author: &str,
    ) -> Result<(), StoreError> {
        self.write(|tx| {
            let sql = "UPDATE deploys SET commit_hash = ?2, commit_message = ?3, \
                       commit_author = ?4 WHERE id = ?1";
            tx.execute(sql, [id.as_str(), hash, message, author])?;
            Ok(())
        })
    }

    /// Ends a deploy with the reason why it failed; `false` when it has ended already or is
    /// gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn fail_deploy(&self, id: &DeployId, error: &str) -> Result<bool, StoreError> {
        self.write(|tx| {
            let changed = tx.execute(
                &format!(
                    "UPDATE deploys SET status = 'failed', error = ?3, finished_at = {NOW} \
                     WHERE id = ?2 AND {NOT_ENDED}"
                ),
                params![unix_millis(), id.as_str(), error],
            )?;
            Ok(changed == 1)
        })
    }

    /// Ends the deploys of an app that wait or are under way, and answers which these are.
    /// Who works on one learns it at its next step, or from the caller.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn fail_deploys(&self, app: &AppId, why: &str) -> Result<Vec<DeployId>, StoreError> {
        self.write(|tx| {
            let mut statement = tx.prepare(&format!(
                "UPDATE deploys SET status = 'failed', error = ?3, finished_at = {NOW} \
                 WHERE app_id = ?2 AND {NOT_ENDED} RETURNING id"
            ))?;
            let mut rows = statement.query(params![unix_millis(), app.as_str(), why])?;
            let mut ended = Vec::new();
            while let Some(row) = rows.next()? {
                ended.push(parsed(&row.get::<_, String>(0)?, DeployId::parse)?);
            }
            Ok(ended)
        })
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
                    "UPDATE deploys SET status = 'live', finished_at = {NOW} WHERE id = ?2 AND {NOT_ENDED}"
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
                    "UPDATE deploys SET status = 'failed', finished_at = {NOW}, error = \
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

#[cfg(test)]
mod tests;
