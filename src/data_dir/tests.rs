//! What the data directory promises.

use super::*;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use tempfile::{TempDir, tempdir};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn fresh() -> (TempDir, DataDir) {
    let top = tempdir().unwrap();
    let data = DataDir::open(&top.path().join("data")).unwrap();
    (top, data)
}

#[test]
fn p25_a_new_directory_is_private_and_its_files_are_too() {
    let top = tempdir().unwrap();
    let data = DataDir::open(&top.path().join("not/there/yet/")).unwrap();
    assert_eq!(data.path(), top.path().canonicalize().unwrap().join("not/there/yet"));
    assert_eq!(mode(data.path()), 0o700);
    assert_eq!(mode(&data.make_dir("logs/apps").unwrap()), 0o700);
    assert_eq!(mode(&data.join("logs")), 0o700);
    data.write_secret("admin_token.txt", b"abc\n").unwrap();
    assert_eq!(mode(&data.join("admin_token.txt")), 0o600);
}

#[test]
fn p25_looser_modes_are_tightened_but_apps_keep_theirs() {
    let (_top, data) = fresh();
    data.make_dir("logs/deploys").unwrap();
    data.make_dir("apps/a/releases").unwrap();
    for file in ["better-paas.db", "logs/deploys/x.log", "apps/a/releases/run.sh"] {
        fs::write(data.join(file), "x").unwrap();
        set_mode(&data.join(file), 0o755);
    }
    fs::write(data.join("secret.key"), "x").unwrap();
    set_mode(&data.join("secret.key"), 0o400);
    for dir in ["logs/deploys", "logs", "apps", ""] {
        set_mode(&data.join(dir), 0o777);
    }
    let elsewhere = tempdir().unwrap();
    set_mode(elsewhere.path(), 0o755);
    symlink(elsewhere.path(), data.join("logs/link")).unwrap();
    DataDir::open(data.path()).unwrap();
    assert_eq!(mode(data.path()), 0o700);
    assert_eq!(mode(&data.join("better-paas.db")), 0o600);
    assert_eq!(mode(&data.join("secret.key")), 0o400, "tighter than needed is left alone");
    assert_eq!(mode(&data.join("logs")), 0o700);
    assert_eq!(mode(&data.join("logs/deploys")), 0o700);
    assert_eq!(mode(&data.join("logs/deploys/x.log")), 0o600);
    assert_eq!(mode(&data.join("apps/a/releases/run.sh")), 0o755);
    assert_eq!(mode(elsewhere.path()), 0o755, "a link is not followed");
}

#[test]
fn p25_what_belongs_to_another_user_is_refused() {
    // Only root can give a directory away; everybody else meets root's.
    let us = rustix::process::geteuid().as_raw();
    let (_top, data) = fresh();
    let path = if us == 0 { data.path() } else { Path::new("/usr") };
    if us == 0 {
        chown(path, Some(4321), None).unwrap();
    }
    let before = mode(path);
    let error = DataDir::open(path).unwrap_err();
    assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("belongs to user"), "{error}");
    assert_eq!(mode(path), before, "a refused directory is left as it was");
    if us == 0 {
        chown(path, Some(0), None).unwrap();
        fs::write(data.join("admin_token.txt"), "planted").unwrap();
        chown(data.join("admin_token.txt"), Some(4321), None).unwrap();
        let error = DataDir::open(path).unwrap_err();
        assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
    }
}

#[test]
fn p25_a_link_to_a_private_place_is_followed() {
    let top = tempdir().unwrap();
    fs::create_dir(top.path().join("real")).unwrap();
    set_mode(&top.path().join("real"), 0o755);
    symlink("real", top.path().join("data")).unwrap();
    let data = DataDir::open(&top.path().join("data/")).unwrap();
    assert_eq!(data.path(), top.path().canonicalize().unwrap().join("real"));
    assert_eq!(mode(data.path()), 0o700);
}

#[test]
fn p25_a_link_to_a_place_that_others_can_write_is_refused() {
    let top = tempdir().unwrap();
    let real = top.path().join("a/b/real");
    fs::create_dir_all(&real).unwrap();
    set_mode(&real, 0o755);
    let link = top.path().join("data");
    symlink(&real, &link).unwrap();
    let above = top.path().join("a/b");
    let further = top.path().join("a");
    for (place, mode, allowed) in [
        (&real, 0o777, false),
        (&real, 0o770, false),
        (&real, 0o755, true),
        (&above, 0o777, false),
        (&above, 0o1777, false),
        (&above, 0o775, false),
        (&above, 0o755, true),
        (&further, 0o777, false),
        (&further, 0o1777, true),
    ] {
        let before = fs::metadata(place).unwrap().mode();
        set_mode(place, mode);
        match DataDir::open(&link) {
            Ok(_) => assert!(allowed, "{} {mode:o}", place.display()),
            Err(error) => {
                assert!(!allowed, "{} {mode:o}: {error}", place.display());
                assert!(error.to_string().contains("others can write"), "{error}");
            }
        }
        set_mode(place, before);
    }
}

#[test]
fn p25_a_link_on_the_way_is_judged_and_a_sticky_place_is_fine_for_a_real_directory() {
    let top = tempdir().unwrap();
    let place = top.path().join("place");
    fs::create_dir(&place).unwrap();
    set_mode(&place, 0o1777);
    DataDir::open(&place.join("data")).unwrap();
    symlink(&place, top.path().join("way")).unwrap();
    DataDir::open(&top.path().join("way/data")).unwrap();
    set_mode(&place, 0o777);
    let error = DataDir::open(&top.path().join("way/data")).unwrap_err();
    assert!(error.to_string().contains("others can write"), "{error}");
}

#[test]
fn a_path_that_cannot_be_a_directory_is_one_sentence() {
    let top = tempdir().unwrap();
    fs::write(top.path().join("file"), "x").unwrap();
    symlink("nowhere", top.path().join("dangling")).unwrap();
    for (path, word) in
        [("file", "not a directory"), ("file/data", "DATA_DIR"), ("dangling", "DATA_DIR")]
    {
        let error = DataDir::open(&top.path().join(path)).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
    }
    assert!(DataDir::open(Path::new("")).is_err());
    // The kernel's own file systems take no files, not even from root.
    let error = DataDir::open(Path::new("/proc/better-paas")).unwrap_err().to_string();
    assert!(error.contains("cannot use the data directory"), "{error}");
}

#[test]
fn p1_a_secret_is_replaced_whole_and_leaves_nothing_behind() {
    let (_top, data) = fresh();
    assert!(data.read_secret("t").unwrap().is_none());
    data.write_secret("t", b"one").unwrap();
    let inode = fs::metadata(data.join("t")).unwrap().ino();
    data.write_secret("t", b"two").unwrap();
    assert_ne!(fs::metadata(data.join("t")).unwrap().ino(), inode, "a new file took its place");
    assert_eq!(data.read_secret("t").unwrap().unwrap().expose(), "two");
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
}

#[test]
fn p1_a_reader_beside_a_writer_finds_one_value_or_the_other_whole() {
    let (_top, data) = fresh();
    let values = ["a".repeat(70), "b".repeat(70)];
    let write = |value: &String| data.write_secret("t", value.as_bytes()).unwrap();
    write(&values[0]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..200).for_each(|n| write(&values[n % 2])));
        while !writer.is_finished() {
            let found = fs::read_to_string(data.join("t")).expect("it is there at any moment");
            assert!(values.contains(&found), "half of a value: {found:?}");
        }
    });
}

#[test]
fn a_write_that_fails_is_a_sentence_and_leaves_the_old_file_alone() {
    let (_top, data) = fresh();
    fs::create_dir(data.join("taken")).unwrap();
    let error = data.write_secret("taken", b"secret words").unwrap_err().to_string();
    assert!(error.contains("could not write") && !error.contains("secret words"), "{error}");
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1, "no temporary file stays");
    // A device that is always full stands for a full disk.
    let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = explained("write", Path::new("/x/t"), &full.write_all(b"x").unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().ends_with("free some space there"), "{error}");
    fs::remove_dir_all(data.path()).unwrap();
    let error = data.write_secret("t", b"x").unwrap_err().to_string();
    assert!(error.contains("could not write"), "{error}");
}

#[test]
fn paths_cannot_lead_outside() {
    let (_top, data) = fresh();
    for bad in ["../x", "a/../../x", "/etc"] {
        assert!(data.make_dir(bad).is_err(), "{bad}");
    }
    symlink("/etc", data.join("way")).unwrap();
    assert!(data.make_dir("way/x").is_err());
    symlink("/etc/hostname", data.join("t")).unwrap();
    assert!(data.read_secret("t").is_err(), "a link is not followed");
}

#[test]
fn what_is_not_a_small_text_file_is_not_a_secret() {
    let (_top, data) = fresh();
    fs::create_dir(data.join("dir")).unwrap();
    fs::write(data.join("long"), vec![b'x'; 64 * 1024 + 1]).unwrap();
    fs::write(data.join("binary"), [0xff, 0xfe]).unwrap();
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        data.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    fifo.unwrap();
    for bad in ["dir", "long", "binary", "fifo"] {
        let error = data.read_secret(bad).unwrap_err().to_string();
        assert!(error.contains("could not read"), "{error}");
    }
    fs::write(data.join("fits"), vec![b'x'; 64 * 1024]).unwrap();
    assert_eq!(data.read_secret("fits").unwrap().unwrap().expose().len(), 64 * 1024);
}

#[test]
fn p26_a_second_server_is_refused_and_told_who_is_there() {
    let (_top, data) = fresh();
    assert_eq!(data.holder(), None);
    let us = |pinned| Some(Holder { pid: Some(std::process::id()), pinned });
    let lock = data.lock(true).unwrap();
    assert_eq!(data.holder(), us(true));
    assert_eq!(mode(&data.join("lock")), 0o600);
    let error = data.lock(false).unwrap_err().to_string();
    assert!(error.contains("another server already works in"), "{error}");
    assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
    assert_eq!(data.holder(), us(true), "the note is still the holder's");
    fs::write(data.join("lock"), "").unwrap();
    let unknown = Holder { pid: None, pinned: false };
    assert_eq!(data.holder(), Some(unknown), "that a server is there is known anyway");
    drop(lock);
    assert_eq!(data.holder(), None);
    let lock = data.lock(false).unwrap();
    assert_eq!(data.holder(), us(false));
    drop(lock);
}

#[test]
fn a_look_at_the_holder_does_not_keep_a_server_from_starting() {
    let (_top, data) = fresh();
    drop(data.lock(false).unwrap());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = data.holder();
            }
        });
        for _ in 0..50 {
            drop(data.lock(false).unwrap());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn p7_what_a_killed_writer_left_is_removed_and_a_writer_at_work_is_not_disturbed() {
    let (_top, data) = fresh();
    for name in [".admin_token.txt.00.tmp", ".secret.key.01.tmp"] {
        fs::write(data.join(name), "half a secr").unwrap();
    }
    let old = File::options().write(true).open(data.join(".admin_token.txt.00.tmp")).unwrap();
    old.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
    drop(data.lock(false).unwrap());
    assert!(!data.join(".admin_token.txt.00.tmp").exists());
    assert!(data.join(".secret.key.01.tmp").exists());
}

#[test]
fn p25_a_place_that_apps_see_in_their_sandboxes_is_refused() {
    // Only root could make one there; the system's own directory belongs to root.
    if rustix::process::geteuid().is_root() {
        let home = tempfile::Builder::new().tempdir_in("/usr/local").unwrap();
        let data = home.path().join("data");
        let error = DataDir::open(&data).err().unwrap();
        assert!(error.to_string().contains("every app can see"), "{error}");
        assert!(!data.exists(), "it is made where it is refused");
        DirBuilder::new().create(&data).unwrap();
        let error = DataDir::open(&data).err().unwrap();
        assert!(error.to_string().contains("every app can see"), "{error}");
    }
}
