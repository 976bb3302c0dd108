//! What keeps apps apart on the network that they share with the machine. It is not read from
//! a list of rules or a kernel's version, but tried, by a program that runs as apps do.

use super::bwrap::{Purpose, Sandbox};
use super::host::Host;
use super::port_range::{RANGE, picked_by_kernel};
use crate::data_dir::user;
use crate::disk::app_users::AppUsers;
use crate::disk::removal::random_name;
use crate::disk::subuid::why_failed;
use crate::inside::{self, probe::Findings};
use crate::model::AnyError;
use crate::proc::{Cancel, Exit};
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

/// How long a try may take from the making of the sandbox to the end: a busy machine takes its
/// time, and has then tried nothing.
const TRYING: Duration = Duration::from_secs(30);

/// Apps whose users are tried: the ends of the range, since rules name a range.
const SLOTS: [u16; 2] = [0, 59_999];

/// The port of the server's that the firewall knows without being told, besides those below 1024.
const USUAL: u16 = 8080;

/// What was found: where a fence is missing, the sentence that says what that means and what
/// to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fences {
    /// No app reaches a port of the machine.
    pub firewall: Option<String>,
    /// No app listens at a TCP port that was not given to it.
    pub ports: Option<String>,
    /// No app reaches an abstract Unix socket of others.
    pub sockets: Option<String>,
}

/// Tries all of them as an app. What to do names the server's own ports.
pub fn look(host: &Host, own_ports: &[u16], stop: &Cancel) -> Fences {
    let slots = if host.users == AppUsers::Shared { &SLOTS[..1] } else { &SLOTS };
    let found: Result<Vec<_>, _> = slots.iter().map(|slot| try_as(host, *slot, stop)).collect();
    match found {
        Ok(found) => Fences::of(host, own_ports, &found),
        Err(why) => {
            let what = |what| Some(format!("whether apps {what} could not be tried: {why}"));
            Fences {
                firewall: what("can connect to the ports of this machine"),
                ports: what("can listen at ports that are not theirs"),
                sockets: what("reach each other's abstract Unix sockets"),
            }
        }
    }
}

impl Fences {
    fn of(host: &Host, own_ports: &[u16], found: &[Findings]) -> Self {
        let kernel = rustix::system::uname();
        let kernel = kernel.release().to_string_lossy();
        let picked = picked_by_kernel();
        let (first, last) = (picked.start(), picked.end());
        let overlap = (RANGE.start <= *last && *first < RANGE.end).then(|| {
            format!(
                "the kernel gives ports from {first} to {last} to whoever asks for any, and apps' \
                 own ports are among them, so one app may get another's; run `sysctl -w \
                 net.ipv4.ip_local_port_range='32768 60999'` and put it into /etc/sysctl.d"
            )
        });
        let takes_ports = || {
            found.iter().any(|found| found.takes_ports).then(|| {
                format!(
                    "this machine's kernel ({kernel}) does not keep apps from listening at ports \
                     that are not theirs; Linux 6.7 or newer with Landlock does. Until then one \
                     that is seen with the dashboard's or the router's port is ended, and what it \
                     answers from there is dropped where the firewall is in force"
                )
            })
        };
        let sockets = found.iter().any(|found| found.reaches_abstract).then(|| {
            format!(
                "this machine's kernel ({kernel}) does not keep apps from the abstract Unix \
                 sockets of each other and of the machine's services; Linux 6.12 or newer \
                 with Landlock does"
            )
        });
        let is_open = found.iter().any(|found| !found.reached.is_empty());
        let firewall = firewall(host, own_ports, is_open);
        Self { firewall, ports: overlap.or_else(takes_ports), sockets }
    }
}

fn firewall(host: &Host, own_ports: &[u16], is_open: bool) -> Option<String> {
    if host.users == AppUsers::Shared {
        let sentence = "apps run as the server's own user, so a firewall cannot tell them from it; \
                        give them users of their own first, then load scripts/firewall";
        return Some(sentence.to_owned());
    }
    if !is_open {
        return None;
    }
    let who = match host.users {
        AppUsers::Root => String::new(),
        _ => format!(" {}", user::name(rustix::process::geteuid().as_raw())),
    };
    let mut named: Vec<u16> = own_ports.iter().copied().filter(|port| *port >= 1024).collect();
    if named == [USUAL] {
        named.clear();
    }
    let ports: String = named.iter().map(|port| format!(" :{port}")).collect();
    Some(format!(
        "apps can connect to the ports of this machine: to the dashboard, the router, each other; load the firewall as root with `scripts/firewall{who}{ports}`"
    ))
}

/// Runs the program of the try under an app's user, with doors of ours to knock at.
fn try_as(host: &Host, slot: u16, stop: &Cancel) -> Result<Findings, AnyError> {
    // A machine may have no IPv6. Who connects is not waited for: the kernel takes it.
    let doors: Vec<TcpListener> =
        ["127.0.0.1:0", "[::1]:0"].iter().filter_map(|a| TcpListener::bind(a).ok()).collect();
    if doors.is_empty() {
        return Err("no port could be opened to try it with".into());
    }
    let name = format!("better-paas{}", random_name());
    let _socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    let addresses = doors.iter().map(|door| door.local_addr().map(|at| at.to_string()));
    let words: Vec<String> = addresses.chain([Ok(name)]).collect::<io::Result<_>>()?;
    let mut command = vec![inside::PLACE, inside::probe::COMMAND];
    command.extend(words.iter().map(String::as_str));
    let sandbox = Sandbox::new(host, Purpose::Fetch, slot);
    let output = sandbox.prepare(&command).deadline(TRYING).run_until(stop)?;
    match output.exit {
        Exit::Code(0) => Ok(serde_json::from_slice(&output.stdout)?),
        Exit::TimedOut => Err("the machine was too busy".into()),
        Exit::Cancelled => Err("the server is stopping".into()),
        _ => Err(why_failed(&output).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::host::Host;

    #[test]
    fn what_an_app_reaches_is_tried_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Cancel::new().unwrap();
        let mut host = Host::here(dir.path());
        let fences = look(&host, &[80, 8080, 9000], &stop);
        assert!(
            fences.firewall.is_some_and(|why| why.ends_with("scripts/firewall :8080 :9000`")),
            "none is loaded"
        );
        host.users = AppUsers::Shared;
        let why = look(&host, &[80, 8080, 9000], &stop).firewall.unwrap();
        assert!(why.contains("users of their own"), "{why}");
    }

    #[test]
    fn a_kernel_without_a_fence_is_named_and_with_it_what_protects() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::here(dir.path());
        let open = Findings { takes_ports: true, reaches_abstract: true, ..Findings::default() };
        let fences = Fences::of(&host, &[], &[Findings::default(), open]);
        let ports = fences.ports.unwrap();
        assert!(ports.contains("6.7") && ports.contains("is ended"), "{ports}");
        assert!(fences.sockets.unwrap().contains("6.12"));
        let all = Fences::of(&host, &[], &[Findings::default()]);
        assert_eq!((all.firewall, all.ports, all.sockets), (None, None, None));
    }

    #[test]
    fn a_try_that_did_not_come_to_its_end_says_nothing_of_a_fence() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Cancel::new().unwrap();
        let host = Host::here(dir.path());
        stop.cancel();
        let why = look(&host, &[80, 8080, 9000], &stop).ports.unwrap();
        assert!(why.contains("could not be tried"), "{why}");
    }
}
