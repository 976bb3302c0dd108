//! Places: what is put aside goes, whatever a build has planted there.

use super::*;

fn places() -> (Places, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(&dir.path().join("data")).unwrap();
    (Places::new(data), dir)
}

#[test]
fn a_recipe_is_read_back_only_while_its_release_is_there() {
    let (places, _dir) = places();
    let machine = Machine::here(&places.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    assert_eq!(places.recipe(&app, &deploy), None);
    places.prepare(&machine, &app, 3, &deploy).unwrap();
    let recipe = Recipe { root: "web".into(), start: Some("echo \"$PORT\"".into()) };
    places.keep_recipe(&app, &deploy, &recipe).unwrap();
    assert_eq!(places.recipe(&app, &deploy), Some(recipe));
    places.discard_release(&app, &deploy).unwrap();
    assert_eq!(places.recipe(&app, &deploy), None);
}

#[test]
fn what_a_build_planted_does_not_lead_a_removal_astray() {
    let (places, dir) = places();
    let machine = Machine::here(&places.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    places.prepare(&machine, &app, 3, &deploy).unwrap();
    let kept = dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let temporary = places.temporary(&app);
    fs::remove_dir(&temporary).unwrap();
    std::os::unix::fs::symlink(&kept, &temporary).unwrap();
    places.prepare(&machine, &app, 3, &deploy).unwrap();
    assert!(fs::symlink_metadata(&temporary).unwrap().is_dir());
    places.empty_trash(&|| true);
    assert!(kept.join("file").exists());
}

#[test]
fn a_build_cache_is_given_up_when_it_has_grown_too_large() {
    let (places, _dir) = places();
    let machine = Machine::here(&places.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    places.prepare(&machine, &app, 3, &deploy).unwrap();
    let cache = places.cache(&app);
    machine.as_app(3, &cache, "mkdir npm && head -c 100000 /dev/zero >npm/tarball");
    assert!(!places.bound_cache(&app, 1_000_000, &|| true).unwrap());
    assert!(cache.join("npm/tarball").exists());
    assert!(places.bound_cache(&app, 50_000, &|| true).unwrap());
    assert!(!cache.exists() && places.persistent(&app).exists());
}

#[test]
fn a_sticky_directory_of_an_app_does_not_stay_in_the_trash() {
    let (places, _dir) = places();
    let machine = Machine::here(&places.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    places.prepare(&machine, &app, 3, &deploy).unwrap();
    // In a sticky directory, everybody's, only its owner removes a file.
    let seal = "echo x >file; chmod 1777 .";
    machine.as_app(3, &places.release(&app, &deploy), seal);
    places.discard_release(&app, &deploy).unwrap();
    places.empty_trash(&|| true);
    assert_eq!(fs::read_dir(places.apps().join(".trash")).unwrap().count(), 0);
}

#[test]
fn two_may_put_the_same_aside_at_once() {
    let (places, _dir) = places();
    let machine = Machine::here(&places.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    for _ in 0..50 {
        places.prepare(&machine, &app, 3, &deploy).unwrap();
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let discard = || {
                both.wait();
                places.discard_temporary(&app)
            };
            let other = scope.spawn(discard);
            discard().unwrap();
            other.join().unwrap().unwrap();
        });
        assert!(!places.temporary(&app).exists());
    }
}

#[test]
fn an_app_is_removed_with_or_without_its_data() {
    let (places, _dir) = places();
    let machine = Machine::here(&places.etc().unwrap());
    let app = AppId::parse("aaaaaaaaaa").unwrap();
    let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
    places.prepare(&machine, &app, 3, &deploy).unwrap();
    machine.as_app(3, &places.persistent(&app), "mkdir -m 0 sealed; echo x >file");
    places.discard_app(&app, true).unwrap();
    assert!(places.persistent(&app).join("file").exists());
    assert!(!places.repo(&app).exists() && !places.release(&app, &deploy).exists());
    places.discard_app(&app, false).unwrap();
    assert!(!places.persistent(&app).exists());
    places.empty_trash(&|| true);
    assert_eq!(fs::read_dir(places.apps().join(".trash")).unwrap().count(), 0);
}
