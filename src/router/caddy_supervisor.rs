//! Keeps Caddy running: starts it or finds it again, and has it follow.

use super::admin_client;
use super::caddy::{self, Version};
use super::caddy_config::CaddyConfig;
use super::caddy_health::{ASK_AGAIN, CaddyHealth, Seen};
use super::certificates;
use super::ports::Ports;
use super::settings::Settings;
use super::{RouterState, TakeBack};
use crate::data_dir::replace;
use crate::http_client::STOPS;
use crate::proc::{Running, wait_any};
use crate::sync::lock;
use rustix::net::SocketAddrUnix;
use serde_json::Value;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The usual ports, and what to take when they cannot be had.
const HTTP: [u16; 2] = [80, 8081];
const HTTPS: [u16; 2] = [443, 8443];

/// How long the router may take until it serves.
const STARTING: Duration = Duration::from_secs(15);
/// How long it may take to say its configuration, and to go over to another.
const LOADING: Duration = Duration::from_secs(8);
/// A router that lived this long is started again without a pause.
const STABLE: Duration = Duration::from_secs(10);
/// The pause before the next try where it cannot be started: what was missing may have been
/// installed meanwhile.
const PAUSE: Duration = Duration::from_secs(5);
/// The same for as long as it has served lately: nothing is missing then.
const SERVED_PAUSE: Duration = Duration::from_secs(1);
const LATELY: Duration = Duration::from_secs(60);

/// What keeps Caddy running, and its configuration right.
pub struct CaddySupervisor {
    /// What the owner has set.
    pub settings: Arc<Settings>,
    pub sites: PathBuf,
    /// The socket on which the dashboard answers.
    pub front: PathBuf,
    /// Takes a port back from an app.
    pub take_back: TakeBack,
    /// The path at which the router asks itself for permission.
    pub secret: String,
    /// Whether it serves.
    pub health: Arc<CaddyHealth>,
}

impl CaddySupervisor {
    /// Keeps Caddy running until the server stops.
    pub fn run(&self) {
        let mut served: Option<Instant> = None;
        while !self.health.stop.is_cancelled() {
            let begun = Instant::now();
            let pause = match self.bring_up() {
                Ok(running) => {
                    if self.health.watch(running, &|| self.could_move()) != Seen::End {
                        continue;
                    }
                    *lock(&self.health.state) = RouterState::Starting;
                    log::warn!("the router has ended; starting it again");
                    served = Some(Instant::now());
                    if begun.elapsed() >= STABLE { Duration::ZERO } else { SERVED_PAUSE }
                }
                Err(why) => {
                    let state = RouterState::Missing(why.clone());
                    if std::mem::replace(&mut *lock(&self.health.state), state.clone()) != state {
                        log::warn!("apps are not routed: {why}");
                    }
                    let lately = served.is_some_and(|at| at.elapsed() < LATELY);
                    if lately { SERVED_PAUSE } else { PAUSE }
                }
            };
            let _ = wait_any(&[self.health.stop.as_fd()], pause);
        }
    }

    /// Finds Caddy running or starts it, with the configuration as it should be.
    fn bring_up(&self) -> Result<Running, String> {
        self.fits()?;
        let mut version = match caddy::version() {
            Some(version) => version,
            None if !caddy::is_installed() => return Err(caddy::NOT_INSTALLED.to_owned()),
            None => return Err("caddy does not tell its version; reinstall it".to_owned()),
        };
        let mut found = None;
        if let Some(running) = caddy::adopt(&self.health.dir) {
            // It may be older than what is installed by now.
            let older = caddy::version_of(&running).unwrap_or_else(|| version.clone());
            match self.adopted(&older) {
                Some((ports, lack)) => {
                    version = older;
                    found = Some((running, ports, lack));
                }
                None if self.health.stop.is_cancelled() => return Err(STOPS.to_owned()),
                None => caddy::end(running),
            }
        }
        let (running, ports, lack) = found.map_or_else(|| self.launch(&version), Ok)?;
        let version = version.text;
        let https = ports.https.map_or(String::new(), |port| format!(", https on port {port}"));
        log::info!("router: caddy {version}, http on port {}{https}", ports.http);
        if let Some(lack) = &lack {
            log::warn!("{lack}");
        }
        *lock(&self.health.state) = RouterState::Running { version, ports, lack };
        Ok(running)
    }

    /// Paths become parts of addresses, patterns and placeholders.
    fn fits(&self) -> Result<(), String> {
        let path =
            self.health.dir.to_str().filter(|path| !path.contains(['{', '}', '*', '?', '[', '\\']));
        if path.is_none() {
            return Err(
                "the router cannot work in a data directory whose path has one of {}*?[\\ \
                        in it; set DATA_DIR to another"
                    .to_owned(),
            );
        }
        if SocketAddrUnix::new(CaddyConfig::admin(&self.health.dir)).is_err() {
            return Err(
                "the path of the data directory is too long for the router's sockets; set \
                        DATA_DIR to one of at most 88 bytes"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Where a Caddy that was found listens, once it has the right configuration, and why not
    /// where it should.
    fn adopted(&self, version: &Version) -> Option<(Ports, Option<String>)> {
        let runs = self.running_configuration()?;
        if !self.health.is_serving() {
            return None;
        }
        let anew = |why: &String| log::warn!("the router that was found is started anew: {why}");
        let (ports, lack) = self.place(Ports::read(&runs)).inspect_err(anew).ok()?;
        let right = self.configuration(ports, version);
        if runs == right {
            return Some((ports, lack));
        }
        match self.load(&right.to_string()) {
            Ok(()) => Some((ports, lack)),
            // What it refuses leaves it serving as it did.
            Err(why) if self.health.is_serving() => {
                Some((Ports::read(&runs)?, Some(refused(&why))))
            }
            Err(why) => {
                anew(&why);
                None
            }
        }
    }

    /// Starts Caddy, with the last configuration if it refuses the one that it should have.
    fn launch(&self, version: &Version) -> Result<(Running, Ports, Option<String>), String> {
        let (ports, lack) = self.place(None)?;
        let last = fs::read_to_string(self.health.dir.join("config.json")).ok();
        let text = self.configuration(ports, version).to_string();
        let why = match self.start(&text) {
            Ok(running) => return Ok((running, ports, lack)),
            Err(why) => why,
        };
        let last = last.filter(|last| *last != text && !self.health.stop.is_cancelled());
        let known = last.as_deref().and_then(|last| serde_json::from_str(last).ok());
        match (last, known.as_ref().and_then(Ports::read)) {
            (Some(last), Some(ports)) => Ok((self.start(&last)?, ports, Some(refused(&why)))),
            _ => Err(why),
        }
    }

    /// Starts Caddy with a configuration and waits until it serves.
    fn start(&self, text: &str) -> Result<Running, String> {
        // Caddy was killed while it wrote them, and would not get others in their place.
        certificates::discard_broken(&self.health.dir, None, Duration::ZERO);
        let config = self.health.dir.join("config.json");
        // On a disk that is full as well, unless something has changed.
        if fs::read(&config).ok().as_deref() != Some(text.as_bytes()) {
            replace(&config, text.as_bytes())
                .map_err(|e| format!("the router's configuration cannot be written: {e}"))?;
        }
        for socket in [CaddyConfig::admin(&self.health.dir), CaddyConfig::check(&self.health.dir)] {
            let _ = fs::remove_file(socket);
        }
        let mut running = caddy::start(&self.health.dir, &config)?;
        let until = Instant::now() + STARTING;
        while !self.health.is_serving() {
            if running.try_wait().is_some() {
                return Err(format!(
                    "Caddy ended at once: {}",
                    caddy::last_words(&self.health.dir)
                ));
            }
            if self.health.stop.is_cancelled() {
                // The next server finds it.
                return Err(STOPS.to_owned());
            }
            if Instant::now() > until {
                caddy::end(running);
                return Err(format!("Caddy did not serve within {} s", STARTING.as_secs()));
            }
            let _ = wait_any(&[running.as_fd()], ASK_AGAIN);
        }
        Ok(running)
    }

    /// Where to listen: as the owner says or as is usual, or else on another port, and why
    /// not where it should. A Caddy of ours may listen somewhere `now`. Without HTTPS the rest
    /// still works.
    fn place(&self, now: Option<Ports>) -> Result<(Ports, Option<String>), String> {
        let own = &self.settings;
        let now_https = now.and_then(|now| now.https);
        let (http, lack) =
            self.choose(own.http_port, now.map(|now| now.http), HTTP, "HTTP_PORT")?;
        let (https, lack_https) = self
            .choose(own.https_port, now_https, HTTPS, "HTTPS_PORT")
            .map(|(port, lack)| (Some(port), lack))
            .unwrap_or_else(|why| {
                (None, Some(format!("{why}; until then nothing is served over HTTPS")))
            });
        let lacks: Vec<String> = lack.into_iter().chain(lack_https).collect();
        Ok((Ports { http, https }, (!lacks.is_empty()).then(|| lacks.join("; "))))
    }

    /// Whether Caddy lacks a port that it could have by now.
    fn could_move(&self) -> bool {
        let RouterState::Running { ports, lack: Some(_), .. } = *lock(&self.health.state) else {
            return false;
        };
        self.place(Some(ports)).is_ok_and(|(better, _)| better != ports)
    }

    fn choose(
        &self,
        set: Option<u16>,
        now: Option<u16>,
        usual: [u16; 2],
        name: &str,
    ) -> Result<(u16, Option<String>), String> {
        // Clients know the usual one; who serves at another goes on there.
        let first = set.unwrap_or(usual[0]);
        let error = match self.can_listen(first, now) {
            Ok(()) => return Ok((first, None)),
            Err(error) => error,
        };
        let others = now.into_iter().chain([usual[1]]).filter(|_| set.is_none());
        match others.into_iter().find(|port| self.can_listen(*port, now).is_ok()) {
            Some(port) => Ok((
                port,
                Some(format!(
                    "port {first} cannot be had ({error}); the router takes port {port} until it can"
                )),
            )),
            None => Err(format!(
                "the router cannot listen on port {first} ({error}); set {name} to a free one"
            )),
        }
    }

    /// Whether Caddy can listen on a port, which it may do now, and which is taken from an app
    /// that has it.
    fn can_listen(&self, port: u16, now: Option<u16>) -> io::Result<()> {
        if now == Some(port) {
            return Ok(());
        }
        loop {
            match caddy::can_listen(self.settings.bind, port) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && (self.take_back)(port) => {}
                result => return result,
            }
        }
    }

    fn configuration(&self, ports: Ports, version: &Version) -> Value {
        CaddyConfig {
            dir: &self.health.dir,
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
        let (_, body) = self.ask("GET /config/", "").ok()?;
        serde_json::from_str(&body).ok()
    }

    /// Gives the running Caddy another configuration: that of another version of ours, other
    /// settings of the owner, better ports. Caddy 2.6 cuts upgraded connections then, so
    /// nothing that happens in an app's life comes here. After one that it refuses, its
    /// versions up to 2.11 at least go on serving but take no further change.
    fn load(&self, text: &str) -> Result<(), String> {
        match self.ask("POST /load", text).map_err(|error| error.to_string())? {
            (200, _) => Ok(()),
            (_, body) => Err(body.trim().to_owned()),
        }
    }

    fn ask(&self, request: &str, body: &str) -> io::Result<(u16, String)> {
        // Caddy wants an empty host on a Unix socket.
        let admin = CaddyConfig::admin(&self.health.dir);
        admin_client::ask(&admin, request, "", body, LOADING, &self.health.stop)
    }
}

fn refused(why: &str) -> String {
    format!("the router refuses its configuration and uses the last one: {why}")
}
