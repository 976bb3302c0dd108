//! The sign-in screen in a real browser, by keyboard alone (P2).

use crate::harness::browser::Browser;
use crate::harness::{Server, Setup};
use std::collections::BTreeSet;

const INPUT: &str = "document.querySelector('[data-test=token-input]')";
const ERROR: &str = "document.querySelector('[data-test=sign-in-error]').textContent";

/// Opens the dashboard; the cursor stands where the token goes.
fn opened(server: &Server) -> Browser {
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", server.address()));
    browser.wait_for(&format!("document.activeElement === {INPUT}"));
    browser
}

/// Types a token, presses Enter, and waits for a message other than the last one.
fn refusal(browser: &mut Browser, token: &str, last: &str) -> String {
    browser.evaluate(&format!("{INPUT}.focus(), {INPUT}.select()"));
    browser.type_text(token);
    browser.press("Enter");
    let quoted = serde_json::json!(last);
    browser.wait_for(&format!("{ERROR} && {ERROR} !== {quoted}"));
    browser.evaluate(ERROR).as_str().unwrap().to_owned()
}

#[test]
fn p2_wrong_locked_out_and_server_away_are_three_different_messages() {
    let server = Setup::new().start();
    let mut browser = opened(&server);
    let wrong = refusal(&mut browser, "not-the-token", "");
    let mut guesser = server.stranger().bearer("guess");
    while guesser.get("/api/session").status == 401 {}
    let locked = refusal(&mut browser, &server.token(), &wrong);
    browser.wait_for(
        "document.querySelector('[data-test=sign-in-countdown]').textContent.match(/\\d/)",
    );

    let mut other = Server::start();
    let mut lonely = opened(&other);
    let token = other.token();
    other.terminate();
    let away = refusal(&mut lonely, &token, "");
    let messages = BTreeSet::from([&wrong, &locked, &away]);
    assert_eq!(messages.len(), 3, "{messages:?}");

    // The same screen lets the right token in, once the lockout is over.
    browser.wait_for("!document.querySelector('[data-test=sign-in-button]').disabled");
    browser.evaluate(&format!("{INPUT}.focus(), {INPUT}.select()"));
    browser.type_text(&server.token());
    browser.press("Enter");
    browser.wait_for("document.querySelector('[data-test=sign-out]').offsetParent");
    assert!(browser.evaluate("location.href").as_str().is_some_and(|u| !u.contains("bpaas_")));
    let violations: Vec<String> = browser
        .complaints()
        .into_iter()
        .filter(|c| !c.contains("Failed to load resource"))
        .collect();
    assert_eq!(violations, Vec::<String>::new());
}
