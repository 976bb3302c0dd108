//! All that runs as root: installing, uninstalling, and the way out of being root.
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

use crate::config::{Listen, Settings};
use crate::proc::Exec;
use facts::Facts;
use plan::Step;
use rustix::process::geteuid;
use std::path::Path;
use std::time::Duration;

/// How long a step may take; the longest is apt's, over a slow line.
const STEP: Duration = Duration::from_secs(1200);

/// Takes a line for the owner.
pub type Say<'a> = dyn FnMut(&str) + 'a;

/// Makes this machine as the plan wants it, and waits until the server answers.
///
/// # Errors
/// Why nothing was done, or which step failed and why.
pub fn install(settings: &Settings, is_dry_run: bool, say: &mut Say<'_>) -> Result<(), String> {
    demand_root()?;
    let config = settings.config().map_err(|error| error.to_string())?;
    let steps = plan::install(&Facts::gather(&config)?)?;
    for step in &steps {
        say(&step.to_string());
        if !is_dry_run {
            carry_out(step)?;
        }
    }
    if steps.is_empty() {
        say("everything is in place; there is nothing to do");
    }
    if is_dry_run { Ok(()) } else { wait_until_it_answers(&config.listen) }
}

/// Stops the server and its apps and removes all but the data and the settings, or these too
/// when `purge` is given.
///
/// # Errors
/// Which step failed and why.
pub fn uninstall(purge: bool, say: &mut Say<'_>) -> Result<(), String> {
    demand_root()?;
    for step in plan::uninstall(purge, &|path| Path::new(path).exists()) {
        say(&step.to_string());
        carry_out(&step)?;
    }
    if !purge {
        say("what is left: /opt/better-paas/data and /etc/better-paas.conf");
    }
    Ok(())
}

fn demand_root() -> Result<(), String> {
    if geteuid().is_root() { Ok(()) } else { Err("only root can do this; use sudo".to_owned()) }
}

fn carry_out(step: &Step) -> Result<(), String> {
    let done = match step {
        Step::Run(line) => run(line).map(drop),
        Step::Put(place) => place.put().map_err(|error| error.to_string()),
    };
    done.map_err(|why| format!("this failed: {step}: {why}"))
}

/// Runs a program of the system's, with words that have no spaces, to its end.
fn run(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let exec = Exec::new(words.next().unwrap_or_default()).args(words).deadline(STEP);
    let output = exec.env("DEBIAN_FRONTEND", "noninteractive").run();
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.exit.is_success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{} ({})", text(&output.stderr), output.exit))
    }
}

/// systemd has the port already, so the one question waits for the server to start.
fn wait_until_it_answers(listen: &Listen) -> Result<(), String> {
    let port = listen.address.port();
    let address =
        if listen.everywhere { format!("127.0.0.1:{port}") } else { listen.address.to_string() };
    run(&format!("curl -fsS --noproxy * --max-time 60 http://{address}/healthz")).map(drop).map_err(
        |why| {
            format!("the server does not answer ({why}); look at: journalctl -u better-paas -n 50")
        },
    )
}
