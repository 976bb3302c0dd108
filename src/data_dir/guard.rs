//! Judges who could touch a directory before secrets are put into it (P25).
//!
//! A directory of ours is fine wherever it is, in a sticky `/tmp` too: nobody
//! else can take its place while it exists. A link is another matter, since its
//! target can be swapped by every user who may write above the target:
//! - on the way to the data directory no link may lead below a directory that
//!   others can write, unless that one is sticky;
//! - when the data directory itself is a link, it must be ours or root's, its
//!   target must not be open to others even before it is tightened, and neither
//!   must the directory that holds the target, sticky or not: once `/tmp` has
//!   been emptied, the first who comes may use the name.

use super::{DIR_MODE, DataDirError, FILE_MODE, advice, make_private};
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What group and others may do to a file or directory.
const OTHERS: u32 = 0o077;
/// Write permission for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Only the owner of an entry may remove or rename it.
const STICKY: u32 = 0o1000;
/// Directories inside that are ours all the way down.
const OUR_TREES: [&str; 2] = ["logs", "backups"];
/// Directories inside of which apps or the router read something; others write nothing there.
const SHARED_TREES: [&str; 2] = ["sandbox", "router"];
/// How deep those go; a bound for a loop that must end.
const MAX_DEPTH: usize = 9;
/// Names that a log line lists before it only counts.
const MAX_NAMED: usize = 5;

/// Places that every app sees, read-only, in its sandbox.
const SEEN_BY_APPS: [&str; 6] = ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64"];

/// Finds the real directory behind a path, making it when there is none, and
/// refuses it when another user has a say in it. Changes nothing else.
pub(super) fn admit(path: &Path) -> Result<PathBuf, DataDirError> {
    let unusable = |why: io::Error| DataDirError::unusable(path, &why);
    // A slash at the end would make the system follow a link unseen.
    let given: PathBuf = std::path::absolute(path).map_err(unusable)?.components().collect();
    match fs::symlink_metadata(&given) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Nothing is left behind in a place that is refused.
            let above = given.ancestors().find_map(|above| fs::canonicalize(above).ok());
            above.map_or(Ok(()), |above| refuse_seen_by_apps(&given, &above))?;
            make(&given).map_err(unusable)?;
        }
        Err(error) => return Err(unusable(error)),
        Ok(_) => {}
    }
    let real = fs::canonicalize(&given).map_err(unusable)?;
    let meta = fs::metadata(&real).map_err(unusable)?;
    if !meta.is_dir() {
        return Err(DataDirError::Sentence(format!(
            "{} is not a directory; move it away, or name another place with DATA_DIR",
            given.display()
        )));
    }
    ours(&real, &meta)?;
    refuse_seen_by_apps(&given, &real)?;
    judge_links(&given, &real, &meta)?;
    Ok(real)
}

fn refuse_seen_by_apps(given: &Path, real: &Path) -> Result<(), DataDirError> {
    if SEEN_BY_APPS.iter().any(|place| real.starts_with(place)) {
        return Err(DataDirError::Sentence(format!(
            "{} is in a part of the system that every app can see; \
             set DATA_DIR to a place outside /usr and /etc, such as /var/lib/better-paas",
            given.display()
        )));
    }
    Ok(())
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(parent)?;
    }
    make_private(path)
}

fn ours(path: &Path, meta: &Metadata) -> Result<(), DataDirError> {
    let us = geteuid().as_raw();
    if meta.uid() == us {
        return Ok(());
    }
    Err(DataDirError::Foreign { path: path.to_owned(), owner: meta.uid(), us })
}

fn judge_links(given: &Path, real: &Path, meta: &Metadata) -> Result<(), DataDirError> {
    let unusable = |why: io::Error| DataDirError::unusable(given, &why);
    let exposed = |place: &Path| {
        DataDirError::Sentence(format!(
            "{} is reached over a link, and others can write to {}; \
             use a real directory, or link to a place that only you can write",
            given.display(),
            place.display()
        ))
    };
    let is_open = |meta: &Metadata| meta.mode() & OTHERS_WRITE != 0;
    let link = fs::symlink_metadata(given).map_err(unusable)?;
    if link.is_symlink() {
        let parent = real.parent().unwrap_or(real);
        let above = fs::metadata(parent).map_err(unusable)?;
        let places = [
            (given, foreign(&link)),
            (real, is_open(meta)),
            (parent, is_open(&above) || foreign(&above)),
        ];
        if let Some((place, _)) = places.into_iter().find(|(_, is_exposed)| *is_exposed) {
            return Err(exposed(place));
        }
    }
    let is_link = |p: &Path| fs::symlink_metadata(p).is_ok_and(|m| m.is_symlink());
    let linked = given.ancestors().any(is_link);
    for above in real.ancestors().skip(1) {
        let meta = fs::metadata(above).map_err(unusable)?;
        let loose = is_open(&meta) && meta.mode() & STICKY == 0;
        if linked && (loose || foreign(&meta)) {
            return Err(exposed(above));
        }
        if loose && Some(above) == real.parent() {
            log::warn!(
                "other users can write to {}, so they can move the data directory away; chmod go-w it",
                above.display()
            );
        }
    }
    Ok(())
}

/// Whether a user other than us and root owns it, and so can write it at will.
fn foreign(meta: &Metadata) -> bool {
    meta.uid() != 0 && meta.uid() != geteuid().as_raw()
}

/// Takes away what other users may do; the log says what was open.
pub(super) fn tighten(real: &Path) -> Result<(), DataDirError> {
    let mut found = Vec::new();
    // The directory first: from then on nobody else can put anything into it.
    tighten_one(real, OTHERS, &mut found)?;
    for path in entries(real)? {
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(why) => return Err(loose(&path, &why)),
        };
        if meta.is_file() || meta.file_type().is_socket() {
            ours(&path, &meta)?;
            tighten_one(&path, OTHERS, &mut found)?;
        } else if meta.is_dir() {
            let (denied, depth) = match path.file_name().and_then(OsStr::to_str) {
                Some(name) if OUR_TREES.contains(&name) => (OTHERS, MAX_DEPTH),
                Some(name) if SHARED_TREES.contains(&name) => (OTHERS_WRITE, MAX_DEPTH),
                // What is inside may belong to apps, which are users of their own.
                _ => (OTHERS_WRITE, 0),
            };
            tighten_tree(&path, denied, depth, &mut found)?;
        }
    }
    if !found.is_empty() {
        let named: Vec<_> = found.iter().take(MAX_NAMED).map(|p| format!("{p:?}")).collect();
        let more = found.len() - named.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        log::warn!("other users could reach {}{more}; now they cannot", named.join(", "));
    }
    Ok(())
}

fn tighten_tree(
    path: &Path,
    denied: u32,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), DataDirError> {
    tighten_one(path, denied, found)?;
    let inside = if depth > 0 { entries(path)? } else { Vec::new() };
    for entry in inside {
        match fs::symlink_metadata(&entry) {
            Ok(meta) if meta.is_dir() => tighten_tree(&entry, denied, depth - 1, found)?,
            Ok(meta) if meta.is_file() => tighten_one(&entry, denied, found)?,
            _ => {}
        }
    }
    Ok(())
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, DataDirError> {
    let read = fs::read_dir(path).and_then(|all| all.map(|e| e.map(|e| e.path())).collect());
    read.map_err(|why| DataDirError::unusable(path, &why))
}

/// What other users may do there could not be taken away.
fn loose(path: &Path, why: &io::Error) -> DataDirError {
    let (path, advice) = (path.display(), advice(why));
    DataDirError::Sentence(format!(
        "other users may reach {path} and that could not be changed: {why}{advice}"
    ))
}

/// Takes these bits from one file or directory. It may vanish meanwhile: a server at work
/// makes and removes files while an operator's command looks at them.
fn tighten_one(path: &Path, denied: u32, found: &mut Vec<PathBuf>) -> Result<(), DataDirError> {
    let tightened = fs::symlink_metadata(path).and_then(|meta| {
        let (mode, own) = (meta.mode() & 0o777, if meta.is_dir() { DIR_MODE } else { FILE_MODE });
        let lacks = meta.is_dir() && mode & own != own;
        if mode & denied == 0 && !lacks {
            return Ok(());
        }
        if mode & denied != 0 {
            found.push(path.to_owned());
        }
        let kept = mode & !denied & OTHERS;
        fs::set_permissions(path, Permissions::from_mode(kept | own))
    });
    match tightened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        tightened => tightened.map_err(|why| loose(path, &why)),
    }
}
