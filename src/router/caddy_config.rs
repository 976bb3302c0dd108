//! The router's configuration as JSON: what does not change with a deploy.
//!
//! Apps are not in it, and no name of theirs. Hosts are looked up in the [`super::route_table`]
//! with each request, and by the router itself when it asks whether it may have a
//! certificate; in it are only the listeners and the dashboard. Works with Caddy 2.6
//! (Debian 12) and later.

use super::caddy::Version;
use super::client_headers;
use super::ports::Ports;
use super::published;
use super::route_table;
use super::site_rules::SiteRules;
use super::static_page::page;
use crate::model::Routing;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

/// How long a client may take to send a request's head.
const HEAD_SECONDS: &str = "10s";
/// How long a connection may wait for its next request.
const IDLE_SECONDS: &str = "120s";
/// The same for a connection to an app. Shorter than any common server's own limit
/// (gunicorn 2 s, Node 5 s): who closes first must be the router, or a request is sent into
/// a connection that ends in that moment. And a connection that idles looks like a
/// request under way to who waits for the last one.
const APP_IDLE: &str = "1s";
/// How many of them there are for each app: as Caddy has it when nothing is said about them.
const APP_IDLE_CONNECTIONS: u32 = 32;
/// Bytes of a request's head: what common servers behind a router take.
const MAX_HEAD: u32 = 32 * 1024;
/// The same for the head of an app's answer, all of it (each interim one and the trailers have
/// bounds of Caddy's own). Browsers and common proxies take no more than this; Caddy itself
/// would take 10 MiB, of which many short fields made 100 MB in memory, for each request.
const MAX_ANSWER_HEAD: u32 = 64 * 1024;
/// How long requests of a configuration that is replaced may take to finish.
const GRACE: &str = "3s";
/// How long upgraded connections outlive the configuration they began under, where the
/// router can do that (Caddy 2.7). Their release ends them earlier.
const STREAMS: &str = "24h";
/// The size at which the router's log is rotated, in MiB, and how many are kept.
const LOG_MIB: u32 = 1;
const LOGS_KEPT: u32 = 2;

/// The port that clients ask for when nothing else is said.
const USUAL_HTTPS: u16 = 443;

/// The socket at which its configuration is changed, in the router's directory; and the one
/// at which it tells what it would do with a host.
pub const ADMIN: &str = "admin.sock";
pub const CHECK: &str = "check.sock";

/// Everything that the configuration depends on.
#[derive(Debug)]
pub struct CaddyConfig<'a> {
    /// The router's directory.
    pub dir: &'a Path,
    /// What the owner has set.
    pub routing: &'a Routing,
    /// Where it listens.
    pub ports: Ports,
    /// The path at which it asks itself for permission; nobody else knows it.
    pub secret: &'a str,
    /// What this Caddy can do.
    pub version: &'a Version,
}

impl CaddyConfig<'_> {
    /// The configuration.
    pub fn json(&self) -> Value {
        let own = self.ports.https;
        let mut servers = json!({
            "http": self.server(self.ports.http, own.map(|_| self.permission()), own.map(|port| self.redirect(port))),
            "check": {
                "listen": [unix(&self.dir.join(CHECK))],
                "automatic_https": {"disable": true},
                "protocols": ["h1"],
                "routes": [self.lookup(vec![said("{http.matchers.file.relative}")]), unknown()],
            },
        });
        let mut apps = json!({
            "pki": {"certificate_authorities": {"local": {"install_trust": false}}},
        });
        if let Some(port) = own {
            let mut https = self.server(port, None, self.dashboard());
            https["tls_connection_policies"] = json!([{}]);
            servers["https"] = https;
            apps["tls"] = self.certificates();
        }
        apps["http"] = json!({
            "http_port": self.ports.http,
            "https_port": own.unwrap_or(USUAL_HTTPS),
            "grace_period": GRACE,
            "servers": servers,
        });
        json!({
            "admin": {"listen": unix(&self.dir.join(ADMIN)), "config": {"persist": false}},
            "logging": {"logs": {"default": {"level": "WARN", "writer": {
                "output": "file", "filename": self.dir.join("caddy.log"),
                "roll_size_mb": LOG_MIB, "roll_keep": LOGS_KEPT, "roll_gzip": false,
            }}}},
            "storage": {"module": "file_system", "root": super::certificates::storage(self.dir)},
            "apps": apps,
        })
    }

    /// Certificates. The dashboard's is had at the start; those of apps when a visitor first
    /// asks for their host, if it is in the table at that moment. No name is in here, so
    /// none makes the router refuse its configuration, or change it.
    fn certificates(&self) -> Value {
        let own = self.routing;
        let issuers = |is_own: bool| match &own.acme_email {
            _ if is_own => json!([{"module": "internal"}]),
            Some(email) => json!([{"module": "acme", "email": email}]),
            None => Value::Null,
        };
        let dashboard = own.dashboard_domain.as_deref();
        let named =
            dashboard.map(|host| json!({"subjects": [host], "issuers": issuers(own.is_own(host))}));
        let others = json!({"on_demand": true, "issuers": issuers(own.private_tls)});
        let policies: Vec<Value> = named.into_iter().chain([others]).collect();
        let at = SocketAddr::new(own.own_ip(), self.ports.http);
        let at = format!("http://{at}/{}", self.secret);
        // A module's business from 2.8 on.
        let permission = if self.version.numbers >= (2, 8) {
            json!({"permission": {"module": "http", "endpoint": at}})
        } else {
            json!({"ask": at})
        };
        json!({
            "certificates": {"automate": dashboard.into_iter().collect::<Vec<_>>()},
            "automation": {"policies": policies, "on_demand": permission},
        })
    }

    /// Answers the router's own question: whether a host may get a certificate. Other
    /// programs of this machine come from the same address, but do not know the path.
    fn permission(&self) -> Value {
        let from = self.routing.own_ip().to_string();
        let domain = "{http.request.uri.query.domain}";
        let permitted = self.find("domain", domain, route_table::PERMITTED, "", vec![said("yes")]);
        json!({
            "match": [{"path": [format!("/{}", self.secret)], "remote_ip": {"ranges": [from]}}],
            "handle": [{"handler": "subroute", "routes": [permitted, unknown()]}],
            "terminal": true,
        })
    }

    /// A listener for visitors, with routes that are looked at before the visitor is known, and
    /// before the app is.
    fn server(&self, port: u16, first: Option<Value>, then: Option<Value>) -> Value {
        let mut routes: Vec<Value> = first.into_iter().chain([usual_host()]).collect();
        routes.extend(client_headers::find(&self.routing.trust));
        routes.extend(then);
        routes.extend([self.lookup(self.targets()), unknown()]);
        let listen = match self.routing.bind {
            Some(ip) => SocketAddr::new(ip, port).to_string(),
            None => format!(":{port}"),
        };
        json!({
            "listen": [listen],
            // Certificates and redirects are named below; nothing is to be guessed.
            "automatic_https": {"disable": true},
            "protocols": ["h1", "h2"],
            "read_header_timeout": HEAD_SECONDS,
            "idle_timeout": IDLE_SECONDS,
            "max_header_bytes": MAX_HEAD,
            "routes": routes,
            "errors": {"routes": [
                {"match": [{"expression": "{http.error.status_code} in [502, 503, 504]"}],
                 "handle": [page(502, "Nothing answers here at the moment.")]},
                {"handle": [{"handler": "static_response", "status_code": "{http.error.status_code}"}]},
            ]},
        })
    }

    /// Sends who came in the clear to the host's HTTPS, where it has that.
    fn redirect(&self, port: u16) -> Value {
        let port = if port == USUAL_HTTPS { String::new() } else { format!(":{port}") };
        let there = format!("https://{{http.request.host}}{port}{{http.request.uri}}");
        let redirect = json!({
            // Who came to a trusted proxy over HTTPS is where he should be.
            "match": [{"vars": {client_headers::SCHEME: ["http"]}}],
            "handle": [{
                "handler": "static_response", "status_code": 308, "headers": {"Location": [there]},
            }],
            "terminal": true,
        });
        self.find("plain", "{http.request.host}", route_table::ENCRYPTED, "", vec![redirect])
    }

    /// Finds the newest file of the host that is asked for.
    fn lookup(&self, found: Vec<Value>) -> Value {
        self.find("host", "{http.request.host}", route_table::HOSTS, "/*", found)
    }

    /// Looks for a host in a directory. A host is letters, digits, dashes and dots: nothing
    /// that means something in a path or a pattern.
    fn find(&self, name: &str, host: &str, dir: &str, rest: &str, found: Vec<Value>) -> Value {
        let host = json!({host: {"name": name, "pattern": r"^([a-z0-9][a-z0-9.-]*)$"}});
        let first = json!({
            "root": self.dir.join(dir),
            "try_files": [format!("/{{http.regexp.{name}.1}}{rest}")],
            "try_policy": "first_exist",
        });
        nested(&json!({"vars_regexp": host}), vec![nested(&json!({"file": first}), found)])
    }

    /// What to do with what was found.
    fn targets(&self) -> Vec<Value> {
        let named = |pattern: &str, handle: Vec<Value>| {
            json!({
                "match": [{"vars_regexp": {"{http.matchers.file.relative}": {
                    "name": "to", "pattern": pattern,
                }}}],
                "handle": handle,
                "terminal": true,
            })
        };
        let sites = self.dir.with_file_name("sites");
        let site = sites.join("{http.regexp.to.1}/{http.regexp.to.2}");
        let files = published::files(&site, &SiteRules::default());
        let mut targets = vec![
            named(r"\.p\.([0-9]+)$", vec![self.proxy("127.0.0.1:{http.regexp.to.1}")]),
            named(r"\.s\.([a-z0-9]+)\.([a-z0-9]+)$", vec![files]),
            named(r"\.d$", vec![page(503, "This app is not running.")]),
        ];
        for (site, rules) in published::with_rules(&sites) {
            let files = published::files(&sites.join(site.replace('.', "/")), &rules);
            targets.insert(0, named(&format!(r"\.s\.{}$", site.replace('.', r"\.")), vec![files]));
        }
        targets
    }

    /// The dashboard, if it has a host. Cookies mean nothing to it. What another host below the
    /// same domain has set for all of them would make its requests too large for the gate.
    fn dashboard(&self) -> Option<Value> {
        let host = self.routing.dashboard_domain.as_ref()?;
        let mut proxy = self.proxy(&unix(&self.dir.with_file_name("front.sock")));
        proxy["headers"]["request"]["delete"] = json!(["Cookie"]);
        Some(json!({"match": [{"host": [host]}], "handle": [proxy], "terminal": true}))
    }

    fn proxy(&self, dial: &str) -> Value {
        let mut proxy = json!({
            "handler": "reverse_proxy",
            "upstreams": [{"dial": dial}],
            "headers": {"request": {"set": client_headers::set()}},
            "transport": {
                "protocol": "http",
                // What the client accepts is between it and the app.
                "compression": false,
                "max_response_header_size": MAX_ANSWER_HEAD,
                "keep_alive": {
                    "idle_timeout": APP_IDLE,
                    "max_idle_conns_per_host": APP_IDLE_CONNECTIONS,
                },
            },
        });
        // It can leave upgraded connections open from 2.7 on.
        if self.version.numbers >= (2, 7) {
            proxy["stream_close_delay"] = json!(STREAMS);
        }
        proxy
    }
}

/// A Unix socket as Caddy names it.
fn unix(path: &Path) -> String {
    format!("unix/{}", path.display())
}

fn nested(matcher: &Value, routes: Vec<Value>) -> Value {
    json!({"match": [matcher], "handle": [{"handler": "subroute", "routes": routes}]})
}

fn said(text: &str) -> Value {
    let handler = json!({"handler": "static_response", "status_code": 200, "body": text});
    json!({"handle": [handler], "terminal": true})
}

fn unknown() -> Value {
    json!({"handle": [page(404, "No app answers at this host name.")]})
}

/// Host names are the same in any case (RFC 4343) and with a dot at their end (RFC 1034,
/// section 3.1); file names, and names in this configuration, are not.
fn usual_host() -> Value {
    let mut changes: Vec<Value> = ('A'..='Z')
        .map(|c| json!({"search": c.to_string(), "replace": c.to_ascii_lowercase().to_string()}))
        .collect();
    changes.push(json!({"search_regexp": r"\.+(:[0-9]*)?$", "replace": "$1"}));
    let unusual = json!({"name": "unusual", "pattern": r"[A-Z]|\.$"});
    json!({
        "match": [{"vars_regexp": {"{http.request.host}": unusual}}],
        "handle": [{"handler": "headers", "request": {"replace": {"Host": changes}}}],
    })
}

#[cfg(test)]
mod tests;
