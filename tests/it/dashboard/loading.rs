//! How the dashboard comes to a browser: few requests, small, and the next time next to nothing.

use super::page::Page;
use crate::harness::http::Answer;
use crate::harness::{Server, until};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a browser says that it takes.
const TAKES: (&str, &str) = ("Accept-Encoding", "gzip, deflate, br, zstd");

/// A file of the page's directory, such as `core.js`, once it is there compressed.
fn packed(server: &Server, path: &str) -> Answer {
    let get = || server.stranger().with(TAKES.0, TAKES.1).get(path).expect(200);
    until("it is compressed", Duration::from_secs(30), || {
        get().header("Content-Encoding") == Some("gzip")
    });
    get()
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .args(["-dc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip");
    gzip.stdin.take().expect("a pipe").write_all(bytes).expect("gzip reads");
    gzip.wait_with_output().expect("gzip ends").stdout
}

/// Where the page's files are.
fn directory(page: &str) -> String {
    let from = page.find("/a/").expect("a directory");
    page[from..from + "/a/0123456789abcdef/".len()].to_owned()
}

#[test]
fn the_page_is_asked_for_each_time_and_its_files_are_kept_for_ever() {
    let server = Server::start();
    let page = server.stranger().get("/").expect(200);
    let tag = page.header("ETag").expect("a tag").to_owned();
    assert_eq!(page.header("Cache-Control"), Some("no-cache"));
    let again = server.stranger().with("If-None-Match", &tag).get("/").expect(304);
    assert_eq!((again.text().as_str(), again.header("ETag")), ("", Some(&*tag)));
    for name in ["Content-Security-Policy", "X-Frame-Options", "Cache-Control", "Vary"] {
        assert_eq!(again.header(name), page.header(name), "{name}");
    }
    server.stranger().with("If-None-Match", "W/\"another\"").get("/").expect(200);

    let directory = directory(&page.text());
    let last = packed(&server, &format!("{directory}webhook.js"));
    assert_eq!(last.header("Cache-Control"), Some("public, max-age=31536000, immutable"));
    for path in ["/".to_owned(), format!("{directory}core.js"), format!("{directory}style.css")] {
        let (plain, gzip) = (server.stranger().get(&path).expect(200), packed(&server, &path));
        assert_eq!(
            (plain.header("Content-Encoding"), plain.header("Vary")),
            (None, gzip.header("Vary"))
        );
        assert_eq!(gzip.header("Vary"), Some("Accept-Encoding"));
        assert_eq!(plain.header("Content-Type"), gzip.header("Content-Type"));
        assert!(
            plain.body == unpacked(&gzip.body) && 2 * gzip.body.len() < plain.body.len(),
            "{path}"
        );
        let refused = server.stranger().with("Accept-Encoding", "gzip;q=0").get(&path).expect(200);
        assert_eq!(refused.header("Content-Encoding"), None);
    }
    // A page of another version gets nothing of this one, which it would keep for ever.
    server.stranger().get("/a/0123456789abcdef/core.js").expect(404);
    server.stranger().get("/a/core.js").expect(404);
}

/// Each request of the page since it was loaded, and the bytes that it took.
fn loaded(page: &mut Page) -> Vec<(String, u64)> {
    let entries = page.browser.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
           .filter((entry) => !entry.name.startsWith('data:')).map((entry) => [entry.name, entry.transferSize])",
    );
    let entry = |e: &Value| Some((e[0].as_str()?.to_owned(), e[1].as_u64()?));
    entries.as_array().expect("entries").iter().filter_map(entry).collect()
}

#[test]
fn a_first_visit_takes_three_requests_the_first_screen_one_and_a_reload_is_small() {
    let server = Server::start();
    let directory = directory(&server.stranger().get("/").expect(200).text());
    packed(&server, &format!("{directory}webhook.js"));
    let mut page = Page::open(&server);
    let first = loaded(&mut page);
    let bytes: u64 = first.iter().map(|(_, bytes)| bytes).sum();
    assert!(first.len() == 3 && bytes < 40_000, "{bytes} bytes: {first:?}");
    page.sign_in(&server.token());
    page.see("add-app");
    let files: Vec<_> =
        loaded(&mut page).into_iter().filter(|(name, _)| name.contains("/a/")).collect();
    assert_eq!(files.len(), 3, "{files:?}");

    page.reload_signed_in();
    page.see("add-app");
    let again = loaded(&mut page);
    let bytes: u64 = again.iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes < 3_000, "{bytes} bytes: {again:?}");
    page.nothing_went_wrong(&[]);
}

#[test]
fn a_screen_that_does_not_come_says_so_and_comes_with_the_page_loaded_again() {
    let server = Server::start();
    let mut page = Page::signed_in(&server);
    page.browser.call("Network.setBlockedURLs", &json!({"urls": ["*/settings.js"]}));
    page.click("settings-link");
    page.see_text("#main", "A part of the dashboard did not come");
    page.browser.call("Network.setBlockedURLs", &json!({"urls": []}));
    page.click("#main [data-part=again]");
    page.see("github-token-form");
    page.nothing_went_wrong(&["ERR_BLOCKED_BY_CLIENT"]);
}
