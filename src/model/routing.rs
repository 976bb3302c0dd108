//! How apps are to be reached: what the owner has set, and what follows for a host name.

use super::{AppName, Trust};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the owner has set for the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// `ROUTER`: whether there is one; `off` for those who have their own.
    pub on: bool,
    /// `BASE_DOMAIN`: an app answers at its name and this, in lower case.
    pub base_domain: String,
    /// `ROUTER_BIND`: the one address that the router listens on; all when unset.
    pub bind: Option<IpAddr>,
    /// `HTTP_PORT`; the usual one, or another that is free, when unset.
    pub http_port: Option<u16>,
    /// `HTTPS_PORT`, likewise.
    pub https_port: Option<u16>,
    /// `DASHBOARD_DOMAIN`: serves the dashboard over HTTPS.
    pub dashboard_domain: Option<String>,
    /// `ACME_EMAIL`: whom the certificate authority writes to.
    pub acme_email: Option<String>,
    /// `PRIVATE_TLS`: certificates come from an authority of the router's own.
    pub private_tls: bool,
    /// `TRUST_PROXY`: whose word on a visitor is believed.
    pub trust: Trust,
}

/// Endings that no public authority certifies: reserved names (RFC 6761, RFC 6762,
/// RFC 8375, ICANN's `.internal`) and what home routers use.
const PRIVATE: [&str; 9] =
    ["localhost", "test", "invalid", "example", "local", "internal", "lan", "home.arpa", "onion"];

/// Whether a host name means something in private networks only.
fn is_private(host: &str) -> bool {
    PRIVATE.iter().any(|end| {
        host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

impl Routing {
    /// Whether a host is served over HTTPS.
    pub fn is_encrypted(&self, host: &str) -> bool {
        if self.dashboard_domain.as_deref() == Some(host) {
            return true;
        }
        let local = host == "localhost" || host.ends_with(".localhost");
        !local && (self.private_tls || !is_private(host))
    }

    /// Whether its certificate comes from the router's own authority.
    pub fn is_own(&self, host: &str) -> bool {
        self.private_tls || is_private(host)
    }

    /// Where this machine itself reaches the router.
    pub fn own_ip(&self) -> IpAddr {
        match self.bind {
            Some(ip) if !ip.is_unspecified() => ip,
            Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The host name that follows from an app's name.
    pub fn host_of(&self, name: &AppName) -> String {
        format!("{}.{}", name.as_str(), self.base_domain)
    }

    /// Why apps can keep the owner's browser out of the dashboard. A browser takes no cookie
    /// for a name without a dot.
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
}
