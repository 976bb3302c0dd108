//! Real apps under the check.

use super::*;
use crate::runtime::ports::Ports;
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use std::cell::RefCell;
use std::fs::File;
use std::net::TcpListener;

/// What must not wait for a minute did not; no measure of speed.
const LONG_BEFORE: Duration = Duration::from_secs(30);

fn host() -> (Host, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Host::here(dir.path()), dir)
}

/// A server in Python: listens on `address`, and answers the n-th request with the n-th status.
const SERVER: &str = r"
import os, socket, sys, time
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family)
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(8)
answers = sys.argv[3].split(',')
while True:
    c, _ = s.accept()
    if c.recv(1000):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer == 'end': sys.exit(5)
        if answer == 'slow': time.sleep(60)
        c.sendall(answer.replace('_', ' ').encode() + b'\r\n\r\n')
    c.close()
";

/// Bytes of each half of the log of an app in these tests.
const LOG: u64 = 1 << 20;

fn log() -> [File; 2] {
    [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()]
}

struct Try {
    verdict: Verdict,
    port: u16,
    took: Duration,
    said: String,
}

fn visit() -> Visit {
    Visit { scheme: "https".to_owned(), host: "shop.example.com".to_owned() }
}

/// Starts `address port answers` with `PORT` in the place of the port, and checks it.
fn check(arguments: &str, path: &str, seconds: i64, cancel: &Cancel) -> Try {
    let (host, _dir) = host();
    let port = Ports::default().fresh(&[]).unwrap();
    let mut sandbox = Sandbox::new(&host, Purpose::Run, 6)
        .env("PATH", "/usr/bin:/bin")
        .port(port)
        .env("SERVER", SERVER);
    sandbox.log = Some(LOG);
    let command = format!("exec python3 -c \"$SERVER\" {arguments}");
    let log = log();
    let mut instance = Instance::start(&sandbox, &command, &log).unwrap();
    let (path, timeout) = (HealthPath::parse(path).unwrap(), HealthTimeout::new(seconds).unwrap());
    let begun = Instant::now();
    let said = RefCell::new(String::new());
    let say = |line: &str| said.borrow_mut().push_str(line);
    let verdict =
        HealthCheck { port, uid: host.users.outside_uid(6), path: &path, timeout, visit: visit() }
            .wait(&mut instance, cancel, &say);
    let took = begun.elapsed();
    assert!(instance.end());
    Try { verdict, port, took, said: said.into_inner() }
}

fn unwell(arguments: &str, path: &str) -> String {
    let tried = check(arguments, path, 2, &Cancel::new().unwrap());
    assert!(tried.took < LONG_BEFORE, "{:?}", tried.took);
    match tried.verdict {
        Verdict::Unwell(sentence) => sentence.replace(&tried.port.to_string(), "<port>"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_health_path_decides_by_its_status() {
    let never = Cancel::new().unwrap();
    let ok = "127.0.0.1 $PORT HTTP/1.1_200_OK";
    assert_eq!(check(ok, "/healthz", 20, &never).verdict, Verdict::Well);
    let later = "0.0.0.0 $PORT HTTP/1.1_503_No,garbage,HTTP/1.0_302_Found";
    assert_eq!(check(later, "/healthz", 20, &never).verdict, Verdict::Well);
    let all = ":: $PORT HTTP/1.1_204";
    assert_eq!(check(all, "/", 20, &never).verdict, Verdict::Well);
    let broken = unwell("127.0.0.1 $PORT HTTP/1.1_500_No", "/healthz");
    let sentence = "GET /healthz did not succeed within 2 seconds: it answered 500 to the Host \
                    shop.example.com";
    assert_eq!(broken, sentence);
    assert!(unwell("127.0.0.1 $PORT HTTP/1.1_400_No", "/healthz").contains("ALLOWED_HOSTS"));
    assert!(unwell("127.0.0.1 $PORT garbage", "/").contains("was not HTTP"));
    assert!(unwell("127.0.0.1 $PORT slow", "/").contains("did not answer in time"));
    assert!(unwell("127.0.0.1 $PORT HTTP/1.1_500_No,slow", "/").contains("answered 500"));
}

#[test]
fn without_a_path_any_answer_is_well_at_once_and_otherwise_it_must_stay_up() {
    let never = Cancel::new().unwrap();
    for (answer, said) in [
        ("x", "was not HTTP"),
        ("HTTP/1.1_503_No", "answered 503 to the Host shop.example.com; it has stayed up"),
        ("slow", "did not answer in time"),
    ] {
        let tried = check(&format!("127.0.0.1 $PORT {answer}"), "", 20, &never);
        assert_eq!(tried.verdict, Verdict::Well);
        assert!(tried.took >= STAYS_UP && tried.said.contains(said), "{answer}: {}", tried.said);
    }
    for (answer, said) in [("200_OK", ""), ("404_No", "404"), ("400_No", "ALLOWED_HOSTS")] {
        let tried = check(&format!("127.0.0.1 $PORT HTTP/1.1_{answer}"), "", 20, &never);
        assert_eq!(tried.verdict, Verdict::Well);
        // The fastest of a few: others use this machine too.
        let again = || check(&format!("127.0.0.1 $PORT HTTP/1.1_{answer}"), "", 20, &never).took;
        assert!(tried.took < STAYS_UP || (0..5).any(|_| again() < STAYS_UP), "{answer}");
        assert!(
            tried.said.contains(said) && tried.said.is_empty() == said.is_empty(),
            "{}",
            tried.said
        );
    }
}

#[test]
fn it_is_asked_as_a_visitor_would() {
    let never = Cancel::new().unwrap();
    let picky = "import os, socket\n\
                 s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n\
                 while True:\n    \
                     c, _ = s.accept(); lines = c.recv(4000).decode().split('\\r\\n')\n    \
                     good = all(line in lines for line in os.environ['LINES'].split('|'))\n    \
                     c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' if good else b'HTTP/1.1 500 No\\r\\n\\r\\n'); c.close()\n";
    let (host, _dir) = host();
    let port = Ports::default().fresh(&[]).unwrap();
    let lines = "GET / HTTP/1.1|Host: shop.example.com|X-Forwarded-Host: shop.example.com|\
                 X-Forwarded-Proto: https|X-Forwarded-For: 127.0.0.1|X-Real-Ip: 127.0.0.1";
    let mut sandbox = Sandbox::new(&host, Purpose::Run, 6)
        .env("PATH", "/usr/bin:/bin")
        .port(port)
        .env("LINES", lines)
        .env("PICKY", picky);
    sandbox.log = Some(LOG);
    let mut instance = Instance::start(&sandbox, "exec python3 -c \"$PICKY\"", &log()).unwrap();
    let (path, timeout) = (HealthPath::parse("/").unwrap(), HealthTimeout::new(5).unwrap());
    let check =
        HealthCheck { port, uid: host.users.outside_uid(6), path: &path, timeout, visit: visit() };
    assert_eq!(check.wait(&mut instance, &never, &|_| {}), Verdict::Well);
    assert!(instance.end());
}

#[test]
fn an_app_that_ends_fails_at_once() {
    let never = Cancel::new().unwrap();
    let tried = check("127.0.0.1 $PORT end", "/", 60, &never);
    assert_eq!(tried.verdict, Verdict::Ended(Exit::Code(5)));
    assert!(tried.took < LONG_BEFORE, "{:?}", tried.took);
    assert_eq!(check("nonsense", "", 60, &never).verdict, Verdict::Ended(Exit::Code(1)));
}

#[test]
fn the_sentence_says_where_it_listens_instead() {
    // Not one of those that apps are given.
    // A port of the kernel's choice: it gets no other.
    let sentence = unwell("127.0.0.1 0 x", "");
    assert!(
        sentence.contains("it listens on 127.0.0.1:") && sentence.contains(" instead"),
        "{sentence}"
    );
    assert!(unwell("::1 $PORT x", "").contains("[::1]:<port> only"));
    // Long before the time is over.
    let cancel = Cancel::new().unwrap();
    let tried = std::thread::scope(|scope| {
        let tried = scope.spawn(|| check("127.0.0.1 0 x", "", 600, &cancel));
        std::thread::park_timeout(3 * ELSEWHERE);
        cancel.cancel();
        tried.join().unwrap()
    });
    assert!(tried.said.starts_with("It listens on 127.0.0.1:"), "{}", tried.said);
}

#[test]
fn somebody_elses_listener_proves_nothing() {
    let (host, _dir) = host();
    let mut sandbox = Sandbox::new(&host, Purpose::Run, 6).env("PATH", "/usr/bin:/bin");
    sandbox.log = Some(LOG);
    let log = log();
    let mut instance = Instance::start(&sandbox, "exec sleep 60", &log).unwrap();
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = foreign.local_addr().unwrap().port();
    let (path, timeout) = (HealthPath::parse("").unwrap(), HealthTimeout::new(1).unwrap());
    let check =
        HealthCheck { port, uid: host.users.outside_uid(6), path: &path, timeout, visit: visit() };
    let verdict = check.wait(&mut instance, &Cancel::new().unwrap(), &|_| {});
    assert!(matches!(&verdict, Verdict::Unwell(s) if s.contains("another program")), "{verdict:?}");
    assert!(instance.end());
}

#[test]
fn a_port_that_is_shared_with_somebody_else_proves_nothing() {
    let (host, _dir) = host();
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = foreign.local_addr().unwrap().port();
    // Of IPv6 alone, so that both can have it; a connection to 127.0.0.1 goes to the other.
    let script = "import socket, time; s = socket.socket(socket.AF_INET6); \
                  s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); \
                  s.bind(('::', int(__import__('os').environ['PORT']))); s.listen(); time.sleep(60)";
    let mut sandbox = Sandbox::new(&host, Purpose::Run, 6)
        .env("PATH", "/usr/bin:/bin")
        .port(port)
        .env("SCRIPT", script);
    sandbox.log = Some(LOG);
    let log = log();
    let mut instance = Instance::start(&sandbox, "exec python3 -c \"$SCRIPT\"", &log).unwrap();
    let (path, timeout) = (HealthPath::parse("").unwrap(), HealthTimeout::new(5).unwrap());
    let check =
        HealthCheck { port, uid: host.users.outside_uid(6), path: &path, timeout, visit: visit() };
    let verdict = check.wait(&mut instance, &Cancel::new().unwrap(), &|_| {});
    assert!(matches!(&verdict, Verdict::Unwell(s) if s.contains("another program")), "{verdict:?}");
    let held = held_by(&instance.processes(), host.users.outside_uid(6), port, &listeners());
    assert!(held.iter().any(|l| l.address.port() == port), "it never listened: {held:?}");
    assert!(instance.end());
}

#[test]
fn a_check_can_be_cancelled_also_while_it_waits_for_an_answer() {
    let cancel = Cancel::new().unwrap();
    let pull = cancel.clone();
    let puller = std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_millis(1500));
        pull.cancel();
    });
    let tried = check("127.0.0.1 $PORT slow", "/", 60, &cancel);
    puller.join().unwrap();
    assert_eq!(tried.verdict, Verdict::Cancelled);
    assert!(tried.took < LONG_BEFORE, "{:?}", tried.took);
}
