//! The pages for people: their links lead somewhere, none is forgotten, and the first one is short.

use crate::harness::Server;
use better_paas::manual::PAGES;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that the README may have: it is read whole, before anything is installed.
const MAX_README: u64 = 12 * 1024;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the manual, as paths from the top.
fn manual() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(top().join("assets/manual")).expect("the manual").flatten();
    entries.map(|entry| Path::new("assets/manual").join(entry.file_name())).collect()
}

fn pages() -> BTreeSet<PathBuf> {
    let above = ["README.md", "SECURITY.md", "CHANGELOG.md"].map(PathBuf::from);
    manual().into_iter().chain(above).collect()
}

fn text(page: &Path) -> String {
    fs::read_to_string(top().join(page)).unwrap_or_else(|e| panic!("{}: {e}", page.display()))
}

/// What a heading is called in an address: lower case, without signs, hyphens for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let headings = text.lines().filter(|line| {
        in_code ^= line.trim_start().starts_with("```");
        !in_code && line.starts_with('#')
    });
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// The addresses behind `](`, those of this repository alone.
fn links(text: &str) -> Vec<String> {
    let all = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    all.filter(|link| !link.contains("://")).map(str::to_owned).collect()
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts
}

/// Where a link on a page leads: a file from the top, and a heading in it.
fn target(page: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (file, heading) = match link.split_once('#') {
        Some((file, heading)) => (file, Some(heading.to_owned())),
        None => (link, None),
    };
    let beside = page.parent().expect("a directory").join(file);
    (if file.is_empty() { page.to_owned() } else { plain(&beside) }, heading)
}

#[test]
fn every_link_of_the_pages_leads_to_a_file_and_to_a_heading_in_it() {
    assert_eq!(anchor(" Domains and HTTPS, in short"), "domains-and-https-in-short");
    let (mut dead, mut followed) = (Vec::new(), 0);
    for page in pages() {
        for link in links(&text(&page)) {
            let (file, heading) = target(&page, &link);
            let there = top().join(&file).is_file()
                && heading.is_none_or(|heading| anchors(&text(&file)).contains(&heading));
            followed += 1;
            if !there {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(followed > 30, "{followed} links");
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_index_and_the_readme_name_every_page_of_the_manual() {
    let index = PathBuf::from("assets/manual/index.md");
    for page in [index.as_path(), Path::new("README.md")] {
        let named: BTreeSet<PathBuf> =
            links(&text(page)).iter().map(|link| target(page, link).0).collect();
        let forgotten: Vec<_> =
            manual().into_iter().filter(|p| *p != index && !named.contains(p)).collect();
        assert!(forgotten.is_empty(), "{} forgets {forgotten:?}", page.display());
    }
}

#[test]
fn the_readme_is_short() {
    let length = fs::metadata(top().join("README.md")).expect("a README").len();
    assert!(length <= MAX_README, "{length} bytes: move something into assets/manual");
}

#[test]
fn help_in_the_shell_prints_every_page_and_the_dashboard_serves_it() {
    let server = Server::start();
    let named: BTreeSet<PathBuf> = PAGES
        .iter()
        .map(|(topic, _)| {
            let printed = server.operator(&["help", topic]);
            assert_eq!(printed.code, Some(0), "{printed:?}");
            let at = format!("/assets/manual/{topic}.md");
            let served = server.stranger().get(&at).expect(200).text();
            assert_eq!(printed.stdout.trim_end(), served.trim_end(), "{topic}");
            let is_it = |page: &PathBuf| text(page) == served;
            pages().into_iter().find(is_it).unwrap_or_else(|| panic!("{topic} is no page"))
        })
        .collect();
    assert_eq!(named, pages(), "all of them");
    let unknown = server.operator(&["help", "nothing"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("troubleshooting"), "{unknown:?}");
    server.stranger().get("/assets/manual/nothing.md").expect(404);
}
