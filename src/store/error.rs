//! What can go wrong with the database, in sentences that say what to do.

use crate::model::Domain;
use crate::vault::VaultError;
use rusqlite::ErrorCode;
use std::fmt;
use std::io;

/// Why the database did not do what was asked. The text holds no stored value.
#[derive(Debug)]
pub enum StoreError {
    /// Damaged, or changed by another hand.
    Corrupt,
    /// SQLite found it damaged, which it also says when the disk fails once.
    Unread(rusqlite::Error),
    /// The disk does not give the file back.
    Disk(io::Error),
    /// No room left on the disk.
    Full,
    /// The file or the file system cannot be written.
    ReadOnly,
    /// The name belongs to another app.
    NameTaken,
    /// The domain belongs to another app.
    DomainTaken(Domain),
    /// There are as many apps as this version can number.
    TooManyApps,
    /// A stored value does not open, or could not be sealed.
    Vault(VaultError),
    /// A variable's value was left out, and none is stored that it could keep.
    NothingToKeep(String),
    /// Anything else that SQLite says.
    Sqlite(rusqlite::Error),
    /// Anything else: what is the matter, then what to do.
    Sentence(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt => f.write_str(
                "the database is damaged; stop the server, keep the file, and restore a backup",
            ),
            Self::Unread(error) => write!(
                f,
                "the database could not be read ({error}): the disk has failed, or the file is \
                 damaged; restart the server, which looks which it is"
            ),
            Self::Disk(error) => write!(
                f,
                "the disk does not give the database back ({error}); look what the kernel says \
                 about it (dmesg), and try again"
            ),
            Self::Full => f.write_str("the disk is full; free some space and try again"),
            Self::ReadOnly => f.write_str(
                "the database cannot be written; check the owner and the mount options of the data directory",
            ),
            Self::NameTaken => f.write_str("another app has this name; choose another"),
            Self::DomainTaken(domain) => write!(
                f,
                "{} belongs to another app; remove it there first",
                domain.as_str()
            ),
            Self::TooManyApps => f.write_str("there is no room for another app; delete one first"),
            Self::Vault(error) => write!(f, "{error}"),
            Self::NothingToKeep(name) => write!(f, "{name} has no stored value to keep; give its value"),
            Self::Sqlite(error) => write!(f, "the database did not answer ({error}); try again"),
            Self::Sentence(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unread(error) | Self::Sqlite(error) => Some(error),
            Self::Disk(error) => Some(error),
            Self::Vault(error) => Some(error),
            _ => None,
        }
    }
}

impl From<VaultError> for StoreError {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType,
        };
        if let FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) =
            error
        {
            return Self::Corrupt;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Unread(error),
            _ => Self::Sqlite(error),
        }
    }
}
