//! Which host names lead to which app.

use super::ports::Ports;
use crate::model::Routing;
use crate::store::App;
use std::collections::BTreeMap;

/// Where each host name leads among these apps: what an app gets by its name leads to no
/// other app that has it as a domain. `BASE_DOMAIN` may be set after the app got its
/// domains, and a host must not lead now here, now there.
pub fn leading<'a>(routing: &Routing, apps: &'a [App]) -> BTreeMap<String, &'a App> {
    let own = |app: &'a App| {
        app.settings.domains.iter().map(move |domain| (domain.as_str().to_owned(), app))
    };
    // The later ones count.
    let names = apps.iter().map(|app| (routing.host_of(&app.name), app));
    apps.iter().flat_map(own).chain(names).collect()
}

/// Why apps do not answer at one of their hosts: `DASHBOARD_DOMAIN` or `BASE_DOMAIN`
/// may be set after the app got its names.
pub fn host_conflicts(routing: &Routing, apps: &[App]) -> Vec<String> {
    let leading = leading(routing, apps);
    let conflict = |app: &App, host: &str| {
        let name = app.name.as_str();
        if routing.dashboard_domain.as_deref() == Some(host) {
            return Some(format!(
                "{host} is where the dashboard answers, so app {name} does not; give the app \
                 another name or domain, or set DASHBOARD_DOMAIN to another host name"
            ));
        }
        let other = leading.get(host).filter(|other| other.id != app.id)?.name.as_str();
        Some(format!(
            "{host} is where app {other} answers, so app {name} does not; give app {name} \
             another domain, or app {other} another name"
        ))
    };
    let conflicts = apps.iter().filter_map(|app| {
        let mut domains = app.settings.domains.iter();
        conflict(app, &routing.host_of(&app.name))
            .or_else(|| domains.find_map(|domain| conflict(app, domain.as_str())))
    });
    conflicts.collect()
}

/// Where an app answers: at this domain of its own, otherwise by its name.
pub fn url(routing: &Routing, name: &str, domain: Option<&str>, ports: Ports) -> String {
    let own = || format!("{name}.{}", routing.base_domain);
    let host = domain.map_or_else(own, str::to_owned);
    let (scheme, port, usual) = match ports.https {
        Some(port) if routing.is_encrypted(&host) => ("https", port, 443),
        _ => ("http", ports.http, 80),
    };
    if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
}
