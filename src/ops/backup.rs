//! `server backup`: a backup to standard output, a file, or beside the others.

use super::existing;
use crate::backup::archive::LONGEST;
use crate::backup::create::{Source, Work};
use crate::backup::keeper::place;
use crate::config::Settings;
use crate::data_dir::replace_filled;
use crate::disk::layout::Layout;
use crate::disk::removal::this_program;
use crate::model::{AnyError, AppId, failed};
use crate::proc::{Cancel, Exec, Exit};
use crate::sandbox::host_watch::HostWatch;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::termios::isatty;
use std::fs::File;
use std::io::{Error, Write as _, stderr, stdout};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

/// Makes one; the line that says where it is, unless it went to standard output.
///
/// # Errors
/// When there is none then.
pub fn run(file: Option<PathBuf>, app_data: bool) -> Result<Option<String>, AnyError> {
    let settings = Settings::of_this_program()?;
    let path = match file {
        Some(file) if file == Path::new("-") => return stream(&settings, app_data).map(|()| None),
        Some(file) => absolute(file)?,
        None => place(&existing(&settings)?.1)?,
    };
    // The file is made by whoever calls this, as in any directory of root's, and filled by the
    // owner of the data: this program again.
    let words = ["backup", "-"].into_iter().chain((!app_data).then_some("--no-app-data"));
    let exec = Exec::new(&this_program()?.to_string_lossy()).args(words).deadline(LONGEST);
    let exec = exec.env("DATA_DIR", absolute(settings.config()?.data_dir)?);
    replace_filled(&path, 0o600, |file| {
        let errors = stderr().as_fd().try_clone_to_owned()?;
        let exec =
            exec.streams([File::open("/dev/null")?.into(), file.try_clone()?.into(), errors]);
        match exec.run()?.exit {
            Exit::Code(0) => Ok(()),
            exit => Err(Error::other(exit.to_string())),
        }
    })
    .map_err(failed(format!("{} was not written", path.display())))?;
    Ok(Some(path.display().to_string()))
}

/// The data's owner writes it, beside a server that runs or not.
fn stream(settings: &Settings, app_data: bool) -> Result<(), AnyError> {
    if isatty(stdout()) {
        return Err("a backup is no text for a terminal; name a file, or write it to one: \
                    server backup - > today.tgz"
            .into());
    }
    let (_, data) = existing(settings)?;
    // Nobody else removes half a file.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let machine = HostWatch::new(Layout::new(data.clone()))?;
    let host = move || machine.look().map(Arc::new).map_err(|error| error.to_string());
    let tell = |app: &AppId| {
        let _ = if isatty(stderr()) { writeln!(stderr(), "app {app}") } else { Ok(()) };
    };
    let source = Source { data: &data, host: app_data.then_some(&host), tell: &tell };
    let (to, work) = (stdout().as_fd().try_clone_to_owned()?, Work::new(&data)?);
    for line in source.write(to, &work, &Cancel::new()?)? {
        writeln!(stderr(), "not in it: {line}")?;
    }
    Ok(())
}
