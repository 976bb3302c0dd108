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
mod route_table;

pub use caddy_config::{Ports, Settings};
pub use certificate_watch::{Certificate, Name, lead_here};
pub use route_table::Target;

use crate::data_dir::DataDir;
use crate::model::{AppId, AppName};
use crate::proc::Cancel;
use crate::runtime::port_guard::PortGuard;
use crate::store::App;
use crate::sync::lock;
use caddy_supervisor::Keeper;
use certificate_watch::Names;
use route_table::{Entry, Table};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

/// What the router is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
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

/// Says the host of an app as it is now.
type Host<'a> = &'a dyn Fn() -> Result<String, String>;

/// A route that was changed and confirmed. It can be taken back.
#[derive(Debug)]
pub struct Changed<'a>(Option<(&'a Keeper, Entry)>);

impl Changed<'_> {
    /// Leads the app's requests to where they went before.
    pub fn take_back(self) {
        if let Some((keeper, entry)) = self.0 {
            let back = keeper.table.take_back(&entry);
            told(back, "a route could not be put back");
        }
    }
}

/// The router.
#[derive(Debug)]
pub struct Router {
    keeper: Option<Arc<Keeper>>,
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
        apps: &[(App, Target)],
        guard: Arc<PortGuard>,
    ) -> io::Result<Self> {
        let dir = data.make_dir("router")?;
        let Some(settings) = settings else {
            if let Some(left) = caddy::adopt(&dir) {
                log::info!("ROUTER is off: the router that still ran is ended");
                caddy::end(left);
            }
            return Ok(Self { keeper: None, threads: Mutex::default() });
        };
        data.make_dir("router/home")?;
        let keeper = Keeper {
            settings,
            sites: data.make_dir("sites")?,
            front: data.join("front.sock"),
            table: Table::open(data)?,
            guard,
            secret: secret(&dir)?,
            dir,
            names: Names::default(),
            state: Mutex::new(State::Starting),
            stop: Cancel::new()?,
        };
        for (app, target) in apps {
            keeper.table.point(&app.id, target)?;
        }
        if let Some(sentence) = keeper.settings.shares_cookies() {
            log::warn!("{sentence}");
        }
        let known: Vec<&App> = apps.iter().map(|(app, _)| app).collect();
        for app in &known {
            keeper.table.name(&app.id, &keeper.settings.leading_to(app, &known))?;
            if let Some(sentence) = keeper.settings.hides(app, &known) {
                log::warn!("{sentence}");
            }
        }
        keeper.table.keep_only(&apps.iter().map(|(app, _)| app.id.clone()).collect::<Vec<_>>())?;
        keeper.encrypt(&known)?;
        if let Some(sentence) = certificate_watch::cannot_knock() {
            log::warn!("{sentence}");
        }
        let keeper = Arc::new(keeper);
        let works = std::iter::once(Keeper::keep as fn(&Keeper)).chain(std::iter::repeat_n(
            Keeper::look_after_names as fn(&Keeper),
            certificate_watch::THREADS,
        ));
        let threads = works.map(|work| {
            let kept = Arc::clone(&keeper);
            Builder::new().name("router".to_owned()).spawn(move || work(&kept))
        });
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        Ok(Self { keeper: Some(keeper), threads: Mutex::new(threads) })
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.keeper.as_ref().map_or(State::Off, |keeper| lock(&keeper.state).clone())
    }

    /// What the owner has set; nothing when it is off.
    #[must_use]
    pub fn settings(&self) -> Option<&Settings> {
        self.keeper.as_ref().map(|keeper| &keeper.settings)
    }

    /// Why there is none, for as long as nobody changes that.
    #[must_use]
    pub fn absent(&self) -> Option<&'static str> {
        match self.state() {
            State::Off => Some("ROUTER is off"),
            State::Missing(_) if !caddy::is_installed() => Some(caddy::NOT_INSTALLED),
            _ => None,
        }
    }

    /// Where an app of this name, or at this domain of its own, answers through it while
    /// it serves.
    #[must_use]
    pub fn url(&self, name: &str, domain: Option<&str>) -> Option<String> {
        let keeper = self.keeper.as_ref()?;
        let State::Running { ports, .. } = *lock(&keeper.state) else { return None };
        Some(keeper.settings.url(name, domain, ports))
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
        let Some(keeper) = self.keeper.as_deref() else { return Ok(Changed(None)) };
        let point = || {
            let entry = keeper.table.point(app, target);
            entry.map_err(|e| format!("the route could not be written: {e}"))
        };
        let mut entry = point()?;
        let host = || Ok(keeper.settings.host_of(&name()?));
        let confirmed = keeper.confirm(&host, &mut entry, &point);
        let changed = Changed(Some((keeper, entry)));
        match confirmed {
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
        if let Some(keeper) = &self.keeper {
            told(keeper.table.point(app, target), "a route could not be changed");
        }
    }

    /// Gives an app the host names that it has in the database, where these are all apps;
    /// and the others theirs, which may have become free or be taken now.
    pub fn name(&self, app: &AppId, all: &[App]) {
        let Some(keeper) = &self.keeper else { return };
        let all: Vec<&App> = all.iter().collect();
        for other in &all {
            if other.id == *app || keeper.settings.is_contested(other) {
                let hosts = keeper.settings.leading_to(other, &all);
                told(keeper.table.name(&other.id, &hosts), "an app's names could not be changed");
            }
        }
        told(keeper.encrypt(&all), "names could not be given certificates");
    }

    /// What is known of the certificate of a host, if it needs one.
    #[must_use]
    pub fn certificate(&self, host: &str) -> Option<Name> {
        self.keeper.as_ref()?.names.known(host)
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
        let Some(keeper) = &self.keeper else { return Vec::new() };
        let State::Running { lack, .. } = lock(&keeper.state).clone() else { return Vec::new() };
        let missing = keeper.names.missing().map(|(host, why, count)| {
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
        if let Some(keeper) = &self.keeper {
            told(keeper.table.forget(app), "an app's routes could not be removed");
        }
    }

    /// Lets go of the router, which goes on serving.
    pub fn shutdown(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.stop.cancel();
            keeper.names.wake();
        }
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the router's had ended with a panic");
            }
        }
    }
}

impl Keeper {
    /// Has the hosts of these apps that need it, and the dashboard's, served over HTTPS.
    fn encrypt(&self, apps: &[&App]) -> io::Result<()> {
        let hosts = apps.iter().flat_map(|app| self.settings.hosts(app));
        let hosts: BTreeSet<String> = hosts
            .chain(self.settings.dashboard_domain.clone())
            .filter(|host| self.settings.is_encrypted(host))
            .collect();
        self.table.encrypt(&hosts)?;
        self.names.follow(&hosts);
        Ok(())
    }
}

impl Settings {
    /// The host name that follows from an app's name.
    #[must_use]
    pub fn host_of(&self, name: &AppName) -> String {
        format!("{}.{}", name.as_str(), self.base_domain)
    }

    fn host(&self, app: &App) -> String {
        self.host_of(&app.name)
    }

    /// All host names of an app.
    #[must_use]
    pub fn hosts(&self, app: &App) -> Vec<String> {
        let own = app.settings.domains.iter().map(|domain| domain.as_str().to_owned());
        std::iter::once(self.host(app)).chain(own).collect()
    }

    /// The host names that lead to an app, among these apps: all of its own but what another
    /// one gets by its name. `BASE_DOMAIN` may be set after the app got its domains, and a
    /// host must not lead now here, now there.
    fn leading_to(&self, app: &App, all: &[&App]) -> Vec<String> {
        let mut hosts = self.hosts(app);
        hosts.retain(|host| self.named(host, all).is_none_or(|other| other.id == app.id));
        hosts
    }

    /// The app whose name gives it this host.
    fn named<'a>(&self, host: &str, all: &[&'a App]) -> Option<&'a App> {
        let name = self.name_in(host)?;
        all.iter().find(|app| app.name.as_str() == name).copied()
    }

    /// What an app is called that gets this host by its name, if there is one.
    fn name_in<'h>(&self, host: &'h str) -> Option<&'h str> {
        host.strip_suffix(self.base_domain.as_str())?.strip_suffix('.')
    }

    /// Whether an app has a domain that another one could get by its name.
    fn is_contested(&self, app: &App) -> bool {
        app.settings.domains.iter().any(|domain| self.name_in(domain.as_str()).is_some())
    }

    /// Why an app does not answer at one of its hosts: `DASHBOARD_DOMAIN` or `BASE_DOMAIN`
    /// may be set after the app got its names.
    #[must_use]
    pub fn hides(&self, app: &App, all: &[&App]) -> Option<String> {
        let name = app.name.as_str();
        let hosts = self.hosts(app);
        if let Some(domain) = self.dashboard_domain.as_ref().filter(|domain| hosts.contains(domain))
        {
            return Some(format!(
                "{domain} is where the dashboard answers, so app {name} does not; give the app \
                 another name or domain, or set DASHBOARD_DOMAIN to another host name"
            ));
        }
        let other = |host: &String| Some((host.clone(), self.named(host, all)?));
        let (host, other) = hosts.iter().filter_map(other).find(|(_, other)| other.id != app.id)?;
        let other = other.name.as_str();
        Some(format!(
            "{host} is where app {other} answers, so app {name} does not; give app {name} another \
             domain, or app {other} another name"
        ))
    }

    /// Why apps can keep the owner's browser out of the dashboard. A browser takes no cookie
    /// for a name without a dot.
    #[must_use]
    pub fn shares_cookies(&self) -> Option<String> {
        let (dashboard, base) = (self.dashboard_domain.as_deref()?, self.base_domain.as_str());
        let rest = dashboard.strip_suffix(base).filter(|_| base.contains('.'))?;
        (rest.is_empty() || rest.ends_with('.')).then(|| {
            format!(
                "{dashboard} lies within BASE_DOMAIN, so every app can set cookies for the \
                 dashboard, until a browser's requests are too large for it; set DASHBOARD_DOMAIN \
                 to a host name outside of {base}"
            )
        })
    }

    /// Where an app answers: at this domain of its own, otherwise by its name.
    fn url(&self, name: &str, domain: Option<&str>, ports: Ports) -> String {
        let own = || format!("{name}.{}", self.base_domain);
        let host = domain.map_or_else(own, str::to_owned);
        let (scheme, port, usual) = match ports.https {
            Some(port) if self.is_encrypted(&host) => ("https", port, 443),
            _ => ("http", ports.http, 80),
        };
        if port == usual {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
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
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    io::Write::write_all(&mut options.open(file)?, secret.as_bytes())?;
    Ok(secret)
}

/// What nobody waits for can only be told.
fn told<T>(result: io::Result<T>, what: &str) {
    if let Err(error) = result {
        log::error!("{what}: {error}");
    }
}
