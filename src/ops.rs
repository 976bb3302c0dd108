//! The operator's commands, one file each, for whoever has a shell on the machine.

pub mod lockouts;
mod socket;
pub mod token;

use crate::config::{Config, ConfigError};
use crate::data_dir::{DataDir, DataDirError};
use std::fmt;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum OpsError {
    /// The environment holds a bad value.
    Config(ConfigError),
    /// The data directory cannot be used.
    DataDir(DataDirError),
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
            Self::DataDir(error) => write!(f, "{error}"),
            Self::Sentence(text) => f.write_str(text),
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
    if !config.data_dir.exists() {
        return Err(OpsError::sentence(format!(
            "there is no data directory at {}; start the server once, or set DATA_DIR to where it is",
            config.data_dir.display()
        )));
    }
    let data = DataDir::open(&config.data_dir)?;
    Ok((config, data))
}
