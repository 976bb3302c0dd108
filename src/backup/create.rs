//! Makes a backup: the database as it is at one moment, and then each app's `/data`.

use super::app_data::{self, COMMAND};
use super::archive::{DATABASE, HEADER, Header, LONGEST, MANIFEST, Member, Writer};
use super::archive::{beside, members, odd};
use crate::data_dir::DataDir;
use crate::disk::layout::Layout;
use crate::disk::removal::remove_tree;
use crate::disk::space::{Space, watched};
use crate::inside::PLACE;
use crate::model::{AnyError, AppId, failed, unix_millis};
use crate::proc::{Cancel, Exec};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::store::snapshot;
use rustix::fs::{FileType, fstat};
use std::fs::{self, File};
use std::io::{BufReader, pipe};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Free bytes below which nothing is copied for a backup that goes elsewhere.
const LEAST: u64 = 64 << 20;

/// Answers a host on which sandboxes can be made, or why there is none.
pub type FindHost = dyn Fn() -> Result<Arc<Host>, String> + Send + Sync;

/// What a backup is made of.
pub struct Source<'a> {
    /// Where everything is.
    pub data: &'a DataDir,
    /// Where apps run; without, no app's data is taken.
    pub host: Option<&'a FindHost>,
    /// Hears of each app when it is its turn.
    pub tell: &'a dyn Fn(&AppId),
}

impl Source<'_> {
    /// Writes a backup into an open file or pipe, and answers what was left out.
    ///
    /// # Errors
    /// When it was not wholly written, as when a disk gets too full.
    pub fn write(&self, to: OwnedFd, work: &Work, stop: &Cancel) -> Result<Vec<String>, AnyError> {
        let is_file = FileType::from_raw_mode(fstat(&to)?.st_mode) == FileType::RegularFile;
        let place = PathBuf::from(format!("/proc/self/fd/{}", to.as_raw_fd()));
        let no_room = || {
            let is_full = Space::of(self.data.path()).ok()?.has_less_than(LEAST, 0);
            let too_little = if is_file { Space::of(&place).ok()?.too_little() } else { None };
            too_little.or_else(|| is_full.then(|| "the disk is full".to_owned()))
        };
        let (written, why) =
            watched(stop, &no_room, |stop| self.fill(to.try_clone()?, &work.path, stop))?;
        match why {
            Some(why) => Err(failed("a backup would take what has to stay free")(why)),
            None => written,
        }
    }

    fn fill(&self, to: OwnedFd, work: &Path, stop: &Cancel) -> Result<Vec<String>, AnyError> {
        let copy = work.join(DATABASE);
        let about = snapshot(&self.data.join(DATABASE), &copy)?;
        let header = serde_json::to_string_pretty(&Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: unix_millis(),
            schema: about.schema,
            key_id: about.key_id,
            audit_head: about.audit_head,
        })? + "\n";
        let (place, manifest) = (copy, work.join(MANIFEST));
        let mut copy = File::open(&place)?;
        // Its room is free as soon as it is in the archive.
        fs::remove_file(place)?;
        let manifest = File::options().read(true).write(true).create_new(true).open(manifest)?;
        let (from, into) = pipe()?;
        // Fast, and behind others: apps need the machine more.
        let gzip = Exec::new("nice").args(["gzip", "--fast", "--stdout"]);
        let gzip = gzip.reading(from).writing(to).deadline(LONGEST);
        let (left_out, _) = beside(gzip, stop, move || {
            let mut archive = Writer::new(into, manifest);
            archive.add(&Member::ours(HEADER, header.len() as u64), &mut header.as_bytes())?;
            archive.add(&Member::ours(DATABASE, copy.metadata()?.len()), &mut copy)?;
            let mut left_out = Vec::new();
            for (app, slot) in about.apps.iter().filter(|_| self.host.is_some()) {
                (self.tell)(app);
                let said = match self.app((app, *slot), work, &mut archive, stop) {
                    Err(error) if stop.is_cancelled() => return Err(error),
                    // No app keeps the others from having a backup.
                    Err(error) => format!("not all of its data could be read: {error}"),
                    Ok(said) => said,
                };
                left_out.extend(said.lines().map(|line| format!("app {app}: {line}")));
            }
            archive.finish()?;
            Ok(left_out)
        })?;
        Ok(left_out)
    }

    /// Adds an app's data; what comes out of its sandbox is judged like any archive. Answers what
    /// was left out, a line each.
    fn app(
        &self,
        (app, slot): (&AppId, u16),
        work: &Path,
        archive: &mut Writer,
        stop: &Cancel,
    ) -> Result<String, AnyError> {
        let data = Layout::new(self.data.clone()).persistent(app);
        let Some(host) = self.host.filter(|_| data.is_dir()) else { return Ok(String::new()) };
        let host = host()?;
        let scratch = work.join(app.as_str());
        fs::create_dir(&scratch)?;
        host.users.give(slot, &[&scratch])?;
        let sandbox = Sandbox::new(&host, Purpose::Build, slot).bind(&data, "/data");
        let sandbox = sandbox.bind(&scratch, "/var/tmp");
        let top = format!("apps/{app}/data");
        let (from, into) = pipe()?;
        let exec = sandbox.prepare(&[PLACE, COMMAND, &top]);
        let exec = exec.deadline(app_data::LONGEST).writing(into);
        let ((), said) = beside(exec, stop, || {
            members(BufReader::new(from), &mut |member, content| {
                if !member.path.starts_with(&top) {
                    return Err(odd(&member.path, "is not this app's"));
                }
                Ok(archive.add(member, content)?)
            })
        })?;
        remove_tree(&scratch, &|| true)?;
        Ok(said)
    }
}

/// A directory for what is needed while a backup is made or looked at; one at a time.
pub struct Work {
    /// Where it is.
    pub path: PathBuf,
    _lock: File,
}

impl Work {
    /// Makes it empty: a crash may have left something.
    ///
    /// # Errors
    /// When that is not possible, or another backup is under way.
    pub fn new(data: &DataDir) -> Result<Self, AnyError> {
        let lock = File::create(data.join("backup-lock"))?;
        lock.try_lock().map_err(|_| "another backup is under way; try again when it is done")?;
        let path = data.join("backup-work");
        remove_tree(&path, &|| true)?;
        data.make_dir("backup-work")?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What stays is removed by the next one.
        let _ = remove_tree(&self.path, &|| true);
    }
}
