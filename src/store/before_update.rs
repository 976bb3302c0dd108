//! The copies of the database that are kept before an update changes anything (P30).

use super::snapshot::snapshot;
use super::{SCHEMA_VERSION, StoreError, connect, log_of, schema_version};
use crate::model::NEWEST_COPY;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The database's name, in the data directory and where a copy is kept.
pub const DATABASE: &str = "better-paas.db";
/// Where the copy before the newest one is.
const COPY_BEFORE: &str = "before-update/previous";

/// Keeps a copy of the database at `path` in the place of the newest one, and that as the one
/// before it.
///
/// # Errors
/// As [`snapshot`].
pub fn keep(path: &Path) -> Result<(), StoreError> {
    let [newest, before] = [NEWEST_COPY, COPY_BEFORE].map(|name| path.with_file_name(name));
    let moved = || {
        if newest.exists() {
            let _ = fs::remove_dir_all(&before);
            fs::rename(&newest, &before)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&newest)
    };
    moved().map_err(|error| {
        StoreError::Sentence(format!("{} could not be made: {error}", newest.display()))
    })?;
    snapshot(path, &newest.join(DATABASE)).map(drop)
}

/// Whether a newer program has changed the database at `path` to a schema of its own.
///
/// # Errors
/// When it cannot be read.
pub fn is_newer(path: &Path) -> Result<bool, StoreError> {
    Ok(path.exists() && schema_version(&connect(path)?)? > SCHEMA_VERSION)
}

/// Puts the newest copy in the place of the database at `path`; what was written since is lost.
/// No server may run on it.
///
/// # Errors
/// When there is no copy, or the disk fails; then it can be tried again.
pub fn go_back(path: &Path) -> Result<(), StoreError> {
    let copies = [NEWEST_COPY, COPY_BEFORE].map(|name| path.with_file_name(name).join(DATABASE));
    let copy = copies.iter().find(|copy| copy.is_file()).ok_or(StoreError::Corrupt)?;
    let back = path.with_extension("back");
    let _ = fs::remove_file(&back);
    snapshot(copy, &back)?;
    // Left of the other one, it would be taken for the copy's.
    let _ = fs::remove_file(log_of(path));
    fs::rename(back, path).map_err(StoreError::Disk)
}
