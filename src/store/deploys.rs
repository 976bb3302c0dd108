//! Deploys: the queue, the step each has reached, the history.

use super::app::Process;
use super::apps::write_process;
use super::columns::{exists, first, rows};
use super::deploy_row::{Deploy, SELECT, read_deploy};
use super::{Store, StoreError, random_id};
use crate::model::{AppId, DeployId, DeployStatus, Trigger, Wanted, unix_millis};
use rusqlite::{Connection, Row, Transaction, params};

/// It became live or failed.
const ENDED: &str = "status IN ('live', 'failed')";

/// It waits or is under way; word for word as in the index of those.
const NOT_ENDED: &str = "status NOT IN ('live', 'failed')";

/// It is under way.
const BEGUN: &str = "status NOT IN ('live', 'failed', 'queued')";

/// Now, which is ?1; by a clock that was set back, no earlier than anything of it before.
const NOW: &str = "max(?1, created_at, COALESCE(started_at, 0), COALESCE(fetching_at, 0), \
     COALESCE(building_at, 0), COALESCE(starting_at, 0), COALESCE(checking_at, 0))";

/// The first column of a row, which names a deploy.
fn read_id(row: &Row<'_>) -> Result<DeployId, StoreError> {
    Ok(row.get(0)?)
}

/// Ends those deploys that `which`, a condition about `key` as ?2, finds and that have not
/// ended. Answers which these are.
fn fail(
    tx: &Transaction<'_>,
    which: &str,
    key: &str,
    why: &str,
) -> Result<Vec<DeployId>, StoreError> {
    let sql = format!(
        "UPDATE deploys SET status = 'failed', error = ?3, finished_at = {NOW} \
         WHERE {which} AND {NOT_ENDED} RETURNING id"
    );
    rows(tx, &sql, params![unix_millis(), key, why], read_id)
}

/// Queues a deploy in place of one that waits, one of the release of another when that is
/// given; `None` when the app does not exist.
pub(super) fn insert_queued(
    tx: &Transaction<'_>,
    id: &DeployId,
    app: &AppId,
    trigger: Trigger,
    release_of: Option<&DeployId>,
) -> Result<Option<Deploy>, StoreError> {
    let waits = "app_id = ?2 AND status = 'queued'";
    fail(tx, waits, app.as_str(), "replaced by a newer request before it began")?;
    tx.execute(
        "INSERT INTO deploys (id, app_id, status, trigger, created_at) \
         SELECT ?1, id, 'queued', ?3, ?4 FROM apps WHERE id = ?2",
        params![id, app, trigger, unix_millis()],
    )?;
    if let Some(other) = release_of {
        use_release_of(tx, id, other)?;
    }
    one(tx, id)
}

fn one(connection: &Connection, id: &DeployId) -> Result<Option<Deploy>, StoreError> {
    first(connection, &format!("{SELECT} WHERE id = ?1"), [id], read_deploy)
}

/// Gives a deploy the release of another, and its commit.
fn use_release_of(
    tx: &Transaction<'_>,
    deploy: &DeployId,
    other: &DeployId,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE deploys SET (release, commit_hash, commit_message, commit_author) = \
         (SELECT COALESCE(release, id), commit_hash, commit_message, commit_author \
          FROM deploys WHERE id = ?2) WHERE id = ?1",
        [deploy, other],
    )?;
    Ok(())
}

fn live_deploy(tx: &Transaction<'_>, app: &AppId) -> Result<Option<DeployId>, StoreError> {
    let sql = "SELECT live_deploy FROM apps WHERE id = ?1";
    Ok(first(tx, sql, [app], |row| Ok(row.get(0)?))?.flatten())
}

impl Store {
    /// Puts a deploy into the queue, one of the release of another when that is given; one of
    /// the same app that still waits there is replaced. `None` when the app does not exist.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn queue_deploy(
        &self,
        app: &AppId,
        trigger: Trigger,
        release_of: Option<&DeployId>,
    ) -> Result<Option<Deploy>, StoreError> {
        let id = DeployId::from_random(random_id()?);
        self.write(|tx| insert_queued(tx, &id, app, trigger, release_of))
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
            let Some(live) = live_deploy(tx, app)? else { return Ok(false) };
            let waits = "SELECT 1 FROM deploys WHERE app_id = ?1 AND status = 'queued'";
            if !exists(tx, waits, [app])? {
                insert_queued(tx, &id, app, Trigger::Restart, Some(&live))?;
            }
            Ok(true)
        })
    }

    /// Has a restart use the release that is live by now: the deploy that it waited for may
    /// have made another.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn follow_live(&self, restart: &DeployId) -> Result<(), StoreError> {
        let Some(Deploy { app, .. }) = self.deploy(restart)? else { return Ok(()) };
        self.write(|tx| match live_deploy(tx, &app)? {
            Some(live) => use_release_of(tx, restart, &live),
            None => Ok(()),
        })
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
            let sql = format!(
                "DELETE FROM deploys WHERE app_id = ?1 AND {ENDED} \
                 AND id IS NOT (SELECT live_deploy FROM apps WHERE id = ?1) \
                 AND id NOT IN (SELECT release FROM deploys WHERE app_id = ?1 AND release NOT NULL) \
                 AND id NOT IN ({KEPT_BESIDES}) AND seq <= \
                 (SELECT seq FROM deploys WHERE app_id = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?3) \
                 RETURNING id"
            );
            rows(tx, &sql, params![app, releases, keep], read_id)
        })
    }

    /// The deploys in the queue, the oldest first, at most one of each app.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn queued(&self) -> Result<Vec<Deploy>, StoreError> {
        let sql = format!("{SELECT} WHERE status = 'queued' ORDER BY seq");
        rows(&self.read(), &sql, [], read_deploy)
    }

    /// One deploy, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn deploy(&self, id: &DeployId) -> Result<Option<Deploy>, StoreError> {
        one(&self.read(), id)
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
        rows(&self.read(), &sql, params![app, before, limit], read_deploy)
    }

    /// The identifiers of all of an app's deploys, for the removal of their logs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn deploy_ids(&self, app: &AppId) -> Result<Vec<DeployId>, StoreError> {
        rows(&self.read(), "SELECT id FROM deploys WHERE app_id = ?1", [app], read_id)
    }

    /// Notes the step that a deploy has reached, one of those that take time; the first one starts its
    /// clock.
    /// `false` when the deploy has ended or is gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_step(&self, id: &DeployId, step: DeployStatus) -> Result<bool, StoreError> {
        let sql = format!(
            "UPDATE deploys SET status = ?3, {step}_at = {NOW}, \
             started_at = COALESCE(started_at, {NOW}) WHERE id = ?2 AND {NOT_ENDED}",
            step = step.as_str()
        );
        self.change(&sql, params![unix_millis(), id, step])
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
        let sql = "UPDATE deploys SET commit_hash = ?2, commit_message = ?3, commit_author = ?4 \
                   WHERE id = ?1";
        self.change(sql, params![id, hash, message, author]).map(drop)
    }

    /// Ends a deploy with the reason why it failed; `false` when it has ended already or is
    /// gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn fail_deploy(&self, id: &DeployId, error: &str) -> Result<bool, StoreError> {
        self.write(|tx| Ok(!fail(tx, "id = ?2", id.as_str(), error)?.is_empty()))
    }

    /// Ends the deploys of an app that wait or are under way, and answers which these are.
    /// Who works on one learns it at its next step, or from the caller.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn fail_deploys(&self, app: &AppId, why: &str) -> Result<Vec<DeployId>, StoreError> {
        self.write(|tx| fail(tx, "app_id = ?2", app.as_str(), why))
    }

    /// Makes a deploy's release the live one, in one transaction with its
    /// process and the owner's wish to have it running; without a process it is files, or
    /// workers alone. `false`, and nothing
    /// changed, when the deploy has ended or the app is gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn go_live(
        &self,
        id: &DeployId,
        app: &AppId,
        process: Option<&Process>,
        is_static: bool,
    ) -> Result<bool, StoreError> {
        self.write(|tx| {
            let changed = tx.execute(
                &format!(
                    "UPDATE deploys SET status = 'live', finished_at = {NOW} WHERE id = ?2 AND {NOT_ENDED}"
                ),
                params![unix_millis(), id],
            )?;
            if changed == 0 {
                return Ok(false);
            }
            tx.execute(
                "UPDATE apps SET live_deploy = ?2, wanted = ?3, is_static = ?4 WHERE id = ?1",
                params![app, id, Wanted::Running, is_static],
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
            let interrupted = rows(tx, &format!("{SELECT} WHERE {BEGUN}"), [], read_deploy)?;
            for Deploy { id, status, .. } in &interrupted {
                let status = status.as_str();
                let why =
                    format!("the server stopped while this deploy was {status}; deploy again");
                fail(tx, "id = ?2", id.as_str(), &why)?;
            }
            Ok(interrupted)
        })
    }

    /// The releases of an app that are no longer needed: all but the live one, those that
    /// deploys under way use, and the `keep` others that were live last.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn old_releases(&self, app: &AppId, keep: u32) -> Result<Vec<DeployId>, StoreError> {
        let sql = format!(
            "SELECT id FROM deploys WHERE app_id = ?1 AND {ENDED} \
             AND id NOT IN (SELECT COALESCE(release, id) FROM deploys WHERE app_id = ?1 \
                            AND ({NOT_ENDED} \
                                 OR id IS (SELECT live_deploy FROM apps WHERE id = ?1))) \
             AND id NOT IN ({KEPT_BESIDES})"
        );
        rows(&self.read(), &sql, params![app, keep], read_id)
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
