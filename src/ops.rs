//! The operator's commands, one file each, for an owner with a shell on the machine.

pub mod line;
pub mod lockouts;
mod socket;
pub mod token;

use crate::config::{Config, ConfigError};
use crate::data_dir::{DataDir, DataDirError, user};
use std::fmt;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum OpsError {
    /// The environment holds a bad value.
    Config(ConfigError),
    /// The data directory cannot be used.
    DataDir(DataDirError),
    /// The running server refused.
    Refused {
        /// The error's code in the API.
        code: String,
        /// Its sentence.
        message: String,
    },
    /// Anything else: what failed, then what to do.
    Sentence(String),
}

impl OpsError {
    fn sentence(text: impl Into<String>) -> Self {
        Self::Sentence(text.into())
    }
}

impl fmt::Display for OpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            // A command is not to give the data another owner, which would stop the server.
            Self::DataDir(DataDirError::Foreign { path, owner, .. }) => write!(
                f,
                "{} belongs to user {}; run this as that user: {} …",
                path.display(),
                user::name(*owner),
                line::as_user(*owner)
            ),
            Self::DataDir(error) => write!(f, "{error}"),
            Self::Refused { message: text, .. } | Self::Sentence(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OpsError {}

impl From<ConfigError> for OpsError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<DataDirError> for OpsError {
    fn from(error: DataDirError) -> Self {
        Self::DataDir(error)
    }
}

/// The configuration and the data directory, which must be there already: a
/// command never makes one.
fn existing() -> Result<(Config, DataDir), OpsError> {
    let config = Config::from_env(|name| std::env::var_os(name))?;
    let path = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    // What may not be looked at is there; opening it says what is wrong.
    if matches!(path.try_exists(), Ok(false)) {
        return Err(OpsError::sentence(format!(
            "there is no data directory at {}; run this in the directory in which the server \
             runs, or name the server's data: DATA_DIR=/opt/better-paas/data server … (at its \
             start the server prints the line for 'token')",
            path.display()
        )));
    }
    let data = DataDir::open(&config.data_dir)?;
    Ok((config, data))
}
