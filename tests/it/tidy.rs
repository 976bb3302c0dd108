//! The house keeps its own rules: which room may use which, headers, lengths, dependencies, no secrets in Git.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The table of walls: a room, and the rooms that it may use.
const WALLS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sync", &[]),
    ("cli", &["model"]),
    ("config", &["model"]),
    ("proc", &["sync"]),
    ("data_dir", &["model"]),
    ("vault", &["model", "data_dir"]),
    ("gate", &["model", "sync"]),
    ("journal", &["model", "sync", "data_dir"]),
    ("inside", &["proc", "journal"]),
    ("auth", &["model", "sync", "data_dir"]),
    ("store", &["model", "sync", "vault"]),
    ("disk", &["model", "proc", "data_dir", "sandbox"]),
    (
        "sandbox",
        &["model", "sync", "proc", "store", "inside", "disk", "router", "runtime", "deploy"],
    ),
    ("router", &["model", "sync", "proc", "store", "data_dir", "runtime"]),
    ("source", &["model", "proc", "journal", "disk", "sandbox"]),
    (
        "runtime",
        &[
            "model", "sync", "proc", "store", "journal", "inside", "disk", "sandbox", "router",
            "deploy",
        ],
    ),
    (
        "deploy",
        &[
            "model", "sync", "proc", "store", "journal", "data_dir", "disk", "sandbox", "router",
            "source", "runtime",
        ],
    ),
    ("api", &["model", "auth", "store", "deploy", "journal", "sandbox", "router"]),
    ("live", &["model", "sync", "auth", "journal"]),
    ("ops", &["model", "config", "data_dir", "proc", "store", "vault", "auth"]),
    (
        "serve",
        &[
            "model", "sync", "config", "proc", "data_dir", "vault", "gate", "journal", "auth",
            "store", "disk", "router", "runtime", "deploy", "api", "live", "ops",
        ],
    ),
    ("main", &["cli", "inside", "serve", "ops"]),
    ("lib", &[]),
];

/// What may be named in one room only.
const AT_HOME: &[(&str, &str)] = &[
    ("rusqlite::", "store"),
    ("tungstenite::", "live"),
    ("aes_gcm::", "vault"),
    ("tiny_http::", "serve"),
    ("process::Command", "proc"),
    ("Command::new(", "proc"),
];

/// No file is longer: it can be read in one sitting.
const MAX_FILE_LINES: usize = 450;
/// No function is longer without a reason.
const MAX_FUNCTION_LINES: usize = 70;
/// Every crate is somebody to trust.
const MAX_CRATES: usize = 70;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that Git has, as paths from the top.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"])
        .arg("--exclude-standard")
        .current_dir(top())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("UTF-8 names");
    names.split_terminator('\0').map(PathBuf::from).filter(|p| top().join(p).is_file()).collect()
}

fn rust_files(under: &str) -> Vec<(PathBuf, String)> {
    let is_rust = |p: &PathBuf| p.starts_with(under) && p.extension().is_some_and(|e| e == "rs");
    let read = |p: PathBuf| {
        let text = fs::read_to_string(top().join(&p)).expect("a file");
        (p, text)
    };
    let files: Vec<_> = tracked().into_iter().filter(is_rust).map(read).collect();
    assert!(!files.is_empty(), "no Rust files under {under}");
    files
}

/// The room of a file under `src`.
fn room(path: &Path) -> String {
    let first = path.components().nth(1).expect("below src").as_os_str();
    Path::new(first).file_stem().expect("a name").to_string_lossy().into_owned()
}

/// Tests build what they need from any room; the walls are for what runs.
fn is_test(path: &Path) -> bool {
    path.components().any(|c| {
        let name = c.as_os_str().to_string_lossy();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs")
    })
}

/// A file without its comments, which may name any room, and without its tests.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let uncommented = |line: &str| match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(uncommented).collect::<Vec<_>>().join("\n")
}

/// The first names of the paths that begin with a prefix such as `crate::`, groups in braces included.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let preceded_by_name =
            code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$');
        if preceded_by_name && !code[..at].ends_with('$') {
            continue;
        }
        names.extend(names_at(&code[at + prefix.len()..]));
    }
    names
}

fn names_at(rest: &str) -> Vec<String> {
    let word = |t: &str| t.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let mut depth = 0;
    let mut names = Vec::new();
    let mut start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if c.is_whitespace() => {}
            _ if start && depth == 0 => {
                names.push(word(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

/// The rooms that a file uses.
fn used_rooms(path: &Path, text: &str) -> BTreeSet<String> {
    let code = code(text);
    let up = "super::".repeat(path.components().count() - 1);
    let mut names = names_after(&code, "crate::");
    names.extend(names_after(&code, "better_paas::"));
    names.extend(names_after(&code, &up));
    names.into_iter().filter(|n| WALLS.iter().any(|(room, _)| room == n)).collect()
}

#[test]
fn the_reader_of_walls_sees_what_it_should() {
    let used = |path: &str, text: &str| {
        used_rooms(Path::new(path), text).into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(used("src/api.rs", "use crate::store::Store;"), "store");
    assert_eq!(
        used("src/api.rs", "use crate::{auth::{self, x}, gate,\n live::y};"),
        "auth gate live"
    );
    assert_eq!(used("src/api.rs", "fn f() { crate::proc::run() } // crate::live"), "proc");
    assert_eq!(used("src/api.rs", "use super::gate;"), "gate");
    assert_eq!(used("src/api/apps.rs", "use super::store; use super::super::live;"), "live");
    assert_eq!(used("src/main.rs", "better_paas::serve::run()"), "serve");
    assert_eq!(used("src/api.rs", "use mycrate::live;"), "");
}

#[test]
fn no_room_uses_another_that_it_may_not() {
    let mut crossed = Vec::new();
    for (path, text) in rust_files("src").into_iter().filter(|(path, _)| !is_test(path)) {
        let room = room(&path);
        let Some((_, allowed)) = WALLS.iter().find(|(name, _)| *name == room) else {
            crossed.push(format!("{} is a room without a row in the table", path.display()));
            continue;
        };
        for used in used_rooms(&path, &text) {
            if used != room && !allowed.contains(&used.as_str()) {
                crossed.push(format!("{} uses {used}", path.display()));
            }
        }
        let code = code(&text);
        if room == "ops" {
            for name in names_after(&code, "crate::auth::") {
                if name != "token" {
                    crossed.push(format!(
                        "{} uses auth::{name}, not only auth::token",
                        path.display()
                    ));
                }
            }
        }
        for (name, home) in AT_HOME {
            if code.contains(name) && !home.split(' ').any(|h| h == room) {
                crossed.push(format!("{} names {name}, which lives in {home}", path.display()));
            }
        }
    }
    assert!(crossed.is_empty(), "{crossed:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut bare = Vec::new();
    for (path, text) in ["src", "tests"].into_iter().flat_map(rust_files) {
        if !text.starts_with("//! ") {
            bare.push(path);
        }
    }
    assert!(bare.is_empty(), "no `//!` header: {bare:#?}");
}

#[test]
fn no_file_is_too_long_to_be_read_in_one_sitting() {
    let mut long = Vec::new();
    for (path, text) in ["src", "tests"].into_iter().flat_map(rust_files) {
        if text.lines().count() > MAX_FILE_LINES {
            long.push((path, text.lines().count()));
        }
    }
    assert!(long.is_empty(), "over {MAX_FILE_LINES} lines: {long:#?}");
}

/// Functions with more lines than they should have: their first line, and how many.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.trim_start().split(' ').take(5).collect();
        let is_function = words.iter().position(|w| *w == "fn").is_some_and(|at| {
            words[..at]
                .iter()
                .all(|w| w.starts_with("pub") || *w == "const" || *w == "in" || w.ends_with(')'))
        });
        if !is_function || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let end_line = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[start..].iter().position(|l| **l == end_line) else { continue };
        let above = lines[..start].iter().rev().take_while(|l| {
            let l = l.trim_start();
            l.starts_with("//") || l.starts_with('#')
        });
        let has_reason =
            above.into_iter().any(|l| l.contains("too_many_lines") && l.contains("reason"));
        if length + 1 > MAX_FUNCTION_LINES && !has_reason {
            long.push((start + 1, length + 1));
        }
    }
    long
}

#[test]
fn no_function_is_long_without_a_reason() {
    let body = "    x();\n".repeat(MAX_FUNCTION_LINES);
    assert_eq!(long_functions(&format!("pub(crate) fn f() {{\n{body}}}\n")), [(1, 72)]);
    assert_eq!(
        long_functions(&format!(
            "#[expect(clippy::too_many_lines, reason = \"a table\")]\nfn f() {{\n{body}}}\n"
        )),
        []
    );

    let mut long = Vec::new();
    for (path, text) in ["src", "tests"].into_iter().flat_map(rust_files) {
        long.extend(
            long_functions(&text)
                .into_iter()
                .map(|(line, n)| format!("{}:{line}: {n} lines", path.display())),
        );
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn what_is_left_to_do_names_its_issue() {
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X:")];
    let mut open = Vec::new();
    for path in tracked() {
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for mark in marks {
                if let Some(at) = line.find(mark)
                    && !line[at + mark.len()..].starts_with("(#")
                {
                    open.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:#?}");
}

#[test]
fn there_is_no_unsafe_code() {
    let word = concat!("uns", "afe");
    let forms = [" {", " fn", " impl", " extern", "{"].map(|after| format!("{word}{after}"));
    let mut found = Vec::new();
    for (path, text) in ["src", "tests"].into_iter().flat_map(rust_files) {
        if forms.iter().any(|f| code(&text).contains(f.as_str())) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("{word}_code = \"forbid\"")));
    assert!(!manifest.contains("\npanic = \"abort\""), "a reset at the wrong moment would end us");
}

#[test]
fn the_dependency_tree_stays_small() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--offline", "--locked", "--prefix", "none"])
        .current_dir(top())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let crates: BTreeSet<&str> = text.lines().map(|l| l.trim_end_matches(" (*)")).collect();
    assert!(crates.len() > 10, "{text}");
    assert!(crates.len() <= MAX_CRATES, "{} crates: {crates:#?}", crates.len());
}

#[test]
fn every_script_can_be_run() {
    for name in ["scripts/run", "scripts/test", "scripts/bench", ".ci/run"] {
        let file = top().join(name);
        let mode =
            fs::metadata(&file).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} is not executable");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("#!/usr/bin/env bash\n"), "{name}");
        assert!(text.contains("\nset -euo pipefail\n"), "{name} goes on after an error");
    }
}

#[test]
fn no_file_in_git_holds_a_token() {
    let mut found = Vec::new();
    for path in tracked() {
        let bytes = fs::read(top().join(&path)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let is_token = |(at, prefix): (usize, &str)| {
            let digits = text[at + prefix.len()..].bytes().take(64);
            digits.clone().count() == 64
                && digits.clone().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && digits.collect::<BTreeSet<_>>().len() > 1
        };
        if text.match_indices("bpaas_").any(is_token) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn data_is_ignored_by_git() {
    // P26
    let status = Command::new("git")
        .args(["-c", "safe.directory=*", "check-ignore", "-q", "data/better-paas.db"])
        .current_dir(top())
        .status()
        .unwrap();
    assert!(status.success(), "data/ is not in .gitignore");
}
