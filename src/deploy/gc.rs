//! Garbage collection: what is no longer needed goes, what is still needed stays.
//!
//! A deploy prunes its own app, or finishes its removal. One thread does the rest: it removes
//! for good what was put aside, and at the start looks for what the database does not know.

use super::queue::Queue;
use super::toolbox;
use crate::disk::build_cache;
use crate::disk::space::Space;
use crate::journal::LogOf;
use crate::model::{AppId, DeployId};
use crate::runtime::tools::Tools;
use crate::source::cache;
use crate::store::{Act, StoreError};
use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// Releases that are kept besides the live one: as many can be gone back to.
const KEPT_RELEASES: u32 = 5;

/// Deploys of an app that the database remembers, with their logs.
const KEPT_HISTORY: u32 = 100;

/// How often files that could not be removed are tried again.
const CLEAN_UP: Duration = Duration::from_secs(600);

/// How often the audit log is pruned and its head told: who changes a row has to change the
/// server's log of each day since, and whatever its owner has copied of that.
const AUDIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes what nobody needs until the server stops.
pub fn run(tools: &Tools, queue: &Queue) {
    let mut audited: Option<Instant> = None;
    if let Err(error) = clear_unknown(tools) {
        log::warn!("what the database does not know could not be removed: {error}");
    }
    loop {
        if audited.is_none_or(|at| at.elapsed() >= AUDIT) {
            audited = Some(Instant::now());
            match tools.store.prune_audit().and_then(|()| tools.store.audit_head()) {
                Ok(head) => log::info!("head of the audit log: {head}"),
                Err(error) => log::error!("the audit log was not pruned: {error}"),
            }
        }
        toolbox::tidy(&tools.layout);
        tools.layout.empty_trash(&|| !queue.is_closed());
        // What it takes is free when it has been removed.
        if !queue.is_closed() && give_up_a_cache(tools, queue) {
            continue;
        }
        if !queue.wait_for_garbage(CLEAN_UP) {
            return;
        }
    }
}

/// Where the disk gets short, gives up the build cache of the app that was built longest ago of
/// those that have one and are not being deployed.
fn give_up_a_cache(Tools { layout, store, .. }: &Tools, queue: &Queue) -> bool {
    if !layout.space().is_ok_and(Space::is_short) {
        return false;
    }
    let mut apps = layout.all_apps();
    apps.sort_by_cached_key(|app| layout.built_at(app));
    apps.iter().any(|app| {
        let cache = layout.cache(app);
        let is_empty = fs::read_dir(&cache).is_ok_and(|mut names| names.next().is_none());
        let given_up =
            !is_empty && queue.between_deploys(app, || build_cache::give_up(&cache).is_ok());
        if given_up {
            log::info!("the disk gets short: the build cache of app {app} is given up");
            let act = Act::new("system", "give up a build cache, for the disk gets short");
            store.audit(&act.about(store.app(app).ok().flatten()));
        }
        given_up
    })
}

/// Ends the deploys that a server which is no more had under way, and removes what they left.
///
/// # Errors
/// When the database does not answer.
pub fn clear_interrupted(tools: &Tools) -> Result<(), StoreError> {
    for deploy in tools.store.fail_interrupted()? {
        log::warn!("deploy {} was interrupted when the server ended", deploy.id);
        clear_away(tools, &deploy.app, &deploy.id);
    }
    Ok(())
}

/// Removes what a deploy that did not go live left behind. Does not ask the database:
/// on a full disk that has to wait for this.
pub fn clear_away(Tools { layout, .. }: &Tools, app: &AppId, deploy: &DeployId) {
    let release = layout.discard_release(app, deploy);
    let mut cleared = release.and_then(|()| layout.discard(&layout.temporary(app)));
    if cache::has_leftovers(&layout.repo(app)) {
        cleared = cleared.and_then(|()| layout.discard(&layout.repo(app)));
    }
    if let Err(error) = cleared {
        log::warn!("what deploy {deploy} left could not be removed: {error}");
    }
}

/// Removes what is no longer needed of an app after a deploy of it: old releases, old history
/// with its logs, temporary files, a cache that has grown too large. Never `/data`.
pub fn prune(tools: &Tools, app: &AppId, deploy: &DeployId) {
    let Tools { store, journal, layout, .. } = tools;
    if store.app(app).is_ok_and(|app| app.is_none()) {
        // Where nobody has written data there was none to keep: a deploy makes the directory.
        let emptied = fs::remove_dir(layout.persistent(app));
        let keep_data = emptied.is_err_and(|error| error.kind() != ErrorKind::NotFound);
        return clear_app(tools, app, keep_data, &[LogOf::Deploy(deploy.clone())]);
    }
    let mut old = store.old_releases(app, KEPT_RELEASES).unwrap_or_default();
    match store.prune_history(app, KEPT_HISTORY, KEPT_RELEASES) {
        Ok(forgotten) => {
            journal.remove(&forgotten.into_iter().map(LogOf::Deploy).collect::<Vec<_>>());
        }
        Err(error) => log::warn!("old deploys of app {app} could not be forgotten: {error}"),
    }
    // Looked at first: a release that comes after that has its deploy in the history.
    let there = layout.releases(app);
    if let Ok(known) = store.deploy_ids(app) {
        old.extend(there.into_iter().filter(|id| !known.contains(id)));
    }
    for deploy in old {
        if let Err(error) = layout.discard_release(app, &deploy) {
            log::warn!("release {deploy} could not be removed: {error}");
        }
    }
    if let Err(error) = layout.discard(&layout.temporary(app)) {
        log::warn!("temporary files of app {app} could not be removed: {error}");
    }
    let cap = layout.space().map(Space::for_cache);
    match cap.and_then(|cap| build_cache::bound(&layout.cache(app), cap)) {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => log::info!("the build cache of app {app} was too large: removed {gone:?}"),
        Err(error) => log::warn!("the build cache of app {app} could not be bounded: {error}"),
    }
}

/// Removes the files, but not the data, and the logs of apps that are in no
/// database: a server was killed between two steps of their removal.
fn clear_unknown(tools: &Tools) -> Result<(), StoreError> {
    let Tools { store, journal, layout, .. } = tools;
    // Looked at first: whatever comes after that is in the database already.
    let (apps, logs) = (layout.all_apps(), journal.all_apps());
    let others = journal.all();
    if store.apps()?.is_empty() {
        // More likely a database that was lost: its owner may bring it back.
        return Ok(());
    }
    for app in apps.into_iter().chain(logs) {
        if store.app(&app)?.is_none() {
            clear_app(tools, &app, true, &[]);
        }
    }
    for log in others {
        let is_known = match &log {
            LogOf::Deploy(id) => store.deploy(id)?.is_some(),
            LogOf::Run(id) => store.run(id)?.is_some(),
        };
        if !is_known {
            journal.remove(&[log]);
        }
    }
    Ok(())
}

/// Removes what is there, or has come about meanwhile, of an app that is in the database no more.
fn clear_app(
    Tools { journal, layout, router, .. }: &Tools,
    app: &AppId,
    keep_data: bool,
    logs: &[LogOf],
) {
    if let Err(error) = layout.discard_app(app, keep_data) {
        log::warn!("files of app {app}, which was removed, are still there: {error}");
    }
    router.forget(app);
    journal.remove_app(app, logs);
}
