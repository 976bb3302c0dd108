//! What sessions send.

use super::*;
use crate::journal::{HALF_APP_LOG, Rotating};
use serde_json::{Value, json};

#[test]
fn a_deploy_is_told_from_its_first_line_to_its_result() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let secret = Redactor::new(vec![Secret::new("s3cret-value".to_owned())]);
    let writer = server.journal.begin(LogOf::Deploy(id.clone()), secret).unwrap();
    writer.line("first");
    let mut socket = server.open(&format!("/ws/deploys/{id}"));
    assert_eq!(next_json(&mut socket), json!({ "lines": ["first"], "at": "0-6" }));
    writer.line("a \"quoted\" s3cret-value\twith \u{1b}[31mcolour");
    let line = "a \"quoted\" [redacted]\twith colour";
    let at = format!("0-{}", "first\n".len() + line.len() + 1);
    assert_eq!(next_json(&mut socket), json!({ "lines": [line], "at": at }));
    drop(writer);
    // The result waits for the database.
    std::thread::sleep(quick().tick * 2);
    server.finish(&id);
    let end = json!({ "end": { "id": id.as_str(), "status": "live" } });
    assert_eq!(next_json(&mut socket), end);
    assert_eq!(close_of(&mut socket), (1000, "the deploy has ended".to_owned()));

    let mut late = server.open(&format!("/ws/deploys/{id}"));
    assert_eq!(next_json(&mut late), json!({ "lines": ["first", line], "at": at }));
    assert_eq!(next_json(&mut late), end);
    assert_eq!(close_of(&mut late).0, 1000);
    // Who has the first line already.
    let mut again = server.open(&format!("/ws/deploys/{id}?from=0-6"));
    assert_eq!(next_json(&mut again), json!({ "lines": [line], "at": at }));
    assert_eq!(next_json(&mut again), end);
}

#[test]
fn a_queued_deploy_is_waited_for() {
    let server = Server::start(quick());
    let (begins, replaced, deleted) = (server.deploy(1), server.deploy(2), server.deploy(3));
    let mut sockets =
        [&begins, &replaced, &deleted].map(|id| server.open(&format!("/ws/deploys/{id}")));
    server.expect_sessions(3);
    let writer = server.journal.begin(LogOf::Deploy(begins.clone()), Redactor::default()).unwrap();
    writer.line("at last");
    assert_eq!(next_json(&mut sockets[0]), json!({ "lines": ["at last"], "at": "0-8" }));
    server.finish(&replaced);
    assert_eq!(next_json(&mut sockets[1])["end"]["id"], replaced.as_str());
    server.facts.deploys.lock().unwrap().remove(&deleted);
    assert_eq!(close_of(&mut sockets[2]), (1000, "deleted".to_owned()));
}

#[test]
fn an_app_is_told_from_its_last_200_lines_on() {
    let server = Server::start(quick());
    let app = server.app(1);
    server.facts.secret.lock().unwrap().push(Secret::new("s3cret-value".to_owned()));
    let files = server.journal.app_log_files(&app).unwrap();
    let process = Rotating::new(files, HALF_APP_LOG).unwrap();
    for i in 0..250 {
        process.append(format!("line {i}\n").as_bytes()).unwrap();
    }
    let mut socket = server.open(&format!("/ws/apps/{app}/log"));
    let past = lines_until(&mut socket, "line 249");
    assert_eq!((past.len(), past[0].as_str()), (200, "line 50"));
    process.append(b"now s3cret-value\n").unwrap();
    let news = next_json(&mut socket);
    assert_eq!(news["lines"], json!(["now [redacted]"]));
    process.append(b"later\n").unwrap();
    let from = format!("/ws/apps/{app}/log?from={}", news["at"].as_str().unwrap());
    assert_eq!(next_json(&mut server.open(&from))["lines"], json!(["later"]));
    assert_eq!(next_json(&mut socket)["lines"], json!(["later"]));
    server.facts.apps.lock().unwrap().clear();
    assert_eq!(close_of(&mut socket), (1000, "deleted".to_owned()));
}

#[test]
fn nobody_sees_an_apps_log_while_it_is_not_known_what_must_not_be_in_it() {
    let server = Server::start(quick());
    let app = server.app(1);
    server.journal.note_app(&app, "s3cret-value");
    server.facts.is_locked.store(true, Ordering::Relaxed);
    let mut socket = server.open(&format!("/ws/apps/{app}/log"));
    let frame = loop {
        match socket.read().unwrap() {
            Message::Close(frame) => break frame.unwrap(),
            Message::Text(text) => panic!("{text}"),
            _ => {}
        }
    };
    assert_eq!(
        (frame.code.into(), frame.reason.as_str()),
        (1011_u16, "this failed inside the server")
    );
}

#[test]
fn no_message_is_over_32_kib() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let writer = server.journal.begin(LogOf::Deploy(id.clone()), Redactor::default()).unwrap();
    for _ in 0..20 {
        writer.line(&"\"\\".repeat(4_090));
        (0..3_000).for_each(|_| writer.line(""));
    }
    writer.line("end");
    let mut socket = server.open(&format!("/ws/deploys/{id}"));
    let mut count = 0;
    loop {
        let text = socket.read().unwrap().into_text().unwrap();
        assert!(text.len() <= 32 * 1024, "{}", text.len());
        let message: Value =
            serde_json::from_str(if text.is_empty() { "{}" } else { &text }).unwrap();
        let lines = message["lines"].as_array().cloned().unwrap_or_default();
        count += lines.len();
        if lines.last().is_some_and(|l| l == "end") {
            break;
        }
    }
    assert_eq!(count, 20 * 3_001 + 1);
}

#[test]
fn numbers_come_to_every_viewer_each_second() {
    let server = Server::start(quick());
    let mut sockets: Vec<_> = (0..4).map(|_| server.open("/ws/stats")).collect();
    let start = Instant::now();
    for round in 0..3 {
        for socket in &mut sockets {
            let message = next_json(socket);
            let machine = &message["machine"];
            for field in [
                "memoryTotalBytes",
                "memoryAvailableBytes",
                "diskTotalBytes",
                "diskFreeBytes",
                "uptimeSeconds",
                "cores",
            ] {
                assert!(machine[field].as_u64().unwrap() > 0, "{field} in {message}");
            }
            assert_eq!(machine["loadAverage"].as_array().unwrap().len(), 3);
            assert!(message["server"]["memoryBytes"].as_u64().unwrap() > 1_000_000);
            assert!(message["at"].as_i64().unwrap() > 1_600_000_000_000);
            assert_eq!(message["apps"], json!([{ "id": "aaaaaaaaaa", "status": "running" }]));
            assert_eq!(message.as_object().unwrap().len(), 4, "round {round}");
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(1_500));
}

#[test]
fn a_slow_reader_gets_everything_in_the_end() {
    // It takes some bytes in each of the spans that end a stalled session.
    let server = Server::start(LiveLimits { stalled_after: Duration::from_secs(2), ..quick() });
    let id = server.deploy(1);
    let writer = server.journal.begin(LogOf::Deploy(id.clone()), Redactor::default()).unwrap();
    let (mut socket, text) = (server.open(&format!("/ws/deploys/{id}")), "x".repeat(1_000));
    for i in 0..4_000 {
        writer.line(&format!("{i} {text}"));
    }
    drop(writer);
    server.finish(&id);
    let (mut next, mut pauses) = (0, 0);
    loop {
        let message = next_json(&mut socket);
        if message.get("end").is_some() {
            break;
        }
        for line in message["lines"].as_array().unwrap() {
            assert!(line.as_str().unwrap().starts_with(&format!("{next} x")));
            next += 1;
        }
        if next % 1_000 < 8 && pauses < 4 {
            pauses += 1;
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    assert_eq!(next, 4_000);
    assert_eq!(close_of(&mut socket).0, 1000);
}
