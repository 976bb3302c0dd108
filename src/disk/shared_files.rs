//! Files that two releases of an app have in common: packages, which each build installs anew.
//!
//! What a build has installed is sealed before the app first runs. A sealed file is the server's
//! own: the app reads it, and can put another one in its place, but not write to it. So one file
//! can serve two releases, and whatever a release does changes nothing in the other. Only files
//! that no process of the app has ever been able to write to while it ran are shared.

use super::app_users::AppUsers;
use super::removal::{random_name, said, this_program};
use super::subuid::{GOING_THROUGH, as_we_are, what_it_wrote};
use super::tree::{ENTER, entries};
use crate::proc::Cancel;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::fs::{fchmod, fchown, fstat, linkat, openat, renameat, statat, unlinkat};
use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The word after the program's name that makes it this; the new release follows, then the old.
const COMMAND: &str = "share-files";

/// The directories in which package managers alone install. Apps write elsewhere.
const INSTALLED: [&[u8]; 2] = [b"node_modules", b".venv"];

/// And what tools write to in there, also when the app runs.
const WRITTEN: &[u8] = b".cache";

/// Directories within one another that are gone into: real ones have some 20.
const DEEPEST: usize = 64;

/// Bytes that are compared at once.
const PIECE: usize = 64 << 10;

/// How long a deploy is kept for comparing; what comes after that is sealed alone.
const COMPARING: Duration = Duration::from_secs(10);

/// Seals what the build of a release has installed, and has those files that the release before
/// has too be the same ones. Answers how many bytes that saves. Where apps have no users of their
/// own nothing can be sealed, and nothing is shared.
///
/// # Errors
/// When that is not possible. The release is as good as before.
pub fn share(
    users: AppUsers,
    release: &Path,
    before: Option<&Path>,
    cancel: &Cancel,
) -> io::Result<u64> {
    let exec = match users {
        AppUsers::Shared => return Ok(0),
        AppUsers::Root => as_we_are(),
        AppUsers::Subordinate(range) => range.as_root(),
    };
    let exec = exec.arg(this_program()?).arg(COMMAND).arg(release).args(before);
    let output = exec.deadline(GOING_THROUGH).run_until(cancel)?;
    what_it_wrote(&output)?.trim().parse().map_err(io::Error::other)
}

/// Does what these words after the program's name ask for, if it is that.
pub fn run_if_asked(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let release = words.next().filter(|word| word == COMMAND).and_then(|_| words.next())?;
    let enter = |path| rustix::fs::open(path, ENTER, Mode::empty());
    let shared = enter(release).map_err(io::Error::from).and_then(|release| {
        // The one before may be gone.
        let before = words.next().and_then(|before| enter(before).ok());
        go_through(&release, before.as_ref(), (false, 0), Instant::now() + COMPARING)
    });
    Some(said(shared.and_then(|bytes| writeln!(io::stdout(), "{bytes}"))))
}

/// Seals and shares what is in a directory, and below. The app of the release before may be
/// running, and change what is in its own: nothing is followed, and each file is held open from
/// the first look at it.
fn go_through(
    dir: &OwnedFd,
    before: Option<&OwnedFd>,
    (is_installed, depth): (bool, usize),
    until: Instant,
) -> io::Result<u64> {
    let mut saved = 0;
    for name in entries(dir)? {
        let name = name?;
        let before = before.filter(|_| Instant::now() < until);
        let kind = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).map(kind_of)?;
        if kind == FileType::Directory && depth < DEEPEST && name.to_bytes() != WRITTEN {
            let below = openat(dir, &name, ENTER, Mode::empty())?;
            let before = before.and_then(|dir| openat(dir, &name, ENTER, Mode::empty()).ok());
            let is_installed = is_installed || INSTALLED.contains(&name.to_bytes());
            saved += go_through(&below, before.as_ref(), (is_installed, depth + 1), until)?;
        } else if kind == FileType::RegularFile && is_installed {
            saved += seal(dir, before, &name)?;
        }
    }
    Ok(saved)
}

/// Seals one file, unless it has other names, and replaces it by that of the release before
/// where that has the same in it. Answers the bytes of one that was replaced.
fn seal(dir: &OwnedFd, before: Option<&OwnedFd>, name: &CStr) -> io::Result<u64> {
    let (mut file, about) = open(dir, name)?;
    if about.st_nlink != 1 {
        return Ok(0);
    }
    let mode = Mode::from_raw_mode(0o444 | about.st_mode & 0o111);
    fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT))?;
    fchmod(&file, mode)?;
    let Some((mut other, old)) = before.and_then(|before| open(before, name).ok()) else {
        return Ok(0);
    };
    let is_sealed = old.st_uid == 0 && old.st_mode & 0o7777 == mode.as_raw_mode();
    let may_be_same = old.st_size == about.st_size && old.st_dev == about.st_dev;
    if !is_sealed || !may_be_same || !is_same(&mut file, &mut other)? {
        return Ok(0);
    }
    // That very file, whatever has its name by now. There may be no room for one name more.
    let itself = format!("/proc/self/fd/{}", other.as_raw_fd());
    let new = random_name();
    if linkat(CWD, itself, dir, &new, AtFlags::SYMLINK_FOLLOW).is_err() {
        return Ok(0);
    }
    renameat(dir, &new, dir, name).inspect_err(|_| {
        let _ = unlinkat(dir, &new, AtFlags::empty());
    })?;
    Ok(u64::try_from(about.st_size).unwrap_or(0))
}

/// A regular file, and what the system says of it.
fn open(dir: &OwnedFd, name: &CStr) -> io::Result<(File, Stat)> {
    // NONBLOCK: opening a named pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    let about = fstat(&file)?;
    if kind_of(about) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((file.into(), about))
}

fn kind_of(about: Stat) -> FileType {
    FileType::from_raw_mode(about.st_mode)
}

/// Whether two files have the same in them.
///
/// # Errors
/// When one cannot be read.
pub fn is_same(one: &mut File, other: &mut File) -> io::Result<bool> {
    let (mut left, mut right) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        for (file, piece) in [(&mut *one, &mut left), (&mut *other, &mut right)] {
            piece.clear();
            file.take(PIECE as u64).read_to_end(piece)?;
        }
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}
