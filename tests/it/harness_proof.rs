//! The harness proves itself: a test that fails should fail because of the server.

use crate::harness::browser::Browser;
use crate::harness::caddy::Caddy;
use crate::harness::git::clone;
use crate::harness::{GitServer, Http, until};
use std::time::Duration;

#[test]
fn the_git_host_serves_a_repository_to_who_has_the_token_only() {
    let host = GitServer::start();
    let first = host.commit("shop", &[("index.html", "<h1>shop</h1>"), ("a/b.txt", "deep")]);
    let second = host.commit("shop", &[("index.html", "<h1>new</h1>")]);
    assert_ne!(first, second);
    let place = tempfile::tempdir().unwrap();
    let into = |name: &str| place.path().join(name);

    assert!(clone(&host.url("shop"), &into("open")));
    assert_eq!(std::fs::read_to_string(into("open").join("index.html")).unwrap(), "<h1>new</h1>");
    assert!(!into("open").join("a").exists());

    host.require_token("geheim");
    assert!(!clone(&host.url("shop"), &into("refused")));
    let with_token = host.url("shop").replace("http://", "http://x-access-token:geheim@");
    assert!(clone(&with_token, &into("allowed")));
    assert!(host.seen().iter().any(|s| s.headers.contains_key("authorization")));
}

#[test]
fn the_git_host_can_redirect_and_can_keep_a_client_waiting() {
    let (host, other) = (GitServer::start(), GitServer::start());
    other.commit("shop", &[("x", "y")]);
    host.redirect_to(&format!("http://{}", other.address()));
    let place = tempfile::tempdir().unwrap();
    assert!(clone(&host.url("shop"), &place.path().join("redirected")));
    assert!(!other.seen().is_empty());

    other.hold();
    let before = other.seen().len();
    let (url, into) = (other.url("shop"), place.path().join("held"));
    let client = std::thread::spawn(move || clone(&url, &into));
    until("the request has come", Duration::from_secs(30), || other.seen().len() > before);
    assert!(!client.is_finished());
    other.release();
    assert!(client.join().unwrap());
}

#[test]
fn the_browser_runs_a_page_and_reports_what_it_complains_about() {
    let caddy = Caddy::start(&|own| {
        let page = "<title>t</title><body><input autofocus><button>b</button><script>document.title='inline'</script>";
        format!(
            "http://{own} {{\n header Content-Type text/html\n header Content-Security-Policy \"default-src 'self'\"\n respond `{page}`\n}}\n"
        )
    });
    let mut browser = Browser::start();
    browser.viewport(390, 800);
    browser.colour_scheme("dark");
    browser.open(&format!("http://{}/", caddy.address()));
    assert_eq!(browser.evaluate("document.title"), "t");
    assert_eq!(browser.evaluate("innerWidth"), 390);
    assert_eq!(browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches"), true);
    browser.click("input");
    browser.type_text("hello");
    browser.press("Tab");
    assert_eq!(browser.evaluate("document.querySelector('input').value"), "hello");
    assert_eq!(browser.evaluate("document.activeElement.tagName"), "BUTTON");
    let complaints = browser.complaints();
    assert!(complaints.iter().any(|c| c.contains("Content Security Policy")), "{complaints:?}");
    let picture = tempfile::tempdir().unwrap().keep().join("page.png");
    browser.screenshot(&picture);
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    std::fs::remove_dir_all(picture.parent().unwrap()).unwrap();
}

#[test]
fn caddy_answers_plainly_and_over_tls() {
    let caddy = Caddy::start(&|own| format!("http://{own} {{\n respond hello\n}}\n"));
    assert_eq!(Http::new(caddy.address()).get("/").expect(200).text(), "hello");
}
