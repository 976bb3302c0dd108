//! What is kept of deploys, and who decides how one ends.

use super::*;
use crate::model::AppStatus;
use crate::store::tests::with_an_app;

#[test]
fn a_cancelled_deploy_does_not_go_live_and_a_live_one_is_not_cancelled() {
    let (store, app, _dir) = with_an_app();
    let queued = || store.queue_deploy(&app, Trigger::Manual, None).unwrap().unwrap().id;
    let status = |id| store.deploy(id).unwrap().unwrap().status;
    let stopped = queued();
    store.set_step(&stopped, DeployStatus::Checking).unwrap();
    assert_eq!(store.fail_deploys(&app, "stopped").unwrap(), std::slice::from_ref(&stopped));
    assert!(!store.go_live(&stopped, &app, None, true).unwrap());
    assert!(!store.fail_deploy(&stopped, "a later reason").unwrap());
    assert_eq!(store.deploy(&stopped).unwrap().unwrap().error.as_deref(), Some("stopped"));
    let live = queued();
    assert!(store.go_live(&live, &app, None, true).unwrap());
    assert_eq!(store.fail_deploys(&app, "stopped").unwrap(), []);
    assert!(!store.fail_deploy(&live, "stopped").unwrap());
    assert_eq!((status(&stopped), status(&live)), (DeployStatus::Failed, DeployStatus::Live));
}

#[test]
fn each_step_ends_when_the_next_begins_also_by_a_clock_that_was_set_back() {
    let (store, app, _dir) = with_an_app();
    let id = store.queue_deploy(&app, Trigger::Manual, None).unwrap().unwrap().id;
    let shown = || store.deploy(&id).unwrap().unwrap();
    assert_eq!(shown().steps, []);
    store.set_step(&id, DeployStatus::Fetching).unwrap();
    let later = "UPDATE deploys SET fetching_at = fetching_at + 86400000";
    store.write(|tx| Ok(tx.execute(later, [])?)).unwrap();
    store.set_step(&id, DeployStatus::Building).unwrap();
    let [fetching, building] = &shown().steps[..] else { panic!("two steps") };
    assert_eq!(fetching.finished_at, Some(building.started_at));
    assert!(building.started_at >= fetching.started_at && building.finished_at.is_none());
    store.fail_deploy(&id, "broken").unwrap();
    let failed = shown();
    assert_eq!(failed.steps.len(), 2);
    assert!(failed.finished_at >= Some(failed.steps[1].started_at));
    assert_eq!(failed.steps[1].finished_at, failed.finished_at);
}

#[test]
fn the_live_release_and_five_others_are_kept_and_stay_in_the_history() {
    let (store, app, _dir) = with_an_app();
    let deploy = |live| {
        let id = store.queue_deploy(&app, Trigger::Manual, None).unwrap().unwrap().id;
        if live {
            assert!(store.go_live(&id, &app, None, true).unwrap());
        } else {
            store.fail_deploy(&id, "broken").unwrap();
        }
        id
    };
    let lived: Vec<_> = (0..8).map(|_| deploy(true)).collect();
    let failed: Vec<_> = (0..4).map(|_| deploy(false)).collect();
    let mut old = store.old_releases(&app, 5).unwrap();
    old.retain(|id| !failed.contains(id));
    assert_eq!(old, lived[..2], "the live one and five others are kept");
    assert_eq!(store.prune_history(&app, 2, 5).unwrap().len(), 2 + 2);
    let known = store.deploy_ids(&app).unwrap();
    assert!(lived[2..].iter().chain(&failed[2..]).all(|id| known.contains(id)));
    assert_eq!(known.len(), 6 + 2);
}

#[test]
fn a_restart_takes_the_release_that_is_live_when_it_begins_and_nobodys_place() {
    let (store, app, _dir) = with_an_app();
    let queued = || store.queued().unwrap().into_iter().map(|deploy| deploy.id).collect::<Vec<_>>();
    let release = |id: &DeployId| store.deploy(id).unwrap().unwrap().release;
    assert!(!store.queue_restart(&app).unwrap(), "nothing is live");
    let first = store.queue_deploy(&app, Trigger::Manual, None).unwrap().unwrap().id;
    store.set_commit(&first, "c0ffee", "first", "me").unwrap();
    assert!(store.go_live(&first, &app, None, true).unwrap());
    let under_way = store.queue_deploy(&app, Trigger::Manual, None).unwrap().unwrap().id;
    store.set_step(&under_way, DeployStatus::Building).unwrap();
    assert!(store.queue_restart(&app).unwrap() && store.queue_restart(&app).unwrap());
    let [restart] = &queued()[..] else { panic!("one restart") };
    let shown = store.deploy(restart).unwrap().unwrap();
    assert_eq!(
        (shown.trigger, shown.release, shown.commit.as_deref()),
        (Trigger::Restart, Some(first), Some("c0ffee"))
    );
    assert!(store.queued().unwrap()[0].release.is_some(), "it waits for no build");
    assert_eq!(store.app(&app).unwrap().unwrap().status, AppStatus::Restarting);
    // What was under way becomes live first.
    assert!(store.go_live(&under_way, &app, None, true).unwrap());
    store.follow_live(restart).unwrap();
    assert_eq!(release(restart), Some(under_way.clone()));
    assert!(store.go_live(restart, &app, None, true).unwrap());
    let waits = store.queue_deploy(&app, Trigger::Manual, None).unwrap().unwrap().id;
    assert!(store.queue_restart(&app).unwrap());
    assert_eq!(queued(), [waits], "a deploy that waits does more than a restart");
}
