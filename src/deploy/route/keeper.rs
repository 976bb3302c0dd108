//! Keeps Caddy running: starts it or finds it again, and has it follow.

use super::State;
use super::admin;
use super::caddy::{self, Version};
use super::certificates;
use super::config::{Layout, Ports, Settings};
use super::table::Table;
use crate::deploy::port_guard::PortGuard;
use crate::proc::{Cancel, Running, wait_any};
use crate::sync::lock;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// The usual ports, and what to take when they cannot be had.
const HTTP: [u16; 2] = [80, 8081];
const HTTPS: [u16; 2] = [443, 8443];

/// How long the router may take until it serves.
const STARTING: Duration = Duration::from_secs(15);
/// How long it may take to judge a configuration, and to go over to it.
pub(super) const LOADING: Duration = Duration::from_secs(8);
/// The same for a change that a request waits for, and all other requests with it.
const LOADING_SOON: Duration = Duration::from_secs(3);
/// How long a change waits for a certificate that is only just being written.
const WRITING: Duration = Duration::from_secs(1);
/// What Caddy says when it has lost a socket to a configuration that it refused (Caddy 2.6).
const LOST: &str = "use of closed network connection";
/// How long such a change waits for another one.
const TURN: Duration = Duration::from_secs(2);
/// How often the configuration that runs must be found right before that is believed, after
/// a change whose end nobody knows: it could still be under way at the first look.
const LOOKS: u32 = 2;
/// Time between two questions.
pub(super) const AGAIN: Duration = Duration::from_millis(20);
/// A router that lived this long is started again without a pause.
const STABLE: Duration = Duration::from_secs(10);
/// The first pause otherwise, and the longest; it doubles. What was missing may have been
/// installed meanwhile.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The longest one for as long as it has served lately: nothing is missing then.
const SERVED_PAUSE: Duration = Duration::from_secs(1);
const LATELY: Duration = Duration::from_secs(60);

/// All addresses, of both kinds.
const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Why there is no router at the end.
pub const STOPS: &str = "the server stops";

/// The longest path that fits into the address of a Unix socket (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// What keeps Caddy running, and its configuration right.
#[derive(Debug)]
pub struct Keeper {
    pub settings: Settings,
    pub dir: PathBuf,
    pub sites: PathBuf,
    pub front: PathBuf,
    pub table: Table,
    pub guard: Arc<PortGuard>,
    /// The names that need a certificate.
    pub encrypted: Mutex<BTreeSet<String>>,
    pub state: Mutex<State>,
    /// Held while the configuration changes or Caddy starts.
    pub changing: Mutex<()>,
    /// How often it must be looked at what configuration runs.
    pub doubts: AtomicU32,
    pub stop: Cancel,
}

impl Keeper {
    /// Keeps Caddy running until the server stops.
    pub fn keep(&self) {
        let mut pause = Duration::ZERO;
        let mut served: Option<Instant> = None;
        loop {
            let _ = wait_any(&[self.stop.as_fd()], pause);
            if self.stop.is_cancelled() {
                return;
            }
            match self.bring_up() {
                Ok(running) => {
                    let since = Instant::now();
                    if !self.watch(running) {
                        return;
                    }
                    *lock(&self.state) = State::Starting;
                    log::warn!("the router has ended; starting it again");
                    served = Some(Instant::now());
                    let stable = since.elapsed() >= STABLE;
                    pause = if stable { Duration::ZERO } else { after(pause).min(SERVED_PAUSE) };
                }
                Err(why) => {
                    let state = State::Missing(why.clone());
                    if std::mem::replace(&mut *lock(&self.state), state.clone()) != state {
                        log::warn!("apps are not routed: {why}");
                    }
                    pause = after(pause);
                    if served.is_some_and(|at| at.elapsed() < LATELY) {
                        pause = pause.min(SERVED_PAUSE);
                    }
                }
            }
        }
    }

    /// Finds Caddy running or starts it, with the configuration as it should be.
    fn bring_up(&self) -> Result<Running, String> {
        let _held = lock(&self.changing);
        self.fits()?;
        let installed = match caddy::version() {
            Some(version) => version,
            None if !caddy::is_installed() => return Err(caddy::NOT_INSTALLED.to_owned()),
            None => return Err("caddy does not tell its version; reinstall it".to_owned()),
        };
        let mut found = None;
        if let Some(running) = caddy::adopt(&self.dir) {
            // It may be older than what is installed by now.
            let version = caddy::version_of(&running).unwrap_or_else(|| installed.clone());
            match self.adopted(version.keeps_streams) {
                Some(ports) => found = Some((running, ports, version)),
                None if self.stop.is_cancelled() => return Err(STOPS.to_owned()),
                None => caddy::end(running),
            }
        }
        let (running, ports, version) = match found {
            Some(found) => found,
            None => {
                let (running, ports) = self.launch(installed.keeps_streams)?;
                (running, ports, installed)
            }
        };
        let version = version.text;
        let https = ports.https.map_or(String::new(), |port| format!(", https on port {port}"));
        log::info!("router: caddy {version}, http on port {}{https}", ports.http);
        *lock(&self.state) = State::Running { version, ports };
        Ok(running)
    }

    /// Paths become parts of addresses, patterns and placeholders.
    fn fits(&self) -> Result<(), String> {
        let path = self.dir.to_str().filter(|path| !path.contains(['{', '}', '*', '?', '[', '\\']));
        if path.is_none() {
            return Err(
                "the router cannot work in a data directory whose path has one of {}*?[\\ \
                        in it; set DATA_DIR to another"
                    .to_owned(),
            );
        }
        if Layout::admin(&self.dir).as_os_str().len() > MAX_SOCKET_PATH {
            return Err(
                "the path of the data directory is too long for the router's sockets; set \
                        DATA_DIR to one of at most 88 bytes"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The ports of a Caddy that was found, once it has the right configuration.
    fn adopted(&self, keeps_streams: bool) -> Option<Ports> {
        let text = fs::read_to_string(self.config()).ok()?;
        let mut ports = Ports::read(&text)?;
        let own = &self.settings;
        let other = |set: Option<u16>, has: u16| set.is_some_and(|set| set != has);
        if other(own.http_port, ports.http)
            || ports.https.is_some_and(|https| other(own.https_port, https))
            || !self.is_serving()
        {
            return None;
        }
        ports.https = match ports.https {
            _ if lock(&self.encrypted).is_empty() => None,
            None => Some(self.https_port(None).ok()?),
            there => there,
        };
        let right = self.layout(ports, &lock(&self.encrypted).clone(), keeps_streams);
        // A server that was killed may have changed the one and not the other.
        if right == text && self.runs(&right) {
            return Some(ports);
        }
        match self.load(&right, LOADING) {
            Ok(()) => Some(ports),
            Err(why) => {
                log::warn!("the router that was found is started anew: {why}");
                None
            }
        }
    }

    /// Starts Caddy and waits until it serves.
    fn launch(&self, keeps_streams: bool) -> Result<(Running, Ports), String> {
        let last = fs::read_to_string(self.config()).ok();
        let ports = self.ports(last.as_deref().and_then(Ports::read))?;
        let text = self.layout(ports, &lock(&self.encrypted).clone(), keeps_streams);
        if last.as_deref() != Some(&text) {
            self.write("next.json", &text)?;
            let judged = caddy::judge(&self.dir, &self.dir.join("next.json"), LOADING, &self.stop);
            if self.stop.is_cancelled() {
                return Err(STOPS.to_owned());
            }
            match (judged, &last) {
                (Ok(()), _) => self.take_next()?,
                (Err(why), Some(_)) => {
                    log::error!(
                        "the router refuses its configuration and uses the last one: {why}"
                    );
                }
                (Err(why), None) => return Err(format!("Caddy refuses its configuration: {why}")),
            }
        }
        for socket in [Layout::admin(&self.dir), Layout::check(&self.dir)] {
            let _ = fs::remove_file(socket);
        }
        let mut running = caddy::start(&self.dir, &self.config())?;
        let until = Instant::now() + STARTING;
        while !self.is_serving() {
            if running.try_wait().is_some() {
                return Err(format!("Caddy ended at once: {}", caddy::last_words(&self.dir)));
            }
            if self.stop.is_cancelled() {
                // The next server finds it.
                return Err(STOPS.to_owned());
            }
            if Instant::now() > until {
                caddy::end(running);
                return Err(format!("Caddy did not serve within {} s", STARTING.as_secs()));
            }
            let _ = wait_any(&[running.as_fd()], AGAIN);
        }
        Ok((running, ports))
    }

    /// Where to listen: as the owner says, as is usual, or as the last time.
    fn ports(&self, last: Option<Ports>) -> Result<Ports, String> {
        let http = self.choose(self.settings.http_port, last.map(|p| p.http), HTTP, "HTTP_PORT")?;
        let needed = !lock(&self.encrypted).is_empty();
        let https = if needed { Some(self.https_port(last)?) } else { None };
        Ok(Ports { http, https })
    }

    fn https_port(&self, last: Option<Ports>) -> Result<u16, String> {
        self.choose(self.settings.https_port, last.and_then(|p| p.https), HTTPS, "HTTPS_PORT")
    }

    fn choose(
        &self,
        set: Option<u16>,
        last: Option<u16>,
        usual: [u16; 2],
        name: &str,
    ) -> Result<u16, String> {
        let choice: Vec<u16> = match set {
            Some(set) => vec![set],
            // The usual one is taken back as soon as it is free: clients know it.
            None => [usual[0]].into_iter().chain(last).chain([usual[1]]).collect(),
        };
        let mut refused = None;
        let mut can_listen = |port: u16| {
            let result = self.can_listen(port);
            result.map_err(|error| refused.get_or_insert((port, error))).is_ok()
        };
        let Some(chosen) = choice.into_iter().find(|port| can_listen(*port)) else {
            let (port, error) = refused.unwrap_or((usual[0], ErrorKind::AddrInUse.into()));
            return Err(format!(
                "the router cannot listen on port {port} ({error}); set {name} to a free one"
            ));
        };
        if set.is_none() && chosen != usual[0] {
            let why = refused.map_or_else(String::new, |(_, error)| format!(" ({error})"));
            log::warn!("port {} cannot be had{why}; the router takes port {chosen}", usual[0]);
        }
        Ok(chosen)
    }

    /// Whether Caddy can listen on a port, which is taken from an app that has it.
    fn can_listen(&self, port: u16) -> io::Result<()> {
        let address = SocketAddr::new(self.settings.bind.unwrap_or(EVERYWHERE), port);
        loop {
            match caddy::can_listen(self.settings.bind, port) {
                Err(error)
                    if error.kind() == ErrorKind::AddrInUse
                        && self.guard.take_back(address.port()) => {}
                result => return result,
            }
        }
    }

    pub fn encrypted_of(&self, hosts: impl Iterator<Item = String>) -> BTreeSet<String> {
        let all = hosts.chain(self.settings.dashboard_domain.clone());
        all.filter(|host| self.settings.is_encrypted(host)).collect()
    }

    /// The right to change the configuration. Whoever asks keeps other requests waiting,
    /// so it is no use to wait for a router that is being started.
    pub(super) fn turn(&self) -> Result<MutexGuard<'_, ()>, String> {
        let until = Instant::now() + TURN;
        loop {
            match self.changing.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() > until => {
                    return Err("the router is starting; try again in a moment".to_owned());
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// Goes over to other names that need a certificate; as before when they are refused.
    pub fn encrypt(&self, names: BTreeSet<String>) -> Result<(), String> {
        if *lock(&self.encrypted) == names {
            return Ok(());
        }
        let _held = self.turn()?;
        let state = lock(&self.state).clone();
        if let State::Running { version, mut ports } = state {
            if names.is_empty() {
                ports.https = None;
            } else if ports.https.is_none() {
                ports.https = Some(self.https_port(None)?);
            }
            let keeps_streams = Version::read(&version).is_some_and(|v| v.keeps_streams);
            self.load(&self.layout(ports, &names, keeps_streams), LOADING_SOON)?;
            *lock(&self.state) = State::Running { version, ports };
        }
        *lock(&self.encrypted) = names;
        Ok(())
    }

    fn layout(&self, ports: Ports, encrypted: &BTreeSet<String>, keeps_streams: bool) -> String {
        Layout {
            dir: &self.dir,
            sites: &self.sites,
            front: &self.front,
            settings: &self.settings,
            ports,
            encrypted,
            keeps_streams,
        }
        .json()
        .to_string()
    }

    /// Gives the running Caddy another configuration, judged before.
    pub(super) fn load(&self, text: &str, limit: Duration) -> Result<(), String> {
        self.write("next.json", text)?;
        caddy::judge(&self.dir, &self.dir.join("next.json"), limit, &self.stop)?;
        let until = Instant::now() + WRITING;
        while !certificates::are_whole(&self.dir) && Instant::now() < until {
            std::thread::sleep(AGAIN);
        }
        // Caddy wants an empty host on a Unix socket.
        let admin = Layout::admin(&self.dir);
        let answer = admin::ask(&admin, "POST", "", "/load", text.as_bytes(), limit, &self.stop);
        let answer = answer.map_err(|error| {
            self.doubts.store(LOOKS, Ordering::Relaxed);
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
                self.end_deaf();
            }
            format!("the router does not take changes at the moment ({error}); try again")
        })?;
        if answer.status == 200 {
            return self.take_next();
        }
        if answer.body.contains(LOST) {
            self.end_deaf();
            return Err("the router is starting anew; try again in a moment".to_owned());
        }
        Err(format!("the router refuses: {}", answer.body.trim()))
    }

    /// Ends a Caddy that would never take a change again; started anew it does.
    fn end_deaf(&self) {
        if let Some(deaf) = caddy::adopt(&self.dir) {
            deaf.terminate();
        }
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let write = || {
            let path = self.dir.join(name);
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e: io::Error| format!("the router's configuration cannot be written: {e}"))
    }

    /// What has proved good is kept.
    fn take_next(&self) -> Result<(), String> {
        let renamed = fs::rename(self.dir.join("next.json"), self.config());
        renamed.map_err(|e| format!("the router's configuration cannot be kept: {e}"))
    }
}

/// The pause after one of this length.
fn after(pause: Duration) -> Duration {
    if pause.is_zero() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) }
}
