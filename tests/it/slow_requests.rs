//! Who only wants to see something waits for nobody who changes something (P34).

use crate::harness::apps::{create, deploy_live};
use crate::harness::routed::{caddy, start};
use crate::harness::site::{LIMIT, Site};
use crate::harness::{Answer, GitServer, Http, RawConn, Server, Setup, process, until};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::JoinHandle;

/// Changes that have been sent and are not answered yet.
struct Waiting(Vec<JoinHandle<Answer>>);

impl Waiting {
    /// Sends them at once, each over a connection of its own.
    fn send(server: &Server, changes: &[(&str, String, &str)]) -> Self {
        let token = server.token();
        let sent = changes.iter().map(|(method, path, body)| {
            let mut connection = RawConn::to(server.address());
            connection.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            std::thread::spawn(move || connection.answer())
        });
        Self(sent.collect())
    }

    /// The owner looks at the list again and again, and is answered before they are.
    #[track_caller]
    fn keep_no_reader(&self, server: &Server, kept: &mut Http) {
        for _ in 0..3 {
            kept.get("/api/apps").expect(200);
            server.owner().get("/api/apps").expect(200);
            server.owner().get("/api/system").expect(200);
        }
        assert!(self.0.iter().any(|one| !one.is_finished()), "who changes something came first");
    }

    fn end(self) -> Vec<Answer> {
        self.0.into_iter().map(|one| one.join().expect("an answer")).collect()
    }
}

#[test]
fn a_database_that_somebody_else_writes_into_keeps_no_reader_waiting() {
    let git = GitServer::start();
    let server = Server::start();
    let mut owner = server.owner();
    let body = json!({"name": "one", "gitRepo": git.url("one")});
    let [app, other] = ["one", "two"].map(|name| {
        let mut body = body.clone();
        body["name"] = json!(name);
        create(&mut owner, &body)
    });
    let file = server.data().join("better-paas.db");
    let writer = rusqlite::Connection::open(file).expect("the database");
    writer.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    let of_app = |path: &str| format!("/api/apps/{app}{path}");
    let new = json!({"name": "three", "gitRepo": git.url("one")}).to_string();
    let waiting = Waiting::send(
        &server,
        &[
            ("POST", "/api/apps".to_owned(), &new),
            ("PATCH", of_app(""), r#"{"branch":"next"}"#),
            ("PUT", of_app("/env"), r#"{"env":[{"name":"A","value":"b","secret":true}]}"#),
            ("POST", of_app("/webhook"), ""),
            ("DELETE", of_app("/webhook"), ""),
            ("POST", of_app("/stop"), ""),
            ("POST", of_app("/deploys"), ""),
            ("PUT", "/api/settings/github-token".to_owned(), r#"{"token":"a-token-of-github"}"#),
            ("DELETE", "/api/settings/github-token".to_owned(), ""),
            ("DELETE", format!("/api/apps/{other}"), ""),
        ],
    );
    waiting.keep_no_reader(&server, &mut owner);
    writer.execute_batch("COMMIT").expect("it is free again");
    let statuses: Vec<u16> = waiting.end().iter().map(|answer| answer.status).collect();
    assert!(statuses.iter().any(|status| *status < 300), "{statuses:?}");
}

/// Stands in for `unshare`: what is to remove files waits for a word of the test.
const HELD: &str = r#"#!/bin/sh
case " $* " in *" remove-tree "*)
    : >'HOME/begun'
    until [ -e 'HOME/go' ]; do sleep 0.02; done ;;
esac
exec 'HOME/unshare' "$@"
"#;

#[test]
fn an_app_whose_files_take_their_time_to_go_keeps_nobody_waiting() {
    let setup = Setup::new().as_user();
    let home = setup.home().to_owned();
    let script = home.join("held");
    fs::write(&script, HELD.replace("HOME", home.to_str().expect("UTF-8"))).expect("a script");
    fs::copy("/usr/bin/unshare", home.join("unshare")).expect("a copy");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("a mode");
    let mut site = Site::with(setup.instead_of("/usr/bin/unshare", &script).start());
    let app = site.app("slow");
    deploy_live(&mut site.owner, &app);
    let place = site.place(&app);
    let is_gone = || fs::symlink_metadata(&place).is_err();
    site.owner.delete(&format!("/api/apps/{app}")).expect(204);
    until("its files are being removed", LIMIT, || home.join("begun").exists());
    site.owner.get(&format!("/api/apps/{app}")).expect(404);
    assert!(is_gone(), "they are out of the way at once");
    let aside = || {
        let left = fs::read_dir(place.parent().expect("above")).expect("a directory").flatten();
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count()
    };
    assert!(aside() > 0);
    fs::write(home.join("go"), "").expect("a word");
    until("they have gone", LIMIT, || aside() == 0);
}

#[test]
fn a_router_that_hangs_keeps_no_reader_waiting() {
    let server = start(Setup::routed().env("PRIVATE_TLS", "true").as_user());
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": "https://example.com/shop"}));
    let body = |number: usize| json!({"domains": [format!("d{number}.test")]}).to_string();
    let bodies: Vec<String> = (0..12).map(body).collect();
    let changes: Vec<_> =
        bodies.iter().map(|body| ("PATCH", format!("/api/apps/{app}"), body.as_str())).collect();
    let pid = caddy(&server);
    process::signal(pid, Signal::STOP);
    let waiting = Waiting::send(&server, &changes);
    waiting.keep_no_reader(&server, &mut owner);
    process::signal(pid, Signal::CONT);
    let answers = waiting.end();
    assert!(answers.iter().any(|answer| answer.status == 200), "{answers:?}");
}
