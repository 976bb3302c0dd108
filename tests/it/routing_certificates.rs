//! Certificates of names that come and go: nothing else changes with them, and what cannot be had is said.

use crate::harness::apps::{create, deploy_live, show};
use crate::harness::checks::{found, mended};
use crate::harness::netns::MACHINE_V4;
use crate::harness::routed::{
    STARTING, caddy, https, https_once, private, release, router, start, until_running,
};
use crate::harness::{GitServer, Http, Netns, Server, Setup, Ws, process, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A live app with names of its own.
struct Shop {
    _git: GitServer,
    server: Server,
    owner: Http,
    path: String,
}

impl Shop {
    #[track_caller]
    fn open(setup: Setup, domains: &[&str]) -> Self {
        let git = GitServer::start();
        git.commit("shop", &release("one"));
        let server = start(setup);
        let mut owner = server.owner();
        let body = json!({"name": "shop", "gitRepo": git.url("shop"), "domains": domains});
        let app = create(&mut owner, &body);
        deploy_live(&mut owner, &app);
        Self { _git: git, server, owner, path: format!("/api/apps/{app}") }
    }

    #[track_caller]
    fn set(&mut self, domains: &[&str]) {
        self.owner.patch(&self.path, &json!({"domains": domains})).expect(200);
    }

    /// What the API knows of a name.
    #[track_caller]
    fn known(&mut self, domain: &str) -> Value {
        let all = self.owner.get(&format!("{}/domains", self.path)).expect(200).json();
        let all = all["domains"].as_array().expect("a list").clone();
        all.into_iter().find(|d| d["domain"] == domain).expect("the domain")
    }
}

/// What the router says that it runs.
fn configuration(server: &Server) -> String {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "-f", "-H", "Host;", "--unix-socket"]);
    curl.arg(server.data().join("router/admin.sock")).arg("http://admin/config/");
    let output = curl.output().expect("curl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_name_comes_with_its_certificate_and_goes_and_a_websocket_lives_through_it() {
    let mut shop = Shop::open(private().as_user(), &[]);
    let http = shop.server.setup().router("HTTP_PORT");
    let mut held = Ws::at(http, "/ws").with("Host", "shop.localhost").open().expect("held");
    let (pid, before) = (caddy(&shop.server), configuration(&shop.server));
    for names in [&["a.example.com"][..], &["a.example.com", "b.example.com"], &["b.example.com"]] {
        shop.set(names);
        for name in names {
            // At once: nobody waits for anything.
            let answer = https_once(&shop.server, name, "/", &[]).expect("a certificate");
            assert_eq!(answer.expect(200).text(), "one", "{name}");
            shop.server.visitor(name).get("/").expect(308);
        }
    }
    assert!(held.is_alive(), "a WebSocket was cut");
    shop.server.visitor("a.example.com").get("/").expect(404);
    until("it is known", STARTING, || shop.known("b.example.com")["certificate"] == "valid");
    let local = shop.known("shop.localhost");
    assert_eq!((&local["certificate"], &local["records"]), (&json!("none"), &json!([])));
    shop.set(&[]);
    shop.server.visitor("b.example.com").get("/").expect(404);
    assert!(held.is_alive(), "a WebSocket was cut");
    assert_eq!((caddy(&shop.server), configuration(&shop.server)), (pid, before));
}

#[test]
fn a_name_is_certified_before_its_first_visitor_comes() {
    let mut shop = Shop::open(private(), &["shop.example.com"]);
    let file = |name| certificate(&shop.server, name).join(format!("{name}.crt"));
    until("a certificate", STARTING, || file("shop.example.com").exists());
    until("it is known", STARTING, || shop.known("shop.example.com")["certificate"] == "valid");
}

/// Where the router keeps the certificate of a name.
fn certificate(server: &Server, name: &str) -> PathBuf {
    server.data().join("router/storage/certificates/local").join(name)
}

#[test]
fn a_strangers_name_gets_no_certificate() {
    let shop = Shop::open(private().as_user(), &["shop.example.com"]);
    https(&shop.server, "shop.example.com", "/", &[]).expect(200);
    for name in
        ["stranger.example.com", "www.shop.example.com", "other.localhost", "shop.localhost"]
    {
        assert!(https_once(&shop.server, name, "/", &["-k"]).is_none(), "{name}");
        assert!(!certificate(&shop.server, name).exists(), "{name}");
    }
    https_once(&shop.server, "shop.example.com", "/", &[]).expect("a certificate");
}

/// Nobody but the router learns which names there are, not even whoever has seen the path.
#[test]
fn nobody_else_is_told_what_may_have_a_certificate() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root makes networks");
        return;
    }
    let net = Netns::new();
    let outsider = net.outsider.as_str();
    Netns::within(&net.machine, || {
        let shop = Shop::open(private().without("ROUTER_BIND"), &["shop.example.com"]);
        let secret = std::fs::read_to_string(shop.server.data().join("router/secret"));
        let secret = secret.expect("the path");
        let port = shop.server.setup().router("HTTP_PORT").port();
        let asked = |at: &str, path: &str, domain: &str| {
            let address = format!("{at}:{port}").parse().expect("an address");
            Http::new(address).host("x").get(&format!("/{path}?domain={domain}")).status
        };
        assert_eq!(asked("127.0.0.1", &secret, "shop.example.com"), 200);
        for domain in ["stranger.example.com", "shop.localhost", "", ".", "..", "*", "a/../b"] {
            assert_eq!(asked("127.0.0.1", &secret, domain), 404, "{domain}");
        }
        assert_eq!(asked("127.0.0.1", &"0".repeat(32), "shop.example.com"), 404);
        let from_outside = || asked(MACHINE_V4, &secret, "shop.example.com");
        assert_eq!(Netns::within(outsider, from_outside), 404);
    });
}

/// Leaves a part of a file of a certificate.
fn halve(name: &str, of: &Path, end: &str) {
    let file = of.join(format!("{name}.{end}"));
    let text = std::fs::read(&file).expect("a file");
    std::fs::write(&file, &text[..text.len() / 4]).expect("a part of it");
}

/// What a new server wants of the router that it finds, and the router refuses, costs no visitor anything.
#[test]
fn a_router_that_refuses_its_configuration_goes_on_with_the_last_one() {
    let Shop { _git, mut server, owner, .. } = Shop::open(private(), &["shop.example.com"]);
    https(&server, "paas.localhost", "/", &[]).expect(200);
    let before = caddy(&server);
    drop(owner);
    server.kill9();
    halve("paas.localhost", &certificate(&server, "paas.localhost"), "json");
    let server = start(server.setup().clone().env("TRUST_PROXY", "true"));
    let seen = router(&mut server.owner());
    let why = "the router refuses its configuration and uses the last one: ";
    assert!(seen["message"].as_str().is_some_and(|message| message.contains(why)), "{seen}");
    assert_eq!(caddy(&server), before);
    assert_eq!(https(&server, "shop.example.com", "/", &[]).expect(200).text(), "one");
}

#[test]
fn a_certificate_that_is_half_there_is_had_anew() {
    let Shop { _git, mut server, mut owner, path } =
        Shop::open(private(), &["shop.example.com", "good.example.com"]);
    let names = ["shop.example.com", "good.example.com", "paas.localhost"];
    for name in names {
        https(&server, name, "/", &[]).expect(200);
    }
    // The machine went down while they were written.
    server.kill9();
    process::kill(caddy(&server));
    halve(names[0], &certificate(&server, names[0]), "crt");
    halve(names[2], &certificate(&server, names[2]), "json");
    let server = start(server.setup().clone());
    for name in names {
        https(&server, name, "/", &[]).expect(200);
    }

    // And one that the router meets while it runs, which costs no other name anything.
    let (whole, half) = (certificate(&server, names[1]), certificate(&server, "half.example.com"));
    std::fs::create_dir(&half).expect("a place");
    for end in ["crt", "json", "key"] {
        let from = whole.join(format!("{}.{end}", names[1]));
        std::fs::copy(from, half.join(format!("half.example.com.{end}"))).expect("a copy");
    }
    halve("half.example.com", &half, "crt");
    let more = json!({"domains": ["half.example.com", "good.example.com", "new.example.com"]});
    owner = {
        drop(owner);
        server.owner()
    };
    owner.patch(&path, &more).expect(200);
    for name in ["good.example.com", "new.example.com", "half.example.com"] {
        https(&server, name, "/", &[]).expect(200);
    }
}

#[test]
fn no_request_waits_for_a_router_that_hangs() {
    let mut shop = Shop::open(private().as_user(), &["shop.example.com"]);
    https(&shop.server, "shop.example.com", "/", &[]).expect(200);
    let pid = caddy(&shop.server);
    process::signal(pid, Signal::STOP);
    shop.set(&["new.example.com"]);
    let app = shop.path.trim_start_matches("/api/apps/").to_owned();
    assert_eq!(show(&mut shop.owner, &app)["domains"], json!(["new.example.com"]));
    assert_eq!(process::stat_field(pid, 3).as_deref(), Some("T"), "the router hung all the while");
    process::signal(pid, Signal::CONT);
    assert_eq!(https(&shop.server, "new.example.com", "/", &[]).expect(200).text(), "one");
    shop.server.visitor("shop.example.com").get("/").expect(404);
}

/// In a network without a way out: no name is known there, and no authority is reached.
#[test]
fn a_name_that_gets_no_certificate_says_why_and_spoils_nothing() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root makes networks");
        return;
    }
    let net = Netns::new();
    Netns::within(&net.machine, || {
        let setup = Setup::routed().env("DASHBOARD_DOMAIN", "paas.localhost");
        let mut shop = Shop::open(setup, &[]);
        shop.set(&["shop.example.com"]);
        let mut known = json!({});
        until("it is known that there is none", 3 * STARTING, || {
            known = shop.known("shop.example.com");
            known["certificate"] == "missing"
        });
        let message = known["message"].as_str().expect("a sentence");
        assert!(message.starts_with("the name service does not know it; set its A"), "{message}");
        assert!(message.contains(". The router says: "), "{message}");
        assert_eq!(known["resolvesTo"], json!([]));
        let message = router(&mut shop.owner)["message"].as_str().expect("a sentence").to_owned();
        assert!(message.contains("no certificate for shop.example.com: "), "{message}");
        // P28: so says the checklist, until it is mended.
        let seen = found(&mut shop.owner, "host shop.example.com", "fail");
        let sentence = seen["sentence"].as_str().expect("a sentence");
        assert!(sentence.starts_with("shop.example.com of shop: the name service"), "{seen}");
        // Nor does a visitor make the router ask again.
        assert!(!shop.server.data().join("router/permitted/shop.example.com").exists());
        https(&shop.server, "paas.localhost", "/", &[]).expect(200);
        assert_eq!(shop.server.visitor("shop.localhost").get("/").expect(200).text(), "one");
        shop.set(&[]);
        mended(&mut shop.owner, "host shop.example.com");
        assert!(router(&mut shop.owner)["message"].is_null());
        let server = shop.server.restart();
        until_running(&server);
        https(&server, "paas.localhost", "/", &[]).expect(200);
    });
}
