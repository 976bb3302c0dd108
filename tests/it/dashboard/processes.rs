//! The tab with an app's processes, its jobs and commands of its owner's.

use super::page::Page;
use super::{GREETER, REFUSED};
use crate::harness::apps::{create, deploy_live};
use crate::harness::{GitServer, Setup};
use serde_json::json;

#[test]
fn p34_processes_are_scaled_jobs_are_set_and_commands_are_run_from_the_page() {
    let git = GitServer::start();
    let procfile = format!(
        "{}worker: while sleep 1; do echo working; done\nbroken: sleep 1; exit 4\n",
        GREETER[0].1
    );
    let jobs =
        r#"{"cron":[{"name":"nightly","command":"echo good night","schedule":"0 3 * * *"}]}"#;
    git.commit("greeter", &[("Procfile", &procfile), GREETER[1], ("app.json", jobs)]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "greeter", "gitRepo": git.url("greeter")}));
    deploy_live(&mut owner, &app);

    let mut page = Page::signed_in(&server);
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}/processes'"));
    page.see_text("process-list", "worker");
    page.see_text("process-list", "1 Running");
    // What changes by itself is seen.
    page.see_text("process-list", "ended with exit code 4");
    page.see_text("process-list", "Crash-looping");
    // An emptied field asks for nothing.
    page.click("[data-test=process-list] [aria-label='How many of worker']");
    page.browser.evaluate("document.activeElement.value = ''");
    page.click("[aria-label='Set how many of worker']");
    page.fill("[data-test=process-list] [aria-label='How many of worker']", "2");
    page.click("[aria-label='Set how many of worker']");
    page.see_text("process-list", "2 Running");
    page.fill("[data-test=process-list] [aria-label='How many of worker']", "1000");
    page.click("[aria-label='Set how many of worker']");
    page.see_text("processes-error", "10");

    page.see_text("job-list", "from app.json");
    page.see_text("job-list", "Has not run yet");
    page.click("[aria-label='Run nightly now']");
    page.see_text("run-log", "good night");
    page.see_text("run-result", "exit code 0");
    page.see_text("job-list", "exit code 0");
    page.click("details:has([data-test=job-form]) summary");
    page.fill("[data-test=job-form] [name=name]", "mine");
    page.fill("[data-test=job-form] [name=schedule]", "61 * * * *");
    page.fill("[data-test=job-form] [name=command]", "echo mine");
    page.browser.press("Enter");
    page.see("[data-test=job-form] .error:not(:empty)");
    page.fill("[data-test=job-form] [name=schedule]", "@daily");
    page.browser.press("Enter");
    page.see_text("job-list", "mine");
    page.click("[aria-label='Remove mine']");
    page.browser
        .wait_for("!document.querySelector('[data-test=job-list]').innerText.includes('mine')");

    page.fill("[data-test=run-form] [name=command]", "echo \"<b>$APP_NAME</b>\"; exit 3");
    page.browser.press("Enter");
    page.see_text("run-log", "<b>greeter</b>");
    page.see_text("run-result", "exit code 3");
    page.fill("[data-test=run-form] [name=command]", "echo begun; sleep 600");
    page.browser.press("Enter");
    page.see_text("run-log", "begun");
    page.click("run-cancel");
    page.see_text("run-result", "cancelled");
    page.see_text("run-list", "nightly");
    page.nothing_went_wrong(&[REFUSED]);
}
