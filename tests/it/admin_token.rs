//! The admin token (P1 to P7).

use crate::harness::server::mode;
use crate::harness::{Server, Setup, Ws, a_token, process};
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// What must happen "at once" has this long on a busy machine; a session's next ping comes later.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Odd spellings, and what is not there; all that is described is asked without a token in
/// the tests of the description.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/api"),
    ("GET", "/api/"),
    ("GET", "/api/no-such-thing"),
    ("GET", "/ws"),
    ("GET", "/ws/"),
    ("GET", "/api//apps"),
    ("GET", "/api/./apps"),
    ("GET", "/api/%61pps"),
    ("HEAD", "/api/apps"),
];

const SOCKETS: &[&str] =
    &["/ws", "/ws/stats", "/ws/deploys/aaaaaaaaaa", "/ws/apps/aaaaaaaaaa/log", "/ws/no-such-thing"];

fn is_token(text: &str) -> bool {
    text.strip_prefix("bpaas_").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[test]
fn p1_the_first_run_makes_a_token_prints_it_once_and_saves_it_for_the_owner_alone() {
    let server = Server::start();
    let file = server.data().join("admin_token.txt");
    let token = server.token();
    assert!(is_token(&token), "{token}");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim_end_matches('\n'), token);
    server.wait_for_log(&token);
    assert_eq!(server.log().matches(&token).count(), 1, "{}", server.log());
    let names = std::fs::read_dir(server.data()).unwrap().flatten().map(|e| e.file_name());
    let stray: Vec<_> = names
        .filter(|n| {
            let n = n.to_string_lossy();
            n != "admin_token.txt" && n.contains("token")
        })
        .collect();
    assert!(stray.is_empty(), "{stray:?}");
    server.owner().get("/api/session").expect(200);

    let again = server.restart();
    assert_eq!(again.token(), token);
    again.owner().get("/api/session").expect(200);
    assert!(!again.log().contains(&token), "printed a second time");
}

#[test]
fn p1_two_installations_have_different_tokens() {
    assert_ne!(Server::start().token(), Server::start().token());
}

#[test]
fn p1_a_start_that_was_cut_off_leaves_no_half_of_a_token() {
    for _ in 0..10 {
        let setup = Setup::new();
        let mut child = setup.spawn(&[], Stdio::null);
        let directory = setup.data();
        crate::harness::until("the data directory", AT_ONCE, || directory.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        if let Ok(text) = std::fs::read_to_string(directory.join("admin_token.txt")) {
            assert!(is_token(text.trim_end()), "{text:?}");
        }
        let server = setup.start();
        assert!(is_token(&server.token()));
        server.owner().get("/api/session").expect(200);
    }
}

#[test]
fn p2_wrong_locked_out_and_missing_are_told_apart() {
    let server = Server::start();
    let missing = server.stranger().get("/api/session").expect(401);
    let mut guesser = server.stranger().bearer("wrong");
    let wrong = guesser.get("/api/session").expect(401);
    assert_ne!(missing.code(), wrong.code());
    for _ in 0..4 {
        guesser.get("/api/session").expect(401);
    }
    let locked = guesser.get("/api/session").expect(429);
    assert_ne!(locked.code(), wrong.code());
    for answer in [&missing, &wrong] {
        assert!(answer.header("WWW-Authenticate").unwrap().starts_with("Bearer"));
    }
}

#[test]
fn p3_every_api_and_ws_request_must_carry_the_token() {
    let server = Server::start();
    let mut stranger = server.stranger();
    for (method, path) in ROUTES {
        let answer = stranger.request(method, path, None);
        assert_eq!(answer.status, 401, "{method} {path}");
        assert!(answer.header("WWW-Authenticate").unwrap().starts_with("Bearer"));
    }
    for path in SOCKETS {
        let refusal = Ws::at(server.address(), path).open().err().unwrap();
        assert_eq!(refusal.status, 401, "{path}");
    }
}

#[test]
fn p3_the_token_opens_the_api_by_its_header_and_a_socket_by_its_query() {
    let server = Server::start();
    server.owner().get("/api/session").expect(200);
    let path = format!("/ws/stats?token={}", server.token());
    assert!(Ws::at(server.address(), &path).open().is_ok());
}

#[test]
fn p3_over_http_a_token_in_the_query_never_authenticates() {
    let server = Server::start();
    let token = server.token();
    let mut stranger = server.stranger();
    for path in ["/api/session", "/api/apps", "/api/system", "/ws/stats"] {
        let answer = stranger.get(&format!("{path}?token={token}"));
        assert!(matches!(answer.status, 401 | 426), "{path}: {answer:?}");
    }
    stranger.request("POST", &format!("/api/ws-ticket?token={token}"), Some(b"")).expect(401);
    let ticket = server.owner().post("/api/ws-ticket", &json!({})).expect(200).json();
    let ticket = ticket["ticket"].as_str().unwrap();
    stranger.get(&format!("/api/apps?ticket={ticket}")).expect(401);
}

#[test]
fn p3_the_doors_without_a_token_show_nothing_of_the_inside() {
    let server = Server::start();
    let mut stranger = server.stranger();
    let health = stranger.get("/healthz").expect(200);
    assert_eq!(health.text(), "ok");
    let page = stranger.get("/").expect(200);
    assert!(page.header("Content-Type").unwrap().starts_with("text/html"));
    for path in ["/data/admin_token.txt", "/admin_token.txt", "/../data/secret.key", "/src/main.rs"]
    {
        let status = stranger.get(path).status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
}

#[test]
fn p3_a_ticket_opens_one_socket_once() {
    let server = Server::start();
    let mut owner = server.owner();
    let first = owner.post("/api/ws-ticket", &json!({})).expect(200).json();
    assert_eq!(first["expiresInSeconds"], 60);
    let path = format!("/ws/stats?ticket={}", first["ticket"].as_str().unwrap());
    let mut socket = Ws::at(server.address(), &path).open().unwrap();
    assert!(socket.is_alive());
    assert_eq!(Ws::at(server.address(), &path).open().err().unwrap().status, 401);
    let second = owner.post("/api/ws-ticket", &json!({})).expect(200).json();
    assert_ne!(first["ticket"], second["ticket"]);
    assert!(first["ticket"].as_str().unwrap().len() >= 22, "fewer than 128 bits");
}

#[test]
fn p4_admin_token_in_the_environment_wins_over_the_file() {
    let first = Server::start();
    let saved = first.token();
    let pinned = a_token();
    let server = first.restart_with(|s| s.token(&pinned));
    server.stranger().bearer(&pinned).get("/api/session").expect(200);
    server.stranger().bearer(&saved).get("/api/session").expect(401);
    assert_eq!(server.operator(&["token"]).stdout.trim_end(), pinned);
    let unpinned = server.restart_with(|s| s.without("ADMIN_TOKEN"));
    unpinned.stranger().bearer(&saved).get("/api/session").expect(200);
}

#[test]
fn p4_a_pinned_token_is_neither_printed_nor_saved() {
    let pinned = a_token();
    let server = Setup::new().token(&pinned).start();
    assert!(!server.log().contains(&pinned));
    assert_eq!(holders(&server.data(), &pinned), Vec::<String>::new());
}

#[test]
fn p4_a_value_too_weak_to_defend_is_refused_with_advice() {
    let inside = format!("{} {}", "a".repeat(20), "b".repeat(20));
    let end = format!("{}\n", "a".repeat(40));
    for weak in ["", "hunter2", &"x".repeat(31), &inside, &end, &"é".repeat(40), &"x".repeat(44)] {
        let finished = Setup::new().token(weak).run(&[]);
        assert_eq!(finished.code, Some(1), "{weak:?}: {finished:?}");
        let text = finished.stderr.trim_end();
        assert!(text.contains("ADMIN_TOKEN") && text.lines().count() == 1, "{text}");
        assert!(weak.is_empty() || !text.contains(weak.trim_end()), "repeats the value: {text}");
    }
    Setup::new().token(&a_token()[..32]).start().owner().get("/api/session").expect(200);
}

#[test]
fn p5_server_token_reprints_the_token_in_force_any_time() {
    let server = Server::start();
    let token = server.token();
    let printed = server.operator(&["token"]);
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(0), format!("{token}\n").as_str()));
    let setup = server.stop();
    assert_eq!(setup.run(&["token"]).stdout, format!("{token}\n"));
}

#[test]
fn p5_rotation_is_honoured_at_once_and_ends_every_session_of_the_old_token() {
    let server = Server::start();
    let old = server.token();
    let mut kept = server.owner();
    kept.get("/api/session").expect(200);
    let unused = kept.post("/api/ws-ticket", &json!({})).expect(200).json();
    let ticket = kept.post("/api/ws-ticket", &json!({})).expect(200).json();
    let by_ticket = format!("/ws/stats?ticket={}", ticket["ticket"].as_str().unwrap());
    let mut sockets = [
        Ws::at(server.address(), &format!("/ws/stats?token={old}")).open().unwrap(),
        Ws::at(server.address(), &by_ticket).open().unwrap(),
    ];
    for socket in &mut sockets {
        assert!(socket.is_alive());
    }

    let rotated = server.operator(&["token", "--rotate"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let new = rotated.stdout.trim_end();
    assert!(is_token(new) && new != old, "{new}");
    server.stranger().bearer(new).get("/api/session").expect(200);
    kept.get("/api/session").expect(401);
    for socket in &mut sockets {
        socket.wait_for_close(AT_ONCE);
    }
    let unused = format!("/ws/stats?ticket={}", unused["ticket"].as_str().unwrap());
    assert_eq!(Ws::at(server.address(), &unused).open().err().unwrap().status, 401);
    assert_eq!(mode(&server.data().join("admin_token.txt")), 0o600);
    assert_eq!(server.operator(&["token"]).stdout.trim_end(), new);
}

#[test]
fn p5_rotation_through_the_api_gives_the_new_token_once() {
    let server = Server::start();
    let mut owner = server.owner();
    let path = format!("/ws/stats?token={}", server.token());
    let mut socket = Ws::at(server.address(), &path).open().unwrap();
    let answer = owner.post("/api/security/rotate-token", &json!({})).expect(200).json();
    let new = answer["token"].as_str().unwrap();
    assert!(is_token(new));
    assert_eq!(server.token(), new);
    owner.get("/api/session").expect(401);
    socket.wait_for_close(AT_ONCE);
    server.stranger().bearer(new).get("/api/session").expect(200);
    assert!(!server.log().contains(new));
}

#[test]
fn p5_with_admin_token_set_rotation_is_refused_with_the_reason() {
    let server = Setup::new().token(&a_token()).start();
    let refused = server.operator(&["token", "--rotate"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("ADMIN_TOKEN") && refused.stdout.is_empty(), "{refused:?}");
    // Also from a shell that does not know the pinned token.
    let elsewhere = server.setup().clone().without("ADMIN_TOKEN");
    let refused = elsewhere.run(&["token", "--rotate"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("ADMIN_TOKEN"), "{refused:?}");
    let answer = server.owner().post("/api/security/rotate-token", &json!({})).expect(409);
    assert!(answer.message().contains("ADMIN_TOKEN"), "{}", answer.text());
    server.owner().get("/api/session").expect(200);
}

#[test]
fn p6_the_scheme_has_any_case_and_the_token_is_compared_exactly_as_sent() {
    let server = Setup::new().trust_proxy().start();
    let token = server.token();
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let header = format!("{scheme} {token}");
        server.stranger().with("Authorization", &header).get("/api/session").expect(200);
    }
    let upper = token.to_uppercase();
    let longer = format!("{token}0");
    let same_length = format!("{}{}", &token[..69], if token.ends_with('0') { "1" } else { "0" });
    let wrong = [upper, longer, same_length, token[..69].to_owned(), format!("\"{token}\"")];
    for (number, wrong) in wrong.iter().enumerate() {
        let mut client = server.stranger().forwarded_for(&format!("198.51.100.{number}"));
        client = client.bearer(wrong);
        client.get("/api/session").expect(401);
    }
    for (number, query) in
        [format!("%20{token}"), format!("{token}%20"), format!("{token}%00")].iter().enumerate()
    {
        let opening = Ws::at(server.address(), &format!("/ws/stats?token={query}"));
        let opening = opening.with("X-Forwarded-For", &format!("203.0.113.{number}"));
        assert_eq!(opening.open().err().unwrap().status, 401, "{query}");
    }
    for other in [format!("Basic {token}"), token.clone(), format!("Token {token}")] {
        server.stranger().with("Authorization", &other).get("/api/session").expect(401);
    }
}

#[test]
fn p7_the_token_is_nowhere_but_in_its_file_and_in_memory() {
    // Memory becomes no file either, whatever the shell or the service manager allows.
    let server = Setup::new().shell("ulimit -c \"$(ulimit -Hc)\"").start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let token = server.token();
    let mut owner = server.owner();
    let app = json!({"name": "shop", "gitRepo": "https://git.example.com/shop.git"});
    let id = owner.post("/api/apps", &app).expect(201).json()["id"].as_str().unwrap().to_owned();
    owner.post("/api/ws-ticket", &json!({})).expect(200);
    // Requests that carry it to where it does not belong.
    owner.get(&format!("/api/{token}")).expect(404);
    owner.get(&format!("/{token}")).expect(404);
    server.stranger().get(&format!("/?token={token}"));
    let mut answers = vec![
        owner.get(&format!("/api/apps/{token}")),
        owner.post("/api/apps", &json!({"name": token, "gitRepo": "https://e.example/x"})),
        owner.request("POST", "/api/apps", Some(token.as_bytes())),
        owner.get(&format!("/api/apps/{id}/{token}")),
    ];
    let path = format!("/ws/deploys/aaaaaaaaaa?token={token}");
    answers.extend(Ws::at(server.address(), &path).open().err());
    for answer in answers {
        let repeated = answer.text().contains(&token)
            || answer.headers.iter().any(|(_, value)| value.contains(&token));
        assert!(!repeated, "{answer:?}");
    }
    let pid = server.pid();
    for pid in process::all().into_iter().filter(|p| {
        *p == pid || process::stat_field(*p, 4).is_some_and(|parent| parent == pid.to_string())
    }) {
        assert!(!process::arguments(pid).contains(&token));
    }
    assert_eq!(server.log().matches(&token).count(), 1, "only the first run's block");
    let server = server.restart();
    assert!(!server.log().contains(&token));
    assert_eq!(holders(&server.data(), &token), ["admin_token.txt"]);
}

/// The files of a directory that hold a text.
fn holders(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() {
            let below = holders(&entry.path(), text);
            found.extend(below.into_iter().map(|b| format!("{name}/{b}")));
        } else if kind.is_file() {
            // One that is being replaced is there under its own name.
            let Ok(bytes) = std::fs::read(entry.path()) else { continue };
            if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
                found.push(name);
            }
        }
    }
    found
}
