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
    /// Whether the certificate that is there runs out soon.
    pub runs_out: bool,
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
        let runs_out = known.as_ref().is_some_and(|name| name.runs_out);
        HostName { host, certificate: known.map(|name| name.certificate), runs_out, resolves, here }
    };
    let domains = app.settings.domains.iter().map(|domain| domain.as_str().to_owned());
    let all = domains.chain([routing.host_of(&app.name)]);
    (all.map(name).collect(), own)
}

/// What is wrong, and first of all that the name leads elsewhere: the rest follows from that.
pub fn trouble(name: &HostName, own: &[IpAddr]) -> Option<String> {
    let why = match name.certificate.as_ref()? {
        Certificate::There if name.runs_out => {
            let why =
                "its certificate runs out within two weeks, and the router could not renew it";
            return Some(why.to_owned());
        }
        Certificate::There => return None,
        Certificate::Waiting => None,
        Certificate::Missing(why) => Some(why.as_str()),
    };
    let list = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let elsewhere = name.resolves.as_deref().and_then(|ips| match name.here {
        _ if ips.is_empty() => Some("the name service does not know it".to_owned()),
        Some(false) => Some(format!("it leads to {}, not to this machine", list(ips))),
        _ => None,
    });
    let elsewhere = elsewhere.map(|what| match own.first() {
        Some(ip) => format!("{what}; set its {} record to {ip}", kind(ip)),
        None => format!("{what}; set its A record to this machine's public address"),
    });
    match (elsewhere, why) {
        (Some(elsewhere), Some(why)) => Some(format!("{elsewhere}. The router says: {why}")),
        (elsewhere, why) => elsewhere.or_else(|| why.map(str::to_owned)),
    }
}

/// The type of the record that leads to an address.
pub fn kind(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "A" } else { "AAAA" }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_says_so_before_what_the_router_says() {
        let own = ["198.51.100.1".parse().unwrap()];
        let said = |certificate, resolves: &[&str], here| {
            let ips = resolves.iter().map(|ip| ip.parse().unwrap()).collect();
            let host = "shop.example.com".to_owned();
            let resolves = Some(ips);
            trouble(&HostName { host, certificate, runs_out: false, resolves, here }, &own)
        };
        let missing = || Some(Certificate::Missing("no such host".to_owned()));
        assert_eq!(
            said(missing(), &["192.0.2.1"], Some(false)).as_deref(),
            Some(
                "it leads to 192.0.2.1, not to this machine; set its A record to 198.51.100.1. \
                 The router says: no such host"
            )
        );
        assert!(said(Some(Certificate::Waiting), &[], None).unwrap().contains("does not know it"));
        assert_eq!(said(missing(), &["198.51.100.1"], Some(true)).as_deref(), Some("no such host"));
        assert_eq!(said(Some(Certificate::There), &["192.0.2.1"], Some(false)), None, "a proxy");
        assert_eq!(said(None, &[], None), None);
    }
}
