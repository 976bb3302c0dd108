//! Where apps answer: the variables that the router goes by.

use super::Variables;
use crate::model::{Domain, Routing, Trust, number};
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};

/// Below it apps get their names unless told otherwise: a name that every machine
/// resolves to itself (RFC 6761, section 6.3).
const DEFAULT_BASE: &str = "localhost";

/// Bytes of an e-mail address (RFC 5321, 4.5.3.1.3, without the angle brackets).
const MAX_EMAIL: usize = 254;

/// Reads the variables; `trust` is whose word is believed.
pub(super) fn read(variables: Variables<'_>, trust: Trust) -> Result<Routing, String> {
    let base = variables.read("BASE_DOMAIN", |v| base_domain(&v))?;
    let on = variables.read("ROUTER", |v| {
        switch(&v, ["on", "off"])
            .ok_or("is neither on nor off; write off if you run a reverse proxy of your own")
    })?;
    let private_tls = variables.read("PRIVATE_TLS", |v| {
        switch(&v, ["true", "false"]).ok_or(
            "is neither true nor false; write true if no public authority can reach this machine",
        )
    })?;
    let routing = Routing {
        on: on.unwrap_or(true),
        base_domain: base.unwrap_or_else(|| DEFAULT_BASE.to_owned()),
        bind: variables.read("ROUTER_BIND", |v| {
            ip(&v).ok_or(
                "is not an address; write one of this machine's, such as 192.0.2.7 or ::1, or \
                 unset it to listen on all of them",
            )
        })?,
        http_port: variables.read("HTTP_PORT", own_port)?,
        https_port: variables.read("HTTPS_PORT", own_port)?,
        dashboard_domain: variables.read("DASHBOARD_DOMAIN", |v| {
            Domain::parse(&v).map(|domain| domain.as_str().to_owned()).map_err(|_| {
                "is not a host name; write the name that the dashboard shall answer at, without \
                 scheme, port or path: paas.example.com"
            })
        })?,
        acme_email: variables.read("ACME_EMAIL", email)?,
        private_tls: private_tls.unwrap_or(false),
        trust,
    };
    if routing.http_port.is_some() && routing.http_port == routing.https_port {
        let why = "HTTPS_PORT is the same as HTTP_PORT; give each its own, 443 and 80 for example";
        return Err(why.to_owned());
    }
    if routing.dashboard_domain.is_some() && !routing.on {
        let why = "DASHBOARD_DOMAIN is served by the router, and ROUTER is off; unset one of the \
                   two, and have a reverse proxy of your own lead the name to LISTEN_ADDR";
        return Err(why.to_owned());
    }
    Ok(routing)
}

/// Whether the router can listen where it is told to.
///
/// # Errors
/// The sentence that says so when this machine does not have the address.
pub fn check_bind(routing: &Routing) -> Result<(), String> {
    let Some(address) = routing.bind.filter(|_| routing.on) else { return Ok(()) };
    // Takes no port that anybody could want, and sends nothing.
    match UdpSocket::bind((address, 0)) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            let why = "ROUTER_BIND is not an address of this machine; write one that 'ip address' \
                       lists, or unset it to listen on all of them";
            Err(why.to_owned())
        }
        _ => Ok(()),
    }
}

/// One of two words, in any case: whether it is the first.
fn switch(value: &str, words: [&str; 2]) -> Option<bool> {
    words.iter().position(|word| value.eq_ignore_ascii_case(word)).map(|at| at == 0)
}

/// An IPv6 address may have the brackets that it has in a URL.
fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

fn base_domain(text: &str) -> Result<String, &'static str> {
    let lower = text.to_ascii_lowercase();
    if lower == DEFAULT_BASE {
        return Ok(lower);
    }
    if ip(text).is_some() {
        return Err("is an address, and there are no names below an address; write a name of \
             yours whose wildcard record leads to this machine: apps.example.com with \
             *.apps.example.com");
    }
    Domain::parse(&lower).map(|domain| domain.as_str().to_owned()).map_err(|_| {
        "is not a host name; write the name below which apps shall answer, without scheme, \
         port or wildcard: apps.example.com"
    })
}

fn own_port(text: String) -> Result<u16, &'static str> {
    number(&text).filter(|p| *p > 0).ok_or("is not a port; write a number from 1 to 65535")
}

/// Only what an address must have: the authority itself writes to it.
fn email(text: String) -> Result<String, &'static str> {
    let plain = text.len() <= MAX_EMAIL && text.bytes().all(|b| b.is_ascii_graphic());
    let whole = text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && Domain::parse(host).is_ok()
    });
    // Braces would be a placeholder of the router's.
    if plain && whole && !text.contains(['{', '}', '<', '>', ',']) {
        return Ok(text);
    }
    Err("is not an e-mail address; write the one that the certificate authority may warn: \
         admin@example.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Routing, String> {
        let found = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        read(Variables(&found), Trust::default())
    }

    #[test]
    fn without_variables_apps_answer_below_localhost() {
        let routing = with(&[]).unwrap();
        assert!(routing.on && !routing.private_tls);
        assert_eq!(routing.base_domain, "localhost");
        assert_eq!((routing.http_port, routing.https_port), (None, None));
    }

    #[test]
    fn every_variable_is_read() {
        let routing = with(&[
            ("ROUTER", "On"),
            ("BASE_DOMAIN", "Apps.Example.com"),
            ("ROUTER_BIND", "[::1]"),
            ("HTTP_PORT", "8000"),
            ("HTTPS_PORT", "8443"),
            ("DASHBOARD_DOMAIN", "paas.example.com"),
            ("ACME_EMAIL", "admin@example.com"),
            ("PRIVATE_TLS", "TRUE"),
        ])
        .unwrap();
        assert!(routing.on && routing.private_tls);
        assert!(!with(&[("ROUTER", "Off")]).unwrap().on);
        assert_eq!(routing.base_domain, "apps.example.com");
        assert_eq!(routing.bind, Some("::1".parse().unwrap()));
        assert_eq!((routing.http_port, routing.https_port), (Some(8000), Some(8443)));
        assert_eq!(routing.dashboard_domain.as_deref(), Some("paas.example.com"));
        assert_eq!(routing.acme_email.as_deref(), Some("admin@example.com"));
    }

    #[test]
    fn a_bad_value_is_one_sentence_that_names_its_variable() {
        for (name, values) in [
            ("ROUTER", &["yes", "caddy"][..]),
            ("BASE_DOMAIN", &["intranet", "*.example.com", "https://a.b", "a.b:80", "1.2.3.4"]),
            ("ROUTER_BIND", &["localhost", "1.2.3.4:80", "*"]),
            ("HTTP_PORT", &["0", "65536", "+80", ":80", "http"]),
            ("HTTPS_PORT", &["-1", "4 4"]),
            ("DASHBOARD_DOMAIN", &["localhost", "https://a.b", "a.b/c"]),
            ("ACME_EMAIL", &["admin", "a@b", "a@b.c, d@e.f", "{env.HOME}@b.cd", "a@ b.cd"]),
            ("PRIVATE_TLS", &["on", "1"]),
        ] {
            for value in values {
                let error = with(&[(name, value)]).unwrap_err();
                assert!(error.starts_with(&format!("{name} is ")), "{value}: {error}");
            }
        }
        let error = with(&[("HTTP_PORT", "80"), ("HTTPS_PORT", "80")]).unwrap_err();
        assert!(error.starts_with("HTTPS_PORT is"), "{error}");
        for address in ["203.0.113.7", "2001:db8::7", "[2001:db8::7]"] {
            let error = with(&[("BASE_DOMAIN", address)]).unwrap_err();
            assert!(error.contains("no names below an address"), "{error}");
        }
        let error = with(&[("ROUTER", "off"), ("DASHBOARD_DOMAIN", "a.b")]).unwrap_err();
        assert!(error.contains("ROUTER is off"), "{error}");
    }

    #[test]
    fn the_router_listens_only_where_this_machine_is() {
        let check = |address: &str, router| {
            check_bind(&with(&[("ROUTER_BIND", address), ("ROUTER", router)]).unwrap())
        };
        // An address for documentation (RFC 5737), which no machine has.
        let error = check("192.0.2.7", "on").unwrap_err();
        assert!(error.contains("not an address of this machine"), "{error}");
        assert_eq!(check("127.0.0.1", "on"), Ok(()));
        assert_eq!(check("192.0.2.7", "off"), Ok(()), "it is told as having no effect");
    }
}
