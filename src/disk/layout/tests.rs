//! Layout: what is put aside goes, whatever a build has planted there.

use super::*;
use crate::sandbox::host::Host;

fn layout() -> (Layout, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(&dir.path().join("data")).unwrap();
    (Layout::new(data), dir)
}

/// What is below a directory, by its name.
fn names(dir: PathBuf) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_start_spec_is_read_back_only_while_its_release_is_there() {
    let (layout, _dir) = layout();
    let host = Host::here(&layout.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    assert_eq!(layout.start_spec(&app, &deploy), None);
    layout.prepare(host.users, &app, 3, &deploy).unwrap();
    let start = Some("echo \"$PORT\"".into());
    let processes = [(ProcessName::parse("worker").unwrap(), "run".into())].into();
    let spec = StartSpec { root: "web".into(), start, processes, ..StartSpec::default() };
    layout.keep_start_spec(&app, &deploy, &spec).unwrap();
    assert_eq!(layout.start_spec(&app, &deploy), Some(spec));
    layout.discard_release(&app, &deploy).unwrap();
    assert_eq!(layout.start_spec(&app, &deploy), None);
}

#[test]
fn what_a_build_planted_does_not_lead_a_removal_astray() {
    let (layout, dir) = layout();
    let host = Host::here(&layout.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    layout.prepare(host.users, &app, 3, &deploy).unwrap();
    let kept = dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let temporary = layout.temporary(&app);
    fs::remove_dir(&temporary).unwrap();
    std::os::unix::fs::symlink(&kept, &temporary).unwrap();
    layout.prepare(host.users, &app, 3, &deploy).unwrap();
    assert!(fs::symlink_metadata(&temporary).unwrap().is_dir());
    layout.empty_trash(&|| true);
    assert!(kept.join("file").exists());
}

#[test]
fn a_sticky_directory_of_an_app_does_not_stay_in_the_trash() {
    let (layout, _dir) = layout();
    let host = Host::here(&layout.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    layout.prepare(host.users, &app, 3, &deploy).unwrap();
    // In a sticky directory, everybody's, only its owner removes a file.
    let seal = "echo x >file; chmod 1777 .";
    host.as_app(3, &layout.release(&app, &deploy), seal);
    layout.discard_release(&app, &deploy).unwrap();
    layout.empty_trash(&|| true);
    assert!(names(layout.of(&app, "releases")).is_empty());
}

#[test]
fn two_may_put_the_same_aside_at_once() {
    let (layout, _dir) = layout();
    let host = Host::here(&layout.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    for _ in 0..50 {
        layout.prepare(host.users, &app, 3, &deploy).unwrap();
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let discard = || {
                both.wait();
                layout.discard(&layout.temporary(&app))
            };
            let other = scope.spawn(discard);
            discard().unwrap();
            other.join().unwrap().unwrap();
        });
        assert!(!layout.temporary(&app).exists());
    }
}

#[test]
fn an_app_is_removed_with_or_without_its_data() {
    let (layout, _dir) = layout();
    let host = Host::here(&layout.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    layout.prepare(host.users, &app, 3, &deploy).unwrap();
    host.as_app(3, &layout.persistent(&app), "mkdir -m 0 sealed; echo x >file");
    // Closed to its app's own user too, in a directory that may not be moved to another one.
    let seal = "mkdir -p a/b; chmod 0 a/b a; chmod 0 .";
    host.as_app(3, &layout.cache(&app), seal);
    layout.discard_app(&app, true).unwrap();
    assert!(layout.persistent(&app).join("file").exists());
    assert!(!layout.repo(&app).exists() && !layout.release(&app, &deploy).exists());
    layout.empty_trash(&|| true);
    assert_eq!(names(layout.of(&app, "")), ["data"]);
    layout.discard_app(&app, false).unwrap();
    assert!(!layout.persistent(&app).exists());
    layout.empty_trash(&|| true);
    assert!(names(layout.apps()).is_empty());
}
