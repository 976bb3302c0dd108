//! The router: Caddy as a child, and the table that tells it where each host leads.
//!
//! A deploy changes the [`route_table`] alone, so no other app notices it, and what serves
//! keeps serving when the server, the router or both are killed. Nor does a name change
//! anything else, or its certificate. The database is what counts: at each start of the
//! server the table is made to follow it.

mod caddy;
mod caddy_config;
mod caddy_health;
mod caddy_supervisor;
mod certificate_watch;
mod certificates;
mod client_headers;
mod hosts;
mod ports;
mod published;
mod route_table;
mod site_rules;
mod static_page;

pub use certificate_watch::{Certificate, Name, address_towards, lead_here, own_addresses};
pub use hosts::{host_conflicts, url};
pub use ports::Ports;
pub use published::{GZIP, OURS, RULES, SINGLE_PAGE};
pub use route_table::Target;
pub use site_rules::SiteRules;

use crate::data_dir::DataDir;
use crate::model::{AnyError, AppId, AppName, DeployId, Routing, failed};
use crate::proc::{Cancel, find};
use crate::store::App;
use crate::sync::{EventFd, lock};
use caddy_health::{ASK_AGAIN, CaddyHealth};
use caddy_supervisor::CaddySupervisor;
use certificate_watch::{CertificateWatch, Names};
use data_encoding::HEXLOWER;
use route_table::RouteTable;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

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

/// How long a change may take until the router is seen to follow it. It needs
/// milliseconds, or two seconds when it is just being started again.
const CONFIRMING: Duration = Duration::from_secs(10);

/// Random bytes in the path at which the router asks itself, and the file that has them.
const SECRET: usize = 16;
const SECRET_FILE: &str = "router/secret";

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

/// The router. Its table is made to follow the apps when it is turned on.
pub struct Router {
    routing: Arc<Routing>,
    table: Arc<RouteTable>,
    health: Arc<CaddyHealth>,
    certificates: Arc<CertificateWatch>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Router {
    /// A router for these apps, as the database has them. Where it is off, one that an earlier
    /// server left running is ended.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn start(
        routing: Routing,
        data: &DataDir,
        apps: &[App],
        take_back: TakeBack,
    ) -> io::Result<Self> {
        let dir = data.make_dir("router")?;
        for inside in ["router/home", "sites"] {
            data.make_dir(inside)?;
        }
        let (routing, table) = (Arc::new(routing), Arc::new(RouteTable::open(data)?));
        let secret = secret(data)?;
        let state = if routing.on { RouterState::Starting } else { RouterState::Off };
        let health = Arc::new(CaddyHealth {
            dir,
            state: Mutex::new(state),
            rules: EventFd::new()?,
            stop: Cancel::new()?,
        });
        let certificates = Arc::new(CertificateWatch {
            routing: Arc::clone(&routing),
            table: Arc::clone(&table),
            health: Arc::clone(&health),
            names: Names::default(),
        });
        let supervisor = CaddySupervisor {
            routing: Arc::clone(&routing),
            take_back,
            secret,
            health: Arc::clone(&health),
        };
        let router = Self { routing, table, health, certificates, threads: Mutex::default() };
        if router.routing.on {
            router.follow(apps)?;
            router.spawn(supervisor)?;
        } else if let Some(left) = caddy::adopt(&router.health.dir) {
            log::info!("ROUTER is off: the router that still ran is ended");
            caddy::end(left);
        }
        Ok(router)
    }

    fn spawn(&self, supervisor: CaddySupervisor) -> io::Result<()> {
        if find("curl").is_none() {
            log::warn!(
                "curl is not installed, so the first visitor of a name waits for its certificate, \
                 and nobody hears when there is none; run `apt install curl`"
            );
        }
        let spawn = |work: Box<dyn FnOnce() + Send>| {
            lock(&self.threads).push(Builder::new().name("router".to_owned()).spawn(work)?);
            Ok(())
        };
        spawn(Box::new(move || supervisor.run()))?;
        (0..certificate_watch::THREADS).try_for_each(|_| {
            let watch = Arc::clone(&self.certificates);
            spawn(Box::new(move || watch.run()))
        })
    }

    /// What it is doing.
    pub fn state(&self) -> RouterState {
        lock(&self.health.state).clone()
    }

    /// Where it listens, while it does.
    pub fn ports(&self) -> Vec<u16> {
        let RouterState::Running { ports, .. } = self.state() else { return Vec::new() };
        ports.https.into_iter().chain([ports.http]).collect()
    }

    /// What the owner has set; nothing when it is off.
    pub fn routing(&self) -> Option<&Routing> {
        Some(&*self.routing).filter(|routing| routing.on)
    }

    /// Why there is none, for as long as nobody changes that.
    pub fn absent(&self) -> Option<&'static str> {
        match self.state() {
            RouterState::Off => Some("ROUTER is off"),
            RouterState::Missing(_) if !caddy::is_installed() => Some(caddy::NOT_INSTALLED),
            _ => None,
        }
    }

    /// Where an app of this name, or at this domain of its own, answers through it while
    /// it serves.
    pub fn url(&self, name: &str, domain: Option<&str>) -> Option<String> {
        let RouterState::Running { ports, .. } = self.state() else { return None };
        Some(hosts::url(&self.routing, name, domain, ports))
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
        name: &dyn Fn() -> Result<AppName, AnyError>,
        target: &Target,
        say: &dyn Fn(&str),
    ) -> Result<Changed<'_>, AnyError> {
        let mut changed = Changed(None);
        if !self.routing.on {
            return Ok(changed);
        }
        let until = Instant::now() + CONFIRMING;
        // Once more, too, when the process before ends in this moment and leads the app's
        // requests nowhere.
        let mut is_done = || {
            let host = self.routing.host_of(&name()?);
            let (file, fresh) =
                self.table.point(app, target).map_err(failed("the route could not be written"))?;
            if fresh {
                changed = Changed(Some((&self.table, app.clone(), file.clone())));
            }
            let why = match self.health.found(&host) {
                Ok((200, body)) if body == format!("/{host}/{file}") => return Ok(true),
                Ok((status, body)) => format!("it answers {status} {}", body.trim()),
                Err(error) => error.to_string(),
            };
            if let RouterState::Missing(why) = self.state() {
                say(&format!("The router does not run, the route waits for it: {why}"));
                return Ok(true);
            }
            if Instant::now() > until || self.health.stop.is_cancelled() {
                return Err(format!("the router did not confirm the new route: {why}").into());
            }
            Ok(false)
        };
        loop {
            match is_done() {
                Ok(true) => return Ok(changed),
                Ok(false) => sleep(ASK_AGAIN),
                Err(error) => {
                    changed.take_back();
                    return Err(error);
                }
            }
        }
    }

    /// Has the router go by the rules of a site that was just published, and waits until it does.
    ///
    /// # Errors
    /// The sentence that says that it does not.
    pub fn follow_rules(&self, app: &AppId, deploy: &DeployId) -> Result<(), String> {
        let (until, site) = (Instant::now() + CONFIRMING, format!(r"\\.{app}\\.{deploy}$"));
        self.health.rules.signal();
        while !self.health.configuration().is_ok_and(|(_, text)| text.contains(&site)) {
            if Instant::now() > until || self.health.stop.is_cancelled() {
                return Err(
                    "the router does not go by the site's _redirects and _headers".to_owned()
                );
            }
            sleep(ASK_AGAIN);
        }
        Ok(())
    }

    /// Leads an app's requests somewhere else, without waiting.
    pub fn point(&self, app: &AppId, target: &Target) {
        if self.routing.on {
            log_error(self.table.point(app, target), "a route could not be changed");
        }
    }

    /// Gives all apps the host names that they have in the database.
    pub fn name(&self, all: &[App]) {
        if self.routing.on {
            log_error(self.name_all(all), "the names of apps could not be changed");
        }
    }

    /// What is known of the certificate of a host, if it needs one.
    pub fn certificate(&self, host: &str) -> Option<Name> {
        self.certificates.names.known(host)
    }

    /// What the owner should know of the router while it runs.
    pub fn lacks(&self) -> Vec<String> {
        let RouterState::Running { lack, .. } = self.state() else { return Vec::new() };
        lack.into_iter().chain(self.certificates.names.missing()).collect()
    }

    /// Forgets an app.
    pub fn forget(&self, app: &AppId) {
        log_error(self.table.forget(app), "an app's routes could not be removed");
    }

    /// Lets go of the router, which goes on serving.
    pub fn shutdown(&self) {
        self.health.stop.cancel();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the router's had ended with a panic");
            }
        }
    }

    /// Makes the table follow the database.
    fn follow(&self, apps: &[App]) -> io::Result<()> {
        for app in apps {
            self.table.point(&app.id, &Target::of(app))?;
        }
        let conflicts = host_conflicts(&self.routing, apps);
        for sentence in self.routing.shares_cookies().into_iter().chain(conflicts) {
            log::warn!("{sentence}");
        }
        self.table.keep_only(|id| apps.iter().any(|app| app.id.as_str() == id))?;
        self.name_all(apps)
    }

    /// Leads the host names of these apps to them, and has those that need it, and the
    /// dashboard's, served over HTTPS.
    fn name_all(&self, apps: &[App]) -> io::Result<()> {
        let leading = hosts::leading(&self.routing, apps);
        let ids = leading.iter().map(|(host, app)| (host.clone(), app.id.clone()));
        self.table.name(&ids.collect())?;
        let hosts: BTreeSet<String> = leading
            .into_keys()
            .chain(self.routing.dashboard_domain.clone())
            .filter(|host| self.routing.is_encrypted(host))
            .collect();
        self.table.encrypt(&hosts)?;
        self.certificates.names.follow(&hosts);
        Ok(())
    }
}

/// The path that is known to the router alone. It stays, for another one would be another
/// configuration.
fn secret(data: &DataDir) -> io::Result<String> {
    if let Ok(Some(secret)) = data.read_secret(SECRET_FILE)
        && secret.expose().len() == 2 * SECRET
    {
        return Ok(secret.expose().to_owned());
    }
    let mut random = [0; SECRET];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let secret = HEXLOWER.encode(&random);
    data.write_secret(SECRET_FILE, secret.as_bytes())?;
    Ok(secret)
}

/// What nobody waits for can only be told.
fn log_error<T>(result: io::Result<T>, what: &str) {
    if let Err(error) = result {
        log::error!("{what}: {error}");
    }
}
