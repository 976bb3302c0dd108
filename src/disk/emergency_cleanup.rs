//! Makes room on a full disk before the server writes its first byte.

use super::layout::Places;
use crate::data_dir::DataDir;
use crate::model::AppId;

/// Free bytes with which a server starts: its database and logs grow by a few MiB until
/// its owner has seen what is wrong.
const ENOUGH: u64 = 16 << 20;

/// Free inodes with which it starts: it makes some dozens of files, and its apps one each.
const ENOUGH_FILES: u64 = 1000;

/// Removes what nobody needs as long as the disk is full: what was put aside, what deploys
/// left that did not come to their end, and at last what the next deploy can make again.
/// The caller holds the lock on the data directory, so no deploy is under way.
pub fn make_room(data: &DataDir) {
    let places = Places::new(data.clone());
    let is_full = || places.space().is_ok_and(|s| s.has_less_than(ENOUGH, ENOUGH_FILES));
    make_room_in(&places, &is_full);
}

fn make_room_in(places: &Places, is_full: &dyn Fn() -> bool) {
    if !is_full() {
        return;
    }
    log::warn!("the disk is full; removing what no app needs");
    places.empty_trash(is_full);
    let discards: [fn(&Places, &AppId); 2] = [discard_unfinished, discard_caches];
    for discard in discards {
        for app in places.all_apps() {
            if is_full() {
                discard(places, &app);
                places.empty_trash(is_full);
            }
        }
    }
}

fn discard_unfinished(places: &Places, app: &AppId) {
    let mut done = places.discard_temporary(app);
    for deploy in places.unfinished(app) {
        done = done.and(places.discard_release(app, &deploy));
    }
    said(app, done);
}

fn discard_caches(places: &Places, app: &AppId) {
    log::warn!("removing the Git and build caches of app {app}");
    said(app, places.discard_repo(app).and(places.discard_cache(app)));
}

fn said(app: &AppId, done: std::io::Result<()>) {
    if let Err(error) = done {
        log::warn!("something of app {app} could not be removed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::layout::Recipe;
    use crate::model::DeployId;
    use crate::sandbox::host::Machine;
    use std::cell::Cell;

    #[test]
    fn a_full_disk_is_cleared_of_rubbish_first_and_of_caches_last() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(DataDir::open(&dir.path().join("data")).unwrap());
        let machine = Machine::here(&places.etc().unwrap());
        let app = AppId::parse("aaaaaaaaaa").unwrap();
        let [done, halfway, cut] =
            ["bbbbbbbbbb", "cccccccccc", "dddddddddd"].map(|name| DeployId::parse(name).unwrap());
        for deploy in [&done, &halfway, &cut] {
            places.prepare(&machine, &app, 3, deploy).unwrap();
        }
        machine.as_app(3, &places.temporary(&app), "echo x >file");
        let recipe = Recipe { root: String::new(), start: Some("true".to_owned()) };
        places.keep_recipe(&app, &done, &recipe).unwrap();
        // The disk was full when it was written.
        std::fs::write(places.release(&app, &cut).with_extension("json"), "").unwrap();
        make_room_in(&places, &|| false);
        assert_eq!(places.unfinished(&app), [halfway.clone(), cut.clone()]);
        // Full until the unfinished releases are gone.
        make_room_in(&places, &|| places.release(&app, &cut).exists());
        assert_eq!(places.releases(&app), std::slice::from_ref(&done));
        assert!(!places.temporary(&app).exists() && places.cache(&app).exists());
        // Full for good: only what cannot be made again stays.
        let asked = Cell::new(0);
        make_room_in(&places, &|| asked.replace(asked.get() + 1) < 1000);
        assert_eq!(places.recipe(&app, &done), Some(recipe));
        assert!(!places.repo(&app).exists() && !places.cache(&app).exists());
        assert!(places.persistent(&app).exists());
        assert_eq!(std::fs::read_dir(places.apps().join(".trash")).unwrap().count(), 0);
    }
}
