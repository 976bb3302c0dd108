//! Which room may use which, that nothing goes in a circle, and how long it takes to read.

use super::house::{Arrows, House, circles};
use super::{code, is_test, rust_files};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// The table of walls, from the ground floor up: a room, and what it may use, which stands above
/// its row. A room, or one file of it as `store/app`.
const WALLS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("model", &[]),
    ("sync", &[]),
    ("manual", &[]),
    ("cli", &["model", "manual"]),
    ("checks", &["model", "sync"]),
    ("config", &["model"]),
    ("proc", &["model", "sync"]),
    ("http_client", &["proc"]),
    ("data_dir", &["model", "proc"]),
    ("root", &["model", "config", "proc", "data_dir"]),
    ("gate", &["model", "sync"]),
    ("vault", &["model", "data_dir"]),
    ("journal", &["model", "sync", "data_dir"]),
    // The first program in every sandbox, which is this one: it writes an app's log.
    ("inside", &["proc", "journal"]),
    ("auth", &["model", "sync", "data_dir"]),
    ("store", &["model", "sync", "vault"]),
    ("disk", &["model", "proc", "data_dir"]),
    (
        "sandbox",
        &["model", "sync", "proc", "data_dir", "disk", "inside", "store/app", "store/draft"],
    ),
    ("notify", &["model", "sync", "checks", "proc", "sandbox"]),
    // Of the first program in a sandbox, where it is.
    (
        "backup",
        &["model", "sync", "vault", "proc", "data_dir", "store", "disk", "inside", "sandbox"],
    ),
    ("router", &["model", "sync", "proc", "http_client", "data_dir", "store/app", "store/draft"]),
    ("source", &["model", "proc", "journal", "store/app", "store/draft", "disk", "sandbox"]),
    (
        "runtime",
        &[
            "model",
            "sync",
            "proc",
            "http_client",
            "data_dir",
            "store",
            "journal",
            "disk",
            "inside",
            "sandbox",
            "router",
        ],
    ),
    (
        "deploy",
        &[
            "model", "sync", "proc", "data_dir", "store", "journal", "disk", "sandbox", "router",
            "source", "runtime",
        ],
    ),
    // Of the sandbox, what it reports.
    (
        "api",
        &[
            "model",
            "manual",
            "auth",
            "gate/answer",
            "store",
            "journal",
            "backup",
            "checks",
            "notify",
            "router",
            "runtime",
            "deploy",
            "sandbox/fences",
            "sandbox/limits_report",
        ],
    ),
    ("live", &["model", "sync", "auth", "gate/answer", "gate/upgrade", "journal"]),
    (
        "ops",
        &[
            "model",
            "config",
            "data_dir",
            "proc",
            "root",
            "http_client",
            "store",
            "vault",
            "disk",
            "sandbox",
            "backup",
            "checks",
            "auth/token",
        ],
    ),
    (
        "serve",
        &[
            "model", "sync", "config", "proc", "data_dir", "vault", "gate", "journal", "auth",
            "store", "disk", "sandbox", "backup", "checks", "notify", "router", "source",
            "runtime", "deploy", "api", "live", "ops",
        ],
    ),
    ("main", &["cli", "inside", "disk", "backup", "serve", "ops"]),
];

/// What may be named in one room only.
const AT_HOME: &[(&str, &str)] = &[
    ("rusqlite::", "store"),
    ("tungstenite::", "live"),
    ("aes_gcm::", "vault"),
    ("tiny_http::", "serve"),
    ("landlock::", "inside"),
    ("process::Command", "proc"),
    ("Command::new(", "proc"),
];

/// What has to be read before one trusts the door with a token: an afternoon.
const TRUST_PATH: [&str; 3] = ["gate", "auth", "vault"];
const MAX_TRUST_PATH: usize = 4_000;
/// What runs as root: an hour.
const MAX_ROOT: usize = 600;
/// All of it: a few days.
const MAX_CODE: usize = 27_150;
/// The part of it that one room may have, in percent, so that none is a house of its own.
const MAX_ROOM_PERCENT: usize = 12;

fn sources() -> Vec<(String, String)> {
    let files = rust_files("src").into_iter().filter(|(path, _)| !is_test(path));
    files.map(|(path, text)| (path.to_string_lossy().into_owned(), text)).collect()
}

fn house(files: &[(String, String)]) -> House {
    House::of(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))
}

/// The room of a file under `src`.
fn room(path: &str) -> String {
    let first = Path::new(path).components().nth(1).expect("below src").as_os_str();
    Path::new(first).file_stem().expect("a name").to_string_lossy().into_owned()
}

/// The arrows from one room to another that the table does not allow.
fn crossed(arrows: &Arrows) -> Vec<String> {
    let mut crossed = Vec::new();
    for (file, used) in arrows.iter().flat_map(|(file, uses)| uses.keys().map(move |u| (file, u))) {
        let (from, to) = (room(file), room(used));
        let allowed = WALLS.iter().find(|(name, _)| *name == from).map_or(&[][..], |row| row.1);
        let is_allowed = |entry: &&str| {
            let below = used.strip_prefix("src/").and_then(|path| path.strip_prefix(*entry));
            below.is_some_and(|rest| rest.starts_with(['/', '.']))
        };
        if from != to && to != "lib" && !allowed.iter().any(is_allowed) {
            crossed.push(format!("{file} uses {used}"));
        }
    }
    crossed
}

fn arrows_of(files: &[(&str, &str)]) -> Arrows {
    House::of(files.iter().copied()).arrows()
}

#[test]
fn the_reader_of_arrows_finds_the_file_that_defines_a_name() {
    let files = [
        ("src/lib.rs", "pub mod api; pub mod store; mod deploy;"),
        ("src/store.rs", "mod app; pub use app::App; pub fn open() {}"),
        ("src/store/app.rs", "pub struct App; impl App { pub fn name() {} }"),
        ("src/deploy.rs", "mod a; mod b; use b::Shared; use crate::store::*;"),
        ("src/deploy/b.rs", "pub struct Shared; fn f() { crate::store::open() }"),
        ("src/deploy/a.rs", "use super::Shared; fn f() { println!(\"{}\", super::b::g()) }"),
        ("src/api.rs", "use crate::store::{self, App as Entry}; // crate::deploy"),
        ("src/main.rs", "fn main() { better_paas::store::App::name() }"),
        ("src/api/x.rs", "fn f() { std::fs::read(); other::crate_name() }"),
        ("src/api/y.rs", "#[cfg(test)] mod tests { use crate::deploy::a; }"),
    ];
    let arrows = arrows_of(&files);
    let uses = |file: &str| {
        let used = arrows.get(file).into_iter().flat_map(BTreeMap::keys);
        used.map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(uses("src/api.rs"), ["src/store.rs", "src/store/app.rs"]);
    assert_eq!(uses("src/deploy/a.rs"), ["src/deploy/b.rs"], "through a private `use`");
    assert_eq!(uses("src/deploy/b.rs"), ["src/store.rs"]);
    assert_eq!(uses("src/main.rs"), ["src/store/app.rs"], "from the other crate");
    assert!(uses("src/api/x.rs").is_empty() && uses("src/api/y.rs").is_empty());
}

#[test]
fn a_circle_is_found_also_through_a_private_import_of_the_module_above() {
    let top = ("src/deploy.rs", "mod a; mod b; mod c; use b::Shared;");
    let b = ("src/deploy/b.rs", "use super::c::run; pub struct Shared;");
    let a = ("src/deploy/a.rs", "use super::c::run;");
    let c = ("src/deploy/c.rs", "pub fn run(_: &super::Shared) {}");
    let found = circles(&arrows_of(&[top, a, b, c]));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].iter().any(|arrow| arrow.starts_with("src/deploy/c.rs -> src/deploy/b.rs")));
    // A module and what lies below it are one face.
    let c = ("src/deploy/c.rs", "pub fn run() { super::started() }");
    let top = ("src/deploy.rs", "mod b; mod c; use b::Shared; fn started() {}");
    assert!(circles(&arrows_of(&[top, b, c])).is_empty());
}

#[test]
fn an_arrow_up_and_one_through_a_wall_are_found() {
    let up = ("src/store.rs", "use crate::api::{Answer};");
    let api = ("src/api.rs", "pub struct Answer; use crate::sandbox::host::Host;");
    let room = ("src/sandbox.rs", "pub mod host;");
    let host = ("src/sandbox/host.rs", "pub struct Host; use crate::store::{Store};");
    let store = ("src/store/app.rs", "pub struct App;");
    let found = crossed(&arrows_of(&[("src/lib.rs", ""), up, api, room, host, store]));
    assert_eq!(found, ["src/api.rs uses src/sandbox/host.rs", "src/store.rs uses src/api.rs"]);
}

#[test]
fn the_table_of_walls_has_no_arrow_up() {
    for (row, (name, allowed)) in WALLS.iter().enumerate() {
        for entry in *allowed {
            let used = entry.split('/').next().expect("a room");
            assert!(WALLS[..row].iter().any(|(above, _)| *above == used), "{name} uses {entry}");
        }
    }
}

#[test]
fn no_room_uses_another_that_it_may_not() {
    let files = sources();
    let mut all = crossed(&house(&files).arrows());
    for (path, text) in &files {
        let room = room(path);
        if !WALLS.iter().any(|(name, _)| *name == room) {
            all.push(format!("{path} is in a room without a row in the table"));
        }
        let code = code(text);
        let named = AT_HOME.iter().filter(|(name, home)| *home != room && code.contains(name));
        all.extend(named.map(|(name, home)| format!("{path} names {name}, which is for {home}")));
    }
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn no_file_uses_another_that_uses_it() {
    let circles = circles(&house(&sources()).arrows());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn what_a_type_does_stands_with_it() {
    let scattered = house(&sources()).scattered();
    assert!(scattered.is_empty(), "{scattered:#?}");
}

/// Lines with code: no comments, no blanks, no tests.
fn lines_of_code(text: &str) -> usize {
    code(text).lines().filter(|line| !line.trim().is_empty()).count()
}

#[test]
fn the_house_can_be_read_in_the_time_that_is_promised() {
    let mut rooms: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in sources() {
        *rooms.entry(room(&path)).or_default() += lines_of_code(&text);
    }
    let all: usize = rooms.values().sum();
    let mut report = String::new();
    for (room, lines) in &rooms {
        report += &format!("{lines:>6} lines of code in {room}\n");
    }
    report += &format!("{all:>6} in all\n");
    // Whoever runs this wants to see it, also when all is well.
    std::io::stdout().write_all(report.as_bytes()).expect("standard output");
    let trust_path: usize = TRUST_PATH.iter().map(|room| rooms[*room]).sum();
    assert!(trust_path <= MAX_TRUST_PATH, "{trust_path} lines in {TRUST_PATH:?}");
    assert!(rooms["root"] <= MAX_ROOT, "{} lines run as root", rooms["root"]);
    assert!(all <= MAX_CODE, "{all} lines");
    let large = rooms.iter().find(|(_, lines)| **lines * 100 > all * MAX_ROOM_PERCENT);
    assert!(large.is_none(), "{large:?} of {all} lines");
}
