//! The names that need a certificate: has each got before its first visitor comes, keeps it
//! from running out, and knows why it cannot be had.
//!
//! The router gets a certificate in the first handshake for a name (see [`super::caddy_config`]).
//! So this is a visitor that says the name and hangs up. Each handshake for a name that
//! cannot have one would be a new order at the authority, which soon takes none from anybody
//! here; so such a name is permitted one only while this visitor knocks, more and more seldom.

use super::caddy_health::{CaddyHealth, NO_HOST};
use super::route_table::RouteTable;
use super::{RouterState, certificates};
use crate::model::{AnyError, Routing, is_public};
use crate::proc::{Cancel, Exec, wait_any};
use crate::sync::lock;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Names that are looked at beside one another: one that waits for an authority keeps few others waiting.
pub const THREADS: usize = 4;

/// How long a handshake may take. The router ends it after ten seconds, and goes on without us.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// How long the name service may take.
const RESOLVING: Duration = Duration::from_secs(8);
/// Time between two looks while the router gets ready, or is at it.
const SOON: Duration = Duration::from_secs(1);
/// How long it may be at it without a word before that is called a failure.
const AT_IT: Duration = Duration::from_secs(90);
/// How often a name without a certificate is resolved: its owner may be changing that.
const RESOLVED: Duration = Duration::from_secs(60);
/// The pause after the first failure, and the longest; it doubles. Public authorities take
/// five failures of a name in an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(2 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 60 * 60);
/// How often a name that has one is called: the router renews in a handshake, in the last
/// third of a certificate's life, which is six days at the least.
const RENEWED: Duration = Duration::from_secs(12 * 60 * 60);
/// How long a file of a certificate has not been written to when nobody writes it any more.
const WRITTEN: Duration = Duration::from_secs(5);
/// Characters of its reason.
const REASON: usize = 400;

/// How it is with the certificate of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Certificate {
    /// It is being had.
    #[default]
    Waiting,
    /// It is there.
    There,
    /// It cannot be had; why.
    Missing(String),
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Name {
    /// Its certificate.
    pub certificate: Certificate,
    /// Where it leads, in the name service; nothing for a name that is certified privately.
    pub resolves: Option<Vec<IpAddr>>,
    /// Whether the certificate that is there runs out soon.
    pub runs_out: bool,
}

/// A name and when it is looked at next; a new one at once.
#[derive(Debug, Default)]
struct Watched {
    due: Option<Instant>,
    /// When the handshakes began that have not succeeded yet.
    began: Option<SystemTime>,
    /// When it was last given up, and for how long.
    failed: Option<(Instant, Duration)>,
    known: Name,
}

/// The names.
#[derive(Debug, Default)]
pub struct Names(Mutex<BTreeMap<String, Watched>>);

impl Names {
    /// Looks after these names, and no others.
    pub fn follow(&self, hosts: &BTreeSet<String>) {
        let mut all = lock(&self.0);
        all.retain(|host, _| hosts.contains(host));
        for host in hosts {
            all.entry(host.clone()).or_default();
        }
    }

    /// What is known of a name; nothing of one that needs no certificate.
    pub fn known(&self, host: &str) -> Option<Name> {
        lock(&self.0).get(host).map(|watched| watched.known.clone())
    }

    /// The first name whose certificate cannot be had, why, and how many more there are.
    pub fn missing(&self) -> Option<String> {
        let all = lock(&self.0);
        let mut missing = all.iter().filter_map(|(host, watched)| {
            let Certificate::Missing(why) = &watched.known.certificate else { return None };
            Some(format!("no certificate for {host}: {why}"))
        });
        let first = missing.next()?;
        match missing.count() {
            0 => Some(first),
            more => Some(format!("{first} (and for {more} more names)")),
        }
    }

    /// The name that is due first, which is not due again while it is looked at.
    fn due(&self) -> Option<String> {
        let mut all = lock(&self.0);
        let (host, watched) = all.iter_mut().min_by_key(|(_, watched)| watched.due)?;
        let now = Instant::now();
        (watched.due <= Some(now)).then(|| {
            watched.due = Some(now + RENEWED);
            host.clone()
        })
    }

    /// Changes what is known of a name, if it is still there.
    fn change<T>(&self, host: &str, change: impl FnOnce(&mut Watched) -> T) -> Option<T> {
        lock(&self.0).get_mut(host).map(change)
    }
}

/// Looks after the names.
pub struct CertificateWatch {
    /// What the owner has set.
    pub routing: Arc<Routing>,
    /// Where names are permitted a certificate.
    pub table: Arc<RouteTable>,
    /// The router, as it is now.
    pub health: Arc<CaddyHealth>,
    /// The names that need a certificate.
    pub names: Names,
}

impl CertificateWatch {
    /// Looks after names until the server stops.
    pub fn run(&self) {
        while !self.health.stop.is_cancelled() {
            let Some(host) = self.names.due() else {
                let _ = wait_any(&[self.health.stop.as_fd()], SOON);
                continue;
            };
            let pause = self.look_after(&host);
            self.names.change(&host, |watched| watched.due = Some(Instant::now() + pause));
        }
    }

    /// Looks after one name; how long it may then be left alone.
    fn look_after(&self, host: &str) -> Duration {
        let RouterState::Running { ports, .. } = *lock(&self.health.state) else { return SOON };
        let Some(port) = ports.https else {
            let why = "the router has no port for HTTPS".to_owned();
            self.names.change(host, |name| name.known.certificate = Certificate::Missing(why));
            return SOON;
        };
        let resolves = (!self.routing.is_own(host)).then(|| resolve(host, &self.health.stop));
        let began = self.names.change(host, |name| {
            let here = |ips: &Option<Vec<IpAddr>>| {
                ips.as_ref().is_some_and(|ips| lead_here(ips, &[]) == Some(true))
            };
            let moved = here(&resolves) && !here(&name.known.resolves);
            name.known.resolves = resolves;
            // One that was given up a moment ago is not asked for yet.
            let rests = name.failed.is_some_and(|(at, pause)| at.elapsed() < pause);
            (!rests || moved).then(|| *name.began.get_or_insert_with(SystemTime::now))
        });
        match began {
            None => SOON,
            Some(None) => RESOLVED,
            Some(Some(began)) => self.knock(host, port, began),
        }
    }

    /// Asks the router for a name's certificate, as a visitor does, in tries that began then.
    fn knock(&self, host: &str, port: u16, began: SystemTime) -> Duration {
        self.permit(host, true);
        let answer =
            shake_hands(host, SocketAddr::new(self.routing.own_ip(), port), &self.health.stop);
        if self.health.stop.is_cancelled() {
            return SOON;
        }
        let Err(error) = answer else {
            let runs_out = certificates::runs_out(&self.health.dir, host, &self.health.stop);
            self.names.change(host, |name| {
                (name.began, name.failed) = (None, None);
                (name.known.certificate, name.known.runs_out) = (Certificate::There, runs_out);
            });
            return if runs_out { LONGEST_PAUSE } else { RENEWED };
        };
        if certificates::discard_broken(&self.health.dir, Some(host), WRITTEN) {
            return SOON;
        }
        let why = match self.reason(host, began) {
            Some(why) => why,
            // A clock that was set back says nothing.
            None if began.elapsed().is_ok_and(|time| time < AT_IT) => return SOON,
            None => error.to_string(),
        };
        self.permit(host, false);
        log::warn!("no certificate for {host}: {why}");
        self.names.change(host, |name| {
            let pause = name.failed.map_or(FIRST_PAUSE, |(_, last)| (last * 2).min(LONGEST_PAUSE));
            name.began = None;
            name.failed = Some((Instant::now(), pause));
            name.known.certificate = Certificate::Missing(why);
        });
        RESOLVED
    }

    fn permit(&self, host: &str, may: bool) {
        if let Err(error) = self.table.permit(host, may) {
            log::error!("permission for a certificate cannot be changed: {error}");
        }
    }

    /// What the router has last said of a name since then.
    fn reason(&self, host: &str, since: SystemTime) -> Option<String> {
        let since = since.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        // It never has more than a MiB.
        let text = fs::read(self.health.dir.join("caddy.log")).ok()?;
        String::from_utf8_lossy(&text).lines().rev().find_map(|line| said_of(line, host, since))
    }
}

/// Whether a certificate for this name is presented at an address. What the router serves
/// then is not asked for: it has no such host.
fn shake_hands(host: &str, at: SocketAddr, stop: &Cancel) -> Result<(), AnyError> {
    let (at, port) = (at.to_string(), at.port());
    let (ip, _) = at.rsplit_once(':').unwrap_or_default();
    let seconds = HANDSHAKE.as_secs().to_string();
    let curl = Exec::new("curl")
        .args(["-q", "-sS", "-k", "--http1.1", "--noproxy", "*", "--max-time", &seconds])
        .args(["-o", "/dev/null", "-H", &format!("Host: {NO_HOST}"), "--resolve"])
        .args([format!("{host}:{port}:{ip}"), "--".to_owned(), format!("https://{host}:{port}/")])
        .deadline(2 * HANDSHAKE);
    let output = curl.run_until(stop)?;
    if output.exit.is_success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.trim().chars().take(REASON).collect::<String>().into())
}

/// Where a name leads. The system's own program for it can be stopped; a call cannot.
fn resolve(host: &str, stop: &Cancel) -> Vec<IpAddr> {
    let asked = Exec::new("getent").args(["ahosts", host]).deadline(RESOLVING).run_until(stop);
    let text = asked.map_or_else(|_| Vec::new(), |output| output.stdout);
    let text = String::from_utf8_lossy(&text);
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    words.filter_map(|ip| ip.parse().ok()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether one of these addresses is this machine's; unknown where it has none that the
/// Internet knows, as behind a home router.
pub fn lead_here(ips: &[IpAddr], own: &[IpAddr]) -> Option<bool> {
    if ips.iter().any(|ip| UdpSocket::bind((*ip, 0)).is_ok()) {
        return Some(true);
    }
    (!own.is_empty()).then_some(false)
}

/// The address from which this machine speaks to another one; that is how it is most likely
/// reached from there. Nothing is sent.
pub fn address_towards(there: &str) -> Option<IpAddr> {
    let here = if there.contains(':') { "::" } else { "0.0.0.0" };
    let socket = UdpSocket::bind((here, 0)).ok()?;
    socket.connect((there, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// The addresses under which the Internet knows this machine, as far as it can tell itself:
/// those from which it would speak to a stranger.
pub fn own_addresses(bind: Option<IpAddr>) -> Vec<IpAddr> {
    let found = match bind.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => vec![ip],
        // Addresses for documentation (RFC 5737, RFC 3849).
        None => ["192.0.2.1", "2001:db8::1"].into_iter().filter_map(address_towards).collect(),
    };
    found.into_iter().filter(is_public).collect()
}

/// The error in a line of the router's log, if that is about this name and as young.
fn said_of(line: &str, host: &str, since: f64) -> Option<String> {
    let said: Value = serde_json::from_str(line).ok()?;
    let about = |field: &str| said.get(field).and_then(Value::as_str) == Some(host);
    if said.get("ts")?.as_f64()? < since || !(about("identifier") || about("server_name")) {
        return None;
    }
    Some(said.get("error")?.as_str()?.chars().take(REASON).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_s_reason_is_found_in_its_log() {
        let line = r#"{"level":"error","ts":1700000000.5,"logger":"tls.obtain","msg":"could not get certificate from issuer","identifier":"shop.example.com","issuer":"acme","error":"no such host"}"#;
        let said = |host, since| said_of(line, host, since);
        assert_eq!(said("shop.example.com", 1.0).as_deref(), Some("no such host"));
        assert_eq!(said("shop.example.com", 1_700_000_001.0), None, "of an earlier try");
        assert_eq!(said("other.example.com", 1.0), None);
        assert_eq!(said_of("half a line", "a", 1.0), None);
    }

    #[test]
    fn a_name_leads_here_or_elsewhere_or_nobody_knows() {
        let ips = |text: &str| text.split(' ').map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(lead_here(&ips("192.0.2.1 127.0.0.1"), &[]), Some(true));
        assert_eq!(lead_here(&ips("192.0.2.1"), &ips("198.51.100.1")), Some(false));
        assert_eq!(lead_here(&ips("192.0.2.1"), &[]), None);
        let private = ips("10.0.0.1 100.64.0.1 127.0.0.1 169.254.1.1 fd00::1 fe80::1 ::1");
        assert!(!private.iter().any(is_public));
        assert!(ips("100.128.0.1 203.0.113.1 2001:db8::1").iter().all(is_public));
    }

    #[test]
    fn names_come_when_they_are_due_and_never_twice_at_once() {
        let names = Names::default();
        let set = |hosts: &[&str]| hosts.iter().map(|h| (*h).to_owned()).collect();
        names.follow(&set(&["a.test", "b.test"]));
        let mut both = [names.due().unwrap(), names.due().unwrap()];
        both.sort_unstable();
        assert_eq!(both, ["a.test", "b.test"]);
        names.follow(&set(&["b.test", "c.test"]));
        assert_eq!(names.due().as_deref(), Some("c.test"), "b.test is at hand already");
        assert_eq!(names.due(), None);
        assert_eq!((names.known("a.test"), names.missing()), (None, None));
    }
}
