//! What there is on this machine, as far as installing goes by it.

use super::account::{self, SERVER};
use super::place::Place;
use super::{layout, run};
use crate::config::{Config, FILE, PROGRAM};
use crate::proc;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the server calls, and the package that has it.
const NEEDED: [(&str, &str); 7] = [
    ("bwrap", "bubblewrap"),
    ("newuidmap", "uidmap"),
    ("git", "git"),
    ("curl", "curl"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    ("nft", "nftables"),
    ("caddy", "caddy"),
];

/// All of it.
pub(super) struct Facts {
    /// systemd's version, where it runs this machine.
    pub(super) systemd: Option<u32>,
    pub(super) lacks_packages: Vec<&'static str>,
    /// Debian's own Caddy service starts with the machine.
    pub(super) caddy_is_enabled: bool,
    /// Its configuration is another than the package's.
    pub(super) caddy_is_configured: bool,
    pub(super) has_user: bool,
    /// The places that are not as they shall be.
    pub(super) differing: Vec<Place>,
    /// The service runs, and starts with the machine.
    pub(super) is_up: bool,
    /// The settings were written after the service started.
    pub(super) settings_are_newer: bool,
}

impl Facts {
    /// Looks at everything and changes nothing.
    pub(super) fn gather(config: &Config) -> Result<Self, String> {
        let program = fs::read("/proc/self/exe")
            .map_err(|error| format!("this program could not be read: {error}"))?;
        let is_there = |path: &str| fs::symlink_metadata(path).is_ok();
        let lacks = |(program, _): &&(&str, _)| !is_there(program) && proc::find(program).is_none();
        let systemd = systemd_version();
        let mut places = layout::places(config, program, systemd, &is_there);
        places.retain(|place| !place.is_there());
        Ok(Self {
            systemd,
            lacks_packages: NEEDED.iter().filter(lacks).map(|(_, package)| *package).collect(),
            caddy_is_enabled: says("systemctl is-enabled caddy.service") == "enabled",
            caddy_is_configured: says("dpkg --verify caddy").contains("/etc/caddy/"),
            has_user: account::find(|name, _| name == SERVER).is_some(),
            differing: places,
            is_up: says("systemctl is-enabled better-paas.socket") == "enabled"
                && says("systemctl is-active better-paas.service") == "active",
            settings_are_newer: settings_are_newer(),
        })
    }
}

/// Whether a server is installed here, and nobody but root can put another program there.
pub(super) fn is_installed() -> bool {
    [layout::HOME, PROGRAM, layout::SOCKET].iter().all(|path| {
        fs::symlink_metadata(path).is_ok_and(|is| is.uid() == 0 && is.mode() & 0o022 == 0)
    })
}

/// What a program says when all is well.
fn says(line: &str) -> String {
    run(line).unwrap_or_default()
}

/// Of `systemd 252 (252.39-1~deb12u1)` the second word.
fn systemd_version() -> Option<u32> {
    let runs = Path::new("/run/systemd/system").is_dir();
    runs.then(|| says("systemctl --version"))?.split_whitespace().nth(1)?.parse().ok()
}

fn settings_are_newer() -> bool {
    let show = "systemctl show --timestamp=unix -P ExecMainStartTimestamp better-paas.service";
    let started = says(show).strip_prefix('@').and_then(|seconds| seconds.parse().ok());
    let written = fs::metadata(FILE).map(|about| about.mtime()).ok();
    written.zip(started).is_some_and(|(written, started): (i64, i64)| written > started)
}
