//! The processes of apps that have no port: remembered, so that the next server finds those that
//! run, and those that were asked to end and have not yet.

use super::columns::rows;
use super::{Store, StoreError};
use crate::model::{DeployId, ProcessId};
use rusqlite::params;

/// A process without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Which one it is.
    pub id: ProcessId,
    /// The deploy whose release it is of.
    pub deploy: DeployId,
    /// Its process id on the host.
    pub pid: u32,
    /// When it started, as in [`super::Process`].
    pub start_ticks: u64,
}

impl Store {
    /// Those that were started and not seen to have gone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn workers(&self) -> Result<Vec<Worker>, StoreError> {
        let sql = "SELECT app_id, name, number, deploy_id, pid, start_ticks FROM workers";
        rows(&self.read(), sql, [], |row| {
            let id = ProcessId { app: row.get(0)?, name: row.get(1)?, number: row.get(2)? };
            Ok(Worker { id, deploy: row.get(3)?, pid: row.get(4)?, start_ticks: row.get(5)? })
        })
    }

    /// Notes one that runs.
    ///
    /// # Errors
    /// When it could not be written, or its app was removed.
    pub fn set_worker(&self, worker: &Worker) -> Result<(), StoreError> {
        let Worker { id: ProcessId { app, name, number }, deploy, pid, start_ticks } = worker;
        let sql = "INSERT OR REPLACE INTO workers (app_id, name, number, deploy_id, pid, \
                   start_ticks) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.change(sql, params![app, name, number, deploy, pid, start_ticks]).map(drop)
    }

    /// Forgets one that has gone; does nothing when another has taken its place.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn worker_gone(&self, id: &ProcessId, pid: u32) -> Result<(), StoreError> {
        let ProcessId { app, name, number } = id;
        let sql =
            "DELETE FROM workers WHERE app_id = ?1 AND name = ?2 AND number = ?3 AND pid = ?4";
        self.change(sql, params![app, name, number, pid]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AppStatus, ProcessName, Wanted};
    use crate::store::tests::with_an_app;

    #[test]
    fn workers_are_remembered_until_they_have_gone_and_are_an_app_of_their_own() {
        let (store, app, _dir) = with_an_app();
        let worker = |number: u32, pid: u32| Worker {
            id: ProcessId { app: app.clone(), name: ProcessName::parse("worker").unwrap(), number },
            deploy: DeployId::parse("dddddddddd").unwrap(),
            pid,
            start_ticks: 7,
        };
        let deploy = store.queue_deploy(&app, crate::model::Trigger::Manual, None).unwrap();
        assert!(store.go_live(&deploy.unwrap().id, &app, None, false).unwrap());
        let status = || store.app(&app).unwrap().unwrap().status;
        assert_eq!(status(), AppStatus::Running, "none of them need run");
        for one in [worker(1, 10), worker(2, 20), worker(1, 11)] {
            store.set_worker(&one).unwrap();
        }
        store.worker_gone(&worker(1, 10).id, 10).unwrap();
        assert_eq!(store.workers().unwrap(), [worker(1, 11), worker(2, 20)]);
        store.set_wanted(&app, Wanted::Stopped).unwrap();
        store.worker_gone(&worker(1, 11).id, 11).unwrap();
        assert_eq!(status(), AppStatus::Stopping, "one is still there");
        store.worker_gone(&worker(2, 20).id, 20).unwrap();
        assert_eq!(status(), AppStatus::Stopped);
        store.set_worker(&worker(1, 12)).unwrap();
        assert!(store.delete_app(&app).unwrap());
        assert_eq!(store.workers().unwrap(), []);
        assert!(store.set_worker(&worker(1, 13)).is_err(), "of no app");
    }
}
