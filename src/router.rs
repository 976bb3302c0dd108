//! The router: Caddy as a child, and the table that tells it where each host leads.
//!
//! A deploy changes the [`route_table`] alone, so no other app notices it, and what serves
//! keeps serving when the server, the router or both are killed. Nor does a name change
//! anything else, or its certificate. The database is what counts: at each start of the
//! server the table is made to follow it.

mod admin_client;
mod caddy;
mod caddy_config;
mod caddy_health;
mod caddy_supervisor;
mod certificate_watch;
mod certificates;
mod client_headers;
mod ports;
mod route_table;
mod settings;
mod static_page;

pub use certificate_watch::{Certificate, Name, lead_here};
pub use ports::Ports;
pub use route_table::Target;
pub use settings::Settings;

use crate::data_dir::{DataDir, replace};
use crate::model::{AppId, AppName};
use crate::proc::Cancel;
use crate::store::App;
use crate::sync::lock;
use caddy_health::CaddyHealth;
use caddy_supervisor::CaddySupervisor;
use certificate_watch::{CertificateWatch, Names};
use data_encoding::HEXLOWER;
use route_table::RouteTable;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

/// What the router is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterState {
    /// The owner has turned it off.
    Off,
    /// It is being started.
    Starting,
    /// It serves.
    Running {
        /// Its version.
        version: String,
        /// Where it listens.
        ports: Ports,
        /// Why it does not listen where it should.
        lack: Option<String>,
    },
    /// It does not run; the sentence says why and what to do.
    Missing(String),
}

/// Random bytes in the path at which the router asks itself.
const SECRET: usize = 16;

/// Takes a port of the server's back from an app that has it; whether one had it.
pub type TakeBack = Box<dyn Fn(u16) -> bool + Send + Sync>;

/// A route that was changed and confirmed. It can be taken back.
pub struct Changed<'a>(Option<(&'a RouteTable, AppId, String)>);

impl Changed<'_> {
    /// Leads the app's requests to where they went before.
    pub fn take_back(self) {
        if let Some((table, app, name)) = self.0 {
            log_error(table.take_back(&app, &name), "a route could not be put back");
        }
    }
}

/// What there is of a router that is not turned off.
struct Parts {
    settings: Arc<Settings>,
    table: Arc<RouteTable>,
    health: Arc<CaddyHealth>,
    certificates: Arc<CertificateWatch>,
}

/// The router.
pub struct Router {
    /// Nothing where it is off.
    parts: Option<Parts>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Router {
    /// A router for these apps, each with where it leads. Without settings there is
    /// none, and one that an earlier server left running is ended.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn start(
        settings: Option<Settings>,
        data: &DataDir,
        apps: Vec<(App, Target)>,
        take_back: TakeBack,
    ) -> io::Result<Self> {
        let dir = data.make_dir("router")?;
        let Some(settings) = settings else {
            if let Some(left) = caddy::adopt(&dir) {
                log::info!("ROUTER is off: the router that still ran is ended");
                caddy::end(left);
            }
            return Ok(Self { parts: None, threads: Mutex::default() });
        };
        data.make_dir("router/home")?;
        let (settings, table) = (Arc::new(settings), Arc::new(RouteTable::open(data)?));
        let secret = secret(&dir)?;
        let state = Mutex::new(RouterState::Starting);
        let health = Arc::new(CaddyHealth { dir, state, stop: Cancel::new()? });
        let certificates = Arc::new(CertificateWatch {
            settings: Arc::clone(&settings),
            table: Arc::clone(&table),
            health: Arc::clone(&health),
            names: Names::default(),
        });
        let supervisor = CaddySupervisor {
            settings: Arc::clone(&settings),
            sites: data.make_dir("sites")?,
            front: data.join("front.sock"),
            take_back,
            secret,
            health: Arc::clone(&health),
        };
        let parts = Parts { settings, table, health, certificates };
        parts.follow(apps)?;
        if let Some(sentence) = certificate_watch::cannot_knock() {
            log::warn!("{sentence}");
        }
        let spawn =
            |work: Box<dyn FnOnce() + Send>| Builder::new().name("router".to_owned()).spawn(work);
        let mut threads = vec![spawn(Box::new(move || supervisor.run()))?];
        for _ in 0..certificate_watch::THREADS {
            let watch = Arc::clone(&parts.certificates);
            threads.push(spawn(Box::new(move || watch.run()))?);
        }
        Ok(Self { parts: Some(parts), threads: Mutex::new(threads) })
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> RouterState {
        self.parts.as_ref().map_or(RouterState::Off, |parts| lock(&parts.health.state).clone())
    }

    /// Where it listens, while it does.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        match self.state() {
            RouterState::Running { ports, .. } => {
                [Some(ports.http), ports.https].into_iter().flatten().collect()
            }
            _ => Vec::new(),
        }
    }

    /// What the owner has set; nothing when it is off.
    #[must_use]
    pub fn settings(&self) -> Option<&Settings> {
        self.parts.as_ref().map(|parts| &*parts.settings)
    }

    /// Why there is none, for as long as nobody changes that.
    #[must_use]
    pub fn absent(&self) -> Option<&'static str> {
        match self.state() {
            RouterState::Off => Some("ROUTER is off"),
            RouterState::Missing(_) if !caddy::is_installed() => Some(caddy::NOT_INSTALLED),
            _ => None,
        }
    }

    /// Where an app of this name, or at this domain of its own, answers through it while
    /// it serves.
    #[must_use]
    pub fn url(&self, name: &str, domain: Option<&str>) -> Option<String> {
        let parts = self.parts.as_ref()?;
        let RouterState::Running { ports, .. } = *lock(&parts.health.state) else { return None };
        Some(parts.settings.url(name, domain, ports))
    }

    /// Leads an app's requests somewhere else, and lets nothing further happen before
    /// the router has been seen to do so. A router that does not run is no reason to
    /// stop: it will find the change when it starts. `say` hears of it then. `name` is
    /// asked for the app's name, which may change meanwhile.
    ///
    /// # Errors
    /// The sentence that says why not; everything is then as it was.
    pub fn switch(
        &self,
        app: &AppId,
        name: &dyn Fn() -> Result<AppName, String>,
        target: &Target,
        say: &dyn Fn(&str),
    ) -> Result<Changed<'_>, String> {
        let mut changed = Changed(None);
        let Some(parts) = self.parts.as_ref() else { return Ok(changed) };
        let host = || Ok(parts.settings.host_of(&name()?));
        let mut point = || {
            let pointed = parts.table.point(app, target);
            let (name, fresh) =
                pointed.map_err(|e| format!("the route could not be written: {e}"))?;
            if fresh {
                changed = Changed(Some((&parts.table, app.clone(), name.clone())));
            }
            Ok(name)
        };
        match parts.health.confirm(&host, &mut point) {
            Ok(None) => Ok(changed),
            Ok(Some(why)) => {
                say(&format!("The router does not run, the route waits for it: {why}"));
                Ok(changed)
            }
            Err(sentence) => {
                changed.take_back();
                Err(sentence)
            }
        }
    }

    /// Leads an app's requests somewhere else, without waiting.
    pub fn point(&self, app: &AppId, target: &Target) {
        if let Some(parts) = &self.parts {
            log_error(parts.table.point(app, target), "a route could not be changed");
        }
    }

    /// Gives all apps the host names that they have in the database.
    pub fn name(&self, all: &[App]) {
        if let Some(parts) = &self.parts {
            log_error(parts.name(all), "the names of apps could not be changed");
        }
    }

    /// What is known of the certificate of a host, if it needs one.
    #[must_use]
    pub fn certificate(&self, host: &str) -> Option<Name> {
        self.parts.as_ref()?.certificates.names.known(host)
    }

    /// The addresses under which the Internet knows the router.
    #[must_use]
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let settings = self.settings();
        settings.map_or_else(Vec::new, |settings| certificate_watch::own_addresses(settings.bind))
    }

    /// What the owner should know of the router while it runs.
    #[must_use]
    pub fn lacks(&self) -> Vec<String> {
        let Some(parts) = &self.parts else { return Vec::new() };
        let RouterState::Running { lack, .. } = lock(&parts.health.state).clone() else {
            return Vec::new();
        };
        let missing = parts.certificates.names.missing().map(|(host, why, count)| {
            let mut sentence = format!("no certificate for {host}: {why}");
            if count > 1 {
                let _ = write!(sentence, " (and for {} more names)", count - 1);
            }
            sentence
        });
        lack.into_iter().chain(missing).collect()
    }

    /// Forgets an app.
    pub fn forget(&self, app: &AppId) {
        if let Some(parts) = &self.parts {
            log_error(parts.table.forget(app), "an app's routes could not be removed");
        }
    }

    /// Lets go of the router, which goes on serving.
    pub fn shutdown(&self) {
        if let Some(parts) = &self.parts {
            parts.health.stop.cancel();
        }
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the router's had ended with a panic");
            }
        }
    }
}

impl Parts {
    /// Makes the table follow the database.
    fn follow(&self, apps: Vec<(App, Target)>) -> io::Result<()> {
        for (app, target) in &apps {
            self.table.point(&app.id, target)?;
        }
        let apps: Vec<App> = apps.into_iter().map(|(app, _)| app).collect();
        let conflicts = self.settings.host_conflicts(&apps);
        for sentence in self.settings.shares_cookies().into_iter().chain(conflicts) {
            log::warn!("{sentence}");
        }
        self.table.keep_only(|id| apps.iter().any(|app| app.id.as_str() == id))?;
        self.name(&apps)
    }

    /// Leads the host names of these apps to them, and has those that need it, and the
    /// dashboard's, served over HTTPS.
    fn name(&self, apps: &[App]) -> io::Result<()> {
        let leading = self.settings.leading(apps);
        let ids = leading.iter().map(|(host, app)| (host.clone(), app.id.clone()));
        self.table.name(&ids.collect())?;
        let hosts: BTreeSet<String> = leading
            .into_keys()
            .chain(self.settings.dashboard_domain.clone())
            .filter(|host| self.settings.is_encrypted(host))
            .collect();
        self.table.encrypt(&hosts)?;
        self.certificates.names.follow(&hosts);
        Ok(())
    }
}

/// The path that is known to the router alone. It stays, for another one would be another
/// configuration.
fn secret(dir: &Path) -> io::Result<String> {
    let file = dir.join("secret");
    match fs::read_to_string(&file) {
        Ok(secret) if secret.len() == 2 * SECRET => return Ok(secret),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut random = [0; SECRET];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let secret = HEXLOWER.encode(&random);
    replace(&file, secret.as_bytes())?;
    Ok(secret)
}

/// What nobody waits for can only be told.
fn log_error<T>(result: io::Result<T>, what: &str) {
    if let Err(error) = result {
        log::error!("{what}: {error}");
    }
}
