//! Keeps Caddy running: starts it or finds it again, and has it follow.

use super::caddy::{self, Version};
use super::caddy_config::{ADMIN, CHECK, CaddyConfig};
use super::caddy_health::{ASK_AGAIN, CaddyHealth, NO_HOST};
use super::certificates;
use super::ports::Ports;
use super::{RouterState, TakeBack};
use crate::data_dir::replace;
use crate::http_client::STOPS;
use crate::model::{AnyError, Routing, failed};
use crate::proc::{Running, wait_any};
use crate::sync::lock;
use rustix::net::SocketAddrUnix;
use serde_json::Value;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file with the configuration with which Caddy was started.
const CONFIG: &str = "config.json";

/// The usual ports, and what to take when they cannot be had.
const HTTP: [u16; 2] = [80, 8081];
const HTTPS: [u16; 2] = [443, 8443];

/// How long the router may take until it serves.
const STARTING: Duration = Duration::from_secs(15);
/// A router that lived this long is started again without a pause.
const STABLE: Duration = Duration::from_secs(10);
/// The pause before another start, or try: what was missing may have been installed meanwhile.
const PAUSE: Duration = Duration::from_secs(5);
/// The same after it has served.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// How often it must not answer in a row to be ended. Each time it had two seconds for it,
/// and [`IDLE`] lies between two times: a machine out of breath has some 20 s.
const SILENT: u32 = 3;
/// How often its log is looked at, whether it answers, and whether it could have better ports.
const IDLE: Duration = Duration::from_secs(5);
/// How often in a row a better port must be found free: a server that restarts comes back to it.
const FREE: u32 = 3;

/// What keeps Caddy running, and its configuration right.
pub struct CaddySupervisor {
    /// What the owner has set.
    pub routing: Arc<Routing>,
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
        while !self.health.stop.is_cancelled() {
            let (begun, mut pause) = (Instant::now(), PAUSE);
            match self.bring_up() {
                Ok(running) => {
                    if !self.watch(running) {
                        continue;
                    }
                    *lock(&self.health.state) = RouterState::Starting;
                    log::warn!("the router has ended; starting it again");
                    if begun.elapsed() >= STABLE {
                        continue;
                    }
                    pause = SHORT_PAUSE;
                }
                Err(why) => {
                    let state = RouterState::Missing(why.to_string());
                    if std::mem::replace(&mut *lock(&self.health.state), state.clone()) != state {
                        log::warn!("apps are not routed: {why}");
                    }
                }
            }
            let _ = wait_any(&[self.health.stop.as_fd()], pause);
        }
    }

    /// Waits for Caddy's end, and brings it about when Caddy is there and says nothing any
    /// more. Not so where the server stops, or Caddy can listen where it should and does not.
    fn watch(&self, mut running: Running) -> bool {
        let (mut asked, mut silent, mut free) = (Instant::now(), 0, 0);
        while running.try_wait().is_none() {
            if asked.elapsed() >= IDLE {
                silent = if self.health.found(NO_HOST).is_ok() { 0 } else { silent + 1 };
                free = if self.could_move() { free + 1 } else { 0 };
                // Not `IDLE` after the question: a silent one takes its time.
                asked = Instant::now();
                if silent >= SILENT && !self.health.stop.is_cancelled() {
                    log::error!("the router has not answered {silent} times and is ended");
                    caddy::end(running);
                    return true;
                }
            }
            let (rules, stop) = (self.health.rules.as_fd(), self.health.stop.as_fd());
            if wait_any(&[running.as_fd(), stop, rules], IDLE).is_err() {
                std::thread::sleep(ASK_AGAIN);
            }
            if self.health.rules.clear() || self.health.stop.is_cancelled() || free >= FREE {
                return false;
            }
            caddy::bound_output(&self.health.dir);
        }
        true
    }

    /// Finds Caddy running or starts it, with the configuration as it should be.
    fn bring_up(&self) -> Result<Running, AnyError> {
        self.fits()?;
        let installed = caddy::version()?;
        let found = caddy::adopt(&self.health.dir).map(|running| {
            // It may be older than what is installed by now.
            let version = caddy::version_of(&running).unwrap_or_else(|| installed.clone());
            (self.adopted(&version), running, version)
        });
        let (running, version, (ports, lack)) = match found {
            Some((Some(place), running, version)) => (running, version.text, place),
            Some(_) if self.health.stop.is_cancelled() => return Err(STOPS.into()),
            left => {
                if let Some((_, running, _)) = left {
                    caddy::end(running);
                }
                let (running, place) = self.launch(&installed)?;
                (running, installed.text, place)
            }
        };
        let https = ports.https.map_or(String::new(), |port| format!(", https on port {port}"));
        log::info!("router: caddy {version}, http on port {}{https}", ports.http);
        if let Some(lack) = &lack {
            log::warn!("{lack}");
        }
        *lock(&self.health.state) = RouterState::Running { version, ports, lack };
        Ok(running)
    }

    /// Paths become parts of addresses, patterns and placeholders.
    fn fits(&self) -> Result<(), &'static str> {
        let path = self.health.dir.to_str();
        path.filter(|path| !path.contains(['{', '}', '*', '?', '[', '\\'])).ok_or(
            "the router cannot work in a data directory whose path has one of {}*?[\\ in it; set \
             DATA_DIR to another",
        )?;
        SocketAddrUnix::new(self.health.dir.join(ADMIN)).map(drop).map_err(|_| {
            "the path of the data directory is too long for the router's sockets; set DATA_DIR \
             to one of at most 88 bytes"
        })
    }

    /// Where a Caddy that was found listens, once it has the right configuration, and why not
    /// where it should.
    fn adopted(&self, version: &Version) -> Option<(Ports, Option<String>)> {
        let (_, runs) = self.health.configuration().ok()?;
        let runs = serde_json::from_str(&runs).ok()?;
        if !self.health.is_serving() {
            return None;
        }
        let anew = |why: &String| log::warn!("the router that was found is started anew: {why}");
        let (ports, lack) = self.place(Ports::read(&runs)).inspect_err(anew).ok()?;
        let right = self.configuration(ports, version);
        if runs == right {
            return Some((ports, lack));
        }
        let why = match self.health.load(&right.to_string()) {
            Ok((200, _)) => return Some((ports, lack)),
            Ok((_, body)) => body.trim().to_owned(),
            Err(error) => error.to_string(),
        };
        // What it refuses leaves it serving as it did.
        if !self.health.is_serving() {
            anew(&why);
            return None;
        }
        Some((Ports::read(&runs)?, Some(refused(&why))))
    }

    /// Starts Caddy with the configuration as it should be. What it refuses does not take apps
    /// down: then it gets the last one with which it served.
    fn launch(&self, version: &Version) -> Result<(Running, (Ports, Option<String>)), AnyError> {
        let place = self.place(None)?;
        let last = fs::read_to_string(self.health.dir.join(CONFIG)).ok();
        let text = self.configuration(place.0, version).to_string();
        let why = match self.start(&text) {
            Ok(running) => return Ok((running, place)),
            Err(why) => why,
        };
        let last = last.filter(|last| *last != text && !self.health.stop.is_cancelled());
        let ports = last.as_deref().and_then(|last| Ports::read(&serde_json::from_str(last).ok()?));
        let (Some(last), Some(ports)) = (last, ports) else { return Err(why) };
        Ok((self.start(&last)?, (ports, Some(refused(&why.to_string())))))
    }

    /// Starts Caddy with a configuration and waits until it serves.
    fn start(&self, text: &str) -> Result<Running, AnyError> {
        // Caddy was killed while it wrote them, and would not get others in their place.
        certificates::discard_broken(&self.health.dir, None, Duration::ZERO);
        let config = self.health.dir.join(CONFIG);
        // On a disk that is full as well, unless something has changed.
        if fs::read(&config).ok().as_deref() != Some(text.as_bytes()) {
            replace(&config, text.as_bytes())
                .map_err(failed("the router's configuration cannot be written"))?;
        }
        for socket in [ADMIN, CHECK] {
            let _ = fs::remove_file(self.health.dir.join(socket));
        }
        let mut running = caddy::start(&self.health.dir, &config)?;
        let until = Instant::now() + STARTING;
        while !self.health.is_serving() {
            if running.try_wait().is_some() {
                let words = caddy::last_words(&self.health.dir);
                return Err(format!("Caddy ended at once: {words}").into());
            }
            if self.health.stop.is_cancelled() {
                // The next server finds it.
                return Err(STOPS.into());
            }
            if Instant::now() > until {
                caddy::end(running);
                return Err(format!("Caddy did not serve within {} s", STARTING.as_secs()).into());
            }
            let _ = wait_any(&[running.as_fd()], ASK_AGAIN);
        }
        Ok(running)
    }

    /// Where to listen: as the owner says or as is usual, or else on another port, and why
    /// not where it should. A Caddy of ours may listen somewhere `now`. Without HTTPS the rest
    /// still works.
    fn place(&self, now: Option<Ports>) -> Result<(Ports, Option<String>), String> {
        let (own, now_https) = (&self.routing, now.and_then(|now| now.https));
        let (http, lack) =
            self.choose(own.http_port, now.map(|now| now.http), HTTP, "HTTP_PORT")?;
        let (https, lack_https) = match self.choose(own.https_port, now_https, HTTPS, "HTTPS_PORT")
        {
            Ok((port, lack)) => (Some(port), lack),
            Err(why) => (None, Some(format!("{why}; until then nothing is served over HTTPS"))),
        };
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
        let Err(error) = self.can_listen(first, now) else { return Ok((first, None)) };
        let mut others = now.into_iter().chain([usual[1]]).filter(|_| set.is_none());
        let port = others.find(|port| self.can_listen(*port, now).is_ok()).ok_or_else(|| {
            format!("the router cannot listen on port {first} ({error}); set {name} to a free one")
        })?;
        let lack = format!(
            "port {first} cannot be had ({error}); the router takes port {port} until it can"
        );
        Ok((port, Some(lack)))
    }

    /// Whether Caddy can listen on a port, which it may do now, and which is taken from an app
    /// that has it.
    fn can_listen(&self, port: u16, now: Option<u16>) -> io::Result<()> {
        if now == Some(port) {
            return Ok(());
        }
        loop {
            match caddy::can_listen(self.routing.bind, port) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && (self.take_back)(port) => {}
                result => return result,
            }
        }
    }

    fn configuration(&self, ports: Ports, version: &Version) -> Value {
        let Self { routing, secret, health, .. } = self;
        CaddyConfig { dir: &health.dir, routing, ports, secret, version }.json()
    }
}

/// What is lacking when Caddy does not take its configuration.
fn refused(why: &str) -> String {
    format!("the router refuses its configuration and uses the last one: {why}")
}
