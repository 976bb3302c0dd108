//! What must survive: apps, their environment, deploys and settings, in SQLite.
//!
//! Secrets pass through the vault on their way in and out (P14); nobody else
//! names rusqlite. Two connections: one reads for the request thread, one
//! writes, so that a write's fsync keeps no reader waiting (WAL).

mod app;
mod app_row;
mod apps;
mod audit;
mod before_update;
mod columns;
mod deploy_row;
mod deploys;
mod draft;
mod draining;
mod env;
mod error;
mod foreign;
mod hooks;
mod rekey;
mod runs;
mod secrets;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;
mod workers;

pub use app::{App, EnvMark, Process};
pub use apps::MovedIn;
pub use audit::Act;
pub use before_update::{DATABASE, go_back, is_newer, keep};
pub use deploy_row::{Deploy, Step};
pub use draft::{AppDraft, AppSettings, TokenChange};
pub use draining::DrainingProcess;
pub use env::{EnvEntry, EnvInput};
pub use error::StoreError;
pub use foreign::{ForeignRow, foreign_rows};
pub use hooks::Delivered;
pub use rekey::wanted_key;
pub use runs::Run;
pub use settings::Setting;
pub use snapshot::{Snapshot, snapshot};
pub use workers::Worker;

use crate::sync::lock;
use crate::vault::{Form, Place, Vault};
use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Params, Transaction, TransactionBehavior,
};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The schema this program writes. A database with a higher number is refused.
const SCHEMA_VERSION: i64 = 7;

/// What leads from each version to the next, beginning with an empty file. What
/// stands here is never changed, only added to.
const STEPS: [&str; SCHEMA_VERSION as usize] = [
    include_str!("store/schema_1.sql"),
    include_str!("store/schema_2.sql"),
    include_str!("store/schema_3.sql"),
    include_str!("store/schema_4.sql"),
    include_str!("store/schema_5.sql"),
    include_str!("store/schema_6.sql"),
    include_str!("store/schema_7.sql"),
];

/// A known text, sealed. If it opens, the key is right (P18).
const CANARY_TEXT: &str = "better-paas";

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The database. Share it by `Arc`.
pub struct Store {
    reader: Mutex<Connection>,
    writer: Mutex<Connection>,
    /// All apps as they were at a version of the database, by the reader's count.
    known_apps: Mutex<(Option<i64>, Arc<[App]>)>,
    /// Who opens or seals a value has one of the connections; who replaces this has both.
    vault: Mutex<Arc<Vault>>,
}

impl Store {
    /// Opens the database at `path`, makes it when it is not there, brings an
    /// older schema up to date and proves the key with the canary before any write.
    ///
    /// # Errors
    /// A newer schema, damage, a wrong key (P18) or a file that cannot be
    /// written; nothing was changed then.
    pub fn open(path: &Path, vault: Vault) -> Result<Self, StoreError> {
        if path.exists() {
            judge(|| inspect(path, &vault), || read_whole(path))?;
        }
        let mut writer = connect(path)?;
        migrate(&mut writer, &vault, path)?;
        Self::of(writer, path, vault)
    }

    /// Opens a database that is there and up to date without proof of the key: for commands that
    /// have to do with the audit log, or give up what a lost key has sealed.
    ///
    /// # Errors
    /// When there is none of this version.
    pub fn open_unproved(path: &Path, vault: Vault) -> Result<Self, StoreError> {
        if !path.exists() || schema_version(&look(path)?)? != SCHEMA_VERSION {
            let text = "there is no database of this version; start the server once";
            return Err(StoreError::Sentence(text.to_owned()));
        }
        Self::of(connect(path)?, path, vault)
    }

    fn of(writer: Connection, path: &Path, vault: Vault) -> Result<Self, StoreError> {
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true)?;
        let (reader, writer) = (Mutex::new(reader), Mutex::new(writer));
        let vault = Mutex::new(Arc::new(vault));
        Ok(Self { reader, writer, known_apps: Mutex::default(), vault })
    }

    fn vault(&self) -> Arc<Vault> {
        Arc::clone(&lock(&self.vault))
    }

    fn read(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held ended one request; SQLite itself is
        // consistent, for every change is a transaction.
        lock(&self.reader)
    }

    /// Runs `work` in one transaction that is written whole or not at all.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Runs one statement in a transaction of its own; `false` when it found nothing to change.
    fn change(&self, sql: &str, params: impl Params) -> Result<bool, StoreError> {
        self.write(|tx| Ok(tx.execute(sql, params)? > 0))
    }

    /// What is written back of a value that stays: an older form is upgraded by this write
    /// (P17); what does not open stays as it is, it is not ours to lose (P18).
    fn kept(&self, place: &Place<'_>, stored: String) -> Result<String, StoreError> {
        let vault = self.vault();
        Ok(match vault.open(place, &stored) {
            Ok(opened) if opened.form != Form::V2 => vault.seal(place, opened.secret.expose())?,
            _ => stored,
        })
    }
}

/// SQLite calls a file corrupt that the disk failed to read (EIO) as well. Damaged is only
/// what it finds twice, with the whole file read in between.
fn judge(
    look: impl Fn() -> Result<(), StoreError>,
    read: impl FnOnce() -> io::Result<()>,
) -> Result<(), StoreError> {
    let damaged = |error: &StoreError| matches!(error, StoreError::Corrupt | StoreError::Unread(_));
    match look() {
        Err(error) if damaged(&error) => {
            read().map_err(StoreError::Disk)?;
            look().map_err(|error| if damaged(&error) { StoreError::Corrupt } else { error })
        }
        seen => seen,
    }
}

/// Reads the database and its write-ahead log, if there is one, to the end.
fn read_whole(path: &Path) -> io::Result<()> {
    for name in [path.as_os_str().to_owned(), log_of(path)] {
        match File::open(name) {
            Ok(mut file) => drop(io::copy(&mut file, &mut io::sink())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where SQLite keeps the write-ahead log of a database.
fn log_of(path: &Path) -> OsString {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log
}

/// A connection to an existing database that leaves it as it is.
fn look(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // What a killed server left in the write-ahead log is read, and stays there.
    let killed = Path::new(&log_of(path)).exists();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, killed)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Looks at an existing database without changing it.
fn inspect(path: &Path, vault: &Vault) -> Result<(), StoreError> {
    let connection = look(path)?;
    let version = schema_version(&connection)?;
    if version > SCHEMA_VERSION {
        return Err(StoreError::Sentence(format!(
            "the database was written by a newer version (schema {version}, this program knows \
             {SCHEMA_VERSION}); install that version again, or restore a backup made before the \
             update"
        )));
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt);
    }
    if version == 0 {
        // An empty file, or one that a crash left before its first transaction.
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let text = "the file is a database of another program; point DATA_DIR at a directory of \
                    its own";
        return if tables == 0 { Ok(()) } else { Err(StoreError::Sentence(text.to_owned())) };
    }
    // Ours has none, and what others have put in would act when we write.
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index')";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0 {
        let text = "the database has triggers or views, which no server has made; restore a backup";
        return Err(StoreError::Sentence(text.to_owned()));
    }
    let canary: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE name = 'canary'", [], |row| row.get(0))
        .optional()?;
    let canary = canary.ok_or(StoreError::Corrupt)?;
    match vault.open(&Place::CANARY, &canary) {
        Ok(opened) if opened.secret.expose() == CANARY_TEXT => Ok(()),
        _ => Err(StoreError::Sentence(format!(
            "the encryption key does not open this database: it wants key {}, the key given is \
             {}; give the right key back (nothing was changed)",
            canary.split(':').nth(2).unwrap_or("unknown"),
            vault.key_id()
        ))),
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: an acknowledged write survives a power cut as well as a kill (P27).
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Deleted values are overwritten, so that a copy holds no old secret (P20).
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Pages kept in memory, in KiB: small, for the machine has 512 MB.
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn schema_version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn migrate(connection: &mut Connection, vault: &Vault, path: &Path) -> Result<(), StoreError> {
    match schema_version(connection)? {
        SCHEMA_VERSION => return Ok(()),
        0 => {}
        // With all that the program before has written to the end.
        _ => keep(path)?,
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    // Read again: only now can nobody else be doing the same.
    let version = usize::try_from(schema_version(&transaction)?);
    let version = version.map_err(|_| StoreError::Corrupt)?;
    for step in STEPS.iter().skip(version) {
        transaction.execute_batch(step)?;
    }
    if version == 0 {
        let canary = vault.seal(&Place::CANARY, CANARY_TEXT)?;
        transaction.execute("INSERT INTO meta (name, value) VALUES ('canary', ?1)", [canary])?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Ten bytes from the operating system's generator, for identifiers.
fn random_id() -> Result<[u8; 10], StoreError> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|_| {
        StoreError::Sentence("the operating system gave no random bytes; try again".to_owned())
    })?;
    Ok(bytes)
}
