//! Where an app's host names lead, and how it is with their certificates.

use super::{Answer, Answered, Call};
use crate::deploy::host_names::{HostName, host_names};
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
        "message": message(&name, own),
        "domain": name.host,
        "resolvesTo": name.resolves,
        "pointsHere": name.here,
    })
}

fn kind(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "A" } else { "AAAA" }
}

/// What is wrong, and first of all that the name leads elsewhere: the rest follows from that.
fn message(name: &HostName, own: &[IpAddr]) -> Option<String> {
    let why = match name.certificate.as_ref()? {
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

pub(super) fn list(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let (names, own) = host_names(&api.deployer.tools.router, &api.app(id)?);
    let domains: Vec<_> = names.into_iter().map(|name| view(name, &own)).collect();
    Ok(Answer::json(200, &json!({"domains": domains})))
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
            message(&HostName { host, certificate, resolves: Some(ips), here }, &own)
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
