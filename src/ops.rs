//! The operator's commands, one file each, for an owner with a shell on the machine.

pub mod deploy;
pub mod line;
pub mod lockouts;
pub mod protocol;
pub mod run;
mod socket;
pub mod token;

use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, user};
use crate::model::AnyError;

/// The configuration and the data directory, which must be there already: a
/// command never makes one.
fn existing() -> Result<(Config, DataDir), AnyError> {
    let config = Config::from_env(|name| std::env::var_os(name))?;
    let path = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    // What may not be looked at is there; opening it says what is wrong.
    if matches!(path.try_exists(), Ok(false)) {
        return Err(format!(
            "there is no data directory at {}; run this in the directory in which the server \
             runs, or name the server's data: DATA_DIR=/opt/better-paas/data server … (at its \
             start the server prints the line for 'token')",
            path.display()
        )
        .into());
    }
    match DataDir::open(&config.data_dir) {
        Ok(data) => Ok((config, data)),
        // A command is not to give the data another owner, which would stop the server.
        Err(DataDirError::Foreign { path, owner, .. }) => Err(format!(
            "{} belongs to user {}; run this as that user: {} …",
            path.display(),
            user::name(owner),
            line::as_user(owner)
        )
        .into()),
        Err(error) => Err(error.into()),
    }
}
