//! Keeps Caddy running: starts it or finds it again, and has it follow.

use super::admin_client::{self, STOPS};
use super::caddy::{self, Version};
use super::caddy_config::CaddyConfig;
use super::caddy_health::{ASK_AGAIN, CaddyHealth, Seen};
use super::certificates;
use super::ports::Ports;
use super::settings::Settings;
use super::{RouterState, TakeBack};
use crate::proc::{Cancel, Running, wait_any};
use crate::sync::lock;
use serde_json::Value;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The usual ports, and what to take when they cannot be had.
const HTTP: [u16; 2] = [80, 8081];
const HTTPS: [u16; 2] = [443, 8443];

/// How long the router may take until it serves.
const STARTING: Duration = Duration::from_secs(15);
/// How long it may take to judge a configuration, and to go over to it.
const LOADING: Duration = Duration::from_secs(8);
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

/// The longest path that fits into the address of a Unix socket (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Where the router listens.
#[derive(Debug, PartialEq, Eq)]
struct Listening {
    ports: Ports,
    /// Why not where it should.
    lack: Option<String>,
}

/// What keeps Caddy running, and its configuration right.
pub struct CaddySupervisor {
    /// What the owner has set.
    pub settings: Arc<Settings>,
    /// The router's directory.
    pub dir: PathBuf,
    /// Where published files are.
    pub sites: PathBuf,
    /// The socket on which the dashboard answers.
    pub front: PathBuf,
    /// Takes a port back from an app.
    pub take_back: TakeBack,
    /// The path at which the router asks itself for permission.
    pub secret: String,
    /// Whether it serves.
    pub health: Arc<CaddyHealth>,
    /// What it is doing.
    pub state: Arc<Mutex<RouterState>>,
    /// Ends whatever waits.
    pub stop: Cancel,
}

impl CaddySupervisor {
    /// Keeps Caddy running until the server stops.
    pub fn run(&self) {
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
                    match self.health.watch(running, &|| self.could_move()) {
                        Seen::Stop => return,
                        Seen::BetterPorts => {
                            pause = Duration::ZERO;
                            continue;
                        }
                        Seen::End => {}
                    }
                    *lock(&self.state) = RouterState::Starting;
                    log::warn!("the router has ended; starting it again");
                    served = Some(Instant::now());
                    let stable = since.elapsed() >= STABLE;
                    pause = if stable { Duration::ZERO } else { after(pause).min(SERVED_PAUSE) };
                }
                Err(why) => {
                    let state = RouterState::Missing(why.clone());
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
            match self.adopted(&version) {
                Some(place) => found = Some((running, place, version)),
                None if self.stop.is_cancelled() => return Err(STOPS.to_owned()),
                None => caddy::end(running),
            }
        }
        let (running, Listening { ports, lack }, version) = match found {
            Some(found) => found,
            None => {
                let (running, place) = self.launch(&installed)?;
                (running, place, installed)
            }
        };
        let version = version.text;
        let https = ports.https.map_or(String::new(), |port| format!(", https on port {port}"));
        log::info!("router: caddy {version}, http on port {}{https}", ports.http);
        if let Some(lack) = &lack {
            log::warn!("{lack}");
        }
        *lock(&self.state) = RouterState::Running { version, ports, lack };
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
        if CaddyConfig::admin(&self.dir).as_os_str().len() > MAX_SOCKET_PATH {
            return Err(
                "the path of the data directory is too long for the router's sockets; set \
                        DATA_DIR to one of at most 88 bytes"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Where a Caddy that was found listens, once it has the right configuration.
    fn adopted(&self, version: &Version) -> Option<Listening> {
        let runs = self.running_configuration()?;
        if !self.health.is_serving() {
            return None;
        }
        let place = self.place(Ports::read(&runs));
        let place = place.inspect_err(|why| log::warn!("{why}")).ok()?;
        let right = self.configuration(place.ports, version);
        if runs == right {
            return Some(place);
        }
        match self.load(&right.to_string()) {
            Ok(()) => Some(place),
            Err(why) => {
                log::warn!("the router that was found is started anew: {why}");
                None
            }
        }
    }

    /// Starts Caddy and waits until it serves.
    fn launch(&self, version: &Version) -> Result<(Running, Listening), String> {
        let last = fs::read_to_string(self.config()).ok();
        let place = self.place(None)?;
        let text = self.configuration(place.ports, version).to_string();
        // Caddy was killed while it wrote them, and would not get others in their place.
        certificates::discard_broken(&self.dir, None, Duration::ZERO);
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
        for socket in [CaddyConfig::admin(&self.dir), CaddyConfig::check(&self.dir)] {
            let _ = fs::remove_file(socket);
        }
        let mut running = caddy::start(&self.dir, &self.config())?;
        let until = Instant::now() + STARTING;
        while !self.health.is_serving() {
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
            let _ = wait_any(&[running.as_fd()], ASK_AGAIN);
        }
        Ok((running, place))
    }

    /// Where to listen: as the owner says or as is usual, or else on another port. A Caddy
    /// of ours may listen somewhere `now`. Without HTTPS the rest still works.
    fn place(&self, now: Option<Ports>) -> Result<Listening, String> {
        let own = &self.settings;
        let (http, mut lack) =
            self.choose(own.http_port, now.map(|now| now.http), HTTP, "HTTP_PORT")?;
        let now = now.and_then(|now| now.https);
        let https = match self.choose(own.https_port, now, HTTPS, "HTTPS_PORT") {
            Ok((port, why)) => {
                lack.extend(why);
                Some(port)
            }
            Err(why) => {
                lack.push(format!("{why}; until then nothing is served over HTTPS"));
                None
            }
        };
        let lack = (!lack.is_empty()).then(|| lack.join("; "));
        Ok(Listening { ports: Ports { http, https }, lack })
    }

    /// Whether Caddy lacks a port that it could have by now.
    fn could_move(&self) -> bool {
        let RouterState::Running { ports, lack: Some(_), .. } = *lock(&self.state) else {
            return false;
        };
        self.place(Some(ports)).is_ok_and(|place| place.ports != ports)
    }

    fn choose(
        &self,
        set: Option<u16>,
        now: Option<u16>,
        usual: [u16; 2],
        name: &str,
    ) -> Result<(u16, Vec<String>), String> {
        let choice: Vec<u16> = match set {
            Some(set) => vec![set],
            // Clients know the usual one; who serves at another goes on there.
            None => [usual[0]].into_iter().chain(now).chain([usual[1]]).collect(),
        };
        let mut refused = None;
        let mut can_listen = |port: u16| {
            let result = if now == Some(port) { Ok(()) } else { self.can_listen(port) };
            result.map_err(|error| refused.get_or_insert((port, error))).is_ok()
        };
        let Some(chosen) = choice.into_iter().find(|port| can_listen(*port)) else {
            let (port, error) = refused.unwrap_or((usual[0], ErrorKind::AddrInUse.into()));
            return Err(format!(
                "the router cannot listen on port {port} ({error}); set {name} to a free one"
            ));
        };
        let lack = refused.map(|(port, error)| {
            format!(
                "port {port} cannot be had ({error}); the router takes port {chosen} until it can"
            )
        });
        Ok((chosen, lack.into_iter().collect()))
    }

    /// Whether Caddy can listen on a port, which is taken from an app that has it.
    fn can_listen(&self, port: u16) -> io::Result<()> {
        let address = SocketAddr::new(self.settings.bind.unwrap_or(EVERYWHERE), port);
        loop {
            match caddy::can_listen(self.settings.bind, port) {
                Err(error)
                    if error.kind() == ErrorKind::AddrInUse && (self.take_back)(address.port()) => {
                }
                result => return result,
            }
        }
    }

    fn configuration(&self, ports: Ports, version: &Version) -> Value {
        CaddyConfig {
            dir: &self.dir,
            sites: &self.sites,
            front: &self.front,
            settings: &self.settings,
            ports,
            secret: &self.secret,
            version,
        }
        .json()
    }

    /// What Caddy says that it runs.
    fn running_configuration(&self) -> Option<Value> {
        // Caddy wants an empty host on a Unix socket.
        let admin = CaddyConfig::admin(&self.dir);
        let answer = admin_client::ask(&admin, "GET", "", "/config/", b"", LOADING, &self.stop);
        serde_json::from_str(&answer.ok()?.body).ok()
    }

    /// Gives the running Caddy another configuration, judged before: that of another version
    /// of ours, other settings of the owner, better ports. Caddy 2.6 cuts upgraded
    /// connections then, so nothing that happens in an app's life comes here.
    fn load(&self, text: &str) -> Result<(), String> {
        self.write("next.json", text)?;
        caddy::judge(&self.dir, &self.dir.join("next.json"), LOADING, &self.stop)?;
        let admin = CaddyConfig::admin(&self.dir);
        let answer =
            admin_client::ask(&admin, "POST", "", "/load", text.as_bytes(), LOADING, &self.stop);
        match answer.map_err(|error| error.to_string())? {
            answer if answer.status == 200 => self.take_next(),
            answer => Err(answer.body.trim().to_owned()),
        }
    }

    fn config(&self) -> PathBuf {
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
