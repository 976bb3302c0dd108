//! Processes that were replaced and may finish their answers: remembered, so that a
//! restart of the server cuts nobody off.

use super::app::Process;
use super::columns::rows;
use super::{Store, StoreError};
use crate::model::AppId;
use rusqlite::{Transaction, params};

/// A process whose place another one has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainingProcess {
    /// The app that it serves.
    pub app: AppId,
    /// Its process id on the host.
    pub pid: u32,
    /// When it started, as in [`Process`].
    pub start_ticks: u64,
    /// Where it listens.
    pub port: u16,
}

impl Store {
    /// The processes that were replaced and not yet seen to have gone, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn draining(&self) -> Result<Vec<DrainingProcess>, StoreError> {
        let sql = "SELECT app_id, pid, start_ticks, port FROM draining ORDER BY seq";
        rows(&self.read(), sql, [], |row| {
            Ok(DrainingProcess {
                app: row.get(0)?,
                pid: row.get(1)?,
                start_ticks: row.get(2)?,
                port: row.get(3)?,
            })
        })
    }

    /// Forgets a process that was replaced and has gone; does nothing when it is not known.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn drained(&self, pid: u32, start_ticks: u64) -> Result<(), StoreError> {
        self.write(|tx| forget(tx, pid, start_ticks))
    }
}

/// Takes note that the app's process, if it runs, is replaced by this one, or by files.
pub(super) fn replaced(
    tx: &Transaction<'_>,
    app: &AppId,
    by: Option<&Process>,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT OR REPLACE INTO draining (app_id, pid, start_ticks, port) \
         SELECT app_id, pid, start_ticks, port FROM processes WHERE app_id = ?1 AND ended IS NULL",
        [app],
    )?;
    // Written a second time, or the one that takes over from its own stand-in.
    by.map_or(Ok(()), |process| forget(tx, process.pid, process.start_ticks))
}

fn forget(tx: &Transaction<'_>, pid: u32, start_ticks: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM draining WHERE pid = ?1 AND start_ticks = ?2";
    tx.execute(sql, params![pid, start_ticks])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DeployId;
    use crate::store::tests::with_an_app;

    #[test]
    fn who_is_replaced_while_it_runs_is_remembered_until_it_has_gone() {
        let (store, app, _dir) = with_an_app();
        let process = |pid: u32| Process {
            deploy: DeployId::parse("dddddddddd").unwrap(),
            pid,
            start_ticks: u64::from(pid) + 1000,
            port: 20_000,
            ended: None,
            env: None,
        };
        let known = || store.draining().unwrap().iter().map(|d| d.pid).collect::<Vec<_>>();
        for pid in [1, 1, 2, 3] {
            store.set_process(&app, Some(&process(pid))).unwrap();
        }
        assert_eq!(known(), [1, 2], "the oldest first, and not the one that runs");
        // A stand-in for the live process gives way to it again.
        store.set_process(&app, Some(&process(2))).unwrap();
        assert_eq!(known(), [1, 3]);
        store.process_ended(&app, 2, "exit code 1").unwrap();
        store.set_process(&app, Some(&process(4))).unwrap();
        assert_eq!(known(), [1, 3], "one that has ended answers nobody");
        store.set_process(&app, None).unwrap();
        assert_eq!(known(), [1, 3, 4], "files take the place of a process too");
        store.drained(3, 1003).unwrap();
        store.drained(1, 7).unwrap();
        assert_eq!(known(), [1, 4], "another with an old pid is another");
        assert!(store.delete_app(&app).unwrap());
        assert_eq!(known(), [0; 0]);
    }
}
