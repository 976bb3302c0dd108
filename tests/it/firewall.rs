//! What an app reaches of the machine's network, tried from inside an app, in a network of the test's own.

use crate::harness::apps::{create, deploy_live, show};
use crate::harness::checks::{found, mend, mended};
use crate::harness::netns::{
    LINK_LOCAL, MACHINE_V4, MACHINE_V6, METADATA, OUTSIDER_V4, OUTSIDER_V6,
};
use crate::harness::obedient::{OBEDIENT, ask};
use crate::harness::{GitServer, Http, Netns, Server, Setup, hex, random, server, until};
use serde_json::{Value, json};

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A directory below `/run` with a socket in it.
struct Socket {
    directory: PathBuf,
    _listener: UnixListener,
}

impl Socket {
    fn new() -> Self {
        let directory = PathBuf::from(format!("/run/bpaas-{}", hex(&random::<4>())));
        std::fs::create_dir(&directory).expect("a directory below /run");
        let listener = UnixListener::bind(directory.join("s")).expect("a socket");
        let everybody = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(directory.join("s"), everybody).expect("a mode");
        Self { directory, _listener: listener }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.directory);
    }
}

/// Who listens where; a connection that is not taken is open all the same.
struct Places {
    /// Stands for any program of the machine.
    machine: TcpListener,
    outsider: TcpListener,
    resolver: TcpListener,
    resolver_udp: UdpSocket,
}

impl Places {
    fn new(net: &Netns) -> Self {
        let anywhere = (Ipv6Addr::UNSPECIFIED, 0);
        Self {
            machine: TcpListener::bind(anywhere).expect("a port"),
            outsider: Netns::within(&net.outsider, || TcpListener::bind(anywhere).expect("a port")),
            resolver: TcpListener::bind("127.0.0.53:53").expect("root may"),
            resolver_udp: UdpSocket::bind("127.0.0.53:53").expect("root may"),
        }
    }

    /// What a firewall closes to apps, as the words of one request.
    fn forbidden(&self, others: &[SocketAddr]) -> Vec<String> {
        let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        let (here, out) = (port(&self.machine), port(&self.outsider));
        let mut all: Vec<String> = ["127.0.0.1", "127.3.2.1", "::1", MACHINE_V4, MACHINE_V6]
            .iter()
            .map(|address| format!("{address}|{here}"))
            .collect();
        all.extend([format!("{METADATA}|{out}"), format!("{LINK_LOCAL}%cable|{out}")]);
        all.extend(others.iter().map(|a| format!("{}|{}", a.ip(), a.port())));
        all
    }

    /// The name service on this machine stays open to apps.
    fn hear_a_question(&self, owner: &mut Http, app: &str) {
        ask(owner, app, "/datagram", "127.0.0.53 53 question");
        let mut question = [0; 8];
        self.resolver_udp.recv(&mut question).expect("it arrives");
        assert_eq!(&question, b"question");
    }

    fn allowed(&self) -> Vec<String> {
        let out = self.outsider.local_addr().expect("bound").port();
        let resolver = self.resolver.local_addr().expect("bound");
        vec![
            format!("{OUTSIDER_V4}|{out}"),
            format!("{OUTSIDER_V6}|{out}"),
            format!("{}|{}", resolver.ip(), resolver.port()),
        ]
    }
}

/// Expects the app to reach all of these, or none of them.
#[track_caller]
fn reaches(owner: &mut Http, app: &str, words: &[String], expected: bool) {
    let said = ask(owner, app, "/connect", &words.join(" "));
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), words.len(), "{said:?}");
    for (word, answer) in words.iter().zip(said) {
        assert_eq!(answer == "open", expected, "{word}: {answer}");
    }
}

fn port_of(owner: &mut Http, app: &str) -> SocketAddr {
    let url = show(owner, app)["url"].as_str().expect("a url").to_owned();
    url.trim_start_matches("http://").parse().expect("an address")
}

fn outsider_gets_in(net: &Netns, port: u16) -> bool {
    let address = SocketAddr::new(MACHINE_V4.parse().expect("an address"), port);
    Netns::within(&net.outsider, || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    })
}

/// Whether a program of the machine that is not an app gets through to a port of this machine.
fn machine_gets_in(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn firewall(words: &[&str]) {
    server::run(Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/firewall")).args(words));
}

fn firewall_state(owner: &mut Http) -> Value {
    owner.get("/api/system").expect(200).json()["firewall"].clone()
}

#[track_caller]
fn firewall_becomes(server: &Server, in_force: bool) -> String {
    let mut owner = server.owner();
    let known = |state: &Value| state["problem"].as_str().is_none_or(|p| !p.contains("a moment"));
    until("the firewall was tried", Duration::from_secs(20), || known(&firewall_state(&mut owner)));
    let state = firewall_state(&mut owner);
    assert_eq!(state["inForce"], in_force, "{state}");
    state["problem"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn with_the_firewall_an_app_reaches_the_internet_and_nothing_of_the_machine() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root makes networks and firewalls");
        return;
    }
    let net = Netns::new();
    Netns::within(&net.machine, || from_inside(&net));
}

fn from_inside(net: &Netns) {
    let user = std::env::var("BETTER_PAAS_TEST_USER").expect("scripts/test names a user");
    let git = Netns::within(&net.outsider, || GitServer::start_at(OUTSIDER_V4));
    git.commit("obedient", &OBEDIENT);
    let (places, socket) = (Places::new(net), Socket::new());
    let server = Setup::new().as_user().start();
    // A second one, root's, for its router.
    let root = crate::harness::routed::start(Setup::routed());
    let router = root.setup().router("HTTP_PORT");
    let mut owner = server.owner();
    let mut make = |name: &str, sockets: Value| {
        let app = create(
            &mut owner,
            &json!({"name": name, "gitRepo": git.url("obedient"), "healthPath": "/", "hostSockets": sockets}),
        );
        deploy_live(&mut owner, &app);
        app
    };
    let (app, other) = (make("one", json!([socket.directory])), make("other", json!([])));

    // Without it everything is open, and the server has found that out by trying.
    let problem = firewall_becomes(&server, false);
    let own = server.address().port();
    assert!(problem.contains(&format!("`scripts/firewall {user} :{own}`")), "{problem}");
    let others = [server.address(), port_of(&mut owner, &other), router];
    let (forbidden, allowed) = (places.forbidden(&others), places.allowed());
    reaches(&mut owner, &app, &forbidden, true);
    reaches(&mut owner, &app, &allowed, true);
    let own = port_of(&mut owner, &app).port();
    assert!(outsider_gets_in(net, own));
    // A port of the kernel's choice; it stands for one of the server's that an app takes in a moment in which nobody has
    // it, on a kernel that does not keep it from that.
    let chosen = ask(&mut owner, &app, "/listen", "0").parse().expect("a port");
    assert!(machine_gets_in(chosen) && outsider_gets_in(net, chosen));

    // Loaded twice, it is in force once.
    firewall(&[&user]);
    firewall(&[&user, &format!(":{chosen}")]);
    reaches(&mut owner, &app, &forbidden, false);
    reaches(&mut owner, &app, &allowed, true);
    assert!(!outsider_gets_in(net, own), "an outsider reaches an app's port");
    assert!(!outsider_gets_in(net, chosen), "an outsider reaches another port of an app");
    assert!(!machine_gets_in(chosen), "an app answers at a port of the server's");
    assert!(machine_gets_in(own), "the router does not reach the app");
    places.hear_a_question(&mut owner, &app);

    has_named_sockets_alone(&mut owner, &app, &other, &socket);

    // The server reaches its apps as before, deploys, and knows that the firewall is there.
    deploy_live(&mut owner, &other);
    drop(owner);
    let server = server.restart();
    assert_eq!(firewall_becomes(&server, true), "");
    roots_apps_are_fenced_and_routed(root, &git, &forbidden);

    // Without the user's name it knows root's apps alone; the range of ports is closed all the same.
    firewall(&[]);
    reaches(&mut server.owner(), &app, &forbidden[..1], true);
    assert!(outsider_gets_in(net, chosen) && !outsider_gets_in(net, own));
    firewall(&["remove"]);
    firewall(&["remove"]);
    assert!(outsider_gets_in(net, own));
    reaches(&mut server.owner(), &app, &forbidden[..1], true);
    // The server tries again before long.
    let limit = Duration::from_secs(60);
    until("it is seen", limit, || firewall_state(&mut server.owner())["inForce"] == false);
    is_mended_by_what_is_printed(&mut server.owner());
    assert!(!outsider_gets_in(net, own));
    Netns::within(&net.outsider, || drop(git));
}

/// P28: the checklist finds that it is gone.
fn is_mended_by_what_is_printed(owner: &mut Http) {
    let seen = found(owner, "firewall", "warn");
    mend(&seen);
    mended(owner, "firewall");
}

/// Of the machine's sockets an app has those that its owner named.
fn has_named_sockets_alone(owner: &mut Http, app: &str, other: &str, socket: &Socket) {
    let path = socket.directory.join("s");
    let named = ask(owner, app, "/unix", path.to_str().expect("UTF-8"));
    let not_named = ask(owner, other, "/unix", path.to_str().expect("UTF-8"));
    assert_eq!((named.as_str(), not_named.as_str()), ("open", "FileNotFoundError"));
    let by_old_name = format!("/var{}", path.display());
    assert_eq!(ask(owner, app, "/unix", &by_old_name), "open");
}

/// Root's apps are always part of it, and the router reaches them.
fn roots_apps_are_fenced_and_routed(root: Server, git: &GitServer, forbidden: &[String]) {
    let root = root.restart();
    crate::harness::routed::until_running(&root);
    assert_eq!(firewall_becomes(&root, true), "");
    let body = json!({"name": "three", "gitRepo": git.url("obedient"), "healthPath": "/"});
    let three = create(&mut root.owner(), &body);
    deploy_live(&mut root.owner(), &three);
    let mut visitor = root.visitor("three.localhost");
    let said = visitor.request("POST", "/connect", Some(forbidden.join(" ").as_bytes()));
    assert!(!said.expect(200).text().contains("open"), "root's app reaches something");
}

#[test]
fn a_socket_directory_that_is_not_there_or_leads_elsewhere_fails_the_start_with_a_sentence() {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(
        &mut owner,
        &json!({"name": "one", "gitRepo": git.url("obedient"), "hostSockets": ["/run/nothing-here"]}),
    );
    let id = crate::harness::apps::deploy(&mut owner, &app);
    let ended = crate::harness::apps::ended(&mut owner, &id);
    let error = ended["error"].as_str().expect("an error");
    assert!(error.contains("/run/nothing-here is not there"), "{error}");

    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root makes links below /run");
        return;
    }
    let socket = Socket::new();
    for (name, target) in [("out", "/etc"), ("data", &*server.data().to_string_lossy())] {
        let link = socket.directory.join(name);
        std::os::unix::fs::symlink(target, &link).expect("a link");
        let sockets = json!({"hostSockets": [link]});
        owner.patch(&format!("/api/apps/{app}"), &sockets).expect(200);
        let id = crate::harness::apps::deploy(&mut owner, &app);
        let ended = crate::harness::apps::ended(&mut owner, &id);
        let error = ended["error"].as_str().expect("an error");
        assert!(error.contains("leads to where no app may look"), "{name}: {error}");
    }
}
