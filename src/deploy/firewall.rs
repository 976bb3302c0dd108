//! Whether a firewall keeps apps from the machine's own ports. It is not read from a
//! list of rules, but tried, by a program that runs as apps do.

use super::identity::user_name;
use super::machine::{Machine, Mode};
use super::sandbox::{Purpose, Sandbox};
use crate::proc::{Cancel, Exit, wait_any};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a try may take.
struct Pace {
    /// From the making of the sandbox to the end: a busy machine takes its time, and has
    /// then tried nothing.
    all: Duration,
    /// How long a connection may hang, as it does where a firewall drops packets silently.
    hanging: Duration,
}

const PACE: Pace = Pace { all: Duration::from_secs(30), hanging: Duration::from_secs(5) };

/// Apps whose users are tried: the ends of the range, since rules name a range.
const SLOTS: [u16; 2] = [0, 59_999];

/// Git is on every machine that runs apps. It says when it is about to connect, and when it
/// could not. All addresses at once, since one may hang; an empty line from time to time
/// lets us look at the clock.
const PROGRAM: &str = r#"
(while sleep 1; do echo; done) &
try=0 all=
for address; do
    try=$((try + 1))
    git clone --verbose --bare "git://$address/firewall" "/tmp/$try" 2>&1 &
    all="$all $!"
done
wait $all
"#;

/// What Git says right before it connects.
fn connecting(address: &SocketAddr) -> String {
    format!("Connecting to {} (port {})", address.ip(), address.port())
}

/// What Git says when it could not.
const REFUSED: &str = "unable to connect to";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firewall {
    /// No app reaches a port of the machine.
    InForce,
    /// Apps do; the sentence says why and what to do.
    Missing(String),
}

/// Tries to reach a port of ours as an app.
pub fn look(machine: &Machine, stop: &Cancel) -> Firewall {
    if machine.mode == Mode::SharedUser {
        return Firewall::Missing(
            "apps run as the server's own user, so a firewall cannot tell them from it; give them \
             users of their own first, then load scripts/firewall"
                .to_owned(),
        );
    }
    for slot in SLOTS {
        match reached(machine, slot, PROGRAM, &PACE, stop) {
            Ok(None) => {}
            Ok(Some(address)) => {
                let who = match machine.mode {
                    Mode::Root => String::new(),
                    _ => format!(" {}", user_name()),
                };
                return Firewall::Missing(format!(
                    "apps can connect to the ports of this machine (tried with {address}): to the \
                     dashboard, the router, each other; load the firewall as root with \
                     `scripts/firewall{who}`"
                ));
            }
            Err(why) => {
                return Firewall::Missing(format!(
                    "whether apps can connect to the ports of this machine could not be tried: {why}"
                ));
            }
        }
    }
    Firewall::InForce
}

/// An address of ours that an app could connect to.
fn reached(
    machine: &Machine,
    slot: u16,
    program: &str,
    pace: &Pace,
    stop: &Cancel,
) -> Result<Option<SocketAddr>, String> {
    let done = Cancel::new().map_err(|e| e.to_string())?;
    let mut doors = Vec::new();
    // A machine may have no IPv6.
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        doors.push((address, listener, AtomicBool::new(false)));
    }
    if doors.is_empty() {
        return Err("no port could be opened to try it with".to_owned());
    }
    let addresses: Vec<SocketAddr> = doors.iter().map(|(address, _, _)| *address).collect();
    let said = std::thread::scope(|scope| {
        let keeper = scope.spawn(|| keep(&doors, &done));
        let said = try_as_app(machine, slot, program, &addresses, pace, stop);
        done.cancel();
        let _ = keeper.join();
        said
    })?;
    if let Some((address, _, _)) = doors.iter().find(|(_, _, seen)| seen.load(Ordering::SeqCst)) {
        return Ok(Some(*address));
    }
    if said.hung || said.text.matches(REFUSED).count() == addresses.len() {
        return Ok(None);
    }
    Err(said.text.lines().rfind(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned())
}

/// What an app's try came to.
struct Said {
    text: String,
    /// Whether it was about to connect to each address, and then hung for long enough.
    hung: bool,
}

/// Takes connections and ends them until it is done.
fn keep(doors: &[(SocketAddr, TcpListener, AtomicBool)], done: &Cancel) {
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
        if !last && wait_any(&fds, PACE.all).is_err() {
            return;
        }
    }
}

fn try_as_app(
    machine: &Machine,
    slot: u16,
    program: &str,
    addresses: &[SocketAddr],
    pace: &Pace,
    stop: &Cancel,
) -> Result<Said, String> {
    let sandbox = Sandbox::new(machine, Purpose::Fetch, slot)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/tmp")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut command = vec!["/bin/sh", "-c", program, "sh"];
    command.extend(words.iter().map(String::as_str));
    let exec = sandbox.exec(&command).deadline(pace.all);
    let (mut text, mut since, mut hung) = (String::new(), None, false);
    let mut on_piece = |piece: &[u8]| {
        text.push_str(&String::from_utf8_lossy(piece));
        if addresses.iter().all(|address| text.contains(&connecting(address))) {
            hung = since.get_or_insert_with(Instant::now).elapsed() >= pace.hanging;
        }
        !hung
    };
    let output = exec.pieces(&mut on_piece, stop).map_err(|e| e.to_string())?;
    match output.exit {
        Exit::TimedOut => return Err("the machine was too busy".to_owned()),
        Exit::Cancelled => return Err("the server is stopping".to_owned()),
        _ => text.push_str(&String::from_utf8_lossy(&output.stderr)),
    }
    Ok(Said { text, hung })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_machine_is_reached_by_an_app_as_long_as_nothing_forbids_it() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Cancel::new().unwrap();
        let mut machine = Machine::here(dir.path());
        let address = reached(&machine, 7, PROGRAM, &PACE, &stop).unwrap();
        assert!(address.is_some_and(|a| a.ip().is_loopback()));
        match look(&machine, &stop) {
            Firewall::Missing(why) => assert!(why.contains("scripts/firewall"), "{why}"),
            Firewall::InForce => panic!("no firewall is loaded here"),
        }
        machine.mode = Mode::SharedUser;
        match look(&machine, &stop) {
            Firewall::Missing(why) => assert!(why.contains("users of their own"), "{why}"),
            Firewall::InForce => panic!("apps share the server's user"),
        }
    }

    #[test]
    fn a_try_that_did_not_come_to_its_connection_says_nothing_of_a_firewall() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Cancel::new().unwrap();
        let machine = Machine::here(dir.path());
        let seconds = Duration::from_secs;
        let reached = |program: &str, all, hanging| {
            let pace = Pace { all: seconds(all), hanging: seconds(hanging) };
            reached(&machine, 7, program, &pace, &stop)
        };
        assert!(reached("sleep 60", 2, 0).unwrap_err().contains("busy"));
        assert_eq!(reached("echo broken >&2", 20, 0), Err("broken".to_owned()));
        // As Git does where packets are dropped.
        let hangs = r#"for a; do a=${a#[}
            echo "Connecting to $(echo "${a%:*}" | tr -d ']') (port ${a##*:}) ... "
            done; while sleep 0.2; do echo; done"#;
        assert_eq!(reached(hangs, 20, 1), Ok(None));
        assert!(reached(hangs, 3, 60).is_err(), "it did not hang for long enough");
    }
}
