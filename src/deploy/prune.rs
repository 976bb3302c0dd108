//! Prunes the disk: what is no longer needed goes, what somebody needs stays.
//!
//! A deploy prunes its own app. One thread does the rest: it removes for good what
//! was put aside, finishes the removal of apps, and at the start looks for what the
//! database does not know.

use super::Shared;
use crate::model::{AppId, DeployId};
use std::io;
use std::time::Duration;

/// Releases that are kept besides the live one: as many can be gone back to.
const KEPT_RELEASES: u32 = 5;

/// Deploys of an app that the database remembers, with their logs.
const KEPT_HISTORY: u32 = 100;

/// Free disk below which no build begins: bytes, and parts of a hundred.
pub const LEAST_SPACE: u64 = 500 << 20;
const LEAST_PERCENT: u64 = 5;

/// How often files that could not be removed are tried again.
const CLEAN_UP: Duration = Duration::from_secs(600);

/// An app that was taken out of the database while a deploy of it was on its way, or
/// its process still ending.
#[derive(Debug)]
pub struct Removal {
    /// The app.
    pub app: AppId,
    /// Whether its persistent data stays.
    pub keep_data: bool,
    /// Its deploys, for their logs.
    pub deploys: Vec<DeployId>,
}

/// Why no build begins with this many bytes free of so many.
fn too_little(free: u64, all: u64) -> Option<String> {
    let enough = free >= LEAST_SPACE && free / LEAST_PERCENT >= all / 100;
    let (free, all, least) = (free >> 20, all >> 20, LEAST_SPACE >> 20);
    (!enough).then(|| {
        format!(
            "only {free} MiB of {all} MiB of disk are free, and a build needs {least} MiB and \
             {LEAST_PERCENT} %; free some space"
        )
    })
}

impl Shared {
    /// Why there is no room for a build, if so.
    pub fn no_room(&self) -> Option<String> {
        match self.places.space() {
            Ok((free, all)) => too_little(free, all),
            Err(error) => Some(format!("the free disk space is not known: {error}")),
        }
    }

    /// Removes what nobody needs until the server stops.
    pub fn collect_garbage(&self) {
        if let Err(error) = self.clear_unknown() {
            log::warn!("what the database does not know could not be removed: {error}");
        }
        loop {
            for removal in self.queue.removals() {
                self.clear_app(&removal.app, removal.keep_data);
                self.router.forget(&removal.app);
                self.journal.remove_app(&removal.app, &removal.deploys);
            }
            self.places.empty_trash(&|| !self.queue.is_closed());
            if !self.queue.wait_for_garbage(CLEAN_UP) {
                return;
            }
        }
    }

    /// Removes what a deploy that came to no end left behind.
    pub fn clear_away(&self, app: &AppId, deploy: &DeployId) {
        let release = self.places.discard_release(app, deploy);
        if let Err(error) = release.and_then(|()| self.places.discard_temporary(app)) {
            log::warn!("what deploy {deploy} left could not be removed: {error}");
        }
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
        let there = self.places.releases(app);
        if let Ok(known) = self.store.deploy_ids(app) {
            old.extend(there.into_iter().filter(|id| !known.contains(id)));
        }
        for deploy in old {
            if let Err(error) = self.places.discard_release(app, &deploy) {
                log::warn!("release {deploy} could not be removed: {error}");
            }
        }
        if let Err(error) = self.places.discard_temporary(app) {
            log::warn!("temporary files of app {app} could not be removed: {error}");
        }
        if let Err(error) = self.places.bound_cache(app, &|| !self.queue.is_closed())
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("the cache of app {app} could not be looked at: {error}");
        }
    }

    /// Removes the files, but not the data, and the logs of apps that are in no
    /// database: a server was killed between two steps of their removal.
    fn clear_unknown(&self) -> Result<(), crate::store::StoreError> {
        // Looked at first: whatever comes after that is in the database already.
        let (apps, logs) = (self.places.all_apps(), self.journal.all_apps());
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
        if let Err(error) = self.places.discard_app(app, keep_data) {
            log::warn!("files of app {app}, which was removed, are still there: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_refuses_a_build_before_it_begins() {
        const GIB: u64 = 1 << 30;
        assert_eq!(too_little(10 * GIB, 100 * GIB), None);
        assert_eq!(too_little(GIB, 10 * GIB), None);
        assert!(too_little(4 * GIB, 100 * GIB).is_some(), "less than 5 %");
        let sentence = too_little(GIB / 4, 2 * GIB).unwrap();
        assert!(sentence.contains("only 256 MiB of 2048 MiB"), "{sentence}");
    }
}
