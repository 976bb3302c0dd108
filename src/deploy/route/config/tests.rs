//! The configuration as a whole: what is in it, and when.

use super::*;

fn settings() -> Settings {
    Settings {
        base_domain: "localhost".to_owned(),
        bind: None,
        http_port: None,
        https_port: None,
        dashboard_domain: None,
        acme_email: None,
        private_tls: false,
        trust: Trust::Off,
    }
}

fn json_of(settings: &Settings, encrypted: &[&str], keeps_streams: bool) -> Value {
    let encrypted = encrypted.iter().map(|h| (*h).to_owned()).collect();
    Layout {
        dir: Path::new("/d/router"),
        sites: Path::new("/d/sites"),
        front: Path::new("/d/front.sock"),
        settings,
        ports: Ports { http: 80, https: Some(443) },
        encrypted: &encrypted,
        keeps_streams,
    }
    .json()
}

#[test]
fn private_names_need_no_certificate_unless_the_owner_wants_them_private() {
    let mut own = settings();
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
    own = Settings { dashboard_domain: Some("paas.localhost".to_owned()), ..settings() };
    assert!(own.is_encrypted("paas.localhost"), "the dashboard always is");
}

#[test]
fn plain_http_is_all_there_is_while_no_name_needs_more() {
    let config = json_of(&settings(), &[], false);
    assert_eq!(config["apps"]["http"]["servers"]["http"]["listen"], json!([":80"]));
    assert!(config["apps"]["http"]["servers"]["https"].is_null());
    assert!(config["apps"]["tls"].is_null());
    assert_eq!(config["admin"]["listen"], "unix//d/router/admin.sock");
    let text = config.to_string();
    assert!(!text.contains("stream_close_delay") && !text.contains("front.sock"));
}

#[test]
fn public_names_get_certificates_by_acme_and_private_ones_our_own() {
    let own = Settings {
        acme_email: Some("a@example.com".to_owned()),
        bind: Some("::1".parse().unwrap()),
        dashboard_domain: Some("paas.test".to_owned()),
        ..settings()
    };
    let config = json_of(&own, &["paas.test", "shop.example.com"], true);
    let tls = &config["apps"]["tls"];
    assert_eq!(tls["certificates"]["automate"], json!(["paas.test", "shop.example.com"]));
    let policies = tls["automation"]["policies"].as_array().unwrap();
    assert_eq!(policies[0]["subjects"], json!(["paas.test"]));
    assert_eq!(policies[0]["issuers"][0]["module"], "internal");
    assert_eq!(policies[1]["subjects"], json!(["shop.example.com"]));
    assert_eq!(policies[1]["issuers"][0]["email"], "a@example.com");
    let https = &config["apps"]["http"]["servers"]["https"];
    assert_eq!(https["listen"], json!(["[::1]:443"]));
    let text = config.to_string();
    assert!(text.contains("unix//d/front.sock") && text.contains("stream_close_delay"));
    assert!(!config["apps"]["http"]["servers"]["http"].to_string().contains("front.sock"));
}
