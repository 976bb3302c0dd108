//! The configuration as a whole: what is in it, and when.

use super::*;
use crate::model::{Routing, Trust};

fn routing() -> Routing {
    Routing {
        on: true,
        base_domain: "localhost".to_owned(),
        bind: None,
        http_port: None,
        https_port: None,
        dashboard_domain: None,
        acme_email: None,
        private_tls: false,
        trust: Trust::default(),
    }
}

fn json_of(routing: &Routing, version: &str, https: Option<u16>) -> Value {
    CaddyConfig {
        dir: Path::new("/d/router"),
        routing,
        ports: Ports { http: 80, https },
        secret: "abc",
        version: &Version::read(version).unwrap(),
    }
    .json()
}

#[test]
fn private_names_need_no_certificate_unless_the_owner_wants_them_private() {
    let mut own = routing();
    for (host, public, private) in [
        ("shop.localhost", false, false),
        ("shop.test", false, true),
        ("nas.home.arpa", false, true),
        ("contest", true, true),
        ("shop.example.com", true, true),
    ] {
        own.private_tls = false;
        assert_eq!(own.is_encrypted(host), public, "{host}");
        own.private_tls = true;
        assert_eq!(own.is_encrypted(host), private, "{host}");
    }
    own = Routing { dashboard_domain: Some("paas.localhost".to_owned()), ..routing() };
    assert!(own.is_encrypted("paas.localhost"), "the dashboard always is");
}

#[test]
fn plain_http_is_all_there_is_where_no_other_port_can_be_had() {
    let config = json_of(&routing(), "2.6.2", None);
    assert_eq!(config["apps"]["http"]["servers"]["http"]["listen"], json!([":80"]));
    assert!(config["apps"]["http"]["servers"]["https"].is_null());
    assert!(config["apps"]["tls"].is_null());
    assert_eq!(config["admin"]["listen"], "unix//d/router/admin.sock");
    let text = config.to_string();
    assert!(!text.contains("stream_close_delay") && !text.contains("front.sock"));
    assert!(!text.contains("308"), "nobody is sent to where nobody listens");
    assert_eq!(Ports::read(&config), Some(Ports { http: 80, https: None }));
}

#[test]
fn public_names_get_certificates_by_acme_and_private_ones_our_own() {
    let mut own = Routing {
        acme_email: Some("a@example.com".to_owned()),
        bind: Some("::1".parse().unwrap()),
        dashboard_domain: Some("paas.test".to_owned()),
        ..routing()
    };
    let config = json_of(&own, "2.10.0", Some(443));
    let tls = &config["apps"]["tls"];
    assert_eq!(tls["certificates"]["automate"], json!(["paas.test"]));
    let policies = tls["automation"]["policies"].as_array().unwrap();
    assert_eq!(policies[0]["subjects"], json!(["paas.test"]));
    assert_eq!(policies[0]["issuers"][0]["module"], "internal");
    assert_eq!(policies[1]["issuers"][0]["email"], "a@example.com");
    assert!(policies[1]["subjects"].is_null() && policies[1]["on_demand"] == true);
    let https = &config["apps"]["http"]["servers"]["https"];
    assert_eq!(https["listen"], json!(["[::1]:443"]));
    let text = config.to_string();
    assert!(text.contains("unix//d/front.sock") && text.contains("stream_close_delay"));
    assert!(json_of(&own, "2.7.6", Some(443)).to_string().contains("stream_close_delay"));
    let http = config["apps"]["http"]["servers"]["http"].to_string();
    assert!(!http.contains("front.sock"));
    own.private_tls = true;
    let policies = &json_of(&own, "2.6.2", Some(443))["apps"]["tls"]["automation"]["policies"];
    assert_eq!(policies[1]["issuers"], json!([{"module": "internal"}]));
}

#[test]
fn the_router_asks_itself_as_its_version_wants_it() {
    let ask = |version: &str, bind: Option<&str>| {
        let bind = bind.map(|ip| ip.parse().unwrap());
        let config = json_of(&Routing { bind, ..routing() }, version, Some(443));
        let on_demand = config["apps"]["tls"]["automation"]["on_demand"].clone();
        let first = &config["apps"]["http"]["servers"]["http"]["routes"][0]["match"][0];
        assert_eq!(first["path"], json!(["/abc"]));
        (on_demand, first["remote_ip"]["ranges"][0].clone())
    };
    let old = ask("2.7.6", None);
    assert_eq!(old, (json!({"ask": "http://127.0.0.1:80/abc"}), json!("127.0.0.1")));
    let module = |at: &str| json!({"permission": {"module": "http", "endpoint": at}});
    let own = ask("2.8.0", Some("192.0.2.1"));
    assert_eq!(own, (module("http://192.0.2.1:80/abc"), json!("192.0.2.1")));
    assert_eq!(ask("2.8.0", Some("::")), (module("http://[::1]:80/abc"), json!("::1")));
}
