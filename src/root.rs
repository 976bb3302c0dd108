//! All that runs as root: installing, updating, uninstalling, and the way out of being root.
//!
//! What is to be done is decided by the `plan` from `facts` about the machine, and `--dry-run`
//! shows it; each step is a program of the system's or a `place` in the file system. Root reads,
//! runs and writes nothing here that the server's user could have put there (P36): all of it is
//! in directories of root's, and below `data/` nothing is opened.

mod account;
mod facts;
mod layout;
mod place;
mod plan;
#[cfg(test)]
mod plan_tests;
pub mod privileges;
mod source;
mod update;

use crate::config::{Listen, Settings};
use crate::model::{AnyError, Update};
use crate::proc::Exec;
use facts::Facts;
use plan::Step;
use rustix::process::geteuid;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

/// How long a step may take; the longest is apt's, over a slow line.
const STEP: Duration = Duration::from_secs(1200);

/// Takes a line for the owner.
pub type Say<'a> = dyn FnMut(&str) + 'a;

/// Nothing, when all is done.
pub type Done = Result<(), AnyError>;

/// Makes this machine as the plan wants it, and waits until the server answers. Where another
/// program is installed already, this one takes its place by the steps of an update.
///
/// # Errors
/// Why nothing was done, or which step failed and why.
pub fn install(settings: &Settings, is_dry_run: bool, say: &mut Say<'_>) -> Done {
    let (_lock, config) = (lock()?, settings.config()?);
    if facts::is_installed() && !is_dry_run {
        update::finish(&config, say)?;
    }
    let steps = plan::install(&Facts::gather(&config)?)?;
    if steps.is_empty() {
        say("everything is in place; there is nothing to do");
    }
    if is_dry_run {
        steps.iter().for_each(|step| say(&step.to_string()));
        return Ok(());
    }
    let program = fs::read("/proc/self/exe")?;
    if facts::is_installed() && !update::is_in_place(&program) {
        return update::replace(&config, program, false, say);
    }
    carry_out(&steps, say)?;
    Ok(wait_until_it_answers(&config.listen, 60)?)
}

/// Does of a plan what an update wants of the program that has been put in its place.
///
/// # Errors
/// Which step failed and why.
pub fn update_units(settings: &Settings, say: &mut Say<'_>) -> Done {
    Ok(carry_out(&plan::install(&Facts::gather(&settings.config()?)?)?, say)?)
}

/// Puts the program in a file or at an address in the place of the installed one.
///
/// # Errors
/// Why nothing was changed, or why all of it was changed back.
pub fn update(settings: &Settings, update: &Update, say: &mut Say<'_>) -> Done {
    let (_lock, config) = (lock()?, settings.config()?);
    if !facts::is_installed() {
        return Err("it is not installed on this machine; run: sudo ./server install".into());
    }
    update::finish(&config, say)?;
    let program = source::get(update)?;
    if update::is_in_place(&program) {
        say("this program is installed already; there is nothing to do");
        return Ok(());
    }
    update::replace(&config, program, update.may_be_older, say)
}

/// Keeps others like it from this machine until it is dropped.
fn lock() -> Result<File, AnyError> {
    if !geteuid().is_root() {
        return Err("only root can do this; use sudo".into());
    }
    // Where nobody but root can take it.
    let lock = File::create("/run/better-paas.lock")?;
    lock.try_lock().map_err(|_| "an installation or an update is under way already")?;
    Ok(lock)
}

/// Stops the server and its apps and removes all but the data and the settings, or these too
/// when `purge` is given.
///
/// # Errors
/// Which step failed and why.
pub fn uninstall(purge: bool, say: &mut Say<'_>) -> Done {
    let _lock = lock()?;
    carry_out(&plan::uninstall(purge, &|path| Path::new(path).exists()), say)?;
    if !purge {
        say("what is left: /opt/better-paas/data and /etc/better-paas.conf");
    }
    Ok(())
}

fn carry_out(steps: &[Step], say: &mut Say<'_>) -> Result<(), String> {
    for step in steps {
        say(&step.to_string());
        let done = match step {
            Step::Run(line) => run(line).map(drop),
            Step::Put(place) => place.put().map_err(|error| error.to_string()),
        };
        done.map_err(|why| format!("this failed: {step}: {why}"))?;
    }
    Ok(())
}

/// Runs a program of the system's, with words that have no spaces, to its end.
fn run(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let exec = Exec::new(words.next().unwrap_or_default()).args(words).deadline(STEP);
    let output = exec.env("DEBIAN_FRONTEND", "noninteractive").run().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.exit.is_success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{} ({})", text(&output.stderr), output.exit))
    }
}

/// systemd has the port already, so the one question waits for the server to start.
fn wait_until_it_answers(listen: &Listen, seconds: u32) -> Result<(), String> {
    let port = listen.address.port();
    let address =
        if listen.everywhere { format!("127.0.0.1:{port}") } else { listen.address.to_string() };
    let ask = format!("curl -fsS --noproxy * --max-time {seconds} http://{address}/healthz");
    let hint = "look at: journalctl -u better-paas -n 50";
    run(&ask).map(drop).map_err(|why| format!("the server does not answer ({why}); {hint}"))
}
