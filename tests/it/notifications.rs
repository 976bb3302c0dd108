//! Findings at the owner's one address (P28): told once when they come and once when they go, whatever the receiver
//! does.

use crate::harness::caddy::Caddy;
use crate::harness::{Http, Server, Setup, until, until_some};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A finding has lasted within a minute; a busy machine takes its time.
const LIMIT: Duration = Duration::from_secs(150);

/// Who takes messages behind HTTPS, and answers as it is told.
struct Receiver {
    caddy: Caddy,
    seen: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, answer) = (Arc::default(), Arc::new(Mutex::new(TAKEN.to_owned())));
        let (all, says) = (Arc::clone(&seen), Arc::clone(&answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (all, says) = (Arc::clone(&all), Arc::clone(&says));
                std::thread::spawn(move || take(stream, &all, &says));
            }
        });
        Self { caddy: Caddy::with_tls_in_front_of(address), seen, answer }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/hook/a-secret-word", self.caddy.address().port())
    }

    fn answers(&self, with: &str) {
        with.clone_into(&mut self.answer.lock().unwrap());
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// A server for which Caddy's authority is one of the machine's, at the receiver's address.
    fn told_by(&self) -> (Server, Http) {
        let setup = Setup::new().as_user();
        let bundle = setup.home().join("authorities.crt");
        fs::copy(self.caddy.authority(), &bundle).unwrap();
        fs::set_permissions(&bundle, Permissions::from_mode(0o644)).unwrap();
        let server = setup.instead_of("/etc/ssl/certs/ca-certificates.crt", &bundle).start();
        let mut owner = server.owner();
        let saved = owner.put("/api/settings/notifications", &json!({"url": self.url()}));
        assert_eq!(saved.expect(200).json()["saved"], true);
        (server, owner)
    }
}

/// One request: its body is kept, and it gets the answer.
fn take(mut stream: TcpStream, all: &Mutex<Vec<String>>, says: &Mutex<String>) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).unwrap_or(0);
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.and_then(|n| n.parse().ok()).unwrap_or(0) <= body.len() {
                all.lock().unwrap().push(body.to_owned());
                break;
            }
        }
        if read == 0 {
            return;
        }
    }
    let answer = says.lock().unwrap().clone();
    if answer.is_empty() {
        // It says nothing until nobody waits any more.
        let _ = stream.read(&mut piece);
        return;
    }
    let _ = stream.write_all(answer.as_bytes());
}

fn needs_root() -> bool {
    let is_root = rustix::process::getuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: only root shows a server other authorities");
    }
    !is_root
}

fn test(owner: &mut Http) -> Value {
    owner.post("/api/settings/notifications/test", &json!({})).expect(200).json()
}

#[test]
fn p28_the_receiver_is_asked_once_and_only_its_status_is_kept() {
    if needs_root() {
        return;
    }
    let receiver = Receiver::start();
    let (server, mut owner) = receiver.told_by();
    let sent = until_some("the machine was looked at", LIMIT, || {
        let answer = owner.post("/api/settings/notifications/test", &json!({}));
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&sent["status"], &sent["error"]), (&json!(200), &Value::Null), "{sent}");
    let body: Value = serde_json::from_str(&receiver.seen()[0]).expect("JSON");
    let text = body["text"].as_str().expect("a text");
    assert!(text.starts_with("Better-PaaS on ") && text.ends_with("this is a test."), "{text}");

    receiver.answers("HTTP/1.1 500 Oops\r\nContent-Length: 13\r\n\r\nhidden-answer");
    let sent = test(&mut owner);
    assert_eq!(sent["error"], "it was not taken: status 500");
    // Elsewhere is another receiver, which nobody asks.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let there = other.local_addr().unwrap();
    receiver.answers(&format!(
        "HTTP/1.1 307 There\r\nLocation: http://{there}/\r\nContent-Length: 0\r\n\r\n"
    ));
    let sent = test(&mut owner);
    assert!(sent["status"] == 307 && sent["error"].as_str().unwrap().contains("leads elsewhere"));
    assert!(other.accept().is_err(), "it was asked");
    receiver.answers("");
    let sent = test(&mut owner);
    assert!(
        sent["status"].is_null() && sent["error"].as_str().unwrap().contains("timed out"),
        "{sent}"
    );

    let gone = format!("https://localhost:{}/a-secret-word", free(there));
    owner.put("/api/settings/notifications", &json!({"url": gone})).expect(200);
    let sent = test(&mut owner);
    assert!(sent["error"].as_str().unwrap().contains("could not be connected"), "{sent}");
    let shown = owner.get("/api/settings/notifications").expect(200);
    assert_eq!(shown.json()["last"], sent);
    // Neither the address nor what was answered is anywhere.
    let log = server.log();
    for (place, text) in [("log", log), ("api", shown.text()), ("api", sent.to_string())] {
        assert!(!text.contains("a-secret-word") && !text.contains("hidden-answer"), "{place}");
    }
    owner.delete("/api/settings/notifications").expect(204);
    let refused = owner.post("/api/settings/notifications/test", &json!({})).expect(409);
    assert_eq!(refused.code(), "no_address");
    for bad in ["http://a.example/", "https://user@a.example/", "file:///etc/passwd", "x"] {
        let refused = owner.put("/api/settings/notifications", &json!({"url": bad})).expect(400);
        assert_eq!(refused.json()["error"]["field"], "url", "{bad}");
    }
}

/// A port where nobody listens.
fn free(not: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_ne!(port, not.port());
    port
}

#[test]
fn p28_a_finding_is_told_once_when_it_has_come_and_once_when_it_has_gone() {
    if needs_root() {
        return;
    }
    let receiver = Receiver::start();
    // The first try fails.
    receiver.answers("HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n");
    let (server, mut owner) = receiver.told_by();
    until("it was tried", LIMIT, || !receiver.seen().is_empty());
    until("it is known", LIMIT, || {
        owner.get("/api/settings/notifications").expect(200).json()["last"]["status"] == 503
    });
    receiver.answers(TAKEN);
    until("it is told again", LIMIT, || receiver.seen().len() > 1);
    let first = receiver.seen().last().unwrap().clone();
    assert!(
        first.contains("the encryption key lies beside the data") && first.contains("audit log: ")
    );

    let key = server.data().join("secret.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let told = |part: &str| {
        let all = receiver.seen();
        all[1..].iter().filter(|text| text.contains(part)).count()
    };
    let sentence = "other users can read or write";
    until("it is told", LIMIT, || told(sentence) == 1);
    let system = owner.get("/api/system").expect(200).json();
    assert_eq!(system["findings"]["fail"], 1, "{system}");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    until("its end is told", LIMIT, || told("no longer: other users can read or write") == 1);
    assert_eq!(told(sentence), 2, "{:#?}", receiver.seen());
    // Nor does a restart tell anything twice that the server knows to be taken.
    let told_file = server.data().join("told.json");
    until("it is noted", LIMIT, || {
        fs::read_to_string(&told_file).is_ok_and(|told| !told.contains("\"files\""))
    });
    let count = receiver.seen().len();
    drop(owner);
    let server = server.restart();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    until("it is told, and nothing else", LIMIT, || receiver.seen().len() > count);
    let last = receiver.seen().last().unwrap().clone();
    assert!(last.contains(sentence) && last.matches("→").count() == 1, "{last}");
    assert!(!last.contains("no longer"), "{last}");
    drop(server);
}
