//! Who keeps backups: files in `data/backups`, made at their time and when asked. Each is read
//! again from its first byte to its last, its database is opened with the key, and the owner's
//! command gets it; then the oldest go. What is known of one lies beside it.

use super::archive::{DATABASE, read};
use super::create::{FindHost, Source, Work};
use crate::data_dir::{DataDir, gone_is_fine, is_abandoned, replace, replace_filled};
use crate::model::{AnyError, Backups, UnixMillis, Utc, failed, unix_millis};
use crate::proc::{Cancel, Exec, wait_any};
use crate::store::{Store, StoreError};
use crate::sync::{EventFd, lock};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::iter;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How long after the start the very first one comes, and after one that failed the next try.
const LATER: Duration = Duration::from_secs(1800);

/// How often it is looked whether it is time: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_secs(300);

/// How long the owner's command may take.
const COMMAND: Duration = Duration::from_secs(12 * 3600);

/// Characters of what it says when it fails.
const MOST_SAID: usize = 500;

/// What is known of a backup.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Note {
    /// Its bytes, and when it was made. When they change, somebody else has written to it.
    size: u64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When all of it was read last.
    checked_at: Option<UnixMillis>,
    /// What was wrong with it.
    pub error: Option<String>,
    /// What is not in it.
    left_out: Vec<String>,
    /// Why `BACKUP_COMMAND` failed, if it did.
    pub command_error: Option<String>,
}

/// A backup that is kept.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// The name of its file.
    pub name: String,
    /// Where that is.
    #[serde(skip)]
    pub path: PathBuf,
    /// Whether it is still to be proved and taken elsewhere.
    #[serde(skip)]
    is_new: bool,
    /// What is known of it.
    #[serde(flatten)]
    pub note: Note,
}

impl Kept {
    fn read(entry: &fs::DirEntry) -> Option<Self> {
        let name = entry.file_name().into_string().ok().filter(|name| name.ends_with(".tgz"))?;
        let (path, about) = (entry.path(), entry.metadata().ok().filter(fs::Metadata::is_file)?);
        let made = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_millis();
        let (size, created_at) = (about.len(), made.try_into().ok()?);
        let known = fs::read(path.with_extension("json")).ok();
        let known = known.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        let is_new = known.as_ref().is_some_and(|note| note.checked_at.is_none());
        let mut note = known.unwrap_or(Note { size, created_at, ..Note::default() });
        if (note.size, note.created_at) != (size, created_at) && note.error.is_none() {
            note.error = Some("it was changed after it was made".to_owned());
        }
        Some(Self { name, path, is_new, note })
    }

    fn write_note(&self) -> io::Result<()> {
        replace(&self.path.with_extension("json"), &serde_json::to_vec(&self.note)?)
    }

    /// Removes it.
    ///
    /// # Errors
    /// When it could not be removed.
    pub fn remove(&self) -> io::Result<()> {
        let _ = fs::remove_file(self.path.with_extension("json"));
        fs::remove_file(&self.path)
    }
}

/// Whether an error says nothing about the backup that was read: a disk is full, or a program
/// could not be started.
fn is_ours(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return !matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof);
    }
    let error = error.downcast_ref::<StoreError>();
    matches!(error, Some(StoreError::Full | StoreError::Disk(_) | StoreError::ReadOnly))
}

/// All that are kept, the newest first.
#[must_use]
pub fn kept(data: &DataDir) -> Vec<Kept> {
    let entries = fs::read_dir(data.join("backups")).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.filter_map(|entry| Kept::read(&entry)).collect();
    // Two of one second have names in no order.
    all.sort_unstable_by(|a, b| (b.note.created_at, &b.name).cmp(&(a.note.created_at, &a.name)));
    all
}

/// Where a backup is to be that is made now.
///
/// # Errors
/// When there can be no place for it.
pub fn place(data: &DataDir) -> io::Result<PathBuf> {
    let now = Utc::now().rfc_3339().replace(':', "-");
    let backups = data.make_dir("backups")?;
    // None takes the place of one that was made within the same second.
    let ends = iter::once(String::new()).chain((2..).map(|n: u32| format!("-{n}")));
    let mut places = ends.map(|end| backups.join(format!("better-paas-{now}{end}.tgz")));
    places.find(|place| !place.exists()).ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

/// Makes and keeps backups.
pub struct Keeper {
    data: DataDir,
    store: Arc<Store>,
    plan: Backups,
    host: Box<FindHost>,
    wanted: EventFd,
    /// Whether one is being made, and why the last try failed.
    state: Mutex<(bool, Option<String>)>,
}

impl Keeper {
    /// Nothing is made yet.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(
        data: DataDir,
        store: Arc<Store>,
        plan: Backups,
        host: Box<FindHost>,
    ) -> io::Result<Self> {
        Ok(Self { data, store, plan, host, wanted: EventFd::new()?, state: Mutex::default() })
    }

    /// Asks for a backup now.
    pub fn ask(&self) {
        self.wanted.signal();
    }

    /// Whether one is being made or was asked for, and why the last try failed.
    #[must_use]
    pub fn state(&self) -> (bool, Option<String>) {
        let (is_busy, error) = lock(&self.state).clone();
        let is_wanted = || wait_any(&[self.wanted.as_fd()], Duration::ZERO).unwrap_or(false);
        (is_busy || is_wanted(), error)
    }

    /// All of them, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Kept> {
        kept(&self.data)
    }

    /// Makes backups until the server stops.
    pub fn run(&self, stop: &Cancel) {
        let later = if self.list().is_empty() { LATER } else { Duration::ZERO };
        let mut not_before = Instant::now() + later;
        while !stop.is_cancelled() {
            let may = Instant::now() >= not_before;
            let is_due = self.wanted.clear() || may && self.is_due();
            // The server may have been ended before it was done with the last one.
            if is_due || may && self.list().iter().any(|kept| kept.is_new) {
                lock(&self.state).0 = true;
                let error = self.keep(is_due, stop).err().map(|error| error.to_string());
                if let Some(error) = error.as_ref().filter(|_| !stop.is_cancelled()) {
                    log::error!("there is no new backup: {error}");
                }
                *lock(&self.state) = (false, error);
                not_before = Instant::now() + LATER;
            }
            let _ = wait_any(&[self.wanted.as_fd(), stop.as_fd()], LOOK);
        }
    }

    fn is_due(&self) -> bool {
        let interval = i64::from(self.plan.interval_hours) * 3_600_000;
        let now = unix_millis();
        let made = self.list().into_iter().map(|kept| kept.note.created_at);
        // A clock that was set back makes none wait until it is again what it was.
        let newest = made.filter(|made| *made <= now).max();
        interval > 0 && newest.is_none_or(|newest| now >= newest + interval)
    }

    /// Makes a backup if it `is_due`, reads all of them, and is done with those that are new.
    fn keep(&self, is_due: bool, stop: &Cancel) -> Result<(), AnyError> {
        let work = Work::new(&self.data)?;
        if is_due {
            self.make(&work, stop)?;
        }
        let (mut all, mut trouble) = (self.list(), None);
        for kept in &mut all {
            match self.drill(kept, &work, stop) {
                Err(error) if stop.is_cancelled() => return Err(error),
                Err(error) if is_ours(&*error) => {
                    let what = format!("the backup {} could not be read again now", kept.name);
                    trouble = Some(failed(what)(error));
                    continue;
                }
                Err(error) => {
                    log::error!("the backup {} is damaged: {error}", kept.name);
                    kept.note.error = Some(error.to_string());
                }
                Ok(()) => kept.note.error = None,
            }
            kept.note.checked_at = Some(unix_millis());
            if !kept.is_new {
                kept.write_note()?;
            }
        }
        // Others may make one while the owner's command takes its time.
        drop(work);
        let is_proved = |kept: &&mut Kept| kept.is_new && kept.note.checked_at.is_some();
        for kept in all.iter_mut().filter(is_proved) {
            if kept.note.error.is_none() {
                kept.note.command_error = self.hand_over(kept, stop).err();
            }
            if stop.is_cancelled() {
                return Err("the server stops".into());
            }
            kept.write_note()?;
        }
        // None goes before a better one is there, and never that one.
        let is_good = |kept: &Kept| kept.note.checked_at.is_some() && kept.note.error.is_none();
        if all.iter().all(|kept| !kept.is_new || is_good(kept)) {
            let rest = all.iter().skip(usize::from(self.plan.keep));
            rest.filter(|kept| !kept.is_new).try_for_each(Kept::remove)?;
        }
        trouble.map_or(Ok(()), Err)
    }

    fn make(&self, work: &Work, stop: &Cancel) -> Result<(), AnyError> {
        let path = place(&self.data)?;
        let mut left = fs::read_dir(self.data.join("backups"))?.flatten().filter(is_abandoned);
        left.try_for_each(|left| fs::remove_file(left.path()))?;
        let source = Source { data: &self.data, host: Some(&*self.host), tell: &|_| () };
        let mut left_out = Vec::new();
        replace_filled(&path, 0o600, |file| {
            let written = source.write(file.try_clone()?.into(), work, stop);
            left_out = written.map_err(io::Error::other)?;
            Ok(())
        })?;
        left_out.iter().for_each(|line| log::warn!("not in the backup: {line}"));
        let made = self.list().into_iter().find(|kept| kept.path == path);
        let mut made = made.ok_or("it is not there any more")?;
        made.note.left_out = left_out;
        Ok(made.write_note()?)
    }

    /// Reads all of a backup, and opens the database of a new one as its restore would: an older
    /// one may have an older key.
    fn drill(&self, kept: &Kept, work: &Work, stop: &Cancel) -> Result<(), AnyError> {
        let copy = work.path.join(DATABASE);
        gone_is_fine(fs::remove_file(&copy))?;
        read(File::open(&kept.path)?.into(), stop, &mut |member, content| {
            if kept.is_new && member.path.as_os_str() == DATABASE {
                io::copy(content, &mut File::create_new(&copy)?)?;
            }
            Ok(())
        })?;
        if kept.is_new { Ok(self.store.prove_copy(&copy)?) } else { Ok(()) }
    }

    /// Has the owner's command take a backup elsewhere.
    fn hand_over(&self, kept: &Kept, stop: &Cancel) -> Result<(), String> {
        let Some((program, words)) = self.plan.command.split_first() else { return Ok(()) };
        let exec = Exec::new(program).args(words).arg(&kept.path).deadline(COMMAND);
        let why = match exec.run_until(stop) {
            Ok(output) if output.exit.is_success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: String = said.chars().take(MOST_SAID).collect();
                format!("{} ({})", said.trim().replace('\n', " "), output.exit)
            }
            Err(error) => error.to_string(),
        };
        log::error!(
            "the backup {} is on this machine alone: BACKUP_COMMAND failed: {why}",
            kept.name
        );
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_takes_the_place_of_no_other_one_of_the_same_second() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        let mut places = std::collections::HashSet::new();
        for _ in 0..9 {
            let place = place(&data).unwrap();
            File::create_new(&place).unwrap();
            assert!(places.insert(place));
        }
    }

    #[test]
    fn only_what_was_read_makes_a_backup_damaged() {
        let of = |kind| AnyError::from(io::Error::from(kind));
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::NotFound] {
            assert!(is_ours(&*of(kind)), "{kind}");
        }
        assert!(is_ours(&*AnyError::from(StoreError::Full)));
        assert!(is_ours(&Exec::new("/no/such/program").run().unwrap_err()));
        assert!(is_ours(&io::Error::from_raw_os_error(24)), "no descriptor");
        assert!(!is_ours(&*of(io::ErrorKind::UnexpectedEof)));
        assert!(!is_ours(&*AnyError::from("it was altered")));
        assert!(!is_ours(&*AnyError::from(StoreError::Corrupt)));
    }
}
