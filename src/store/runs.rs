//! Runs: commands that ran once in an app's place, the owner's or a job's.

use super::columns::{first, rows};
use super::{Store, StoreError, random_id};
use crate::model::{AppId, RunId, UnixMillis, unix_millis};
use rusqlite::{Row, params};
use serde::Serialize;

/// One run; as JSON it is what the API shows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its identifier.
    pub id: RunId,
    /// The app in whose place it ran.
    #[serde(rename = "appId")]
    pub app: AppId,
    /// The job that it belongs to; the owner's own belong to none.
    pub job: Option<String>,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// How it ended, such as `exit code 0`.
    pub result: Option<String>,
}

const SELECT: &str = "SELECT id, app_id, job, started_at, finished_at, result FROM runs";

fn read_run(row: &Row<'_>) -> Result<Run, StoreError> {
    Ok(Run {
        id: row.get(0)?,
        app: row.get(1)?,
        job: row.get(2)?,
        started_at: row.get(3)?,
        finished_at: row.get(4)?,
        result: row.get(5)?,
    })
}

impl Store {
    /// Notes that a run begins; `None` when there is no such app.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn begin_run(&self, app: &AppId, job: Option<&str>) -> Result<Option<RunId>, StoreError> {
        let id = RunId::from_random(random_id()?);
        let sql = "INSERT INTO runs (id, app_id, job, started_at) \
                   SELECT ?1, id, ?3, ?4 FROM apps WHERE id = ?2";
        Ok(self.change(sql, params![id, app, job, unix_millis()])?.then_some(id))
    }

    /// Notes how a run, or all of them, has ended, unless that is noted already; answers which.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn end_runs(&self, id: Option<&RunId>, result: &str) -> Result<Vec<Run>, StoreError> {
        let sql = "UPDATE runs SET finished_at = max(?2, started_at), result = ?3 \
                   WHERE (?1 IS NULL OR id = ?1) AND finished_at IS NULL \
                   RETURNING id, app_id, job, started_at, finished_at, result";
        self.write(|tx| rows(tx, sql, params![id, unix_millis(), result], read_run))
    }

    /// One run, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn run(&self, id: &RunId) -> Result<Option<Run>, StoreError> {
        first(&self.read(), &format!("{SELECT} WHERE id = ?1"), [id], read_run)
    }

    /// An app's runs, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn runs(&self, app: &AppId) -> Result<Vec<Run>, StoreError> {
        let sql = format!("{SELECT} WHERE app_id = ?1 ORDER BY seq DESC");
        rows(&self.read(), &sql, [app], read_run)
    }

    /// Forgets an app's runs beyond the newest of each job, and of the owner's own, and of all
    /// these beyond so many, and answers which, so that their logs can go with them. The last
    /// one of each job is the last to go, and those under way stay.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn prune_runs(
        &self,
        app: &AppId,
        of_each: u32,
        in_all: u32,
    ) -> Result<Vec<RunId>, StoreError> {
        let sql = "WITH placed AS (SELECT seq, row_number() OVER \
                     (PARTITION BY job ORDER BY seq DESC) AS place FROM runs WHERE app_id = ?1) \
                   DELETE FROM runs WHERE app_id = ?1 AND finished_at IS NOT NULL \
                   AND seq NOT IN (SELECT seq FROM placed WHERE place <= ?2 \
                                   ORDER BY place > 1, seq DESC LIMIT ?3) RETURNING id";
        self.write(|tx| rows(tx, sql, params![app, of_each, in_all], |row| Ok(row.get(0)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::with_an_app;

    #[test]
    fn a_run_ends_once_and_the_newest_of_each_job_are_kept() {
        let (store, app, _dir) = with_an_app();
        let begin = |job| store.begin_run(&app, job).unwrap().unwrap();
        let [one, two, other] = [begin(Some("a")), begin(Some("a")), begin(None)];
        let result = |id| store.run(id).unwrap().unwrap().result;
        assert_eq!(result(&one), None);
        store.end_runs(Some(&one), "exit code 0").unwrap();
        store.end_runs(None, "lost").unwrap();
        store.end_runs(Some(&one), "again").unwrap();
        assert_eq!(result(&one).as_deref(), Some("exit code 0"));
        assert_eq!(result(&two).as_deref(), Some("lost"));
        assert_eq!(store.prune_runs(&app, 1, 100).unwrap(), [one]);
        let going_on = begin(None);
        store.end_runs(Some(&begin(None)), "x").unwrap();
        assert_eq!(store.prune_runs(&app, 0, 100).unwrap().len(), 3, "one is under way");
        let left = || store.runs(&app).unwrap().into_iter().map(|run| run.id).collect::<Vec<_>>();
        assert_eq!(left(), std::slice::from_ref(&going_on));
        assert!([two, other].iter().all(|id| store.run(id).unwrap().is_none()));
        // A job whose name changes does not leave runs for ever, nor do the frequent push the
        // last one of the rare out.
        let ended = |job| {
            let id = begin(job);
            store.end_runs(Some(&id), "x").unwrap();
            id
        };
        let [_, rare] = ["old", "rare"].map(|job| ended(Some(job)));
        let [_, often, newest] = [Some("often"); 3].map(ended);
        assert_eq!(store.prune_runs(&app, 20, 2).unwrap().len(), 3);
        assert_eq!(left(), [&newest, &rare, &going_on].map(Clone::clone));
        assert!(store.run(&often).unwrap().is_none());
        let nobody = AppId::parse("bbbbbbbbbb").unwrap();
        assert_eq!(store.begin_run(&nobody, None).unwrap(), None);
        assert!(store.delete_app(&app).unwrap());
        assert!(store.run(&rare).unwrap().is_none());
    }
}
