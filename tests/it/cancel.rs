//! A deploy is cancelled alone: the app, its live release and its other deploys stay as they are.

use crate::harness::apps::{deploy, deploy_live, ended, show};
use crate::harness::site::{HELD_BUILD, LIMIT, Site, sandboxes};
use crate::harness::until;
use serde_json::json;

#[test]
fn a_cancelled_redeploy_leaves_the_app_running_and_the_next_request_in_the_queue() {
    let mut site = Site::new();
    let app = site.app("steady");
    let live = deploy_live(&mut site.owner, &app);
    let place = site.place(&app);
    site.change(&app, &json!({"buildCommand": HELD_BUILD}));
    let building = deploy(&mut site.owner, &app);
    until("it builds", LIMIT, || place.join("cache/begun").exists());
    let queued = deploy(&mut site.owner, &app);

    let cancelled = site.owner.post(&format!("/api/deploys/{building}/cancel"), &json!({}));
    let cancelled = cancelled.expect(202).json();
    assert_eq!((&cancelled["id"], &cancelled["status"]), (&json!(building), &json!("failed")));
    assert_eq!(cancelled["error"], "cancelled");
    until("its build ends", LIMIT, || sandboxes(&place).iter().all(|a| !a.contains(&building)));
    site.reaches(&queued, "building");
    let log = site.owner.get(&format!("/api/deploys/{building}/log")).expect(200).text();
    assert!(log.trim_end().ends_with("Failed: cancelled"), "{log}");

    // One that waits behind it is cancelled as well, and never begins.
    let waiting = deploy(&mut site.owner, &app);
    site.owner.post(&format!("/api/deploys/{waiting}/cancel"), &json!({})).expect(202);
    std::fs::write(place.join("cache/go"), "").unwrap();
    assert_eq!(ended(&mut site.owner, &queued)["status"], "live");
    let never = site.owner.get(&format!("/api/deploys/{waiting}")).expect(200).json();
    assert_eq!((&never["error"], &never["startedAt"]), (&json!("cancelled"), &json!(null)));

    for over in [&live, &building, &queued] {
        let answer = site.owner.post(&format!("/api/deploys/{over}/cancel"), &json!({}));
        assert_eq!(answer.expect(409).code(), "deploy_ended");
    }
    let none = site.owner.post("/api/deploys/aaaaaaaaaa/cancel", &json!({})).expect(404);
    assert_eq!(none.code(), "deploy_not_found");
    let now = show(&mut site.owner, &app);
    assert_eq!((&now["status"], &now["liveDeployId"]), (&json!("running"), &json!(queued)));
}
