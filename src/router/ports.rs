//! The ports of the router.

use serde_json::Value;

/// Where the router listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// For plain HTTP.
    pub http: u16,
    /// For HTTPS, when one can be had.
    pub https: Option<u16>,
}

impl Ports {
    /// The ports in a configuration of ours.
    pub fn read(config: &Value) -> Option<Self> {
        let http = config.get("apps")?.get("http")?;
        let port = |name: &str| u16::try_from(http.get(name)?.as_u64()?).ok();
        let encrypts = http.get("servers")?.get("https").is_some();
        let https = if encrypts { Some(port("https_port")?) } else { None };
        Some(Self { http: port("http_port")?, https })
    }
}
