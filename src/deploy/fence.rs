//! Whether a firewall keeps apps from the machine's own ports. It is not read from a
//! list of rules, but tried, by a program that runs as apps do.

use super::machine::{Machine, Mode};
use super::sandbox::{Purpose, Sandbox};
use crate::proc::{Cancel, Output, wait_any};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a try may take: a firewall that drops packets silently lets a connection hang.
const TRY: Duration = Duration::from_secs(5);

/// Apps whose users are tried: the ends of the range, since rules name a range.
const SLOTS: [u16; 2] = [0, 59_999];

/// Git is on every machine that runs apps, and says when it could not connect. Both
/// addresses at once, since one may hang.
const PROGRAM: &str = r#"for address; do git ls-remote "git://$address/fence" & done; wait"#;

/// What Git says then.
const REFUSED: &str = "unable to connect to";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// No app reaches a port of the machine.
    InForce,
    /// Apps do; the sentence says why and what to do.
    Missing(String),
}

/// Tries to reach a port of ours as an app.
pub fn look(machine: &Machine, stop: &Cancel) -> Fence {
    if machine.mode == Mode::SharedUser {
        return Fence::Missing(
            "apps run as the server's own user, so a firewall cannot tell them from it; give them \
             users of their own first, then load scripts/firewall"
                .to_owned(),
        );
    }
    for slot in SLOTS {
        match reached(machine, slot, stop) {
            Ok(None) => {}
            Ok(Some(address)) => {
                let who = match machine.mode {
                    Mode::Root => String::new(),
                    _ => format!(" {}", machine.server_user()),
                };
                return Fence::Missing(format!(
                    "apps can connect to the ports of this machine (tried with {address}): to the \
                     dashboard, the router, each other; load the firewall as root with \
                     `scripts/firewall{who}`"
                ));
            }
            Err(why) => {
                return Fence::Missing(format!(
                    "whether apps can connect to the ports of this machine could not be tried: {why}"
                ));
            }
        }
    }
    Fence::InForce
}

/// An address of ours that an app could connect to.
fn reached(machine: &Machine, slot: u16, stop: &Cancel) -> Result<Option<String>, String> {
    let done = Cancel::new().map_err(|e| e.to_string())?;
    let mut doors = Vec::new();
    // A machine may have no IPv6.
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        doors.push((address.to_string(), listener, AtomicBool::new(false)));
    }
    let addresses: Vec<&str> = doors.iter().map(|(address, _, _)| address.as_str()).collect();
    let output = std::thread::scope(|scope| {
        let keeper = scope.spawn(|| keep(&doors, &done));
        let output = try_as_app(machine, slot, &addresses, stop);
        done.cancel();
        let _ = keeper.join();
        output
    })?;
    if let Some((address, _, _)) = doors.iter().find(|(_, _, seen)| seen.load(Ordering::SeqCst)) {
        return Ok(Some(address.clone()));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let refused = text.lines().filter(|line| line.contains(REFUSED)).count();
    if refused == addresses.len() || output.exit == crate::proc::Exit::TimedOut {
        return Ok(None);
    }
    let why = text.lines().rfind(|line| !line.is_empty()).unwrap_or("the probe said nothing");
    Err(why.to_owned())
}

/// Takes connections and ends them until it is done.
fn keep(doors: &[(String, TcpListener, AtomicBool)], done: &Cancel) {
    let mut fds: Vec<_> = doors.iter().map(|(_, listener, _)| listener.as_fd()).collect();
    fds.push(done.as_fd());
    let mut last = false;
    while !last {
        // One more look after the end: a connection may have come just before it.
        last = done.is_cancelled();
        for (_, listener, seen) in doors {
            while listener.accept().is_ok() {
                seen.store(true, Ordering::SeqCst);
            }
        }
        if !last && wait_any(&fds, TRY).is_err() {
            return;
        }
    }
}

fn try_as_app(
    machine: &Machine,
    slot: u16,
    addresses: &[&str],
    stop: &Cancel,
) -> Result<Output, String> {
    let sandbox = Sandbox::new(machine, Purpose::Fetch, slot)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/tmp")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let mut command = vec!["/bin/sh", "-c", PROGRAM, "sh"];
    command.extend(addresses);
    sandbox.exec(&command).deadline(TRY).run_until(stop).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_machine_is_reached_by_an_app_as_long_as_nothing_forbids_it() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Cancel::new().unwrap();
        let mut machine = Machine::here(dir.path());
        let address = reached(&machine, 7, &stop).unwrap();
        assert!(address.is_some_and(|a| a.starts_with("127.0.0.1:")));
        match look(&machine, &stop) {
            Fence::Missing(why) => assert!(why.contains("scripts/firewall"), "{why}"),
            Fence::InForce => panic!("no firewall is loaded here"),
        }
        machine.mode = Mode::SharedUser;
        match look(&machine, &stop) {
            Fence::Missing(why) => assert!(why.contains("users of their own"), "{why}"),
            Fence::InForce => panic!("apps share the server's user"),
        }
    }
}
