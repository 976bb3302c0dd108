//! Where apps answer: who may have which host name or port, and what is known of each.

use super::error::DeployError;
use crate::model::{AppId, Domain};
use crate::router::{
    Certificate, Ports, Router, Target, host_conflicts, lead_here, own_addresses, url,
};
use crate::runtime::health_check::Visit;
use crate::runtime::tools::Tools;
use crate::sandbox::port_range::picked_by_kernel;
use crate::store::{App, AppDraft, AppSettings};
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
pub fn router_trouble(Tools { router, store, .. }: &Tools) -> Option<String> {
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
pub fn urls(router: &Router, app: &App) -> Vec<String> {
    let at_port = match Target::of(app) {
        Target::Down => return Vec::new(),
        Target::Files(..) => None,
        Target::Process(port) => Some(format!("http://127.0.0.1:{port}")),
    };
    let hosts = app.settings.domains.iter().map(|domain| Some(domain.as_str())).chain([None]);
    let routed: Option<Vec<_>> = hosts.map(|host| router.url(app.name.as_str(), host)).collect();
    routed.unwrap_or_else(|| at_port.into_iter().collect())
}

/// Judges the host names, and the port of its own, that an app is about to have.
///
/// # Errors
/// [`DeployError::Host`] for one that another has.
pub fn admit(tools: &Tools, app: Option<&AppId>, draft: &AppDraft) -> Result<(), DeployError> {
    let AppSettings { domains, port, .. } = &draft.settings;
    let refused = |field, sentence| Err(DeployError::Host { field, sentence });
    let (own, others): (Vec<App>, Vec<App>) =
        tools.store.apps()?.into_iter().partition(|other| Some(&other.id) == app);
    if let Some(port) = port {
        let set = tools.router.routing().map(|routing| [routing.http_port, routing.https_port]);
        let set = set.into_iter().flatten().flatten();
        if tools.own_ports().into_iter().chain(set).any(|own| own == port.get()) {
            return refused("port", format!("{} is this server's own", port.get()));
        }
        let is_new = own.first().is_none_or(|own| own.settings.port != Some(*port));
        if is_new && picked_by_kernel().contains(&port.get()) {
            let why = "is among those that the kernel gives to any program that asks for one \
                       (net.ipv4.ip_local_port_range)";
            return refused("port", format!("{} {why}", port.get()));
        }
        if let Some(other) = others.iter().find(|other| other.settings.port == Some(*port)) {
            return refused("port", format!("{} is app {}'s", port.get(), other.name.as_str()));
        }
    }
    let Some(routing) = tools.router.routing() else { return Ok(()) };
    let host = routing.host_of(&draft.name);
    let of_domains = domains.iter().map(|domain| ("domains", domain.as_str()));
    for (field, host) in [("name", host.as_str())].into_iter().chain(of_domains) {
        if routing.dashboard_domain.as_deref() == Some(host) {
            return refused(field, format!("{host} is where the dashboard answers"));
        }
    }
    for other in &others {
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
pub fn visit(router: &Router, app: &App, port: u16) -> Visit {
    let (name, domain) = (app.name.as_str(), app.settings.domains.first().map(Domain::as_str));
    // One that is just being started will serve it.
    let later = || {
        let routing = router.routing().filter(|_| router.absent().is_none())?;
        Some(url(routing, name, domain, Ports { http: 80, https: Some(443) }))
    };
    let seen = router.url(name, domain).or_else(later);
    let url = seen.unwrap_or_else(|| format!("http://127.0.0.1:{port}"));
    let (scheme, host) = url.split_once("://").unwrap_or(("http", &url));
    Visit { scheme: scheme.to_owned(), host: host.to_owned() }
}
