//! What an installation consists of.

use super::place::{Place, What};
use crate::config::{Config, FILE, PROGRAM};

const SOCKET_UNIT: &str = include_str!("../../assets/install/better-paas.socket");
const SERVICE_UNIT: &str = include_str!("../../assets/install/better-paas.service");

pub(super) const HOME: &str = "/opt/better-paas";
pub(super) const DATA: &str = "/opt/better-paas/data";
pub(super) const FIREWALL: &str = "/opt/better-paas/firewall";
pub(super) const COMMAND: &str = "/usr/local/bin/better-paas";
pub(super) const SOCKET: &str = "/etc/systemd/system/better-paas.socket";
pub(super) const SERVICE: &str = "/etc/systemd/system/better-paas.service";
pub(super) const APPARMOR: &str = "/etc/apparmor.d/better-paas";
/// The key outside of the data directory, where the owner has made one.
pub(super) const KEY: &str = "/etc/better-paas.key";
/// A kernel of Ubuntu's, on which programs without an AppArmor profile make no user namespaces.
const RESTRICTED: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// The first systemd with `DelegateSubgroup=`.
const DELEGATES: u32 = 254;

/// What an installation consists of, where these things are there already.
pub(super) fn places(
    config: &Config,
    program: Vec<u8>,
    systemd: Option<u32>,
    is_there: &dyn Fn(&str) -> bool,
) -> Vec<Place> {
    let place = |path, mode, what| Place { path, owner: "root:root", mode, what };
    let file = |path, mode, content: &'static str| {
        place(path, mode, What::File(content.as_bytes().into()))
    };
    let made = |path, content: String| place(path, 0o644, What::File(content.into_bytes().into()));
    let mut places = vec![
        place(HOME, 0o755, What::Directory),
        place(PROGRAM, 0o755, What::File(program.into())),
        file(FIREWALL, 0o755, include_str!("../../scripts/firewall")),
        place(COMMAND, 0o777, What::Link(PROGRAM)),
        made(SOCKET, socket_unit(config)),
        made(SERVICE, service_unit(config, systemd >= Some(DELEGATES), is_there(KEY))),
    ];
    // Who has moved or written them since knows why they are as they are.
    if !is_there(DATA) {
        places.push(Place { owner: "paas:paas", ..place(DATA, 0o700, What::Directory) });
    }
    if !is_there(FILE) {
        let settings = file(FILE, 0o640, include_str!("../../assets/install/better-paas.conf"));
        places.push(Place { owner: "root:paas", ..settings });
    }
    if is_there(RESTRICTED) {
        places.push(file(APPARMOR, 0o644, include_str!("../../assets/install/apparmor")));
    }
    places
}

fn socket_unit(config: &Config) -> String {
    let address = config.listen.address;
    // A port alone is all interfaces, IPv4 and IPv6.
    let place =
        if config.listen.everywhere { address.port().to_string() } else { address.to_string() };
    SOCKET_UNIT.replace("ListenStream=8080", &format!("ListenStream={place}"))
}

fn service_unit(config: &Config, delegates: bool, has_key: bool) -> String {
    let routing = &config.routing;
    let ports = [Some(config.listen.address.port()), routing.http_port, routing.https_port];
    let ports: String = ports.iter().flatten().map(|port| format!(" :{port}")).collect();
    let mut unit = SERVICE_UNIT.replace("firewall paas", &format!("firewall paas{ports}"));
    for (is_had, line) in [(delegates, "Delegate"), (has_key, "LoadCredential")] {
        if is_had {
            unit = unit.replace(&format!("\n#{line}"), &format!("\n{line}"));
        }
    }
    unit
}
