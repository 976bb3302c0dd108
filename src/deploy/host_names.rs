//! The host names of apps: who may have which, and what is known of each.

use super::error::DeployError;
use crate::model::{AppId, AppName, Domain};
use crate::router::{Certificate, Router, Target, host_conflicts, lead_here, own_addresses};
use crate::runtime::health_check::Visit;
use crate::runtime::target::target_of;
use crate::store::{App, Store};
use std::net::IpAddr;

/// A host name of an app.
#[derive(Debug)]
pub struct HostName {
    /// The name.
    pub host: String,
    /// How it is with its certificate; nothing when it needs none.
    pub certificate: Option<Certificate>,
    /// Where the name service leads; nothing when nobody has asked.
    pub resolves: Option<Vec<IpAddr>>,
    /// Whether that is this machine, as far as it can tell.
    pub here: Option<bool>,
}

/// What the owner should know of the router while it runs: where it cannot listen; which
/// name gets no certificate; which app does not answer at one of its own hosts, because
/// the dashboard or another app does; that the dashboard's is badly chosen.
#[must_use]
pub fn router_trouble(router: &Router, store: &Store) -> Option<String> {
    let routing = router.routing()?;
    let apps = store.apps();
    let apps = apps.inspect_err(|error| log::error!("{error}")).ok()?;
    let hidden = host_conflicts(routing, &apps).into_iter().next();
    let mut all = router.lacks();
    all.extend(hidden.or_else(|| routing.shares_cookies()));
    (!all.is_empty()).then(|| all.join(". "))
}

/// What is known of each host name of an app, and the addresses under which the
/// Internet knows this machine.
#[must_use]
pub fn host_names(router: &Router, app: &App) -> (Vec<HostName>, Vec<IpAddr>) {
    let Some(routing) = router.routing() else { return (Vec::new(), Vec::new()) };
    let own = own_addresses(routing.bind);
    let name = |host: String| {
        let known = router.certificate(&host);
        let resolves = known.as_ref().and_then(|name| name.resolves.clone());
        let here = resolves.as_ref().and_then(|ips| lead_here(ips, &own));
        HostName { host, certificate: known.map(|name| name.certificate), resolves, here }
    };
    let domains = app.settings.domains.iter().map(|domain| domain.as_str().to_owned());
    let all = domains.chain([routing.host_of(&app.name)]);
    (all.map(name).collect(), own)
}

/// Everywhere an app answers, while it runs: through the router at its own domains, then
/// at the host name that follows from its name; or else at its port.
#[must_use]
pub fn urls(router: &Router, app: &App) -> Vec<String> {
    let at_port = match target_of(app) {
        Target::Down => return Vec::new(),
        Target::Files(..) => None,
        Target::Process(port) => Some(format!("http://127.0.0.1:{port}")),
    };
    let hosts = app.settings.domains.iter().map(|domain| Some(domain.as_str())).chain([None]);
    let routed: Option<Vec<_>> = hosts.map(|host| router.url(app.name.as_str(), host)).collect();
    routed.unwrap_or_else(|| at_port.into_iter().collect())
}

/// Judges the host names that an app is about to have.
///
/// # Errors
/// [`DeployError::Host`] for a name that another one has.
pub fn admit(
    router: &Router,
    store: &Store,
    app: Option<&AppId>,
    name: &AppName,
    domains: &[Domain],
) -> Result<(), DeployError> {
    let Some(routing) = router.routing() else { return Ok(()) };
    let refused = |field, sentence| Err(DeployError::Host { field, sentence });
    let host = routing.host_of(name);
    let taken = |host: &str| routing.dashboard_domain.as_deref() == Some(host);
    if taken(&host) {
        return refused("name", format!("{host} is where the dashboard answers"));
    }
    if let Some(domain) = domains.iter().find(|d| taken(d.as_str())) {
        let sentence = format!("{} is where the dashboard answers", domain.as_str());
        return refused("domains", sentence);
    }
    for other in store.apps()?.iter().filter(|other| Some(&other.id) != app) {
        if other.settings.domains.iter().any(|domain| domain.as_str() == host) {
            return refused("name", format!("{host} is a domain of app {}", other.name.as_str()));
        }
        let theirs = routing.host_of(&other.name);
        if domains.iter().any(|domain| domain.as_str() == theirs) {
            return refused("domains", format!("{theirs} is where another app answers"));
        }
    }
    Ok(())
}

/// How a visitor comes to an app: to its first domain, or the host name that follows from
/// its name; only without a router to the port itself.
#[must_use]
pub fn visit(router: &Router, app: &App, port: u16) -> Visit {
    let domain = app.settings.domains.first().map(Domain::as_str);
    let scheme = |is_encrypted| if is_encrypted { "https" } else { "http" };
    let url = router.url(app.name.as_str(), domain);
    let split = url.as_deref().and_then(|url| url.split_once("://"));
    let known = split.map(|(used, host)| (scheme(used == "https"), host.to_owned()));
    // One that is just being started will serve it.
    let later = || {
        let routing = router.routing().filter(|_| router.absent().is_none())?;
        let host = domain.map_or_else(|| routing.host_of(&app.name), str::to_owned);
        Some((scheme(routing.is_encrypted(&host)), host))
    };
    let without = || ("http", format!("127.0.0.1:{port}"));
    let (scheme, host) = known.or_else(later).unwrap_or_else(without);
    Visit { scheme, host }
}
