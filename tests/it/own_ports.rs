//! On a kernel without Landlock, an app that takes a port of the server's, in a moment in which nobody has it, loses it
//! and stays stopped.

use crate::harness::apps::{PLAIN, create, deploy_live, show};
use crate::harness::routed::{STARTING, caddy, release, start};
use crate::harness::{GitServer, Http, Setup, process, until};
use serde_json::json;

/// Waits for a port to be free and then answers whoever asks. `HIDES` lets nobody see what it has open.
const GREEDY: &str = "\
import ctypes, os, socket, threading, time
def take():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try: s.bind(('127.0.0.1', int(os.environ['WANTED']))); break
        except OSError: time.sleep(0.0005)
    s.listen()
    if os.environ.get('HIDES'): ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    while True:
        c, _ = s.accept(); c.recv(4000)
        c.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nSTOLEN'); c.close()
threading.Thread(target=take, daemon=True).start()
";

/// Deploys an app that waits for this port.
#[track_caller]
fn greedy(git: &GitServer, owner: &mut Http, port: u16, hides: bool) -> String {
    let main = format!("{GREEDY}{}", PLAIN[1].1);
    git.commit("greedy", &[PLAIN[0], ("main.py", &main)]);
    let app = create(owner, &json!({"name": "greedy", "gitRepo": git.url("greedy")}));
    let mut env = vec![json!({"name": "WANTED", "value": port.to_string(), "secret": false})];
    if hides {
        env.push(json!({"name": "HIDES", "value": "yes", "secret": false}));
    }
    owner.put(&format!("/api/apps/{app}/env"), &json!({"env": env})).expect(200);
    deploy_live(owner, &app);
    app
}

fn the_dashboards_port_is_taken_back(setup: Setup) {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let setup = setup.without_landlock();
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let mut server = setup.listen(&address.to_string()).start();
    let mut owner = server.owner();
    let other = create(&mut owner, &json!({"name": "other", "gitRepo": git.url("plain")}));
    deploy_live(&mut owner, &other);
    let app = greedy(&git, &mut owner, address.port(), false);
    drop(owner);
    server.kill9();
    until("the app has the port", STARTING, || {
        Http::new(address).try_request("GET", "/", None).is_ok_and(|a| a.text() == "STOLEN")
    });
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    assert_eq!(show(&mut owner, &app)["status"], "stopped");
    assert_eq!(show(&mut owner, &other)["status"], "running");
    let log = |owner: &mut Http, app: &str| owner.get(&format!("/api/apps/{app}/log")).text();
    let why = format!("it had taken port {}, which is this server's", address.port());
    assert!(log(&mut owner, &app).contains(&why), "{}", log(&mut owner, &app));
    assert!(server.log().contains("greedy"), "the server's log names it");
    assert_eq!(log(&mut owner, &other).matches("Starting release").count(), 1, "it went on");

    // Its owner may start it again; the port is not free now.
    owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    until("it runs", STARTING, || show(&mut owner, &app)["status"] == "running");
    owner.get("/api/session").expect(200);
}

#[test]
fn the_dashboards_port_is_taken_back_from_an_app_with_a_user_of_its_own() {
    the_dashboards_port_is_taken_back(Setup::new().as_user());
}

#[test]
fn the_dashboards_port_is_taken_back_from_an_app_that_shares_the_servers_user() {
    the_dashboards_port_is_taken_back(Setup::new().as_user().without_subordinate_uids());
}

#[test]
fn the_routers_port_is_taken_back_from_an_app_that_hides_what_it_has_open() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let server = start(Setup::routed().as_user().without_subordinate_uids().without_landlock());
    let mut owner = server.owner();
    let shop = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &shop);
    let port = server.setup().router("HTTP_PORT").port();
    let app = greedy(&git, &mut owner, port, true);
    let mut visitor = server.visitor("shop.localhost");
    // On a busy machine Caddy may be faster.
    until("the app has taken the port and lost it", STARTING, || {
        let before = caddy(&server);
        process::kill(before);
        until("the router is back", STARTING, || {
            caddy(&server) != before
                && visitor.try_request("GET", "/", None).is_ok_and(|a| a.text() == "one")
        });
        show(&mut owner, &app)["status"] == "stopped"
    });
    let log = owner.get(&format!("/api/apps/{app}/log")).text();
    assert!(log.contains(&format!("it had taken port {port}")), "{log}");
    until("its end is told", STARTING, || {
        let log = owner.get(&format!("/api/apps/{app}/log")).text();
        log.contains("Ended with signal 9.") && !log.contains("starting it again")
    });
    assert_eq!(show(&mut owner, &shop)["status"], "running");
}
