//! Who is signed in, where, and for how long.

use super::REFUSED;
use super::page::Page;
use crate::harness::Server;
use serde_json::json;

#[test]
fn the_token_is_kept_in_session_storage_alone_and_forgotten_at_sign_out() {
    let server = Server::start();
    let token = server.token();
    let mut page = Page::signed_in(&server);
    page.click("settings-link");
    page.see("github-token-form");
    page.reload_signed_in();
    page.see("github-token-form");
    let places = page.browser.evaluate(
        "JSON.stringify([Object.values(sessionStorage), Object.values(localStorage), document.cookie])",
    );
    assert_eq!(places, json!(format!("[[\"{token}\"],[],\"\"]")));
    let seen = page.browser.evaluate(
        "[location.href, document.referrer, document.documentElement.outerHTML,
          JSON.stringify(history.state), ...performance.getEntries().map((e) => e.name)].join('\\n')",
    );
    assert!(seen.as_str().is_some_and(|s| s.contains("/api/session") && !s.contains(&token)));

    page.click("sign-out");
    page.see_text("#sign-in-note", "You are signed out.");
    let left = page.browser.evaluate(
        "JSON.stringify(sessionStorage) + document.querySelector('[data-test=token-input]').value
          + document.querySelector('#main').innerText",
    );
    assert_eq!(left, "{}");
    page.reload();
    page.see("sign-in-form");
    page.browser.evaluate("history.back()");
    page.see("sign-in-form");
    page.nothing_went_wrong(&[]);
}

#[test]
fn a_rotated_token_ends_every_session_but_that_of_the_tab_that_did_it() {
    // P5: from the server's shell, then from the dashboard itself.
    let server = Server::start();
    let mut page = Page::signed_in(&server);
    assert_eq!(server.operator(&["token", "--rotate"]).code, Some(0));
    page.see_text("#sign-in-note", "You were signed out: the server no longer takes this token.");
    assert_eq!(page.browser.evaluate("sessionStorage.length"), 0);

    let second = server.token();
    page.sign_in(&second);
    page.click("security-link");
    page.click("rotate-token");
    page.click("rotate-confirm");
    page.see("new-token");
    let third = page.text("new-token");
    assert_eq!(third, server.token());
    assert_ne!(third, second);
    // What is shown once does not go away by a stray key.
    page.browser.press("Escape");
    page.click("new-token-done");
    page.browser.wait_for("!document.querySelector('[data-test=new-token]')");
    // The tab that did it goes on, with the new one.
    page.tokens.push(third.clone());
    page.click("settings-link");
    page.see_text("audit-list", "rotate-token");
    page.reload_signed_in();
    assert_eq!(page.browser.evaluate("Object.values(sessionStorage).join()"), json!(third));
    page.nothing_went_wrong(&[REFUSED]);
}

#[test]
fn to_stay_signed_in_is_a_choice_that_all_tabs_share() {
    let server = Server::start();
    let token = server.token();
    let mut page = Page::open(&server);
    page.click("stay");
    page.sign_in(&token);
    let kept = "JSON.stringify([Object.values(localStorage), Object.values(sessionStorage)])";
    assert_eq!(page.browser.evaluate(kept), json!(format!("[[\"{token}\"],[]]")));
    // A tab that is opened later is signed in.
    let open = json!({"expression": "window.tab = open('/'), null", "userGesture": true});
    page.browser.call("Runtime.evaluate", &open);
    page.tokens.push(token);
    let in_tab = |hook: &str| format!("tab.document.querySelector('{hook}')?.checkVisibility()");
    page.browser.wait_for(&in_tab("[data-test=sign-out]"));
    // A new token is the other's too.
    page.click("security-link");
    page.click("rotate-token");
    page.click("rotate-confirm");
    page.see("new-token");
    let fresh = page.text("new-token");
    page.tokens.push(fresh.clone());
    page.click("new-token-done");
    assert_eq!(page.browser.evaluate(kept), json!(format!("[[\"{fresh}\"],[]]")));
    page.browser.evaluate("tab.location.hash = '#/settings'");
    page.browser.wait_for(&in_tab("[data-test=github-token-form]"));
    // Signed out is signed out.
    page.click("sign-out");
    page.see_text("#sign-in-note", "You are signed out.");
    page.browser.wait_for(
        "tab.document.querySelector('#sign-in-note').innerText === 'You signed out in another tab.'",
    );
    assert_eq!(page.browser.evaluate(kept), "[[],[]]");
    page.nothing_went_wrong(&[REFUSED]);
}

#[test]
fn a_lockout_is_still_said_where_the_page_is_loaded_anew() {
    // P8.
    let server = Server::start();
    let mut page = Page::open(&server);
    let soon = "sessionStorage.setItem('better-paas.locked-until', Date.now() + 5000)";
    page.browser.evaluate(soon);
    page.reload();
    page.see_text("sign-in-error", "Locked out");
    page.see_text("sign-in-countdown", "You can try again in ");
    let disabled = "document.querySelector('[data-test=sign-in-button]').disabled";
    assert_eq!(page.browser.evaluate(disabled), true);
    page.see_text("sign-in-countdown", "You can try again now.");
    assert_eq!(page.browser.evaluate("JSON.stringify(sessionStorage)"), "{}");
    page.sign_in(&server.token());
    page.nothing_went_wrong(&[]);
}
