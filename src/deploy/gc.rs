//! Garbage collection: what is no longer needed goes, what is still needed stays.
//!
//! A deploy prunes its own app. One thread does the rest: it removes for good what
//! was put aside, finishes the removal of apps, and at the start looks for what the
//! database does not know.

use super::queue::Queue;
use crate::disk::layout::{CACHE_CAP, Layout};
use crate::journal::Journal;
use crate::model::{AppId, DeployId};
use crate::router::Router;
use crate::source::cache;
use crate::store::{Store, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// Releases that are kept besides the live one: as many can be gone back to.
const KEPT_RELEASES: u32 = 5;

/// Deploys of an app that the database remembers, with their logs.
const KEPT_HISTORY: u32 = 100;

/// How often files that could not be removed are tried again.
const CLEAN_UP: Duration = Duration::from_secs(600);

/// Removes what nobody needs.
pub struct GarbageCollector {
    /// What counts.
    pub store: Arc<Store>,
    /// The logs.
    pub journal: Arc<Journal>,
    /// The files.
    pub layout: Layout,
    /// What is being deployed: that stays.
    pub queue: Arc<Queue>,
    /// What has a route for each app.
    pub router: Arc<Router>,
}

impl GarbageCollector {
    /// Removes what nobody needs until the server stops.
    pub fn run(&self) {
        if let Err(error) = self.clear_unknown() {
            log::warn!("what the database does not know could not be removed: {error}");
        }
        loop {
            for removal in self.queue.removals() {
                self.clear_app(&removal.app, removal.keep_data);
                self.router.forget(&removal.app);
                self.journal.remove_app(&removal.app, &removal.deploys);
            }
            self.layout.empty_trash(&|| !self.queue.is_closed());
            if !self.queue.wait_for_garbage(CLEAN_UP) {
                return;
            }
        }
    }

    /// Ends the deploys that a server which is no more had under way, and removes what they left.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn clear_interrupted(&self) -> Result<(), StoreError> {
        for deploy in self.store.fail_interrupted()? {
            log::warn!("deploy {} was interrupted when the server ended", deploy.id);
            self.clear_away(&deploy.app, &deploy.id);
        }
        Ok(())
    }

    /// Removes what a deploy that did not go live left behind. Does not ask the database:
    /// on a full disk that has to wait for this.
    pub fn clear_away(&self, app: &AppId, deploy: &DeployId) {
        let layout = &self.layout;
        let release = layout.discard_release(app, deploy);
        let mut cleared = release.and_then(|()| layout.discard(&layout.temporary(app)));
        if cache::has_leftovers(&layout.repo(app)) {
            cleared = cleared.and_then(|()| layout.discard(&layout.repo(app)));
        }
        if let Err(error) = cleared {
            log::warn!("what deploy {deploy} left could not be removed: {error}");
        }
        self.queue.tidy();
    }

    /// Removes what is no longer needed of an app: old releases, old history with its
    /// logs, temporary files, a cache that has grown too large. Never `/data`.
    pub fn prune(&self, app: &AppId) {
        let mut old = self.store.old_releases(app, KEPT_RELEASES).unwrap_or_default();
        match self.store.prune_history(app, KEPT_HISTORY, KEPT_RELEASES) {
            Ok(forgotten) => self.journal.remove_deploys(&forgotten),
            Err(error) => log::warn!("old deploys of app {app} could not be forgotten: {error}"),
        }
        // Looked at first: a release that comes after that has its deploy in the history.
        let there = self.layout.releases(app);
        if let Ok(known) = self.store.deploy_ids(app) {
            old.extend(there.into_iter().filter(|id| !known.contains(id)));
        }
        for deploy in old {
            if let Err(error) = self.layout.discard_release(app, &deploy) {
                log::warn!("release {deploy} could not be removed: {error}");
            }
        }
        if let Err(error) = self.layout.discard(&self.layout.temporary(app)) {
            log::warn!("temporary files of app {app} could not be removed: {error}");
        }
        if let Err(error) = self.layout.bound_cache(app, CACHE_CAP) {
            log::warn!("the cache of app {app} could not be removed: {error}");
        }
    }

    /// Removes the files, but not the data, and the logs of apps that are in no
    /// database: a server was killed between two steps of their removal.
    fn clear_unknown(&self) -> Result<(), StoreError> {
        // Looked at first: whatever comes after that is in the database already.
        let (apps, logs) = (self.layout.all_apps(), self.journal.all_apps());
        let deploys = self.journal.all_deploys();
        if self.store.apps()?.is_empty() {
            // More likely a database that was lost: its owner may bring it back.
            return Ok(());
        }
        for app in apps {
            if self.store.app(&app)?.is_none() {
                self.clear_app(&app, true);
            }
        }
        for app in logs {
            if self.store.app(&app)?.is_none() {
                self.journal.remove_app(&app, &[]);
            }
        }
        for deploy in deploys {
            if self.store.deploy(&deploy)?.is_none() {
                self.journal.remove_deploys(&[deploy]);
            }
        }
        Ok(())
    }

    fn clear_app(&self, app: &AppId, keep_data: bool) {
        if let Err(error) = self.layout.discard_app(app, keep_data) {
            log::warn!("files of app {app}, which was removed, are still there: {error}");
        }
    }
}
