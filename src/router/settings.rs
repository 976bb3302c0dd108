//! What the owner has set for the router, and which host names follow from it.

use super::ports::Ports;
use crate::model::{AppName, Trust};
use crate::store::App;
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
    #[must_use]
    pub fn leading_to(&self, app: &App, all: &[&App]) -> Vec<String> {
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
    #[must_use]
    pub fn is_contested(&self, app: &App) -> bool {
        app.settings.domains.iter().any(|domain| self.name_in(domain.as_str()).is_some())
    }

    /// Why an app does not answer at one of its hosts: `DASHBOARD_DOMAIN` or `BASE_DOMAIN`
    /// may be set after the app got its names.
    #[must_use]
    pub fn host_conflict(&self, app: &App, all: &[&App]) -> Option<String> {
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
