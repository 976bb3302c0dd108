//! What the owner has set for the router, and which host names follow from it.

use super::ports::Ports;
use crate::model::{AppName, Trust};
use crate::store::App;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the owner has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Below it apps get their names.
    pub base_domain: String,
    /// The one address to listen on; all when unset.
    pub bind: Option<IpAddr>,
    /// The port for HTTP, when it is to be this one.
    pub http_port: Option<u16>,
    /// The port for HTTPS, when it is to be this one.
    pub https_port: Option<u16>,
    /// Where the dashboard answers.
    pub dashboard_domain: Option<String>,
    /// Whom the certificate authority writes to.
    pub acme_email: Option<String>,
    /// Certificates come from the router's own authority.
    pub private_tls: bool,
    /// Whose word on a visitor is believed.
    pub trust: Trust,
}

/// Endings that no public authority certifies: reserved names (RFC 6761, RFC 6762,
/// RFC 8375, ICANN's `.internal`) and what home routers use.
const PRIVATE: [&str; 9] =
    ["localhost", "test", "invalid", "example", "local", "internal", "lan", "home.arpa", "onion"];

/// Whether a host name means something in private networks only.
pub fn is_private(host: &str) -> bool {
    PRIVATE.iter().any(|end| {
        host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

impl Settings {
    /// Whether a host is served over HTTPS.
    #[must_use]
    pub fn is_encrypted(&self, host: &str) -> bool {
        if self.dashboard_domain.as_deref() == Some(host) {
            return true;
        }
        let local = host == "localhost" || host.ends_with(".localhost");
        !local && (self.private_tls || !is_private(host))
    }

    /// Where this machine itself reaches the router.
    #[must_use]
    pub fn own_ip(&self) -> IpAddr {
        match self.bind {
            Some(ip) if !ip.is_unspecified() => ip,
            Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Whether its certificate comes from the router's own authority.
    #[must_use]
    pub fn is_own(&self, host: &str) -> bool {
        self.private_tls || is_private(host)
    }

    /// The host name that follows from an app's name.
    #[must_use]
    pub fn host_of(&self, name: &AppName) -> String {
        format!("{}.{}", name.as_str(), self.base_domain)
    }

    /// Where each host name leads among these apps: what an app gets by its name leads to no
    /// other app that has it as a domain. `BASE_DOMAIN` may be set after the app got its
    /// domains, and a host must not lead now here, now there.
    #[must_use]
    pub fn leading<'a>(&self, apps: &'a [App]) -> BTreeMap<String, &'a App> {
        let own = |app: &'a App| {
            app.settings.domains.iter().map(move |domain| (domain.as_str().to_owned(), app))
        };
        // The later ones count.
        let names = apps.iter().map(|app| (self.host_of(&app.name), app));
        apps.iter().flat_map(own).chain(names).collect()
    }

    /// Why apps do not answer at one of their hosts: `DASHBOARD_DOMAIN` or `BASE_DOMAIN`
    /// may be set after the app got its names.
    #[must_use]
    pub fn host_conflicts(&self, apps: &[App]) -> Vec<String> {
        let leading = self.leading(apps);
        let conflict = |app: &App, host: &str| {
            let name = app.name.as_str();
            if self.dashboard_domain.as_deref() == Some(host) {
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
            conflict(app, &self.host_of(&app.name))
                .or_else(|| domains.find_map(|domain| conflict(app, domain.as_str())))
        });
        conflicts.collect()
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
    #[must_use]
    pub fn url(&self, name: &str, domain: Option<&str>, ports: Ports) -> String {
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
