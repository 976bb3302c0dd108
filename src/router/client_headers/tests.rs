//! The regular expressions of the walk, run by a real Caddy, against the walk of the gate.

use super::*;
use crate::gate::client::client_address;
use crate::model::Cidr;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What may be trusted: the usual, one kind of address only, odd lengths, zeros at every place.
const TRUSTED: [&[&str]; 9] = [
    &[],
    &["10.0.0.0/8", "fd00::/8"],
    &["203.0.113.7"],
    &["173.245.48.0/20", "104.16.0.0/13", "131.0.72.0/22", "2400:cb00::/32", "2a06:98c0::/29"],
    &["2001:db8:0:1::/64"],
    &["2001:0:0:1::/63", "::1"],
    &["1:0:0:2:0:0:0:3", "0:0:1::/47", "::/9"],
    &["0.0.0.0/0"],
    &["128.0.0.0/1", "8000::/1", "0:0:0:0:0:0:ff00::/97"],
];

/// Entries that are no addresses, or odd ones.
const ODD: [&str; 16] = [
    "",
    "unknown",
    "8.8.8",
    "8.8.8.256",
    "08.8.8.8",
    "8.8.8.8 9.9.9.9",
    "[8.8.8.8]",
    "8.8.8.8:",
    "[2001:db8::1",
    "2001:db8::1::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1::2:3:4:5:6:7:8",
    ":::",
    "{http.request.remote.host}",
    "fe80::1%eth0",
];

fn trust(ranges: &[&str]) -> Trust {
    if ranges.is_empty() {
        return Trust::private();
    }
    Trust(ranges.iter().map(|range| Cidr::parse(range).unwrap()).collect())
}

/// A real Caddy that answers with the client that it finds in a list.
struct Router {
    caddy: Child,
    dir: TempDir,
}

impl Router {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = |(number, ranges): (usize, &&[&str])| {
            let mut found = client(&trust(ranges));
            found["source"] = json!("{http.request.header.X-List}");
            let answer = json!({"handler": "static_response", "body": "{visitor.client}"});
            let handle = [found, answer];
            let socket = format!("unix/{}", Self::socket(dir.path(), number).display());
            (number.to_string(), json!({"listen": [socket], "routes": [{"handle": handle}]}))
        };
        let servers: serde_json::Map<_, _> = TRUSTED.iter().enumerate().map(server).collect();
        let config = json!({"admin": {"disabled": true}, "apps": {"http": {"servers": servers}}});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let mut caddy = Command::new("caddy");
        caddy.args(["run", "--config", "config.json"]).current_dir(&dir).env("HOME", dir.path());
        let caddy = caddy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { caddy, dir }
    }

    fn socket(dir: &Path, number: usize) -> std::path::PathBuf {
        dir.join(format!("{number}.sock"))
    }

    fn connect(&self, number: usize) -> BufReader<UnixStream> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match UnixStream::connect(Self::socket(self.dir.path(), number)) {
                Ok(stream) => return BufReader::new(stream),
                Err(error) => assert!(Instant::now() < until, "Caddy does not start: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.caddy.kill();
        let _ = self.caddy.wait();
    }
}

fn ask(stream: &mut BufReader<UnixStream>, list: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-List: {list}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// An address at or beside the border of a range, or within it.
fn near(ranges: &'static [&'static str]) -> impl Strategy<Value = IpAddr> {
    let all = trust(ranges).0;
    (0..all.len(), any::<u128>(), 0..6_u8).prop_map(move |(range, random, how)| {
        let (first, bits) = all[range].parts();
        let (first, width) = match first {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let free = if bits == 0 { u128::MAX } else { (1 << (width - bits)) - 1 };
        let bits = match how {
            0 => first,
            1 => first | free,
            2 => first.wrapping_sub(1),
            3 => (first | free).wrapping_add(1),
            // Many zeros, as there are in real addresses.
            4 => first | (free & random & (random.rotate_left(16) | 0xff)),
            _ => first | (free & random),
        };
        match u32::try_from(bits & if width == 32 { 0xffff_ffff } else { u128::MAX }) {
            Ok(v4) if width == 32 => Ipv4Addr::from(v4).into(),
            _ => Ipv6Addr::from(bits).into(),
        }
    })
}

/// Writes it in one of the ways in which proxies do.
fn written(address: IpAddr, how: u8) -> String {
    match (address, how) {
        (IpAddr::V4(_), 0) => format!("{address}:65535"),
        (IpAddr::V4(_), 1) => format!("::ffff:{address}"),
        (IpAddr::V4(_), 2) => format!("[::FFFF:{address}]:1"),
        // Dots in it are known after ::ffff: alone, and numbers there are not: what is not
        // known is not trusted.
        (IpAddr::V6(v6), _) if v6.to_string().contains('.') => "2001:db8::1".to_owned(),
        (IpAddr::V6(_), 0) => format!("[{address}]:443"),
        (IpAddr::V6(_), 1) => format!("[{address}]"),
        (IpAddr::V6(_), 2) => address.to_string().to_uppercase(),
        (IpAddr::V6(v6), 3) => v6.segments().map(|segment| format!("{segment:04x}")).join(":"),
        _ => address.to_string(),
    }
}

fn entry_near(ranges: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (near(ranges), 0..6_u8).prop_map(|(address, how)| written(address, how)),
        2 => any::<IpAddr>().prop_map(|address| written(address, 9)),
        1 => (0..ODD.len()).prop_map(|at| ODD[at].to_owned()),
    ]
}

#[test]
fn p33_the_router_finds_the_same_client_as_the_gate() {
    let router = Router::start();
    for (number, ranges) in TRUSTED.iter().enumerate() {
        let trust = trust(ranges);
        let stream = std::cell::RefCell::new(router.connect(number));
        let cases = Config { cases: 600, failure_persistence: None, ..Config::default() };
        let lists = (
            proptest::collection::vec(entry_near(ranges), 0..5),
            near(ranges).prop_filter("dots", |peer| written(*peer, 9) == peer.to_string()),
            prop_oneof![Just(","), Just(", "), Just("\t,  ")],
        );
        let run = TestRunner::new(cases).run(&lists, |(entries, peer, comma)| {
            let list = entries.join(comma);
            let expected = client_address(&trust, Some(peer), &[list.as_bytes()]).0;
            let seen = ask(&mut stream.borrow_mut(), &format!("{list},{peer}"));
            let address = seen.parse().map(|seen: IpAddr| seen.to_canonical());
            prop_assert_eq!(
                address,
                Ok(expected),
                "{:?} of {} at {}: {}",
                ranges,
                list,
                peer,
                seen
            );
            Ok(())
        });
        run.unwrap();
    }
}
