//! A backup's file: gzip around tar, a readable header first, and last of all the hash of
//! everything else. All of it goes through memory piece by piece. What is read was made by others:
//! whatever does not belong into a backup, or leads out of an app's `/data`, ends the reading.

use crate::disk::subuid::why_failed;
use crate::model::{AnyError, AppId, UnixMillis, failed};
use crate::proc::{Cancel, Exec, Exit};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, PipeWriter, Read, Seek as _, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::thread::{self, Builder};
use std::time::Duration;
use tar::{Archive, Entry, EntryType};

/// The first member: what the backup is of, for people too.
pub const HEADER: &str = "HEADER";
/// The second one.
pub const DATABASE: &str = "better-paas.db";
/// The last one: the SHA-256 of each, as `sha256sum` writes them.
pub const MANIFEST: &str = "MANIFEST";

/// How long a backup may take: a few hundred GB.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a header, or of a path (PATH_MAX): neither fills the memory.
const LONGEST_TEXT: u64 = 4096;

/// Bytes that are between two programs.
const PIECE: usize = 64 << 10;

/// Bytes of a block of tar; two of zeros are an archive's end, and one of them is left over.
const BLOCK: u64 = 512;

/// The bits of a mode that are kept: nothing becomes another user by being restored.
const MODE: u32 = 0o1777;

/// What a backup is of.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// That of the program that made it.
    pub version: String,
    /// When.
    pub created_at: UnixMillis,
    /// The database's.
    pub schema: i64,
    /// The key that opens its secrets.
    pub key_id: String,
    /// The end of the audit log's chain at that moment, where it has one.
    pub audit_head: Option<String>,
}

/// One thing in an archive.
#[derive(Debug)]
pub struct Member {
    /// Its name: one of ours, or `apps/ID/data` and what is below.
    pub path: PathBuf,
    /// A regular file, a directory, whose content follows, or a symbolic link. A file with several
    /// names is several files.
    pub kind: EntryType,
    /// Where a link leads: to something in the same `/data`.
    pub target: PathBuf,
    /// What its owner, the group and others may do.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: u64,
    /// Bytes of a file.
    pub size: u64,
}

/// Takes a member with what is in it.
pub type Each<'a> = dyn FnMut(&Member, &mut dyn Read) -> Result<(), AnyError> + 'a;

impl Member {
    /// A file of ours, so many bytes long.
    #[must_use]
    pub fn ours(name: &str, size: u64) -> Self {
        let (kind, target) = (EntryType::Regular, PathBuf::new());
        Self { path: name.into(), kind, target, mode: 0o600, modified: 0, size }
    }

    /// Writes it with exactly as many bytes as it shall have, though others may write to it:
    /// zeros where it has shrunk, and nothing of what was added. Answers the hash of these.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn write(
        &self,
        to: &mut tar::Builder<impl Write>,
        content: impl Read,
    ) -> io::Result<Sha256> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(self.mode);
        header.set_mtime(self.modified);
        // Every file is its app's, who gets it back with the next deploy.
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(self.size);
        header.set_entry_type(self.kind);
        let content = content.chain(io::repeat(0)).take(self.size);
        let mut hashed = Hashed { content, hash: Sha256::new() };
        if self.kind == EntryType::Symlink {
            to.append_link(&mut header, &self.path, &self.target)?;
        } else {
            to.append_data(&mut header, &self.path, &mut hashed)?;
        }
        Ok(hashed.hash)
    }

    fn read<R: Read>(
        entry: &Entry<'_, R>,
        name: Option<PathBuf>,
        link: Option<PathBuf>,
    ) -> Result<Self, AnyError> {
        let header = entry.header();
        let path = name.unwrap_or_else(|| OsStr::from_bytes(&header.path_bytes()).into());
        let given = header.link_name_bytes().unwrap_or_default();
        let target = link.unwrap_or_else(|| OsStr::from_bytes(&given).into());
        let is_ours = [HEADER, DATABASE, MANIFEST].iter().any(|name| path.as_os_str() == *name);
        let kind = header.entry_type();
        match (kind, depth(&path)) {
            (EntryType::Regular, Some(1..)) | (EntryType::Directory, Some(_)) => {}
            (EntryType::Regular, None) if is_ours => {}
            (EntryType::Symlink, Some(depth)) if leads_inside(&target, depth) => {}
            (EntryType::Symlink, _) => return Err(odd(&path, "is a link that leads elsewhere")),
            _ => return Err(odd(&path, "is nothing that a backup has")),
        }
        let size = if kind == EntryType::Regular { entry.size() } else { 0 };
        let (mode, modified) = (header.mode()? & MODE, header.mtime()?);
        Ok(Self { path, kind, target, mode, modified, size })
    }
}

/// The error that names a member.
pub fn odd(path: &Path, why: &str) -> AnyError {
    format!("{path:?} in it {why}").into()
}

/// Reads an archive to its end, and shows each member.
///
/// # Errors
/// That of `each`; or what is wrong with the archive.
pub fn members(from: impl Read, each: &mut Each<'_>) -> Result<(), AnyError> {
    let mut archive = Archive::new(from);
    let (mut name, mut link) = (None, None);
    // Raw: the crate itself would read a name of any length into memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.map_err(failed("it is damaged or cut off"))?;
        match entry.header().entry_type() {
            EntryType::GNULongName => name = Some(long(&mut entry)?),
            EntryType::GNULongLink => link = Some(long(&mut entry)?),
            _ => each(&Member::read(&entry, name.take(), link.take())?, &mut entry)?,
        }
    }
    match io::copy(&mut archive.into_inner(), &mut io::sink())? {
        BLOCK => Ok(()),
        _ => Err("it was cut off, or something follows its end".into()),
    }
}

/// A path that is too long for a header of tar.
fn long(entry: &mut impl Read) -> Result<PathBuf, AnyError> {
    let mut bytes = Vec::new();
    entry.take(LONGEST_TEXT + 1).read_to_end(&mut bytes)?;
    match bytes.pop() {
        Some(0) => Ok(OsStr::from_bytes(&bytes).into()),
        _ => Err("a name in it is too long".into()),
    }
}

/// How far below the `/data` of an app something is, which itself is at 0.
fn depth(path: &Path) -> Option<usize> {
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let mut parts = path.iter();
    let is_app = parts.next()? == "apps" && AppId::parse(parts.next()?.to_str()?).is_ok();
    (is_app && parts.next()? == "data").then(|| parts.count())
}

/// Whether a link that is so far below `/data` leads to something in there. Its way up comes
/// first, and so passes no other link.
#[must_use]
pub fn leads_inside(target: &Path, depth: usize) -> bool {
    let (above, target) = match target.strip_prefix("/data") {
        Ok(target) => (0, target),
        Err(_) => (depth.saturating_sub(1), target),
    };
    let up = target.components().take_while(|part| *part == Component::ParentDir).count();
    let is_down = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    depth > 0 && up <= above && target.components().skip(up).all(is_down)
}

/// Writes the members of a backup, and notes their hashes.
pub struct Writer {
    tar: tar::Builder<BufWriter<PipeWriter>>,
    manifest: BufWriter<File>,
}

impl Writer {
    /// The manifest is collected in a file: there may be millions of members.
    pub fn new(to: PipeWriter, manifest: File) -> Self {
        let tar = tar::Builder::new(BufWriter::with_capacity(PIECE, to));
        Self { tar, manifest: BufWriter::new(manifest) }
    }

    /// Adds a member.
    ///
    /// # Errors
    /// When its content cannot be read, or the archive written.
    pub fn add(&mut self, member: &Member, content: &mut dyn Read) -> io::Result<()> {
        let hash = member.write(&mut self.tar, content)?;
        self.manifest.write_all(line(member, hash).as_bytes())
    }

    /// Adds the manifest.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        let mut manifest = self.manifest.into_inner()?;
        let length = manifest.stream_position()?;
        manifest.rewind()?;
        Member::ours(MANIFEST, length).write(&mut self.tar, manifest)?;
        self.tar.into_inner()?.flush()
    }
}

/// Reads a whole backup and shows each member but the header and the manifest. Only in the end is
/// it known that all of it is as it was written.
///
/// # Errors
/// That of `each`, or what is wrong with the backup.
pub fn read(file: OwnedFd, stop: &Cancel, each: &mut Each<'_>) -> Result<Header, AnyError> {
    let (from, into) = pipe()?;
    let gunzip = Exec::new("gzip").args(["--decompress", "--stdout"]).reading(file).writing(into);
    let (header, _) = beside(gunzip.deadline(LONGEST), stop, move || {
        let (mut header, mut hashes) = (None::<Header>, Some(Sha256::new()));
        members(BufReader::with_capacity(PIECE, from), &mut |member, content| {
            let mut content = Hashed { content, hash: Sha256::new() };
            let text = content.by_ref().take(LONGEST_TEXT);
            match (member.path.to_str(), &header) {
                (Some(HEADER), None) => header = Some(serde_json::from_reader(text)?),
                (_, None) => return Err("it has no header, as each backup has".into()),
                (Some(HEADER), _) => return Err(odd(&member.path, "is there twice")),
                (Some(MANIFEST), _) => {}
                _ => each(member, &mut content)?,
            }
            io::copy(&mut content, &mut io::sink())?;
            let known = hashes.take().ok_or_else(|| odd(&member.path, "follows its manifest"))?;
            if member.path.as_os_str() != MANIFEST {
                hashes = Some(known.chain_update(line(member, content.hash)));
            } else if known.finalize() != content.hash.finalize() {
                return Err("what is in it is not what its manifest says: it was altered".into());
            }
            Ok(())
        })?;
        header.filter(|_| hashes.is_none()).ok_or_else(|| "it ends before its manifest".into())
    })?;
    Ok(header)
}

/// Does `work` at one end of a pipe while a program is at the other, and answers what the program
/// wrote of errors.
///
/// # Errors
/// When either has failed; each may know a part of the reason.
pub fn beside<T>(
    program: Exec,
    stop: &Cancel,
    work: impl FnOnce() -> Result<T, AnyError>,
) -> Result<(T, String), AnyError> {
    thread::scope(|scope| {
        let run = Builder::new().spawn_scoped(scope, || program.run_until(stop))?;
        let done = work();
        let output = run.join().map_err(|_| "the thread beside a program ended")??;
        match (done, output.exit) {
            (Ok(done), Exit::Code(0)) => {
                Ok((done, String::from_utf8_lossy(&output.stderr).into_owned()))
            }
            // What did not end by itself says nothing about what is read.
            (_, Exit::TimedOut) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            (_, Exit::Signal(9)) => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
            (Ok(_), _) => Err(why_failed(&output).into()),
            (Err(error), Exit::Code(1..)) => Err(failed(why_failed(&output))(error)),
            (Err(error), _) => Err(error),
        }
    })
}

/// What is read, and its hash.
struct Hashed<R> {
    content: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.content.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// A member's line in the manifest. A name of odd characters makes no second line.
fn line(member: &Member, mut hash: Sha256) -> String {
    hash.update(member.target.as_os_str().as_bytes());
    let name = member.path.as_os_str().as_bytes().escape_ascii();
    format!("{}  {name}\n", HEXLOWER.encode(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_kept_only_when_it_stays_in_data() {
        let inside = |target: &str, depth| leads_inside(target.as_ref(), depth);
        for (target, depth) in [
            ("x", 1),
            ("a/b", 1),
            ("../x", 2),
            ("../../x/y", 3),
            ("/data", 1),
            ("/data/x", 4),
            ("..", 2),
            (".", 1),
        ] {
            assert!(inside(target, depth), "{target} at {depth}");
        }
        for (target, depth) in [
            ("..", 1),
            ("../x", 1),
            ("../../x", 2),
            ("/etc", 1),
            ("/data/../x", 1),
            ("/database", 1),
            ("a/../x", 1),
            ("a/../../..", 2),
            ("/data/a/../..", 3),
            ("x", 0),
        ] {
            assert!(!inside(target, depth), "{target} at {depth}");
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_as_long_as_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("manifest");
        let manifest = File::options().read(true).write(true).create_new(true).open(place).unwrap();
        let to = File::create(dir.path().join("backup")).unwrap();
        let (from, into) = pipe().unwrap();
        let stop = Cancel::new().unwrap();
        let gzip = Exec::new("gzip").arg("-c").reading(from).writing(to);
        let header = Header {
            version: "1".to_owned(),
            created_at: 1,
            schema: 5,
            key_id: "00".to_owned(),
            audit_head: None,
        };
        let header = serde_json::to_vec(&header).unwrap();
        beside(gzip, &stop, move || {
            let mut writer = Writer::new(into, manifest);
            let member = Member::ours(HEADER, header.len() as u64);
            writer.add(&member, &mut &*header)?;
            for (size, content) in [(5, "shr"), (3, "grown"), (0, "new")] {
                let path = format!("apps/abcdefghij/data/{content}").into();
                let kind = EntryType::Regular;
                let member =
                    Member { path, kind, target: PathBuf::new(), mode: 0o4755, modified: 7, size };
                writer.add(&member, &mut content.as_bytes())?;
            }
            Ok(writer.finish()?)
        })
        .unwrap();
        let mut seen = Vec::new();
        let backup = File::open(dir.path().join("backup")).unwrap();
        let header = read(backup.into(), &stop, &mut |member, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            assert_eq!((member.mode, member.modified), (0o755, 7));
            seen.push(text);
            Ok(())
        });
        assert_eq!(
            (header.unwrap().schema, seen),
            (5, vec!["shr\0\0".into(), "gro".into(), String::new()])
        );
    }
}
