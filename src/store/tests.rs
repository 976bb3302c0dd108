//! The database brought up to date, and what stands beside what.

use super::*;
use crate::model::{AppId, Job};
use crate::vault::key::Key;

/// A database with one app.
pub(super) fn with_an_app() -> (Store, AppId, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::new(Key::parse(&"07".repeat(32)).unwrap());
    let store = Store::open(&dir.path().join("db"), vault).unwrap();
    let sql = "INSERT INTO apps (id, name, slot, git_repo, wanted, created_at) VALUES \
               ('aaaaaaaaaa', 'shop', 5, 'https://h.example/o/r', 'running', 1)";
    store.write(|tx| Ok(tx.execute(sql, [])?)).unwrap();
    (store, AppId::parse("aaaaaaaaaa").unwrap(), dir)
}

#[test]
fn a_database_of_version_1_is_brought_up_to_date_with_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let key = "07".repeat(32);
    let vault = || Vault::new(Key::parse(&key).unwrap());
    let old = connect(&path).unwrap();
    old.execute_batch(STEPS[0]).unwrap();
    let canary = vault().seal(&Place::CANARY, CANARY_TEXT).unwrap();
    old.execute("INSERT INTO meta VALUES ('canary', ?1)", [canary]).unwrap();
    old.execute(
        "INSERT INTO apps VALUES ('aaaaaaaaaa', 'shop', 5, 'https://h.example/o/r', '', NULL, \
         '', '', '', '', 60, 'running', NULL, 1)",
        [],
    )
    .unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    let store = Store::open(&path, vault()).unwrap();
    let apps = store.apps().unwrap();
    assert_eq!((apps.len(), apps[0].name.as_str(), apps[0].slot), (1, "shop", 5));
    assert!(apps[0].settings == AppSettings::default());
    assert_eq!(schema_version(&store.read()).unwrap(), SCHEMA_VERSION);
    drop(store);
    // P30: as it was before, it is kept.
    let kept = |dir: &Path| std::fs::read_dir(dir.join("before-update")).unwrap().flatten();
    let kept: Vec<_> = kept(dir.path()).map(|entry| entry.path().join(DATABASE)).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(schema_version(&connect(&kept[0]).unwrap()).unwrap(), 1);
    assert_eq!(Store::open(&path, vault()).unwrap().apps().unwrap().len(), 1);
}

#[test]
fn a_database_of_version_3_keeps_what_every_owner_chose() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let vault = || Vault::new(Key::parse(&"07".repeat(32)).unwrap());
    let old = connect(&path).unwrap();
    STEPS[..3].iter().for_each(|step| old.execute_batch(step).unwrap());
    let canary = vault().seal(&Place::CANARY, CANARY_TEXT).unwrap();
    old.execute("INSERT INTO meta VALUES ('canary', ?1)", [canary]).unwrap();
    old.execute_batch(
        "INSERT INTO apps (id, name, slot, git_repo, branch, root_dir, build_command, \
         start_command, health_path, health_timeout_seconds, wanted, created_at, memory_mb, \
         cpu_percent, max_processes, host_sockets, auto_deploy) VALUES \
         ('aaaaaaaaaa', 'shop', 5, 'https://h.example/o/r', 'main', 'apps/web', 'say \"a\\b\"', \
          'ä', '/ok?x=1', 7, 'running', 1, 64, 50, 9, '/run/a' || char(10) || '/run/b', 0), \
         ('bbbbbbbbbb', 'bare', 6, 'https://h.example/o/r', '', '', '', '', '', 60, 'stopped', \
          2, 0, 0, 0, '', 1);\
         INSERT INTO domains VALUES ('z.example', 'aaaaaaaaaa', 0), \
         ('a.example', 'aaaaaaaaaa', 1)",
    )
    .unwrap();
    old.pragma_update(None, "user_version", 3).unwrap();
    drop(old);
    let store = Store::open(&path, vault()).unwrap();
    let apps = store.apps().unwrap();
    assert_eq!(apps[0].settings, AppSettings::default());
    let expected = serde_json::json!({
        "branch": "main", "rootDir": "apps/web", "buildCommand": "say \"a\\b\"",
        "startCommand": "ä", "publishDir": "", "spaFallback": null,
        "port": null, "oneAtATime": false, "scale": {},
        "healthPath": "/ok?x=1", "healthTimeoutSeconds": 7,
        "domains": ["z.example", "a.example"], "memoryMb": 64, "cpuPercent": 50,
        "maxProcesses": 9, "hostSockets": ["/run/a", "/run/b"], "autoDeploy": false
    });
    assert_eq!(serde_json::to_value(&apps[1].settings).unwrap(), expected);
    // One domain still belongs to one app.
    let taken = AppDraft { settings: apps[1].settings.clone(), ..apps[0].draft() };
    let refused = store.update_app(&apps[0].id, &taken);
    assert!(matches!(refused, Err(StoreError::DomainTaken(d)) if d.as_str() == "z.example"));
    assert!(store.update_app(&apps[1].id, &apps[1].draft()).unwrap(), "its own");
}

#[test]
fn what_an_owner_chose_and_the_jobs_are_kept_whichever_is_written_last() {
    let (store, app, _dir) = with_an_app();
    let mut draft = store.app(&app).unwrap().unwrap().draft();
    let alone = || store.app(&app).unwrap().unwrap().settings.one_at_a_time;
    let kept = || store.jobs(&app).unwrap();
    draft.settings.one_at_a_time = true;
    assert!(kept().is_empty() && store.update_app(&app, &draft).unwrap());
    assert!(kept().is_empty(), "none were written");
    let job = r#"{"name": "tidy", "command": "echo 'ä\"'", "schedule": "@daily"}"#;
    let jobs = [serde_json::from_str::<Job>(job).unwrap()];
    assert!(store.set_jobs(&app, &jobs).unwrap());
    assert!(alone() && kept() == jobs);
    draft.settings.one_at_a_time = false;
    assert!(store.update_app(&app, &draft).unwrap());
    assert!(!alone() && kept() == jobs);
    assert!(!store.set_jobs(&AppId::from_random([1; 10]), &jobs).unwrap());
}

#[test]
fn a_disk_that_fails_once_or_for_good_is_not_called_damage() {
    let code =
        |code| Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None).into());
    // As SQLite answers a read that fails with EIO.
    let corrupt = || -> Result<(), StoreError> { code(rusqlite::ffi::SQLITE_CORRUPT) };
    let seen = std::cell::Cell::new(0);
    let once = || if seen.replace(seen.get() + 1) == 0 { corrupt() } else { Ok(()) };
    assert!(judge(once, || Ok(())).is_ok());
    let broken = || Err(io::Error::from_raw_os_error(5));
    let error = judge(corrupt, broken).unwrap_err().to_string();
    assert!(error.contains("Input/output error") && !error.contains("backup"), "{error}");
    assert!(matches!(judge(corrupt, || Ok(())), Err(StoreError::Corrupt)));
    let error = corrupt().unwrap_err().to_string();
    assert!(error.contains("the disk has failed, or") && !error.contains("backup"), "{error}");
}

#[test]
fn what_any_connection_writes_is_seen_with_the_next_question() {
    let (store, app, dir) = with_an_app();
    let before = store.shared_apps().unwrap();
    assert!(Arc::ptr_eq(&before, &store.shared_apps().unwrap()), "nothing was written");
    store.set_wanted(&app, crate::model::Wanted::Stopped).unwrap();
    assert_eq!(store.apps().unwrap()[0].wanted, crate::model::Wanted::Stopped);
    let other = Connection::open(dir.path().join("db")).unwrap();
    other.execute("UPDATE apps SET name = 'other'", []).unwrap();
    assert_eq!(store.apps().unwrap()[0].name.as_str(), "other");
    assert!(store.delete_app(&app).unwrap() && store.apps().unwrap().is_empty());
}

#[test]
fn a_database_that_has_become_read_only_takes_nothing_and_is_read_as_before() {
    let (store, app, _dir) = with_an_app();
    store.writer.lock().unwrap().pragma_update(None, "query_only", true).unwrap();
    assert!(matches!(store.delete_app(&app), Err(StoreError::ReadOnly)));
    assert_eq!(store.apps().unwrap().len(), 1);
}
