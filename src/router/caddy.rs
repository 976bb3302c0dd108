//! Caddy as a process: started so that it outlives the server, and found again.

use crate::data_dir::replace;
use crate::model::{AnyError, failed};
use crate::proc::{self, Exec, Running, table};
use rustix::process::geteuid;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// The program.
const CADDY: &str = "caddy";

/// What to say when it is not there.
pub const NOT_INSTALLED: &str = "Caddy is not installed, so apps answer at their ports only; run \
                                 `apt install caddy` (and `systemctl disable --now caddy`, since \
                                 this server starts its own)";

/// How long it may take to say its version.
const ASKING: Duration = Duration::from_secs(5);
/// How long it may take to end after SIGTERM.
const ENDING: Duration = Duration::from_secs(5);

/// The file that remembers its process.
const PID_FILE: &str = "caddy.pid";
/// What it prints itself, mostly while it starts.
const OUTPUT: &str = "output.log";
/// Bytes from which on what it has printed is forgotten.
const OUTPUT_CAP: u64 = 1 << 20;
/// Characters of its complaint that go into a sentence of ours.
const COMPLAINT: usize = 400;

/// A version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// As it writes it, without a leading `v`.
    pub text: String,
    /// The first two numbers of it.
    pub numbers: (u32, u32),
}

impl Version {
    /// Reads `2.6.2` (Debian) or `v2.10.0 h1:…`.
    pub fn read(text: &str) -> Option<Self> {
        let word = text.split_whitespace().next()?.trim_start_matches('v');
        let mut numbers = word.split('.').map(|number| number.parse::<u32>().ok());
        Some(Self { numbers: (numbers.next()??, numbers.next()??), text: word.to_owned() })
    }
}

/// The version that is installed.
///
/// # Errors
/// The sentence that says what to do when there is none, or it does not say.
pub fn version() -> Result<Version, &'static str> {
    let silent = "caddy does not tell its version; reinstall it";
    said_by(CADDY).ok_or(if is_installed() { silent } else { NOT_INSTALLED })
}

/// The version that runs, which is asked of its program even if another one was
/// installed in its place; `None` when it does not say.
pub fn version_of(running: &Running) -> Option<Version> {
    said_by(&format!("/proc/{}/exe", running.pid()))
}

fn said_by(program: &str) -> Option<Version> {
    let output = Exec::new(program).arg("version").deadline(ASKING).run().ok()?;
    Version::read(&String::from_utf8_lossy(&output.stdout))
}

/// Whether it is installed.
pub fn is_installed() -> bool {
    proc::find(CADDY).is_some()
}

/// Starts it with a configuration, detached, with the surroundings that it gets from us and
/// nothing more. Root's rights go, but for low ports; its user stays, so that it can read its
/// directory.
pub fn start(dir: &Path, config: &Path) -> Result<Running, AnyError> {
    let output = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(dir.join(OUTPUT))
        .and_then(|file| file.set_len(0).map(|()| file))
        .map_err(failed("the router's log cannot be written"))?;
    let caddy = proc::find(CADDY).ok_or(NOT_INSTALLED)?;
    let mut exec = Exec::new("setpriv").arg("--no-new-privs");
    if geteuid().is_root() {
        exec = exec.args(["--bounding-set=-all,+net_bind_service", "--inh-caps=-all"]);
    }
    let exec = exec.arg("--").arg(caddy).arg("run").arg("--config").arg(config);
    let home = dir.join("home");
    let exec = ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"]
        .iter()
        .fold(exec, |exec, name| exec.env(name, &home));
    let running = exec.spawn_detached(&output, &output)?;
    let text = json!({"pid": running.pid(), "startTicks": running.start_ticks()}).to_string();
    // Whole or not at all: who reads half of it takes the router for a stranger's.
    if let Err(error) = replace(&dir.join(PID_FILE), text.as_bytes()) {
        end(running);
        return Err(failed("the router's process could not be noted")(error));
    }
    Ok(running)
}

/// Finds the one that an earlier server started. Others that work in this directory
/// belong to a server that was killed before it could note them, and are ended.
pub fn adopt(dir: &Path) -> Option<Running> {
    let noted = || {
        let text = fs::read(dir.join(PID_FILE)).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        let pid = u32::try_from(value.get("pid")?.as_u64()?).ok()?;
        let running = Running::adopt(pid, value.get("startTicks")?.as_u64()?)?;
        // After a reboot the same pair could name something else.
        is_ours(&table::entry(pid)?, dir).then_some(running)
    };
    let found = noted();
    let known = found.as_ref().map(Running::pid);
    for entry in table::all().iter().filter(|e| Some(e.pid) != known && is_ours(e, dir)) {
        if let Some(stray) = Running::adopt(entry.pid, entry.start_ticks) {
            stray.kill();
        }
    }
    found
}

fn is_ours(entry: &table::Entry, dir: &Path) -> bool {
    entry.name == CADDY
        && !entry.has_ended()
        && table::arguments(entry.pid).iter().any(|a| Path::new(a).parent() == Some(dir))
}

/// Ends it: first it is asked to.
pub fn end(mut running: Running) {
    running.terminate();
    if running.wait(ENDING).is_none() {
        running.kill();
        running.wait(ENDING);
    }
}

/// Why it ended while it started, in its own words.
pub fn last_words(dir: &Path) -> String {
    complaint(&fs::read_to_string(dir.join(OUTPUT)).unwrap_or_default())
}

fn complaint(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it did not say why").chars().take(COMPLAINT).collect()
}

/// Keeps what it prints from growing for ever.
pub fn bound_output(dir: &Path) {
    let path = dir.join(OUTPUT);
    if fs::metadata(&path).is_ok_and(|m| m.len() > OUTPUT_CAP) {
        let _ = OpenOptions::new().append(true).open(path).and_then(|file: File| file.set_len(0));
    }
}

/// Whether we, and so Caddy, can listen on a port.
///
/// # Errors
/// Why not.
pub fn can_listen(bind: Option<IpAddr>, port: u16) -> io::Result<()> {
    let listen = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, port)).map(drop);
    if let Some(ip) = bind {
        return listen(ip);
    }
    listen(Ipv4Addr::UNSPECIFIED.into())?;
    match listen(Ipv6Addr::UNSPECIFIED.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // A machine without IPv6 says so in another way.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_debian_and_as_caddy_write_them() {
        let version = |text: &str, numbers| Some(Version { text: text.into(), numbers });
        assert_eq!(Version::read("2.6.2\n"), version("2.6.2", (2, 6)));
        assert_eq!(Version::read("v2.10.0 h1:abc=\n"), version("2.10.0", (2, 10)));
        assert_eq!(Version::read("3.0"), version("3.0", (3, 0)));
        for bad in ["", "unknown", "(devel)", "2"] {
            assert_eq!(Version::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_complaint_is_the_last_thing_said() {
        assert_eq!(complaint("one\nError: two\n\n"), "Error: two");
        assert_eq!(complaint(""), "it did not say why");
    }

    #[test]
    fn a_port_that_is_taken_is_not_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        assert!(can_listen(None, taken_port).is_err());
        assert!(can_listen(Some(Ipv4Addr::LOCALHOST.into()), taken_port).is_err());
        assert!(can_listen(Some(Ipv4Addr::LOCALHOST.into()), 0).is_ok());
    }
}
