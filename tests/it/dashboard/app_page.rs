//! The page of one app, once it is there: going back, limits, domains, webhook.

use super::page::Page;
use super::{GREETER, REFUSED, answer_of};
use crate::harness::apps::{create, deploy, ended};
use crate::harness::{GitServer, Server, Setup, routed, until};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[test]
fn a_release_that_was_live_has_a_button_to_go_back_to_it() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    git.commit("greeter", &GREETER);
    let app = create(&mut owner, &json!({"name": "greeter", "gitRepo": git.url("greeter")}));
    let first = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &first)["status"], "live");
    let second_main = GREETER[1].1.replace("no greeting", "the second greeting");
    git.commit("greeter", &[GREETER[0], ("main.py", &second_main)]);
    let second = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &second)["status"], "live");

    let mut page = Page::signed_in(&server);
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}'"));
    page.see_status("app-status", "running");
    assert_eq!(answer_of(&mut page), "the second greeting");
    page.see("build-log");
    let button = "document.querySelector('[data-test=roll-back]').checkVisibility()";
    assert_eq!(page.browser.evaluate(button), false, "there is nothing to go back to");
    page.click(&format!("[data-test=deploy-list] a[href$='/{first}']"));
    page.click("roll-back");
    // What it does is said first.
    page.see_text("roll-back-form", "went live just now");
    page.see_text("roll-back-form", "the environment and the limits as they are now");
    page.fits_in_both("roll-back-form");
    page.browser.press("Escape");
    page.click("roll-back");
    page.click("roll-back-confirm");
    page.see_text("deploy-list", "a rollback");
    page.see_status("deploy-result", "live");
    until("the first release answers", Duration::from_secs(30), || {
        answer_of(&mut page) == "no greeting"
    });
    // A deploy that somebody else asked for is there at once, and when it fails, the app goes on as it was.
    owner.patch(&format!("/api/apps/{app}"), &json!({"startCommand": "false"})).expect(200);
    let third = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &third)["status"], "failed");
    page.click(&format!("[data-test=deploy-list] a[href$='/{third}']"));
    page.see_text("deploy-result", "the release before it keeps running");
    page.see_text("deploy-author", "by Test");
    page.see_text("deploy-steps", "Checking");
    assert_eq!(
        page.browser.evaluate("document.querySelectorAll('[data-test=deploy-steps] .bad').length"),
        1
    );
    // Nor is it shown as another app's.
    let other = create(&mut owner, &json!({"name": "other", "gitRepo": git.url("greeter")}));
    page.browser.evaluate(&format!("location.hash = '#/apps/{other}/deploys/{third}'"));
    page.see_text("#main", "This app has no such deploy.");
    page.click("[data-nav=apps]");
    page.see_text(
        "app-list",
        "The last deploy failed. While checking: the app ended with exit code 1",
    );
    page.click("settings-link");
    page.see_text("system-facts", "Router");
    page.click("security-link");
    page.see_text("finding-list", "load the firewall");
    assert_eq!(
        page.browser.evaluate("document.querySelectorAll('[data-test=finding] code').length > 0"),
        true
    );
    page.nothing_went_wrong(&[]);
}

#[test]
fn what_was_asked_for_is_said_at_once_and_an_end_that_was_is_no_crash() {
    let git = GitServer::start();
    // It takes its time to end.
    let main = GREETER[1].1.replace(
        "print(",
        "import signal, time, sys\n\
         signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(143)))\nprint(",
    );
    git.commit("greeter", &[GREETER[0], ("main.py", &main)]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "greeter", "gitRepo": git.url("greeter")}));
    let first = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &first)["status"], "live");
    let mut page = Page::signed_in(&server);
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}'"));
    page.see("stop-button");
    page.see_status("app-status", "running");
    // Every state that is shown, with the time since the click before it.
    page.browser.evaluate(
        "{ const status = document.querySelector('.app-head [data-test=app-status]');
           window.seen = [];
           addEventListener('click', () => (window.begun = performance.now()), true);
           new MutationObserver(() => seen.push([status.dataset.status, performance.now() - begun]))
             .observe(status, { attributes: true, attributeFilter: ['data-status'] }); }",
    );
    for (button, asked, then) in [
        ("stop-button", "stopping", "stopped"),
        ("start-button", "starting", "running"),
        // Its deploy has a page of its own, which is another's element.
        ("restart-button", "restarting", "restarting"),
    ] {
        page.browser.evaluate("seen.length = 0");
        page.click(button);
        page.browser.wait_for(&format!("seen.some(([status]) => status === '{then}')"));
        let seen = page.browser.evaluate("JSON.stringify(seen)");
        let seen: Vec<(String, f64)> = serde_json::from_str(seen.as_str().unwrap()).unwrap();
        assert!(seen[0].0 == asked && seen[0].1 < 100.0, "{button}: {seen:?}");
        let never = ["crashed", "crash-looping", "failed"];
        assert!(!seen.iter().any(|(status, _)| never.contains(&&**status)), "{button}: {seen:?}");
        page.see_status("app-status", then.replace("restarting", "running").as_str());
    }
    page.nothing_went_wrong(&[]);
}

#[test]
fn seen_from_another_machine_over_plain_http_the_page_says_what_that_means() {
    let git = GitServer::start();
    git.commit("shop", &[("index.html", "the shop")]);
    let server = routed::start(Setup::routed().as_user());
    let mut owner = server.owner();
    let app = json!({"name": "shop", "gitRepo": git.url("shop"), "domains": ["shop.internal"]});
    let app = create(&mut owner, &app);
    let first = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &first)["status"], "live");

    let mut page = Page::open_at("paas.test", &server);
    page.see("plain-http");
    page.sign_in(&server.token());
    page.see_text("app-list", "shop.internal");
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}/settings'"));
    // The address that works is there beside the domain, and is said to be the server's own.
    page.see_text("app-urls", "shop.internal");
    page.see_text("app-urls", "shop.localhost");
    let notes = "Array.from(document.querySelectorAll('[data-test=app-urls] li'), (l) => l.innerText.includes('only on the server')).join()";
    assert_eq!(page.browser.evaluate(notes), "false,true");
    page.click("webhook-make");
    page.see("webhook-secret");
    let note = "document.querySelector('[data-test=webhook-at-home]').checkVisibility()";
    assert_eq!(page.browser.evaluate(note), false);
    // Here browsers keep the clipboard closed.
    page.click("[data-part=webhook-copy]");
    page.see_text("[data-part=webhook-copied]", "Selected.");
    let selected = page.browser.evaluate("String(getSelection())");
    assert_eq!(selected, page.text("webhook-secret"));
    page.click("settings-link");
    page.see("#main [data-test=plain-http]");
    // A header that browsers take over HTTPS alone.
    page.nothing_went_wrong(&["Cross-Origin-Opener-Policy"]);

    let mut here = Page::open(&server);
    let warning = "document.querySelector('[data-test=plain-http]').checkVisibility()";
    assert_eq!(here.browser.evaluate(warning), false);
    here.sign_in(&server.token());
    here.see_text("app-list", "shop.internal");
    assert!(!here.text("app-list").contains("only on the server"));
}

#[test]
fn a_crashed_app_says_why_and_where_its_last_words_are() {
    let git = GitServer::start();
    let main = format!(
        "import os, sys\nif os.path.exists('/data/over'): sys.exit(3)\n{}",
        GREETER[1].1.replace(
            "self.send_response",
            "'check' in str(self.headers['User-Agent']) or (open('/data/over', 'w'), os._exit(3)); \
             self.send_response"
        )
    );
    git.commit("greeter", &[GREETER[0], ("main.py", &main)]);
    git.commit("empty", &[("README", "nothing to run")]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "greeter", "gitRepo": git.url("greeter")}));
    let first = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &first)["status"], "live");
    let none = create(&mut owner, &json!({"name": "none", "gitRepo": git.url("empty")}));
    let failed = deploy(&mut owner, &none);
    assert_eq!(ended(&mut owner, &failed)["status"], "failed");

    let mut page = Page::signed_in(&server);
    page.see_text("app-list", "While building: found neither");
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}'"));
    page.see_status("deploy-result", "live");
    answer_of(&mut page);
    page.see_text("app-trouble", "It ended with exit code 3.");
    page.see("app-trouble");
    page.see_status("deploy-result", "crashed");
    // It comes and goes while the app is tried again, so no place on the screen is clicked.
    page.browser.evaluate("document.querySelector('[data-part=trouble-log]').click()");
    page.see_text("app-log", "the greeter starts");
    page.nothing_went_wrong(&[]);
}

#[test]
fn an_apps_settings_keep_its_domains_limits_and_webhook() {
    // P14: the secret is shown once.
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": "http://127.0.0.1:1/o/r.git"}));
    let path = format!("/api/apps/{app}");
    let mut page = Page::signed_in(&server);
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}/settings'"));
    page.see("app-settings-form");
    page.browser
        .evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })");
    page.fill("[name=domains]", "Shop.example.com,  www.shop.example.com");
    page.fill("[name=memoryMb]", "16");
    page.browser.press("Enter");
    // A refused value is called what its label calls it and has the focus, and nothing was stored.
    page.browser.wait_for("document.activeElement.matches('[name=memoryMb][aria-invalid=true]')");
    page.see_text(".field:has([name=memoryMb]) .error", "Memory must be a whole number of MiB");
    assert_eq!(owner.get(&path).json()["domains"], json!([]));
    page.fill("[name=memoryMb]", "128");
    page.browser.press("Enter");
    page.see_text("app-settings-saved", "Saved.");
    let stored = owner.get(&path).json();
    assert_eq!(stored["domains"], json!(["shop.example.com", "www.shop.example.com"]));
    assert_eq!((&stored["memoryMb"], &stored["cpuPercent"]), (&json!(128), &json!(0)));

    page.see_text("limits-in-force", "128 MiB");
    page.see_text("webhook-state", "No secret, no webhook");
    page.click("webhook-make");
    page.see("webhook-secret");
    page.see("webhook-at-home");
    let secret = page.text("webhook-secret");
    assert!(secret.len() >= 43, "{} characters", secret.len());
    assert!(page.text("webhook-url").ends_with(&format!("/api/hooks/{app}")));
    assert_eq!(owner.get(&path).json()["hasWebhookSecret"], true);
    page.click("auto-deploy");
    until("the switch is stored", Duration::from_secs(60), || {
        owner.get(&path).json()["autoDeploy"] == false
    });
    page.reload_signed_in();
    page.see_text("webhook-state", "A secret is saved.");
    let shown = page.browser.evaluate("document.documentElement.outerHTML");
    assert!(!shown.as_str().expect("a text").contains(&secret));
    assert_eq!(page.browser.evaluate("document.querySelector('[name=autoDeploy]').checked"), false);
    page.click("webhook-remove");
    page.see_text("webhook-state", "No secret, no webhook");
    assert_eq!(owner.get(&path).json()["hasWebhookSecret"], false);
    page.browser.evaluate("location.hash = '#/apps/aaaaaaaaaa'");
    page.see_text("#main", "There is no such app.");
    page.nothing_went_wrong(&[REFUSED]);
}

#[test]
fn limits_of_a_machine_that_is_not_known_yet_are_shown_once_it_is() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root puts another program in bubblewrap's place");
        return;
    }
    let setup = Setup::new().as_user();
    let (slow, real, go) =
        (setup.home().join("slow"), setup.home().join("real"), setup.home().join("go"));
    std::fs::copy("/usr/bin/bwrap", &real).expect("a copy");
    let waits = format!(
        "#!/bin/sh\nuntil [ -e {} ]; do sleep 0.1; done\nexec {} \"$@\"\n",
        go.display(),
        real.display()
    );
    std::fs::write(&slow, waits).expect("a program");
    std::fs::set_permissions(&slow, PermissionsExt::from_mode(0o755)).expect("a mode");
    let server = setup.instead_of("/usr/bin/bwrap", &slow).start();
    let mut owner = server.owner();
    let shop = json!({"name": "shop", "gitRepo": "http://127.0.0.1:1/o/r.git", "memoryMb": 128});
    let app = create(&mut owner, &shop);
    let mut page = Page::signed_in(&server);
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}/settings'"));
    page.see("app-settings-form");
    let unknown = "document.querySelector('[data-part=limits-card]').hidden";
    assert_eq!(page.browser.evaluate(unknown), true);
    std::fs::write(&go, "").expect("a file");
    page.see_text("limits-in-force", "128 MiB");
}

#[test]
fn what_was_lost_with_the_key_is_asked_for_and_never_emptied_and_what_was_done_is_listed() {
    let server = Setup::new().start();
    let app =
        create(&mut server.owner(), &json!({"name": "shop", "gitRepo": "http://127.0.0.1:1/r"}));
    let path = format!("/api/apps/{app}");
    let env = json!({"env": [{"name": "PRICE", "value": "12"}]});
    server.owner().put(&format!("{path}/env"), &env).expect(200);
    let setup = server.stop();
    std::fs::remove_file(setup.data().join("secret.key")).expect("removed");
    assert_eq!(setup.run(&["rekey", "--mark-lost", "--yes"]).code, Some(0));
    let server = setup.start();
    let mut page = Page::signed_in(&server);
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}/env'"));
    page.see_text("app-lost", "PRICE");
    page.see("env-replace");
    page.click("env-add");
    page.fill("li:last-child [name=name]", "OTHER");
    page.fill("li:last-child [name=value]", "1");
    page.click("env-save");
    page.see_text("env-saved", "Saved.");
    assert_eq!(server.owner().get(&path).json()["lost"], json!(["PRICE"]));
    page.click("env-replace");
    page.fill("li:first-child [name=value]", "13");
    page.click("env-save");
    page.see_text("env-saved", "Saved.");
    assert_eq!(server.owner().get(&path).json()["lost"], json!([]));
    page.browser.wait_for("document.querySelector('[data-test=app-lost]').hidden");
    page.click("settings-link");
    page.see_text("audit-list", &format!("PUT apps/{app}/env"));
    page.see_text("audit-list", "rekey --mark-lost shop: PRICE");
    page.nothing_went_wrong(&[]);
}
