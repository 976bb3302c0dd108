//! Decides from facts what is to be done; nothing is done here.

use super::account::SERVER;
use super::facts::Facts;
use super::layout::{APPARMOR, COMMAND, DATA, FIREWALL, HOME, SERVICE, SOCKET};
use super::place::Place;
use crate::config::{FILE, PROGRAM};
use std::fmt;

/// systemd's version in the oldest systems whose unshare has `--map-users`.
const OLDEST: u32 = 252;

/// One thing to do.
pub(super) enum Step {
    /// Run a program of the system's.
    Run(String),
    /// Put something in its place.
    Put(Place),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(line) => line.fmt(f),
            Self::Put(place) => place.fmt(f),
        }
    }
}

fn run(line: impl Into<String>) -> Step {
    Step::Run(line.into())
}

/// What installing has to do on a machine like this; nothing when all of it was done.
///
/// # Errors
/// Why it cannot be done here.
pub(super) fn install(facts: &Facts) -> Result<Vec<Step>, String> {
    refuse(facts)?;
    let mut steps = Vec::new();
    let packages = facts.lacks_packages.join(" ");
    if !packages.is_empty() {
        steps.push(run("apt-get update -q"));
        steps.push(run(format!("apt-get install -y -q --no-install-recommends {packages}")));
    }
    if facts.caddy_is_enabled || facts.lacks_packages.contains(&"caddy") {
        // Debian starts what it installs; the server starts a Caddy of its own.
        steps.push(run("systemctl disable --now caddy.service"));
    }
    if !facts.has_user {
        steps.push(run(format!(
            "useradd --system --add-subids-for-system --user-group --no-create-home --home-dir \
             {DATA} --shell /usr/sbin/nologin {SERVER}"
        )));
    }
    steps.extend(facts.differing.iter().cloned().map(Step::Put));
    let differs = |path: &str| facts.differing.iter().any(|place| place.path == path);
    if differs(HOME) {
        // Who could write there before may have left what an update takes for its own.
        steps.push(run(format!("find {HOME} -maxdepth 1 -name server.* ! -user root -delete")));
    }
    if differs(APPARMOR) {
        steps.push(run(format!("apparmor_parser --replace {APPARMOR}")));
    }
    let (socket, service) = (differs(SOCKET), differs(SERVICE));
    if socket || service {
        steps.push(run("systemctl daemon-reload"));
    }
    if socket {
        // It opens anew, and for the first time, while no service has the port.
        steps.push(run("systemctl stop better-paas.socket better-paas.service"));
    }
    if socket || !facts.is_up {
        steps.push(run("systemctl enable --now better-paas.socket better-paas.service"));
    } else if service || differs(PROGRAM) || differs(FIREWALL) || facts.settings_are_newer {
        steps.push(run("systemctl restart better-paas.service"));
    }
    Ok(steps)
}

/// Why this machine is none for it.
fn refuse(facts: &Facts) -> Result<(), String> {
    let why = if facts.systemd.is_none() {
        "systemd does not run this machine; start the server by hand, without installing it"
    } else if facts.systemd < Some(OLDEST) {
        "this system is too old: its unshare has no --map-users, and no app gets a user of its \
         own without; take Debian 12, Ubuntu 24.04 or newer"
    } else if facts.caddy_is_enabled && facts.caddy_is_configured {
        "Caddy serves something on this machine: its service is enabled, and /etc/caddy is not as \
         the package made it. The server runs a Caddy of its own on ports 80 and 443; move what \
         that one serves elsewhere, then: systemctl disable --now caddy"
    } else {
        return Ok(());
    };
    Err(why.to_owned())
}

/// What uninstalling has to do where these things are there.
pub(super) fn uninstall(purge: bool, is_there: &dyn Fn(&str) -> bool) -> Vec<Step> {
    let files = format!("rm -f {SOCKET} {SERVICE} {APPARMOR} {COMMAND}");
    let mut steps = vec![
        (SERVICE, run("systemctl disable --now better-paas.socket better-paas.service")),
        // Apps and the router outlive the server; systemd knows them as the service's.
        (SERVICE, run("systemctl kill --signal=KILL better-paas.service")),
        (FIREWALL, run(format!("{FIREWALL} remove"))),
        (APPARMOR, run(format!("apparmor_parser --remove {APPARMOR}"))),
        (HOME, run(files)),
        // The program, what updates have left beside it, the firewall.
        (HOME, run(format!("find {HOME} -maxdepth 1 -type f -delete"))),
        (HOME, run("systemctl daemon-reload")),
    ];
    if purge {
        steps.push((HOME, run(format!("rm -rf {HOME} {FILE}"))));
        steps.push((HOME, run(format!("userdel {SERVER}"))));
    }
    steps.into_iter().filter(|(path, _)| is_there(path)).map(|(_, step)| step).collect()
}
