//! Where an app's host names lead, and how it is with their certificates.

use super::{Answer, Answered, Call};
use crate::deploy::host_names::{HostName, host_names, kind, trouble};
use crate::router::Certificate;
use serde_json::{Value, json};
use std::net::IpAddr;

/// A host name as the API shows it.
fn view(name: HostName, own: &[IpAddr]) -> Value {
    // Every machine takes these for itself.
    let local = name.host.ends_with(".localhost");
    let record = |ip: &IpAddr| json!({"type": kind(ip), "value": ip});
    let certificate = match &name.certificate {
        None => "none",
        Some(Certificate::Waiting) => "waiting",
        Some(Certificate::There) => "valid",
        Some(Certificate::Missing(_)) => "missing",
    };
    json!({
        "records": own.iter().filter(|_| !local).map(record).collect::<Vec<_>>(),
        "certificate": certificate,
        "message": trouble(&name, own),
        "domain": name.host,
        "resolvesTo": name.resolves,
        "pointsHere": name.here,
    })
}

pub(super) fn list(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let (names, own) = host_names(&api.deployer.tools.router, &api.app(id)?);
    let domains: Vec<_> = names.into_iter().map(|name| view(name, &own)).collect();
    Ok(Answer::json(200, &json!({"domains": domains})))
}
