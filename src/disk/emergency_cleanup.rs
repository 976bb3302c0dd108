//! Makes room on a full disk before the server writes its first byte.

use super::layout::Layout;

/// Free bytes with which a server starts: its database and logs grow by a few MiB until
/// its owner has seen what is wrong.
const ENOUGH: u64 = 16 << 20;

/// Free inodes with which it starts: it makes some dozens of files, and its apps one each.
const ENOUGH_FILES: u64 = 1000;

/// Removes what nobody needs as long as the disk is full: what was put aside, what deploys
/// left that did not come to their end, and at last what the next deploy can make again.
/// The caller holds the lock on the data directory, so no deploy is under way. Answers whether
/// there was something to do.
pub fn make_room(layout: &Layout) -> bool {
    let is_full = || layout.space().is_ok_and(|s| s.has_less_than(ENOUGH, ENOUGH_FILES));
    let was_full = is_full();
    make_room_in(layout, &is_full);
    was_full
}

fn make_room_in(layout: &Layout, is_full: &dyn Fn() -> bool) {
    if !is_full() {
        return;
    }
    log::warn!("the disk is full; removing what no app needs");
    layout.empty_trash(is_full);
    for caches_too in [false, true] {
        for app in layout.all_apps() {
            if !is_full() {
                return;
            }
            let mut done = layout.discard(&layout.temporary(&app));
            for deploy in layout.unfinished(&app) {
                done = done.and(layout.discard_release(&app, &deploy));
            }
            if caches_too {
                log::warn!("removing the Git and build caches of app {app}");
                let caches = [layout.repo(&app), layout.cache(&app)];
                done = done.and(caches.iter().try_for_each(|cache| layout.discard(cache)));
            }
            if let Err(error) = done {
                log::warn!("something of app {app} could not be removed: {error}");
            }
            layout.empty_trash(is_full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;
    use crate::disk::layout::StartSpec;
    use crate::model::{AppId, DeployId};
    use crate::sandbox::host::Host;
    use std::cell::Cell;

    #[test]
    fn a_full_disk_is_cleared_of_rubbish_first_and_of_caches_last() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(DataDir::open(&dir.path().join("data")).unwrap());
        let host = Host::here(&layout.etc().unwrap());
        let app = AppId::parse("aaaaaaaaaa").unwrap();
        let [done, halfway, cut] =
            ["bbbbbbbbbb", "cccccccccc", "dddddddddd"].map(|name| DeployId::parse(name).unwrap());
        for deploy in [&done, &halfway, &cut] {
            layout.prepare(host.users, &app, 3, deploy).unwrap();
        }
        host.as_app(3, &layout.temporary(&app), "echo x >file");
        let spec = StartSpec { start: Some("true".to_owned()), ..StartSpec::default() };
        layout.keep_start_spec(&app, &done, &spec).unwrap();
        // The disk was full when it was written.
        std::fs::write(layout.release(&app, &cut).with_extension("json"), "").unwrap();
        make_room_in(&layout, &|| false);
        assert_eq!(layout.unfinished(&app), [halfway.clone(), cut.clone()]);
        // Full until the unfinished releases are gone.
        make_room_in(&layout, &|| layout.release(&app, &cut).exists());
        assert_eq!(layout.releases(&app), std::slice::from_ref(&done));
        assert!(!layout.temporary(&app).exists() && layout.cache(&app).exists());
        // Full for good: only what cannot be made again stays.
        let asked = Cell::new(0);
        make_room_in(&layout, &|| asked.replace(asked.get() + 1) < 1000);
        assert_eq!(layout.start_spec(&app, &done), Some(spec));
        assert!(!layout.repo(&app).exists() && !layout.cache(&app).exists());
        assert!(layout.persistent(&app).exists());
        let left = std::fs::read_dir(layout.apps().join(app.as_str())).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["data", "releases"]);
    }
}
