//! What an app has written into its `/data`, as a tar archive: read in the app's own sandbox by
//! this program again, which is the app's user there and sees nothing else of the machine. So no
//! link leads out, and a database is copied by the program that was made for it.

use super::archive::{Member, leads_inside};
use crate::disk::removal::said;
use crate::disk::subuid::what_it_wrote;
use crate::disk::tree::{Tree, inside};
use crate::model::AnyError;
use crate::proc::{self, Exec};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat2, readlinkat, seek};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tar::EntryType;

/// The word after the program's name that makes it this; where it is in the archive follows.
pub const COMMAND: &str = "pack-data";

/// Where a database is copied to, in there.
const COPY: &str = "/var/tmp/copy";

/// What every SQLite file begins with.
const MAGIC: &str = "SQLite format 3\0";

/// What SQLite has beside a database that is open.
const LOGS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// How long the packing of an app may take, and so a copy of a database of its.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// Bytes of files that are on no disk, which are written in full by a restore: holes, and what is
/// there once by several names.
const MOST_BEYOND: u64 = 1 << 30;

/// Files with several names that are known again.
const MOST_NAMED: usize = 1 << 16;

/// Bytes of a path in the archive: a restore opens it at once (PATH_MAX).
const LONGEST_PATH: usize = 4000;

/// Lines about what is left out: how many there are is the app's choice.
const MOST_SAID: usize = 20;

/// Does what these words after the program's name ask for, if it is that.
pub fn run_if_asked(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let top = words.next().filter(|word| word == COMMAND).and_then(|_| words.next())?;
    Some(said(pack(top.into())))
}

fn pack(top: PathBuf) -> Result<(), AnyError> {
    let tree = Tree::open(Path::new("/data"), "")?;
    let tar = tar::Builder::new(BufWriter::new(io::stdout().lock()));
    let has_sqlite = proc::find("sqlite3").is_some();
    let mut packing = Packing { tar, top, has_sqlite, named: HashSet::new(), beyond: 0, said: 0 };
    tree.walk::<AnyError>(&mut |path, about| packing.visit(&tree, path, about).map(|()| true))?;
    Ok(packing.tar.into_inner()?.flush()?)
}

struct Packing {
    tar: tar::Builder<BufWriter<StdoutLock<'static>>>,
    top: PathBuf,
    has_sqlite: bool,
    named: HashSet<u64>,
    beyond: u64,
    said: usize,
}

impl Packing {
    fn visit(&mut self, tree: &Tree, path: &Path, about: Option<&Stat>) -> Result<(), AnyError> {
        let Some(about) = about else { return self.say(path, "cannot be read") };
        if self.top.join(path).as_os_str().len() > LONGEST_PATH {
            return self.say(path, "has too long a path");
        }
        let nowhere = PathBuf::new();
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => self.add(path, about, (EntryType::Directory, nowhere), None),
            FileType::RegularFile => self.file(tree, path),
            FileType::Symlink => match target(tree, path) {
                Ok(to) if leads_inside(&to, path.iter().count()) => {
                    self.add(path, about, (EntryType::Symlink, to), None)
                }
                _ => self.say(path, "is a link that leads out of /data"),
            },
            _ => self.say(path, "is a socket, a pipe or a device"),
        }
    }

    /// What is beside a database belongs to others than its copy.
    fn file(&mut self, tree: &Tree, path: &Path) -> Result<(), AnyError> {
        let name = path.to_str().unwrap_or_default();
        let mut logs = LOGS.iter().filter_map(|end| name.strip_suffix(end));
        if self.has_sqlite && logs.any(|name| is_database(tree, name)) {
            return Ok(());
        }
        self.content(tree, path)
    }

    /// A database is copied as it is at one moment; where that fails, with its log.
    fn content(&mut self, tree: &Tree, path: &Path) -> Result<(), AnyError> {
        let Some(file) = tree.file(path) else { return self.say(path, "cannot be read") };
        let about = fstat(&file)?;
        let beyond = self.beyond + self.beyond_the_disk(&file, &about)?;
        if beyond > MOST_BEYOND {
            return self.say(path, "is mostly a hole, or another name of a file");
        }
        self.beyond = beyond;
        let regular = (EntryType::Regular, PathBuf::new());
        let name = path.to_str().unwrap_or_default();
        let why = match is_database(tree, name).then(|| copy(path)) {
            None => return self.add(path, &about, regular, Some(file)),
            Some(Ok(copy)) => return self.add(path, &about, regular, Some(copy)),
            Some(Err(why)) => why,
        };
        let why = format!("is copied as it is, its log is beside it; it may be torn: {why}");
        self.say(path, &why)?;
        self.add(path, &about, regular, Some(file))?;
        // Without the program they come by themselves.
        let logs = LOGS.iter().filter(|_| self.has_sqlite).map(|end| format!("{name}{end}"));
        let logs: Vec<_> = logs.filter(|log| tree.has_file(log)).collect();
        logs.iter().try_for_each(|log| self.content(tree, Path::new(log)))
    }

    /// Bytes that a file has in the archive beyond what it takes of the disk.
    fn beyond_the_disk(&mut self, file: &File, about: &Stat) -> Result<u64, AnyError> {
        let is_known = self.named.len() == MOST_NAMED || self.named.contains(&about.st_ino);
        let (size, on_disk) = (about.st_size.unsigned_abs(), about.st_blocks.unsigned_abs() * 512);
        if about.st_nlink > 1 && is_known {
            return Ok(size);
        }
        if about.st_nlink > 1 {
            self.named.insert(about.st_ino);
        }
        // What a disk keeps compressed has no hole.
        let has_hole = on_disk < size && seek(file, SeekFrom::Hole(0))? < size;
        seek(file, SeekFrom::Start(0))?;
        Ok(if has_hole { size - on_disk } else { 0 })
    }

    fn add(
        &mut self,
        path: &Path,
        about: &Stat,
        (kind, target): (EntryType, PathBuf),
        content: Option<File>,
    ) -> Result<(), AnyError> {
        let path = self.top.join(path).components().collect();
        let (mode, modified) = (about.st_mode & 0o7777, about.st_mtime.try_into().unwrap_or(0));
        let mut member = Member { path, kind, target, mode, modified, size: 0 };
        match content {
            None => member.write(&mut self.tar, io::empty())?,
            Some(file) => {
                member.size = file.metadata()?.len();
                member.write(&mut self.tar, file)?
            }
        };
        Ok(())
    }

    fn say(&mut self, path: &Path, why: &str) -> Result<(), AnyError> {
        self.said += 1;
        match self.said {
            ..=MOST_SAID => writeln!(io::stderr(), "{path:?} {why}")?,
            said if said == MOST_SAID + 1 => writeln!(io::stderr(), "and more like these")?,
            _ => {}
        }
        Ok(())
    }
}

fn target(tree: &Tree, link: &Path) -> io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = openat2(&tree.top, link, flags, Mode::empty(), inside())?;
    Ok(OsString::from_vec(readlinkat(&link, "", Vec::new())?.into_bytes()).into())
}

fn is_database(tree: &Tree, name: &str) -> bool {
    tree.read_start(name, MAGIC.len() as u64).as_deref() == Some(MAGIC)
}

/// Copies a database as it is at one moment, while others write to it.
fn copy(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(COPY);
    // Within one transaction that reads: otherwise it would begin anew with each write.
    let words = ["BEGIN; SELECT count(*) FROM sqlite_schema;", ".backup /var/tmp/copy"];
    let exec = Exec::new("sqlite3").args(["-batch", "-bail", "-cmd", ".timeout 1000"]);
    let exec = exec.arg(Path::new("/data").join(path)).args(words).deadline(LONGEST);
    what_it_wrote(&exec.run()?)?;
    File::open(COPY)
}
