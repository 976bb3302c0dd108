//! What is found in which repository.

use super::*;
use std::fs;

/// Programs that a machine does not have.
type Without = [&'static str];

const ALL: [&str; 0] = [];

fn look(
    files: &[(&str, &str)],
    build: &str,
    start: &str,
    without: &Without,
) -> Result<Plan, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let command = |text: &str| ShellCommand::parse(text).unwrap();
    detect(&Tree::open(dir.path(), "").unwrap(), &command(build), &command(start), &|tool| {
        !without.contains(&tool)
    })
}

fn commands(files: &[(&str, &str)]) -> (String, String) {
    let plan = look(files, "", "", &ALL).unwrap();
    (plan.build.unwrap_or_default(), plan.start.unwrap())
}

#[test]
fn node_apps_are_built_with_the_tool_of_their_lock_file() {
    let start = r#"{"scripts":{"start":"node x.js","build":"vite build"}}"#;
    let npm = " --include=dev --no-audit --no-fund && npm run build --if-present";
    let (build, run) = commands(&[("package.json", start), ("package-lock.json", "{}")]);
    assert_eq!((build, run.as_str()), (format!("npm ci{npm}"), "npm start"));
    assert_eq!(commands(&[("package.json", start)]).0, format!("npm install{npm}"));
    let (build, _) = commands(&[("package.json", start), ("yarn.lock", "")]);
    assert_eq!(build, "yarn install --frozen-lockfile --production=false && yarn run build");
    let berry = "# generated\n\n__metadata:\n  version: 8\n";
    let (build, _) = commands(&[("package.json", start), ("yarn.lock", berry)]);
    assert_eq!(build, "YARN_NODE_LINKER=node-modules yarn install --immutable && yarn run build");
    let (build, _) = commands(&[("package.json", start), ("pnpm-lock.yaml", "")]);
    assert!(build.starts_with("pnpm install --frozen-lockfile"));
}

#[test]
fn node_apps_start_by_script_main_or_a_usual_file() {
    let start = |package: &str, file: &str| {
        look(&[("package.json", package), (file, "")], "", "", &ALL).map(|p| p.start.unwrap())
    };
    assert_eq!(start(r#"{"main":"src/x.js"}"#, "src/x.js").unwrap(), "node src/x.js");
    assert_eq!(start("{}", "index.js").unwrap(), "node index.js");
    assert_eq!(start("not json", "server.js").unwrap(), "node server.js");
    assert!(start("{}", "other.js").unwrap_err().contains("start script"));
    for hostile in ["x.js; id", "$(id).js", "-e.js", "/etc/x.js", "a b.js", "`id`"] {
        let package = serde_json::json!({ "main": hostile }).to_string();
        let file = if hostile.starts_with('/') { "etc/x.js" } else { hostile };
        assert!(start(&package, file).is_err(), "{hostile}");
    }
}

#[test]
fn python_go_rust_and_ruby_have_their_commands() {
    let venv = "python3 -m venv --clear .venv && .venv/bin/pip install ";
    let (build, start) = commands(&[("requirements.txt", ""), ("app.py", "")]);
    assert_eq!(
        (build, start.as_str()),
        (format!("{venv}-r requirements.txt"), ".venv/bin/python app.py")
    );
    let (build, start) = commands(&[("pyproject.toml", ""), ("main.py", ""), ("app.py", "")]);
    assert_eq!((build, start.as_str()), (format!("{venv}."), ".venv/bin/python main.py"));
    let (build, start) = commands(&[("go.mod", "module x")]);
    assert_eq!(
        (build.as_str(), start.as_str()),
        ("go build -o .better-paas/app .", "./.better-paas/app")
    );
    let (build, start) =
        commands(&[("Cargo.toml", "[package]\nname = \"shop\"\n"), ("Cargo.lock", "")]);
    assert_eq!(build, "cargo install --path . --root .better-paas --locked");
    assert_eq!(start, "./.better-paas/bin/shop");
    let (build, start) = commands(&[("Gemfile", ""), ("config.ru", "")]);
    assert_eq!((build.as_str(), start.contains("rackup")), ("bundle install", true));
    let bins = "[[bin]]\nname = 'web'\n[package]\nname = \"x\"\n[dependencies]\nname = \"no\"\n";
    assert_eq!(cargo_program(bins).as_deref(), Some("web"));
    assert_eq!(cargo_program("[package]\nname = \"x; id\"\n"), None);
}

#[test]
fn a_procfile_says_how_to_start_and_the_language_how_to_build() {
    let procfile = "# comment\nworker: x\nweb: gunicorn a:b --bind 0.0.0.0:$PORT \n";
    let files = [("Procfile", procfile), ("requirements.txt", "")];
    let (build, start) = commands(&files);
    assert!(build.contains("pip install"));
    assert_eq!(start, "gunicorn a:b --bind 0.0.0.0:$PORT");
    assert_eq!(commands(&[("Procfile", "web: ./run")]), (String::new(), "./run".into()));
    let none = look(&[("Procfile", "worker: x")], "", "", &ALL).unwrap_err();
    assert!(none.contains("give a start command"), "{none}");
    assert!(look(&[("Procfile", "web: a\u{1}b")], "", "", &ALL).is_err());
    assert_eq!(commands(&[("Procfile", "\u{feff}web: ./run\r\n")]).1, "./run");
}

#[test]
fn an_app_whose_procfile_cannot_be_used_is_not_published_as_a_site() {
    for procfile in ["Web: ./run", "web ./run", "worker: x", "web:\n", ""] {
        let files = [("Procfile", procfile), ("index.html", ""), ("app.py", "")];
        let refused = look(&files, "", "", &ALL).unwrap_err();
        assert!(refused.contains("no `web:` line"), "{procfile}: {refused}");
        assert!(refused.contains("give a start command"), "{refused}");
        assert!(look(&files, "", "./go", &ALL).is_ok());
    }
}

#[test]
fn what_the_owner_wrote_wins() {
    let files = [("package.json", "{}"), ("Procfile", "web: no")];
    let plan = look(&files, "make", "./go", &["npm", "node"]).unwrap();
    assert_eq!((plan.build.as_deref(), plan.start.as_deref().unwrap()), (Some("make"), "./go"));
    assert!(plan.found.contains("owner's"), "{}", plan.found);
    let plan = look(&[], "", "./go", &ALL).unwrap();
    assert_eq!(plan.found, "There is nothing to build; the start command is the owner's.");
    assert_eq!((plan.build, plan.start.as_deref().unwrap()), (None, "./go"));
    assert!(look(&[], "make", "", &ALL).is_err());
}

#[test]
fn a_missing_toolchain_names_the_package() {
    let sentence = |file: &str, without: &'static [&'static str]| {
        look(&[(file, "{}"), ("yarn.lock", "")], "", "x", without).unwrap_err()
    };
    assert!(sentence("requirements.txt", &[VENV]).contains("apt install python3-venv"));
    assert!(sentence("requirements.txt", &["python3"]).contains("apt install python3 "));
    assert!(sentence("package.json", &["node"]).contains("apt install nodejs npm"));
    assert!(sentence("package.json", &["yarn"]).contains("npm install --global yarn"));
    assert!(sentence("go.mod", &["go"]).contains("apt install golang-go"));
    assert!(sentence("Cargo.toml", &["cargo"]).contains("apt install cargo"));
    assert!(sentence("Gemfile", &["bundle"]).contains("ruby-bundler"));
}

#[test]
fn a_static_site_has_no_start_command_and_an_empty_repository_fails_with_advice() {
    let site = look(&[("index.html", "")], "make site", "", &ALL).unwrap();
    assert_eq!((site.build.as_deref(), site.start), (Some("make site"), None));
    let nothing = look(&[("README", "")], "", "", &ALL).unwrap_err();
    assert!(nothing.contains("root directory"), "{nothing}");
    let served = look(&[("index.html", "")], "", "python3 -m http.server $PORT", &ALL).unwrap();
    assert!(served.start.is_some(), "what the owner wrote wins");
    let node = look(&[("index.html", ""), ("package.json", "{}"), ("server.js", "")], "", "", &ALL);
    assert!(node.unwrap().start.is_some());
}

#[test]
fn a_file_too_large_to_be_read_is_not_taken_for_one_that_is_not_there() {
    let large = format!("web: ./app\n{}", "#".repeat(10 << 20));
    let why = look(&[("Procfile", &large)], "", "", &ALL).unwrap_err();
    assert!(why.starts_with("Procfile has 10240 KiB, and no more than 64 KiB"), "{why}");
    let manifest = format!("{{\"scripts\":{{\"start\":\"x\"}}}}{}", " ".repeat(2 << 20));
    let why = look(&[("package.json", &manifest), ("server.js", "")], "", "", &ALL).unwrap_err();
    assert!(why.starts_with("package.json has 2048 KiB"), "{why}");
    let long = format!("web: {}\n", "x".repeat(60_000));
    let why = look(&[("Procfile", &long)], "", "", &ALL).unwrap_err();
    assert!(why.starts_with("the web command in the Procfile "), "{why}");
    // With a command given by the owner the file is not needed.
    assert!(look(&[("Procfile", &large)], "", "./app", &ALL).is_ok());
}
