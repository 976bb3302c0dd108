//! Moving in from the platform that this one grew out of: `server import DIR`.

use crate::harness::{Http, Server, Setup, hex, random};
use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use data_encoding::BASE64;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Its tables, with the columns that matter of a version with projects.
const SCHEMA: &str = "
    CREATE TABLE apps (id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, git_repo TEXT,
        branch TEXT, port INTEGER NOT NULL, git_token TEXT, root_dir TEXT, env_vars TEXT,
        build_command TEXT, start_command TEXT, install_command TEXT, port_override INTEGER DEFAULT 0,
        domains TEXT, memory TEXT, cpus TEXT, volumes TEXT, health_path TEXT, secret_keys TEXT,
        webhook_secret TEXT, auto_deploy INTEGER DEFAULT 0, build_method TEXT, image TEXT,
        server_id TEXT DEFAULT 'localhost', project_id TEXT);
    CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE cron_jobs (id TEXT PRIMARY KEY, app_id TEXT NOT NULL, app_name TEXT NOT NULL,
        schedule TEXT NOT NULL, command TEXT NOT NULL, enabled INTEGER DEFAULT 1);
    CREATE TABLE addons (id TEXT PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);";

/// The same of an early version.
const EARLY: &str = "
    CREATE TABLE apps (id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, git_repo TEXT,
        branch TEXT, port INTEGER NOT NULL, git_token TEXT, root_dir TEXT, env_vars TEXT,
        build_command TEXT, start_command TEXT, install_command TEXT);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
    INSERT INTO apps VALUES ('a', 'Old Shop', 'running', 'https://git.example/o/old', '', 4001,
        'clear-token', '.', '{\"MODE\":\"old\"}', '', '', '');";

/// Its envelope, and the key in a file beside the database.
struct Sealer(Aes256Gcm);

impl Sealer {
    fn new(dir: &Path) -> Self {
        let key: [u8; 32] = random();
        fs::write(dir.join("secret.key"), hex(&key) + "\n").unwrap();
        Self(Aes256Gcm::new(&key.into()))
    }

    fn seal(&self, clear: &str) -> String {
        let nonce: [u8; 12] = random();
        let sealed = self.0.encrypt(&Nonce::from(nonce), clear.as_bytes()).unwrap();
        format!("enc:v1:{}", BASE64.encode(&[&nonce[..], &sealed].concat()))
    }
}

/// A database of it, which some program has open: a part of it is in the write-ahead log.
fn database(dir: &Path, sql: &str) -> Connection {
    fs::create_dir_all(dir).unwrap();
    let open = Connection::open(dir.join("baas.db")).unwrap();
    open.pragma_update(None, "journal_mode", "WAL").unwrap();
    open.execute_batch(sql).unwrap();
    open
}

/// A server that was started once and is stopped.
fn stopped() -> Setup {
    Server::start().stop()
}

fn apps(owner: &mut Http) -> Vec<Value> {
    owner.get("/api/apps").json()["apps"].as_array().unwrap().clone()
}

/// A data directory with one of everything; the secrets in it.
fn whole(old: &Path) -> (Connection, [String; 4]) {
    let open = database(&old.join("data"), SCHEMA);
    let sealer = Sealer::new(&old.join("data"));
    let secrets: [String; 4] = std::array::from_fn(|_| hex(&random::<16>()));
    let [git, github, env, hook] = secrets.each_ref().map(|secret| sealer.seal(secret));
    let env = json!({"MODE": "fast", "API_KEY": env, "PORT": "3000", "bad name": "x", "RATE": 7,
        "NESTED": {"a": 1}})
    .to_string();
    open.execute(
        "INSERT INTO apps VALUES ('a', 'Web', 'running', 'https://git.example/o/r', 'main', 4000, ?1, './web', \
         ?2, 'npm run build', 'npm start', 'npm ci', 3000, '[\"Shop.example\",\"no domain\"]', '512m', '0.5', \
         '[\"files:/srv\"]', '/up', '[\"API_KEY\"]', ?3, 1, 'nixpacks', '', 'localhost', 'p')",
        [&git, &env, &hook],
    )
    .unwrap();
    open.execute_batch(
        "INSERT INTO apps (id, name, status, port, build_method, image) VALUES ('b', 'kuma', 'running', 1, 'image', 'x/kuma:1');
         INSERT INTO projects VALUES ('p', 'My Shop');
         INSERT INTO cron_jobs VALUES ('j', 'a', 'Web', '0 3 * * *', 'npm run tidy', 1), ('k', 'a', 'Web', '* * * * *', 'off', 0),
            ('l', 'a', 'Web', 'never', 'odd', 1);
         INSERT INTO addons VALUES ('d', 'postgres', 'maindb');",
    )
    .unwrap();
    open.execute("INSERT INTO meta VALUES ('github_token', ?1)", [&github]).unwrap();
    (open, secrets)
}

#[test]
fn all_that_has_an_equivalent_moves_in_encrypted_and_the_rest_is_told() {
    let setup = stopped();
    let old = setup.home().join("old");
    let (_open, secrets) = whole(&old);
    let dir = old.to_str().unwrap();
    let before = fs::read(setup.data().join("better-paas.db")).unwrap();
    let said = setup.run(&["import", dir]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    for told in [
        "app my-shop-web: https://git.example/o/r, 3 variables (1 secret), 1 domains, 1 jobs",
        "left out: domain no domain",
        "left out: variable PORT",
        "left out: variable bad name",
        "left out: variable NESTED: its value is no text",
        "left out: volume files:/srv",
        "left out: port_override 3000: the port that it listened on",
        "left out: webhook_secret :",
        "left out: job off: is off",
        "left out: job odd: must have five fields",
        "left out: app kuma: it needs a name, and a Git repository",
        "left out: postgres maindb: install it from packages",
        "the GitHub token\n",
        "1 apps would be moved in; --yes does it",
    ] {
        assert!(said.stdout.contains(told), "{told}: {}", said.stdout);
    }
    assert!(secrets.iter().all(|secret| !said.stdout.contains(secret)), "{}", said.stdout);
    assert_eq!(fs::read(setup.data().join("better-paas.db")).unwrap(), before, "a dry run");
    let done = setup.run(&["import", dir, "--yes"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    assert!(!setup.data().join("import").exists(), "no copy is left");
    // Nothing of it in the clear.
    for file in ["better-paas.db", "better-paas.db-wal"] {
        let bytes = fs::read(setup.data().join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{file}");
    }
    assert!(setup.run(&["audit"]).stdout.contains("import: ok"));
    // Again: the name is taken, and nothing happens by halves.
    let again = setup.run(&["import", dir, "--yes"]);
    assert!(
        again.code == Some(1) && again.stderr.contains("app my-shop-web: another app"),
        "{again:?}"
    );

    let server = setup.start();
    let mut owner = server.owner();
    let all = apps(&mut owner);
    let [app] = all.as_slice() else { panic!("{all:?}") };
    let expected = json!({
        "name": "my-shop-web", "gitRepo": "https://git.example/o/r", "branch": "main", "rootDir": "web",
        "buildCommand": "npm ci && npm run build", "startCommand": "npm start", "healthPath": "/up",
        "domains": ["shop.example"], "memoryMb": 512, "cpuPercent": 50, "autoDeploy": true,
        "hasGitToken": true, "status": "new",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&app[name], value, "{name}");
    }
    let at = format!("/api/apps/{}", app["id"].as_str().unwrap());
    let env = owner.get(&format!("{at}/env")).json();
    assert_eq!(env["env"][0], json!({"name": "API_KEY", "secret": true}), "{env}");
    assert_eq!(env["env"][1], json!({"name": "MODE", "value": "fast", "secret": false}), "{env}");
    assert_eq!(env["env"][2], json!({"name": "RATE", "value": "7", "secret": false}), "{env}");
    let jobs = owner.get(&format!("{at}/jobs")).json();
    assert_eq!(jobs["jobs"][0]["command"], "npm run tidy", "{jobs}");
    assert_eq!(owner.get("/api/settings/github-token").json()["saved"], true);
    let busy = server.operator(&["import", dir]);
    assert!(busy.code == Some(1) && busy.stderr.contains("stop the server for this"), "{busy:?}");
}

#[test]
fn an_early_version_in_its_older_place_and_in_the_clear_moves_in() {
    let setup = stopped();
    let old = setup.home().join("old");
    let open = database(&old.join("backend/data"), EARLY);
    // Of a try that was killed.
    let stale = setup.data().join("import");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("baas.db-journal"), "of another database").unwrap();
    open.execute_batch(
        "ALTER TABLE apps ADD COLUMN secret_keys TEXT DEFAULT 'MODE, KEY';
         INSERT INTO apps (id, name, status, git_repo, port, env_vars) VALUES
            ('b', 'torn', 'running', 'https://git.example/o/old', 4002, '{\"MODE\":\"o');",
    )
    .unwrap();
    let done = setup.run(&["import", old.to_str().unwrap(), "--yes"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    for told in [
        "app old-shop: https://git.example/o/old, 1 variables (1 secret)",
        "left out: all variables of torn: they are not written as JSON",
    ] {
        assert!(done.stdout.contains(told), "{told}: {}", done.stdout);
    }
    let server = setup.start();
    let all = apps(&mut server.owner());
    assert_eq!((&all[0]["name"], &all[0]["hasGitToken"]), (&json!("old-shop"), &json!(true)));
}

#[test]
fn a_wrong_key_a_schema_that_runs_and_what_is_no_database_are_refused_with_nothing_changed() {
    let setup = stopped();
    let sealed = |name: &str| {
        let dir = setup.home().join(name);
        let open = database(&dir, EARLY);
        let token = Sealer::new(&dir).seal("a-token");
        open.execute("UPDATE apps SET git_token = ?1", [token]).unwrap();
        dir
    };
    let [wrong, none, trigger, long, many] =
        ["wrong", "none", "trigger", "long", "many"].map(sealed);
    database(&long, "UPDATE apps SET env_vars = hex(zeroblob(1048576))");
    database(
        &many,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000)
         INSERT INTO apps (id, name, status, port) SELECT 'n' || i, 'n', '', 1 FROM n",
    );
    Sealer::new(&wrong);
    fs::remove_file(none.join("secret.key")).unwrap();
    let sql = "CREATE TRIGGER t AFTER UPDATE ON apps BEGIN DELETE FROM apps; END";
    database(&trigger, sql);
    let text = setup.home().join("text");
    fs::create_dir(&text).unwrap();
    fs::write(text.join("baas.db"), "no database at all, but as long as one may be").unwrap();
    let nowhere = setup.home().join("nowhere");
    let before = fs::read(setup.data().join("better-paas.db")).unwrap();
    for (dir, why) in [
        (&wrong, "the token of old-shop does not open with this key; write the key"),
        (&none, "is encrypted, and there is no key; write the key"),
        (&trigger, "it has triggers or views"),
        (&long, "a value of env_vars is longer than 1 MiB"),
        (&many, "apps has more than 10000 rows"),
        (&text, ""),
        (&nowhere, "there is no baas.db in"),
    ] {
        let refused = setup.run(&["import", dir.to_str().unwrap(), "--yes"]);
        assert!(refused.code == Some(1) && refused.stderr.contains(why), "{refused:?}");
        assert!(!refused.stderr.contains("a-token"));
    }
    assert_eq!(fs::read(setup.data().join("better-paas.db")).unwrap(), before);
    assert!(!setup.data().join("import").exists());
}
