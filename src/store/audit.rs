//! The audit log: each act that changed something, chained to the one before by its hash (P31).
//!
//! Who can write to the database can write the whole chain anew. What he cannot change is its
//! head where that is kept elsewhere: in the server's log, in backups.

use super::app::App;
use super::columns::{exists, first, rows};
use super::{Store, StoreError};
use crate::model::{AppId, AppName, UnixMillis, unix_millis};
use data_encoding::HEXLOWER;
use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// How long a row is kept at least: longer than the year after which most are asked for.
const KEPT: UnixMillis = 400 * 24 * 60 * 60 * 1000;
/// Rows that there are at most after a day's pruning, about 60 MB of them: those of two weeks of
/// an attack that does not stop, and of many years without one.
const MOST: u32 = 200_000;
/// Rows that no age removes: a clock that jumps ahead must not empty the log.
const LEAST: u32 = 1_000;

/// The act of a row that stands for all before it.
const ANCHOR: &str = "{}";

/// One act. It holds no secret.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Act {
    /// When it was done.
    pub done_at: UnixMillis,
    /// `admin`, `shell`, `webhook` or `system`.
    pub who: &'static str,
    /// The address that it came from over the network.
    pub client: Option<String>,
    /// What was done.
    pub act: String,
    /// The app that it was done to.
    pub app_id: Option<AppId>,
    /// What that was called at the time.
    pub app_name: Option<AppName>,
    /// `ok`, or the code of what went wrong.
    pub outcome: String,
}

impl Act {
    /// An act of this moment that went well, until told otherwise.
    #[must_use]
    pub fn new(who: &'static str, act: impl Into<String>) -> Self {
        let (act, outcome) = (act.into(), "ok".to_owned());
        Self { done_at: unix_millis(), who, act, outcome, ..Self::default() }
    }

    /// The same, done to an app, if there is one.
    #[must_use]
    pub fn about(mut self, app: Option<App>) -> Self {
        (self.app_id, self.app_name) = app.map(|app| (app.id, app.name)).unzip();
        self
    }
}

impl Store {
    /// Writes down what was done. An act is answered as it went also when its row cannot be
    /// written, as on a full disk: then the server's log has it.
    pub fn audit(&self, act: &Act) {
        if let Err(error) = self.append_audit(act) {
            log::error!("the audit log lacks {}: {error}", json!(act));
        }
    }

    /// The same for a caller who can say so.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn append_audit(&self, act: &Act) -> Result<(), StoreError> {
        self.write(|tx| append(tx, act))
    }

    /// Rows of the log as the API shows them, newest first: at most `limit`, and only those before
    /// one when that is given.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn audit_rows(&self, before: Option<i64>, limit: u32) -> Result<Vec<Value>, StoreError> {
        let sql = "SELECT seq, act, hash FROM audit WHERE seq < ?1 AND act <> '{}' \
                   ORDER BY seq DESC LIMIT ?2";
        rows(&self.read(), sql, params![before.unwrap_or(i64::MAX), limit], |row| {
            let (id, act, hash): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // One that was changed by hand is shown as it is.
            let act: Map<_, _> = serde_json::from_str(&act)
                .unwrap_or_else(|_| Map::from_iter([("act".to_owned(), act.into())]));
            let mut row = Value::Object(act);
            (row["id"], row["hash"]) = (id.into(), hash.into());
            Ok(row)
        })
    }

    /// The hash of the newest row, which vouches for all before it; empty when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn audit_head(&self) -> Result<String, StoreError> {
        head(&self.read())
    }

    /// Whether the chain has, or had, its end at this hash: then no row up to there was removed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn audit_holds(&self, head: &str) -> Result<bool, StoreError> {
        exists(&self.read(), "SELECT 1 FROM audit WHERE hash = ?1", [head])
    }

    /// Follows the chain from its beginning: `None` when it is whole, else what is wrong with
    /// the first row that was changed, removed, inserted or moved. Nobody reads meanwhile.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn verify_audit(&self) -> Result<Option<String>, StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare("SELECT seq, act, hash FROM audit ORDER BY seq")?;
        let mut rows = statement.query([])?;
        let (mut last, mut before, mut anchor) = (0, String::new(), None);
        while let Some(row) = rows.next()? {
            let (seq, act, hash): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if last == 0 && act == ANCHOR {
                anchor = Some(hash.clone());
            } else if seq != last + 1 {
                return Ok(Some(format!("row {} is missing", last + 1)));
            } else if hash != chained(&before, &act) {
                return Ok(Some(format!(
                    "row {seq} is not the one that was written: it was changed, inserted or moved"
                )));
            }
            (last, before) = (seq, hash);
        }
        // The row that says what was pruned is in the chain.
        let named = "SELECT 1 FROM audit WHERE instr(act, ?1)";
        match anchor {
            Some(hash) if !exists(&connection, named, [&hash])? => {
                Ok(Some("row 1 is missing, and no row says that it was pruned".to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// Begins a new chain after a row that says what was `wrong` with the one before. Its rows go:
    /// the caller has a copy.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn begin_audit_anew(&self, wrong: &str) -> Result<(), StoreError> {
        self.write(|tx| {
            let last = head(tx)?;
            tx.execute("DELETE FROM audit WHERE seq < (SELECT max(seq) FROM audit)", [])?;
            tx.execute("UPDATE audit SET act = ?1", [ANCHOR])?;
            append(tx, &Act::new("shell", format!("audit --begin-anew after {last}: {wrong}")))
        })
    }

    /// Forgets the oldest rows, those beyond [`KEPT`] and [`MOST`], in a row of its own.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn prune_audit(&self) -> Result<(), StoreError> {
        self.prune_audit_to(unix_millis() - KEPT, MOST, LEAST)
    }

    fn prune_audit_to(&self, young: UnixMillis, most: u32, least: u32) -> Result<(), StoreError> {
        let sql = "WITH newest AS (SELECT max(seq) AS seq FROM audit), \
                   young AS (SELECT a.seq FROM audit a, newest WHERE a.seq > newest.seq - ?3 \
                   OR iif(json_valid(act), act ->> '$.doneAt', 0) >= ?1 ORDER BY a.seq LIMIT 1) \
                   SELECT seq, hash, act FROM audit WHERE seq < \
                   (SELECT max(young.seq, newest.seq - ?2 + 1) FROM young, newest) \
                   ORDER BY seq DESC LIMIT 1";
        self.write(|tx| {
            let oldest = first(tx, sql, params![young, most, least], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })?;
            let Some((seq, hash, _)) = oldest.filter(|(.., act)| act != ANCHOR) else {
                return Ok(());
            };
            tx.execute("DELETE FROM audit WHERE seq < ?1", [seq])?;
            tx.execute("UPDATE audit SET act = ?2 WHERE seq = ?1", params![seq, ANCHOR])?;
            append(tx, &Act::new("system", format!("forget audit rows 1 to {seq}, {hash}")))
        })
    }
}

/// Writes a row in the transaction of what it tells.
pub(super) fn append(tx: &Transaction<'_>, act: &Act) -> Result<(), StoreError> {
    let act = json!(act).to_string();
    let hash = chained(&head(tx)?, &act);
    tx.execute("INSERT INTO audit (act, hash) VALUES (?1, ?2)", [act, hash])?;
    Ok(())
}

pub(super) fn head(connection: &Connection) -> Result<String, StoreError> {
    let sql = "SELECT hash FROM audit ORDER BY seq DESC LIMIT 1";
    Ok(first(connection, sql, [], |row| Ok(row.get(0)?))?.unwrap_or_default())
}

fn chained(before: &str, act: &str) -> String {
    HEXLOWER.encode(&Sha256::new().chain_update(before).chain_update(act).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::with_an_app;

    fn filled(rows: u32) -> (Store, tempfile::TempDir) {
        let (store, _app, dir) = with_an_app();
        (1..=rows).for_each(|n| store.audit(&Act::new("admin", format!("act {n}"))));
        (store, dir)
    }

    /// What verification says after a change by hand.
    fn after(store: &Store, sql: &str) -> Option<String> {
        store.write(|tx| Ok(tx.execute_batch(sql)?)).unwrap();
        store.verify_audit().unwrap()
    }

    #[test]
    fn p31_a_changed_removed_inserted_or_moved_row_is_found_and_named() {
        let whole = filled(6).0.verify_audit().unwrap();
        assert_eq!(whole, None);
        for n in 1..=6 {
            let changed = format!("row {n} is not the one");
            for sql in [
                format!("UPDATE audit SET act = replace(act, 'admin', 'shell') WHERE seq = {n}"),
                format!("UPDATE audit SET act = '{{}} ' WHERE seq = {n}"),
                format!("UPDATE audit SET hash = upper(hash) WHERE seq = {n}"),
            ] {
                let found = after(&filled(6).0, &sql).unwrap();
                assert!(found.starts_with(&changed), "{sql}: {found}");
            }
        }
        for n in 1..=5 {
            let changed = format!("row {n} is not the one");
            let found = after(&filled(6).0, &format!("DELETE FROM audit WHERE seq = {n}"));
            assert_eq!(found, Some(format!("row {n} is missing")));
            let anchored = format!(
                "DELETE FROM audit WHERE seq < {n}; UPDATE audit SET act = '{{}}' WHERE seq = {n}"
            );
            assert!(after(&filled(6).0, &anchored).unwrap().starts_with("row 1 is missing"));
            // Two neighbours change places, with their hashes and without.
            for columns in ["act", "(act, hash)"] {
                let moved = format!(
                    "CREATE TEMP TABLE old AS SELECT * FROM audit; \
                     UPDATE audit SET {columns} = (SELECT {} FROM old \
                     WHERE old.seq = {n} + {n} + 1 - audit.seq) WHERE seq IN ({n}, {n} + 1)",
                    columns.trim_matches(['(', ')'])
                );
                let found = after(&filled(6).0, &moved).unwrap();
                assert!(found.starts_with(&changed), "{found}");
            }
            if n == 1 {
                continue;
            }
            // One more, and all behind it counted on.
            let inserted = format!(
                "UPDATE audit SET seq = -seq WHERE seq >= {n}; UPDATE audit SET seq = 1 - seq \
                 WHERE seq < 0; INSERT INTO audit SELECT {n}, act, hash FROM audit WHERE seq = 1"
            );
            let found = after(&filled(6).0, &inserted).unwrap();
            assert!(found.starts_with(&changed), "{n}: {found}");
        }
    }

    #[test]
    fn p31_newest_rows_that_were_removed_are_seen_by_a_head_that_was_kept() {
        let (store, _dir) = filled(4);
        let kept = store.audit_head().unwrap();
        store.audit(&Act::new("admin", "one more"));
        assert!(store.audit_holds(&kept).unwrap());
        assert_eq!(after(&store, "DELETE FROM audit WHERE seq > 3"), None);
        assert!(!store.audit_holds(&kept).unwrap());
        // And by the number of the next one.
        store.audit(&Act::new("admin", "after that"));
        assert_eq!(store.verify_audit().unwrap().unwrap(), "row 4 is missing");
    }

    #[test]
    fn p31_what_is_pruned_leaves_an_anchor_that_keeps_the_chain() {
        let (store, _dir) = filled(10);
        let ids = || {
            store.audit_rows(None, 99).unwrap().iter().map(|r| r["id"].clone()).collect::<Vec<_>>()
        };
        let all: Vec<_> = (1..=10).rev().collect();
        store.prune_audit().unwrap();
        assert_eq!(ids(), all, "none is old");
        let head = store.audit_head().unwrap();
        // By age, but for the newest.
        store.prune_audit_to(i64::MAX, 100, 4).unwrap();
        assert_eq!(ids(), [11, 10, 9, 8, 7]);
        assert_eq!(store.verify_audit().unwrap(), None);
        assert!(store.audit_holds(&head).unwrap());
        // By number, again and again.
        store.prune_audit_to(0, 3, 1).unwrap();
        assert_eq!(ids(), [12, 11, 10, 9]);
        assert_eq!(store.verify_audit().unwrap(), None);
        store.prune_audit_to(0, 4, 1).unwrap();
        assert_eq!(ids(), [12, 11, 10, 9], "nothing was to do");
        store.audit(&Act::new("admin", "one more"));
        let rest = "DELETE FROM audit WHERE seq = 9";
        assert_eq!(after(&store, rest).unwrap(), "row 9 is missing");
    }

    #[test]
    fn p31_a_new_chain_says_what_was_wrong_with_the_one_before() {
        for sql in ["DELETE FROM audit WHERE seq = 3", "UPDATE audit SET act = 'x' WHERE seq = 6"] {
            let (store, _dir) = filled(6);
            let wrong = after(&store, sql).unwrap();
            store.begin_audit_anew(&wrong).unwrap();
            assert_eq!(store.verify_audit().unwrap(), None, "{sql}");
            store.audit(&Act::new("admin", "one more"));
            assert_eq!(store.verify_audit().unwrap(), None, "{sql}");
            let rows = store.audit_rows(None, 99).unwrap();
            assert!(rows.len() == 2 && rows[1]["act"].as_str().unwrap().ends_with(&wrong), "{sql}");
            assert!(after(&store, "DELETE FROM audit WHERE seq = 7").is_some());
        }
    }

    #[test]
    fn a_row_that_cannot_be_written_ends_nothing() {
        let (store, _dir) = filled(1);
        let full = "PRAGMA max_page_count = 1";
        store.writer.lock().unwrap().execute_batch(full).unwrap();
        (0..999).for_each(|_| store.audit(&Act::new("admin", "x".repeat(900))));
        assert_eq!(store.verify_audit().unwrap(), None);
    }
}
