//! What an app is told about its visitor: the router's own word, and nobody else's (P33).
//!
//! Frameworks believe a whole family of header fields that a proxy in front of them is
//! supposed to have written: who the client is, by which scheme, host, port and path it
//! came, who it has proved to be. Here that proxy is the router, so what came from outside
//! under such a name is dropped, however it is spelled.

use super::static_page::page;
use crate::model::Trust;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The fields that are dropped, as Caddy writes them: in any case of letters, a star for
/// anything. Each star costs a look at every field of a request, about 3 µs, and a name
/// without one next to nothing; so the large families have stars.
const CLAIMS: &[&str] = &[
    // CGI and WSGI make `_` of `-`, and PHP of a dot as well: X_Real_IP is X-Real-IP to them.
    // Nobody but an attacker needs two spellings; nginx drops such names, too.
    "*_* *.*",
    // Forwarded (RFC 7239), X-Forwarded-For, -Proto, -Host, -Port, -Prefix, -Server, -Ssl,
    // -User …, X-Forward-For, CloudFront-Forwarded-Proto, Fly-Forwarded-Port.
    "*forward*",
    // Proxy, which CGI makes HTTP_PROXY of (CVE-2016-5385), Proxy-Client-IP, WL-Proxy-SSL.
    "*proxy*",
    // Remote-Addr, Remote-User and what else a server that signs visitors in tells.
    "*remote*",
    // X-Real-IP, Client-IP, True-Client-IP, CF-Connecting-IP, X-Cluster-Client-IP, X-User-IP.
    "*-ip *client-ip* *clientip*",
    // X-Original-URL, X-Original-Host, X-Original-Forwarded-For; X-Real-Host, -Proto, -Port.
    "x-original-* x-real-*",
    // Who he has proved to be, in the words of what signs visitors in: X-Auth-Request-User,
    // X-Authentik-Username, X-Webauth-User, Cf-Access-Authenticated-User-Email,
    // X-Goog-Authenticated-User-Email, X-Amzn-Oidc-Identity, X-Ms-Client-Principal-Name.
    "x-auth* *webauth* *authenticated* *oidc* x-ms-client-* tailscale-*",
    "auth-user auth-type x-appengine-user-email x-envoy-*",
    // What was proved by a certificate: SSL-Client-Verify, X-SSL-Client-DN, Client-Cert
    // (RFC 9440); and whether there was TLS at all: X-ARR-SSL, Fastly-SSL.
    "*ssl* *client-cert* *tls-client*",
    "x-client-s-dn x-client-i-dn x-client-verify x-client-dn x-arr-clientcert",
    // The scheme.
    "front-end-https https x-https x-https-on *-scheme x-proto x-protocol cf-visitor",
    // The host, the port and the path.
    "x-host x-http-host x-http-host-override x-host-override server-name x-server-name",
    "server-port x-port x-server-port",
    "x-rewrite-url request-uri x-request-uri x-replaced-path x-ingress-path x-prefix x-base-url",
    "script-name x-script-name path-info",
    // The address under further names.
    "cf-connecting-ipv6 cf-pseudo-ipv4 client-addr x-peer-addr x-source-address x-coming-from",
    "x-client-addr x-realip x-azure-socketip cloudfront-viewer-address",
    // Where a proxy would take files from that the app names.
    "x-sendfile-type x-accel-mapping",
];

/// The variables in which the router keeps what it has found.
const CLIENT: &str = "client";
pub const SCHEME: &str = "scheme";

/// A number of an IPv4 address, and a group of an IPv6 address: any at all.
const NUMBER: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const GROUP: &str = "[0-9a-f]{1,4}";
/// What may follow an address as some proxies write it, and stand around each entry.
const PORT: &str = "(?::[0-9]{1,5})?";
const SPACE: &str = r"[ \t]*";
/// Bits of a group.
const GROUP_BITS: u32 = 16;

/// Bytes of a list of addresses that is looked at: more than twenty proxies. Caddy takes
/// 0.4 µs for each, so the 32 KiB that a visitor may send would cost it 12 ms.
const MAX_LIST: usize = 1024;

/// Finds out who the visitor is, and forgets what else is said about him.
pub fn find(trust: &Trust) -> Vec<Value> {
    let claims: Vec<&str> = CLAIMS.iter().flat_map(|family| family.split(' ')).collect();
    let too_long = json!({
        "match": [{"expression": format!("size({{http.request.header.X-Forwarded-For}}) > {MAX_LIST}")}],
        "handle": [page(431, "The list of addresses in X-Forwarded-For is too long.")],
        "terminal": true,
    });
    let found = json!({"handle": [
        client(trust),
        scheme(trust),
        // A map is looked at when it is asked, which is too late once the fields are gone.
        {"handler": "vars", CLIENT: "{visitor.client}", SCHEME: "{visitor.scheme}"},
        {"handler": "headers", "request": {"delete": claims}},
    ]});
    if trust.0.is_empty() { vec![found] } else { vec![too_long, found] }
}

/// What is told instead: one address and one scheme. Caddy itself adds X-Forwarded-Host.
pub fn set() -> Value {
    let client = format!("{{http.vars.{CLIENT}}}");
    json!({
        "X-Forwarded-For": [client],
        "X-Forwarded-Proto": [format!("{{http.vars.{SCHEME}}}")],
        "X-Real-Ip": [client],
    })
}

/// Sets a variable by what fits a text of placeholders: the first pattern that does says.
fn map(name: &str, source: &str, outputs: &[(String, &str)]) -> Value {
    let mapping =
        |(pattern, output): &(String, &str)| json!({"input_regexp": pattern, "outputs": [output]});
    let mappings: Vec<Value> = outputs.iter().map(mapping).collect();
    json!({"handler": "map", "source": source, "destinations": [name], "mappings": mappings})
}

/// The client, found as for the dashboard (`gate::client`). The peer is the last
/// entry of the list; then the first match from the left is the longest walk from the
/// right past trusted addresses. Written in what every Caddy has: 2.6.2 knows neither
/// trusted proxies for a whole server nor the strict walk, later ones not what it had instead.
fn client(trust: &Trust) -> Value {
    let (name, peer) = ("{visitor.client}", "{http.request.remote.host}");
    // The peer itself, without the zone that a link-local address may have.
    let last = ("([^,%]*)(?:%[^,]*)?$".to_owned(), "$1");
    let Some(trusted) = entry(trust) else { return map(name, peer, &[last]) };
    let (v4, v6) = (v4(Ipv4Addr::UNSPECIFIED, 0), v6(Ipv6Addr::UNSPECIFIED, 0));
    let v6 = format!("::ffff:{v4}|{v6}");
    // A list from the client on, whose address is one of the three groups.
    let walk = format!(
        r"(?i)(?:^|,){SPACE}(?:({v4}){PORT}|({v6})|\[({v6})\]{PORT}){SPACE}(?:,{SPACE}{trusted}{SPACE})*$"
    );
    let list = format!("{{http.request.header.X-Forwarded-For}},{peer}");
    map(name, &list, &[(walk, "$1$2$3"), last])
}

/// The scheme: a trusted peer's word, when it is a clear one, or else the connection's.
fn scheme(trust: &Trust) -> Value {
    let (name, own) = ("{visitor.scheme}", "{http.request.scheme}");
    let last = ("([^,]*)$".to_owned(), "$1");
    let Some(trusted) = entry(trust) else { return map(name, own, &[last]) };
    let said =
        |scheme: &'static str| (format!("(?i)^{trusted},{SPACE}{scheme}{SPACE},[^,]*$"), scheme);
    let list =
        format!("{{http.request.remote.host}},{{http.request.header.X-Forwarded-Proto}},{own}");
    map(name, &list, &[said("https"), said("http"), last])
}

/// An entry with a trusted address; none when nobody is trusted.
fn entry(trust: &Trust) -> Option<String> {
    let (mut dotted, mut grouped) = (Vec::new(), Vec::new());
    for range in &trust.0 {
        match range.parts() {
            (IpAddr::V4(first), bits) => dotted.push(v4(first, bits)),
            (IpAddr::V6(first), bits) => grouped.push(v6(first, bits)),
        }
    }
    let mut forms = Vec::new();
    if !dotted.is_empty() {
        let dotted = format!("(?:{})", dotted.join("|"));
        forms.push(format!("{dotted}{PORT}"));
        grouped.push(format!("::ffff:{dotted}"));
    }
    if !grouped.is_empty() {
        let grouped = format!("(?:{})", grouped.join("|"));
        forms.push(format!(r"{grouped}|\[{grouped}\]{PORT}"));
    }
    (!forms.is_empty()).then(|| format!("(?:{})", forms.join("|")))
}

/// The texts of the IPv4 addresses that share this many leading bits.
fn v4(first: Ipv4Addr, bits: u32) -> String {
    let number = |(at, low): (u32, u8)| match bits.saturating_sub(8 * at).min(8) {
        0 => NUMBER.to_owned(),
        fixed => {
            let high = low | 0xff_u8.checked_shr(fixed).unwrap_or(0);
            let all: Vec<String> = (low..=high).map(|n| n.to_string()).collect();
            format!("(?:{})", all.join("|"))
        }
    };
    let all: Vec<String> = (0..).zip(first.octets()).map(number).collect();
    all.join(r"\.")
}

/// The texts of the IPv6 addresses that share this many leading bits: written out, and with
/// `::` at each place where it may stand for zeros.
fn v6(first: Ipv6Addr, bits: u32) -> String {
    let segments = first.segments();
    let group = |(at, low): (u32, &u16)| group(*low, bits.saturating_sub(GROUP_BITS * at));
    let groups: Vec<String> = (0..).zip(&segments).map(group).collect();
    // From here on every group is free.
    let free = usize::try_from(bits.div_ceil(GROUP_BITS)).unwrap_or(0);
    let mut forms = vec![groups.join(":")];
    for start in 0..groups.len() {
        let head = groups[..start].join(":");
        let zeros = segments[start..].iter().take_while(|segment| **segment == 0).count();
        // Longer runs of zeros are among those that go on to where every group is free.
        for end in start + 1..=(start + zeros).min(free.max(start + 1)) {
            let free_groups = || up_to(groups.len() - end);
            let tail = if end < free { groups[end..].join(":") } else { free_groups() };
            forms.push(format!("{head}::{tail}"));
        }
    }
    format!("(?:{})", forms.join("|"))
}

/// At most this many groups, which may be any.
fn up_to(most: usize) -> String {
    match most.checked_sub(1) {
        None => String::new(),
        Some(more) => format!("(?:{GROUP}(?::{GROUP}){{0,{more}}})?"),
    }
}

/// The texts of the groups that share this many leading bits, zeros in front or not.
fn group(low: u16, bits: u32) -> String {
    if bits == 0 {
        return GROUP.to_owned();
    }
    let mut text = String::new();
    for (fixed, shift) in [(0, 12), (4, 8), (8, 4), (12, 0)] {
        let first = (low >> shift) & 0xf;
        let last = first | (0xf >> bits.saturating_sub(fixed).min(4));
        let digits: String = (first..=last).map(|digit| format!("{digit:x}")).collect();
        text = format!("{text}[{digits}]");
        // A zero in front may be left away.
        if low >> shift == 0 && shift > 0 {
            text = format!("(?:{text})?");
        }
    }
    text
}

#[cfg(test)]
mod tests;
