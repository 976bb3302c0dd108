//! The security page: what is wrong, what mends it, and who is told.

use super::REFUSED;
use super::page::Page;
use crate::harness::{Server, until};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

#[test]
fn p28_the_checklist_says_what_is_wrong_beside_its_mend_and_the_badge_counts_what_lasts() {
    let server = Server::start();
    let mut page = Page::signed_in(&server);
    page.click("security-link");
    page.see_text("finding-list", "The encryption key lies beside the data");
    page.fits_in_both("finding-list");
    let key = server.data().join("secret.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    page.click("check-again");
    page.see_text("check-state", "1 thing is to be mended");
    page.see_text("finding-list", "chmod go=");
    let first = "document.querySelector('[data-test=finding]').dataset.level";
    assert_eq!(page.browser.evaluate(first), "fail");
    let badge = "document.querySelector('[data-test=badge]').dataset.level === 'fail'";
    until("the badge is red", Duration::from_secs(120), || page.browser.evaluate(badge) == true);
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    page.click("check-again");
    page.see_text("check-state", "0 things are to be mended");
    page.click("settings-link");
    page.see_text("notify-state", "No address is saved.");
    page.fill("[data-test=notify-form] [name=url]", "http://hooks.example/x");
    page.browser.press("Enter");
    page.see_text("notify-form", "https://");
    page.fill("[data-test=notify-form] [name=url]", "https://hooks.invalid/a-secret-word");
    page.browser.press("Enter");
    page.see_text("notify-state", "An address is saved");
    page.click("notify-test");
    page.see_text("notify-state", "its name could not be resolved");
    let whole = page.browser.evaluate("document.documentElement.outerHTML");
    assert!(!whole.as_str().expect("a page").contains("a-secret-word"));
    page.click("notify-remove");
    page.see_text("notify-state", "No address is saved.");
    page.nothing_went_wrong(&[REFUSED]);
}
