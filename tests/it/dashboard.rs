//! The dashboard in a real browser, against the real server: what a person sees, clicks and types.

mod app_page;
mod environment;
mod help;
mod loading;
mod log;
mod page;
mod processes;
mod security;
mod session;

use crate::harness::apps::{create, deploy, ended};
use crate::harness::{GitServer, Http, Server, Setup, until};
use page::Page;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// What Chromium says about an answer that is an error, besides what the page says about it.
const REFUSED: &str = "Failed to load resource: the server responded with a status of 4";
/// What Chromium says about a server that is not there.
const AWAY: &str = "net::ERR_CONNECTION_REFUSED";

/// An app that answers with a value of its environment.
const GREETER: [(&str, &str); 2] = [
    ("Procfile", "web: python3 -u main.py\n"),
    (
        "main.py",
        "import http.server, os\n\
         class H(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200); self.end_headers()\n\
         \x20       self.wfile.write(os.environ.get('GREETING', 'no greeting').encode())\n\
         print('the greeter starts')\n\
         http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n",
    ),
];

#[test]
fn sign_in_tells_a_wrong_token_a_lockout_and_a_server_away_apart() {
    // P2, P8.
    let mut server = Server::start();
    let token = server.token();
    let mut page = Page::open(&server);
    page.fill("token-input", "bpaas_this-is-not-the-token-that-it-wants");
    let mut messages = Vec::new();
    // A lockout begins with the fifth. On a slow machine it may be over before the next try, which begins a longer one.
    while messages.len() < 12 && !messages.iter().any(|m: &String| m.contains("Locked out")) {
        page.browser.press("Enter");
        // A short lockout, and with it its message, may be over before it is looked at.
        page.browser.wait_for(
            "document.querySelector('[data-test=sign-in-error]').innerText
              || document.querySelector('[data-test=sign-in-countdown]').checkVisibility()",
        );
        messages.push(page.text("sign-in-error"));
    }
    assert!(messages.len() > 5, "{messages:?}");
    let wrong = "This token is not the right one. Copy it again, the whole of it.";
    assert!(messages[..5].iter().all(|m| m == wrong), "{messages:?}");
    page.see_text("sign-in-countdown", "You can try again in ");
    let disabled = "document.querySelector('[data-test=sign-in-button]').disabled";
    assert_eq!(page.browser.evaluate(disabled), true);
    page.see_text("sign-in-countdown", "You can try again now.");
    assert_eq!(page.browser.evaluate(disabled), false);
    assert_eq!(page.text("sign-in-error"), "", "it is over");
    // Copied with what stands around it.
    page.sign_in(&format!(" {token} "));
    page.tokens.push(token.clone());
    page.see_text("#main h1", "Apps");
    assert_eq!(page.browser.evaluate("document.querySelector('#sign-in').hidden"), true);

    // Away while somebody is signed in, and while somebody signs in.
    server.terminate();
    page.see_text("connection-note", "Connection lost. Trying again");
    page.click("sign-out");
    page.fill("token-input", &token);
    page.browser.press("Enter");
    page.see_text("sign-in-error", "The server does not answer.");
    page.nothing_went_wrong(&[REFUSED, AWAY]);
}

#[test]
fn from_sign_in_to_a_running_app_in_the_browser() {
    let git = GitServer::start();
    git.commit("greeter", &GREETER);
    git.require_token("the-token-of-the-repository");
    let server = Setup::new().as_user().start();
    let mut page = Page::signed_in(&server);
    page.click("add-app");
    page.fill("[name=gitRepo]", &git.url("greeter"));
    page.fill("[name=gitToken]", "the-token-of-the-repository");
    assert_eq!(page.browser.evaluate("document.querySelector('[name=name]').value"), "greeter");

    // While the Git host keeps Git waiting, the log is there already: it is live.
    git.hold();
    page.click("add-and-deploy");
    page.see_text("build-log", "etch");
    page.see_status("app-status", "deploying");
    assert_eq!(page.text("deploy-result"), "");
    page.click("cancel-deploy");
    page.see_text("deploy-result", "Cancelled");
    page.see_status("app-status", "failed");
    page.click("deploy-button");
    page.see_status("app-status", "deploying");
    git.release();
    page.see_status("deploy-result", "live");
    page.see_status("app-status", "running");
    let requests = page.browser.requests();
    assert!(requests.iter().any(|r| r.contains("/ws/deploys/")), "{requests:?}");
    assert!(!requests.iter().any(|r| r.ends_with("/log")), "the log came another way");
    assert_eq!(answer_of(&mut page), "no greeting");

    page.click("a[href$='/log'][data-tab]");
    page.see_text("app-log", "the greeter starts");
    set_a_secret(&mut page);
    page.click("restart-button");
    until("the app has the secret", Duration::from_secs(30), || {
        page.browser.evaluate("document.querySelector('[data-test=app-url]').href") != ""
            && answer_of(&mut page) == "hello-from-a-secret"
    });
    page.click("stop-button");
    page.see_status("app-status", "stopped");
    page.see("start-button");

    page.click("a[href$='/settings'][data-tab]");
    page.click("delete-app");
    page.fill("delete-confirm", "greeter");
    page.browser.press("Enter");
    page.see_text("#main h1", "Apps");
    page.see_text("#main", "No apps yet");
    page.nothing_went_wrong(&[]);
}

/// What the app answers at the address of the page's link.
fn answer_of(page: &mut Page) -> String {
    page.see("app-url");
    let url = page.browser.evaluate("document.querySelector('[data-test=app-url]').href");
    let url = url.as_str().expect("a link").trim_start_matches("http://").trim_end_matches('/');
    let answer = Http::new(url.parse().expect("an address")).try_request("GET", "/", None);
    answer.map(|a| a.text()).unwrap_or_default()
}

/// Adds a secret in the environment editor; after a reload it is there, and its value is not.
fn set_a_secret(page: &mut Page) {
    page.click("a[href$='/env']");
    page.click("env-add");
    page.fill("[data-test=env-row] [name=name]", "GREETING");
    page.fill("[data-test=env-row] [name=value]", "hello-from-a-secret");
    page.see_text("env-saved", "Not saved yet.");
    page.click("env-save");
    page.see_text("env-saved", "Saved.");
    page.reload_signed_in();
    page.see("env-replace");
    let shown = page.browser.evaluate(
        "JSON.stringify([document.documentElement.outerHTML,
          ...Array.from(document.querySelectorAll('input, textarea'), (e) => e.value)])",
    );
    let shown = shown.as_str().expect("a text");
    assert!(shown.contains("GREETING") && !shown.contains("hello-from-a-secret"));
}

#[test]
fn the_settings_keep_the_github_token_to_themselves_and_clear_a_lockout() {
    // P13.
    let server = Setup::new().trust_proxy().start();
    let mut page = Page::signed_in(&server);
    page.click("settings-link");
    page.see_text("github-token-state", "No token is saved.");
    page.fill("[data-test=github-token-form] [name=token]", "github_pat_for_the_test");
    page.browser.press("Enter");
    page.see_text("github-token-state", "A token is saved");
    page.reload_signed_in();
    page.see_text("github-token-state", "A token is saved");
    let kept = page.browser.evaluate(
        "document.documentElement.outerHTML + document.querySelector('[name=token]').value",
    );
    assert!(!kept.as_str().expect("a text").contains("github_pat_for_the_test"));
    assert_eq!(server.owner().get("/api/settings/github-token").json()["saved"], true);
    page.click("github-token-remove");
    page.see_text("github-token-state", "No token is saved.");
    assert_eq!(server.owner().get("/api/settings/github-token").json()["saved"], false);

    page.click("security-link");
    page.see_text("#main", "Nobody is locked out.");
    let mut intruder = server.stranger().forwarded_for("203.0.113.9").bearer("wrong");
    see_locked_out(&mut page, &mut intruder, "203.0.113.9");
    page.see_text("lockout-list", "wrong tokens, locked out for ");
    page.click("lockout-clear");
    page.see_text("#main", "Nobody is locked out.");
    // Not just over: all of the free tries are back.
    for _ in 0..5 {
        assert_eq!(intruder.get("/api/session").status, 401);
    }
    page.nothing_went_wrong(&[]);
}

#[test]
fn a_backup_is_made_and_deleted_in_the_settings() {
    // P29.
    let server = Server::start();
    let mut page = Page::signed_in(&server);
    page.click("settings-link");
    page.see_text("backup-state", "There is none yet.");
    page.click("backup-now");
    page.see_text("backup-detail", ", checked ");
    page.fits_in_both("backup-list");
    page.click("backup-delete");
    page.click("backup-delete-confirm");
    page.see_text("backup-state", "There is none yet.");
    assert_eq!(server.owner().get("/api/backups").json()["backups"], json!([]));
    page.nothing_went_wrong(&[]);
}

/// Tries wrong tokens until the security page lists their sender. A lockout may be over before it is looked at; then the
/// next one is longer.
fn see_locked_out(page: &mut Page, intruder: &mut Http, client: &str) {
    until("the lockout is listed", Duration::from_secs(30), || {
        while intruder.get("/api/session").status != 429 {}
        page.click("[data-part=lockouts-again]");
        page.browser.wait_for("!document.querySelector('[data-part=lockouts-again]').ariaBusy");
        page.text("lockout-list").contains(client)
    });
}

#[test]
fn everything_from_sign_in_to_a_new_app_works_by_keyboard() {
    let server = Server::start();
    let token = server.token();
    let mut page = Page::open(&server);
    page.tokens.push(token.clone());
    // The field has the focus from the start.
    page.browser.wait_for("document.activeElement.matches('[data-test=token-input]')");
    page.browser.type_text(&token);
    page.tab_to("sign-in-button");
    page.browser.press("Enter");
    page.tab_to("add-app");
    page.browser.press("Enter");
    page.see("app-form");
    page.tab_to("[name=gitRepo]");
    page.browser.type_text("https://git.example/team/Web_Shop.git");
    page.tab_to("[name=branch]");
    page.browser.type_text("production");
    page.tab_to("details summary");
    page.browser.press("Space");
    page.tab_to("[name=healthPath]");
    page.browser.type_text("no slash");
    page.tab_to("add-only");
    page.browser.press("Enter");
    // A refused value is named, shown and has the focus.
    page.browser.wait_for("document.activeElement.matches('[name=healthPath][aria-invalid=true]')");
    page.browser.evaluate("document.activeElement.select()");
    page.browser.type_text("/healthz");
    page.tab_to("add-only");
    page.browser.press("Enter");
    page.see_text("#main h1", "web-shop");
    page.see_status("app-status", "new");
    page.browser.wait_for("document.activeElement.matches('#main h1')");
    page.tab_to("a[href$='/env']");
    page.browser.press("Enter");
    page.tab_to("env-add");
    page.browser.press("Enter");
    page.browser.type_text("NAME");
    page.tab_to("env-add");
    page.browser.press("Enter");
    page.browser.type_text("2ND_NAME");
    page.tab_to("env-save");
    page.browser.press("Space");
    // A refused variable is counted as a person counts, and its row has the focus.
    page.see_text("env-error", "Variable 2: the name may hold ");
    let invalid = "li:nth-child(2) [name=name][aria-invalid=true]";
    page.browser.wait_for(&format!("document.activeElement.matches('{invalid}')"));
    page.browser.evaluate("document.activeElement.select()");
    page.browser.type_text("SECOND_NAME");
    page.tab_to("env-save");
    page.browser.press("Space");
    page.see_text("env-saved", "Saved.");
    page.browser.press_with("Tab", 8);
    page.nothing_went_wrong(&[REFUSED]);
    let apps = server.owner().get("/api/apps").json();
    assert_eq!(apps["apps"][0]["branch"], "production");
    assert_eq!(apps["apps"][0]["healthPath"], "/healthz");
}

#[test]
fn every_page_fits_a_phone_and_follows_light_and_dark() {
    let git = GitServer::start();
    let server = Setup::new().as_user().trust_proxy().start();
    let mut owner = server.owner();
    let name = "an-app-whose-name-is-as-long-as-it-goes-";
    let repository = format!("http://{}/a/long/way/to/{name}.git", git.address());
    let app = create(&mut owner, &json!({"name": &name[..39], "gitRepo": repository}));
    let failed = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &failed)["status"], "failed");
    let value = "a-value-without-a-space-".repeat(20);
    let env = json!({"env": [{"name": "A_LONG_NAME_OF_A_VARIABLE", "value": value, "secret": false},
        {"name": "ANOTHER_LONG_NAME_OF_A_VARIABLE", "value": value, "secret": true}]});
    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    let mut intruder = server.stranger().forwarded_for("2001:db8:1234:5678::1").bearer("wrong");

    let mut page = Page::open(&server);
    page.browser.viewport(390, 800);
    page.fits_in_both("sign-in-form");
    page.sign_in(&server.token());
    for (place, element) in [
        ("apps", "app-row"),
        ("apps/new", "app-form"),
        (&format!("apps/{app}"), "build-log"),
        (&format!("apps/{app}/log"), "app-log"),
        (&format!("apps/{app}/env"), "env-replace"),
        (&format!("apps/{app}/settings"), "app-settings-form"),
        ("settings", "github-token-form"),
        ("security", "finding-list"),
    ] {
        page.browser.evaluate(&format!("location.hash = '#/{place}'"));
        page.fits_in_both(element);
    }
    see_locked_out(&mut page, &mut intruder, "2001:db8:1234:5678::/64");
    page.fits_in_both("lockout-list");
    page.nothing_went_wrong(&[]);
}

#[test]
fn no_asset_holds_inline_script_or_style_or_another_origin() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let read = |p: &Path| std::fs::read_to_string(p).expect("UTF-8");
    let page = read(&assets.join("index.html"));
    assert!(
        page.matches("<script").count()
            == page.matches("<script type=\"module\" src=\"/a/{hash}/").count()
    );
    for bad in ["<style", " style=", " on", "javascript:", "src=\"http", "srcdoc"] {
        let handler =
            |rest: &str| bad != " on" || rest.split_once('=').is_some_and(|(n, _)| word(n));
        let found = page.match_indices(bad).find(|(at, m)| handler(&page[at + m.len()..]));
        assert_eq!(found, None, "{bad} in index.html");
    }
    for entry in std::fs::read_dir(&assets).expect("assets").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let bad: &[&str] = match path.extension().and_then(|e| e.to_str()) {
            Some("js") => &[
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                ".style",
                ".cssText",
                "localStorage",
                "cookie",
                "from \"http",
            ],
            Some("css") => &["@import", "url("],
            Some("svg") => &["<script", "style=", "href=\"http"],
            _ => continue,
        };
        // What is imported while it runs is named where that is done.
        let text = read(&path).replace("import(\"./", "");
        assert!(!text.contains("import("), "{name:?} imports what it has computed");
        // It keeps the token there where its owner has chosen so.
        let chosen = |b: &str| name == "api.js" && b == "localStorage";
        let found = bad.iter().any(|b| text.contains(b) && !chosen(b));
        assert!(!found, "{name:?} holds one of {bad:?}");
    }
}

fn word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase())
}
