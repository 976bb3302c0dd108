//! The house keeps its own rules: rooms and walls, headers, lengths, dependencies, no secrets in Git.

mod house;
mod walls;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No file is longer: it can be read in one sitting.
const MAX_FILE_LINES: usize = 450;
/// No function is longer without a reason.
const MAX_FUNCTION_LINES: usize = 70;
/// A line of a script is shorter: two of them fit beside one another.
const MAX_COLUMNS: usize = 120;
/// Every crate has an author to trust.
const MAX_CRATES: usize = 72;

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

pub fn rust_files(under: &str) -> Vec<(PathBuf, String)> {
    let is_rust = |p: &PathBuf| p.starts_with(under) && p.extension().is_some_and(|e| e == "rs");
    let read = |p: PathBuf| {
        let text = fs::read_to_string(top().join(&p)).expect("a file");
        (p, text)
    };
    let files: Vec<_> = tracked().into_iter().filter(is_rust).map(read).collect();
    assert!(!files.is_empty(), "no Rust files under {under}");
    files
}

/// Tests build what they need from any room; the walls are for what runs.
pub fn is_test(path: &Path) -> bool {
    path.components().any(|c| {
        let name = c.as_os_str().to_string_lossy();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs")
    })
}

/// A file without its comments, which may name any room, and without its tests.
pub fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let uncommented = |line: &str| match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(uncommented).collect::<Vec<_>>().join("\n")
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
fn no_chapter_of_the_tests_uses_another() {
    let mut used = Vec::new();
    for (path, text) in rust_files("tests/it")
        .into_iter()
        .filter(|(path, _)| !path.to_string_lossy().contains("tidy"))
    {
        let code = code(&text);
        let others = code.match_indices("crate::").map(|(at, word)| &code[at + word.len()..]);
        let others = others.filter(|name| !name.starts_with("harness"));
        used.extend(others.map(|name| {
            let name: String =
                name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            format!("{} uses {name}", path.display())
        }));
    }
    assert!(used.is_empty(), "{used:#?}");
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
fn no_line_of_the_dashboards_code_is_too_long() {
    let is_script = |path: &PathBuf| path.extension().is_some_and(|e| e == "js");
    let mut long = Vec::new();
    for path in tracked().into_iter().filter(is_script) {
        let text = fs::read_to_string(top().join(&path)).expect("a file");
        let lines =
            text.lines().enumerate().filter(|(_, line)| line.chars().count() >= MAX_COLUMNS);
        long.extend(lines.map(|(number, _)| format!("{}:{}", path.display(), number + 1)));
    }
    assert!(long.is_empty(), "{MAX_COLUMNS} columns and more: {long:#?}");
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
