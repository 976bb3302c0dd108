//! What is found in which repository.

mod cron;
mod node;
mod procfile;
mod python;

use super::*;
use crate::model::RootDir;
use std::fs;

fn directory<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// A machine with everything but these programs, and a Node and a Go of these versions.
fn look_on(
    files: &[(&str, &str)],
    given: [&str; 3],
    without: &[&str],
    versions: (&str, &str),
) -> Result<Plan, String> {
    let dir = directory(files.iter().copied());
    let settings = AppSettings {
        build_command: ShellCommand::parse(given[0]).unwrap(),
        start_command: ShellCommand::parse(given[1]).unwrap(),
        publish_dir: RootDir::parse(given[2]).unwrap(),
        ..AppSettings::default()
    };
    let has = |tool: &str| !without.contains(&tool);
    let version = |tool: &str| match tool {
        "node" => versions.0.to_owned(),
        _ => versions.1.to_owned(),
    };
    detect(dir.path(), &settings, &Machine { has: &has, version: &version, env: &[] })
}

fn look(files: &[(&str, &str)]) -> Result<Plan, String> {
    look_on(files, [""; 3], &[], ("v22.20.0", "go1.24.1"))
}

/// The same where everything is new, and the owner has set a variable.
fn look_with(files: &[(&str, &str)], (name, text): (&str, &str)) -> Result<Plan, String> {
    let dir = directory(files.iter().copied());
    let env = [(EnvName::parse(name).unwrap(), Secret::new(text.to_owned()), false)];
    let version = |_: &str| "v99.0.0".to_owned();
    let machine = Machine { has: &|_| true, version: &version, env: &env };
    detect(dir.path(), &AppSettings::default(), &machine)
}

/// What a plan starts without looking at what the build has left.
fn start(plan: &Plan) -> &str {
    match &plan.serve[0] {
        Serve::Process { command, needs: "" } => command,
        other => panic!("{other:?}"),
    }
}

fn commands(files: &[(&str, &str)]) -> (String, String) {
    let plan = look(files).unwrap();
    (plan.build().unwrap_or_default(), start(&plan).to_owned())
}

fn tools(plan: &Plan) -> Vec<&str> {
    plan.tools.iter().map(|tool| tool.name.as_str()).collect()
}

#[test]
fn node_apps_are_built_with_the_manager_of_their_lock_file() {
    let package = r#"{"scripts":{"start":"node x.js","build":"tsc"}}"#;
    let build = |lock: &str, text: &str| {
        let plan = look(&[("package.json", package), (lock, text)]).unwrap();
        (plan.build().unwrap(), tools(&plan).join(" "))
    };
    let (npm, none) = build("package-lock.json", "{}");
    assert!(npm.contains("npm ci --include=dev") && npm.ends_with("&& npm run build"), "{npm}");
    assert_eq!(none, "");
    assert!(build("other", "").0.starts_with("CI=true npm install --include=dev"));
    for (lock, text, tool, strictly) in [
        ("pnpm-lock.yaml", "lockfileVersion: '9.0'", "pnpm-9", "--frozen-lockfile --prod=false"),
        ("pnpm-lock.yaml", "lockfileVersion: '6.0'", "pnpm-8", "--frozen-lockfile --prod=false"),
        ("pnpm-lock.yaml", "lockfileVersion: 5.4", "pnpm-7", "--frozen-lockfile --prod=false"),
        ("yarn.lock", "# yarn v1", "yarn-1.22.22", "--frozen-lockfile --production=false"),
        ("yarn.lock", "__metadata:\n  version: 8", "yarnpkg-cli-dist-4", "--immutable"),
        ("yarn.lock", "__metadata:\n  version: 6", "yarnpkg-cli-dist-3", "--immutable"),
        ("bun.lock", "{}", "bun-1", "--frozen-lockfile"),
    ] {
        let manager = &lock[..lock.find(['-', '.']).unwrap()];
        let (command, got) = build(lock, text);
        assert!(command.contains(&format!("{manager} install {strictly}")), "{lock}: {command}");
        assert!(command.ends_with(&format!("&& {manager} run build")), "{lock}: {command}");
        assert_eq!(got, tool, "{lock}");
    }
    let settings = ("pnpm-workspace.yaml", "overrides:\n  sharp: ^0.34.5\n");
    let lock = ("pnpm-lock.yaml", "lockfileVersion: '9.0'");
    let plan = look(&[("package.json", package), lock, settings]).unwrap();
    assert_eq!(tools(&plan), ["pnpm-10"]);
    let named = package.replacen('{', r#"{"packageManager":"pnpm@9.1.4+sha512.abc","#, 1);
    let plan = look(&[("package.json", &named), ("yarn.lock", "")]).unwrap();
    assert_eq!(tools(&plan), ["pnpm-9.1.4"]);
    assert!(
        plan.notes.iter().any(|note| note.starts_with("yarn.lock is not used")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_start_script_is_run_itself_and_one_of_a_developers_never() {
    let of = |scripts: &str, more: &str| {
        let package = format!(r#"{{"scripts":{scripts}{more}}}"#);
        look(&[("package.json", &package), ("index.js", "")])
    };
    assert_eq!(start(&of(r#"{"start":"node index.js"}"#, "").unwrap()), "node index.js");
    let chain = r#"{"start":"npm run serve","serve":"NODE_ENV=production node a.js"}"#;
    assert_eq!(start(&of(chain, "").unwrap()), "NODE_ENV=production node a.js");
    assert_eq!(start(&of(r#"{"start":"nodemon app.js"}"#, "").unwrap()), "node app.js");
    assert_eq!(
        start(&of(r#"{"start":"ts-node src/index.ts"}"#, "").unwrap()),
        "ts-node src/index.ts"
    );
    for developers in [
        "vite",
        "react-scripts start",
        "eleventy --serve",
        "browser-sync start -s",
        "npx serve -s build",
        "cross-env X=1 webpack serve",
        "ng serve",
        "astro dev",
        "next dev",
        "vite preview --port 3",
    ] {
        let scripts = format!(r#"{{"build":"x","start":"{developers}"}}"#);
        let plan = of(&scripts, r#","devDependencies":{"vite":"5"}"#).unwrap();
        assert!(
            plan.spa && matches!(&plan.serve[0], Serve::Files(_)),
            "{developers}: {:?}",
            plan.serve[0]
        );
    }
}

/// What becomes of a release after its build has left these files.
fn after_build(plan: &Plan, left: &[&str]) -> Result<Serve, String> {
    let dir = directory(left.iter().map(|name| (*name, "")));
    plan.after_build(&Tree::open(dir.path(), "").unwrap())
}

/// The same of one with such a `package.json`: a command, or a directory and whether its page
/// shows the other paths too.
fn becomes(package: &str, left: &[&str]) -> Result<(String, Option<bool>), String> {
    let plan = look(&[("package.json", package)])?;
    Ok(match after_build(&plan, left)? {
        Serve::Process { command, .. } => (command, None),
        Serve::Files(dir) => (dir, Some(plan.spa)),
        Serve::Workers => unreachable!("no Procfile"),
    })
}

#[test]
fn what_the_build_has_left_decides_between_a_server_and_files() {
    let package = |dependency: &str| {
        format!(
            r#"{{"scripts":{{"build":"b","start":"vite"}},"dependencies":{{"{dependency}":"1"}}}}"#
        )
    };
    let process = |command: &str| Ok((command.to_owned(), None));
    let files = |dir: &str, spa| Ok((dir.to_owned(), Some(spa)));
    for (dependency, left, serve) in [
        ("next", ".next/BUILD_ID", process("next start -H 127.0.0.1")),
        ("next", "out/index.html", files("out", false)),
        ("nuxt", ".output/server/index.mjs", process("node .output/server/index.mjs")),
        ("nuxt", ".output/public/index.html", files(".output/public", false)),
        ("@sveltejs/kit", "build/handler.js", process("node build")),
        ("@sveltejs/kit", "build/index.html", files("build", false)),
        ("astro", "dist/server/entry.mjs", process("node dist/server/entry.mjs")),
        ("astro", "dist/index.html", files("dist", false)),
        ("@nestjs/core", "dist/main.js", process("node dist/main.js")),
        ("react-scripts", "build/index.html", files("build", true)),
        ("@angular/core", "dist/shop/browser/index.html", files("dist/shop/browser", true)),
        ("@11ty/eleventy", "_site/index.html", files("_site", false)),
        ("vitepress", "docs/.vitepress/dist/index.html", files("docs/.vitepress/dist", false)),
        ("x", "dist/index.js", process("node dist/index.js")),
    ] {
        assert_eq!(becomes(&package(dependency), &[left]), serve, "{dependency} {left}");
    }
    let nothing = becomes(&package("vite"), &["README"]).unwrap_err();
    assert!(nothing.contains("publish directory"), "{nothing}");
}

#[test]
fn the_machines_node_is_used_where_it_will_do() {
    let of = |files: &[(&str, &str)], own: &str| {
        let mut all = vec![("package.json", r#"{"scripts":{"start":"node x"}}"#)];
        all.extend(files);
        look_on(&all, [""; 3], &[], (own, ""))
    };
    let got = |files: &[(&str, &str)], own: &str| tools(&of(files, own).unwrap()).join(" ");
    assert_eq!(got(&[(".nvmrc", "v22")], "v22.1.0"), "");
    assert_eq!(got(&[(".nvmrc", "22.11.0\n")], "v22.1.0"), "node-22.11.0");
    assert_eq!(got(&[(".nvmrc", "lts/iron")], "v22.1.0"), "node-20");
    assert_eq!(got(&[(".tool-versions", "ruby 3\nnodejs 20.1.0")], "v22.1.0"), "node-20.1.0");
    assert_eq!(got(&[("mise.toml", "[tools]\nnode = \"20\"")], "v22.1.0"), "node-20");
    assert_eq!(got(&[], "v18.19.0"), "node-24", "nothing asks, and the machine's is old");
    let asks = r#"{"engines":{"node":"^20.9 || >=22"},"scripts":{"start":"node x"}}"#;
    assert_eq!(
        tools(&look_on(&[("package.json", asks)], [""; 3], &[], ("v18.1.0", "")).unwrap()),
        ["node-24"]
    );
    let long = "9".repeat(400);
    for bad in ["../../x", "22; id", "$(id)", long.as_str(), "nonsense"] {
        let why = of(&[(".nvmrc", bad)], "v22.1.0").unwrap_err();
        assert!(why.starts_with(".nvmrc asks for the version `"), "{why}");
    }
}

#[test]
fn go_and_rust_leave_one_program_where_a_procfile_finds_it() {
    let module = ("go.mod", "module example.com/shop/v2\n\ngo 1.21\n");
    let (build, start) = commands(&[module, ("main.go", "package main")]);
    assert_eq!(
        (build.as_str(), start.as_str()),
        ("go build -ldflags='-s -w' -o .better-paas/bin/shop .", "./.better-paas/bin/shop")
    );
    assert!(
        commands(&[
            module,
            ("cmd/tool/main.go", "package main"),
            ("cmd/server/main.go", "package main")
        ])
        .0
        .ends_with("./cmd/server")
    );
    let several =
        look(&[module, ("cmd/a/main.go", "package main"), ("cmd/b/main.go", "package main")])
            .unwrap_err();
    assert!(several.contains("cmd/a, cmd/b") && several.contains("go build -o"), "{several}");
    let old = look_on(
        &[("go.mod", "module x\ngo 1.22\n"), ("main.go", "package main")],
        [""; 3],
        &["mise"],
        ("", "go1.19.8"),
    );
    assert!(old.unwrap_err().starts_with("Go 1.22 (from go.mod) is not installed"));
    let rust =
        [("Cargo.toml", "[package]\nname = \"shop\"\n"), ("Cargo.lock", ""), ("src/main.rs", "")];
    let (build, start) = commands(&rust);
    assert_eq!(build, "cargo install --path . --bin shop --root .better-paas --locked");
    assert_eq!(start, "./.better-paas/bin/shop");
    let workspace = [
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n"),
        ("crates/core/Cargo.toml", "[package]\nname = \"core\"\n"),
        ("crates/core/src/lib.rs", ""),
        ("crates/web/Cargo.toml", "[package]\nname = \"site\"\n"),
        ("crates/web/src/main.rs", ""),
    ];
    assert!(commands(&workspace).0.contains("--path crates/web --bin site"));
    let hostile = look(&[("Cargo.toml", "[package]\nname = \"x; id\"\n"), ("src/main.rs", "")]);
    assert!(hostile.is_err());
}

#[test]
fn other_languages_come_before_the_node_that_builds_their_assets() {
    let assets = ("package.json", r#"{"scripts":{"build":"x"}}"#);
    let rails =
        look(&[("Gemfile", ""), ("Gemfile.lock", "sprockets"), ("bin/rails", ""), assets]).unwrap();
    assert_eq!(start(&rails), "bundle exec rails server -b 127.0.0.1 -p $PORT");
    assert!(rails.build().unwrap().contains("assets:precompile"));
    let laravel =
        look(&[("composer.json", "{}"), ("artisan", ""), ("public/index.php", ""), assets])
            .unwrap();
    assert_eq!(start(&laravel), "serve-php public");
    let django =
        look(&[("manage.py", ""), ("requirements.txt", "django"), ("a/wsgi.py", ""), assets])
            .unwrap();
    assert!(django.build().unwrap().contains("npm run build"));
}

#[test]
fn what_the_owner_wrote_wins() {
    let files = [("package.json", "{}"), ("Procfile", "web: no"), ("index.html", "")];
    let plan = look_on(&files, ["make", "./go", ""], &["npm"], ("", "")).unwrap();
    assert_eq!((plan.build().as_deref(), start(&plan)), (Some("make"), "./go"));
    let plan = look_on(&[], ["", "./go", ""], &[], ("", "")).unwrap();
    assert_eq!((plan.build().as_deref(), start(&plan)), (None, "./go"));
    let plan = look_on(&files, ["make", "", "dist"], &[], ("v22.12.0", "")).unwrap();
    assert_eq!(plan.serve, [Serve::Files("dist".to_owned())]);
    let gone = after_build(&plan, &["dist/main.js"]).unwrap_err();
    assert!(gone.contains("dist/index.html: correct the publish directory"), "{gone}");
    let plan = look_on(&[], ["", "", "my site"], &[], ("", "")).unwrap();
    let site = Ok(Serve::Files("my site".to_owned()));
    assert_eq!(after_build(&plan, &["my site/index.html"]), site);
    assert!(look_on(&[], ["make", "", ""], &[], ("", "")).is_err());
    let why = look_on(&files[..1], ["make", "", ""], &["npm"], ("", "")).unwrap_err();
    assert!(why.starts_with("npm is not installed"), "the start is to be found yet: {why}");
}

#[test]
fn a_missing_toolchain_names_the_package() {
    let sentence = |file: &str, without: &[&str]| {
        look_on(&[(file, "{}")], [""; 3], without, ("", "")).unwrap_err()
    };
    assert!(sentence("requirements.txt", &["uv", VENV]).contains("apt install python3-venv"));
    assert!(sentence("requirements.txt", &["python3"]).contains("apt install python3 "));
    assert!(sentence("package.json", &["npm"]).contains("apt install nodejs npm"));
    assert!(sentence("go.mod", &["go", "mise"]).contains("apt install golang-go"));
    assert!(sentence("Cargo.toml", &["cargo"]).contains("apt install cargo"));
    assert!(sentence("Gemfile", &["bundle"]).contains("ruby-bundler"));
    assert!(sentence("pom.xml", &["mvn"]).contains("apt install maven"));
}

#[test]
fn files_alone_are_a_site_and_nothing_is_a_sentence() {
    let dir = |files: &[(&str, &str)]| match &look(files).unwrap().serve[0] {
        Serve::Files(dir) => dir.clone(),
        process => panic!("{process:?}"),
    };
    assert_eq!(dir(&[("index.html", "")]), "");
    assert_eq!(dir(&[("public/index.html", "")]), "public");
    assert_eq!(
        dir(&[("index.html", ""), ("Staticfile", "root: www\n"), ("www/index.html", "")]),
        "www"
    );
    assert!(look(&[("README", "")]).unwrap_err().contains("root directory"));
    assert!(look(&[("Dockerfile", "FROM x")]).unwrap_err().contains("found only Dockerfile"));
    assert!(look(&[("compose.yaml", "")]).unwrap_err().contains("found only compose.yaml"));
    let apps = look(&[
        ("apps/a/package.json", "{}"),
        ("apps/b/requirements.txt", ""),
        ("web/index.html", ""),
    ])
    .unwrap_err();
    assert!(
        apps.contains("`apps/a`, `apps/b`") && apps.contains("Set the root directory"),
        "{apps}"
    );
}

#[test]
fn hostile_manifests_get_a_sentence() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let why = look(&[("package.json", &format!(r#"{{"a":{deep}}}"#))]).unwrap_err();
    assert!(why.starts_with("package.json is not valid JSON"), "{why}");
    let large = format!("{{}}{}", " ".repeat(2 << 20));
    let why = look(&[("package.json", &large)]).unwrap_err();
    assert!(why.starts_with("package.json has 2048 KiB"), "{why}");
    for main in ["x.js; id", "$(id).js", "-e.js", "/etc/x.js", "a b.js", "`id`.js", "../x.js"] {
        let package = serde_json::json!({ "main": main }).to_string();
        assert!(look(&[("package.json", &package)]).is_err(), "{main}");
    }
    let manager = r#"{"packageManager":"pnpm@$(id)","scripts":{"start":"node x"}}"#;
    assert!(
        look(&[("package.json", manager)])
            .unwrap_err()
            .starts_with("packageManager in package.json")
    );
    assert!(look(&[("package.json", "[]"), ("index.js", "")]).is_err());
}

#[test]
fn no_repositorys_command_writes_a_line_of_its_own_into_the_log() {
    let files = [
        ("package.json", r#"{"scripts":{"start":"node x.js\nLive on port 80"}}"#),
        ("package.json", r#"{"scripts":{"start":"node x.js","prestart":"a\rFailed: no"}}"#),
        ("package.json", r#"{"scripts":{"start":"npm run x","x":"node \u001b[2K"}}"#),
        ("Procfile", "web: node \u{1b}[2K"),
    ];
    for file in files {
        let why = look(&[file]).unwrap_err();
        assert!(why.ends_with("must not hold control characters or line ends"), "{why}");
        let owners = look_on(&[file], ["", "node x.js", ""], &[], ("v22.20.0", "")).unwrap();
        assert_eq!(start(&owners), "node x.js", "the owner's takes its place");
    }
}

#[test]
fn what_the_owner_asks_for_by_a_variable_is_had_whatever_the_repository_says() {
    let node = [("package.json", r#"{"scripts":{"start":"node x"}}"#), (".nvmrc", "22")];
    assert_eq!(tools(&look_with(&node, ("NODE_VERSION", "20.9.0")).unwrap()), ["node-20.9.0"]);
    let python = [("requirements.txt", "flask"), ("runtime.txt", "python-3.6.1"), ("app.py", "")];
    let plan = look_with(&python, ("PYTHON_VERSION", "3.12")).unwrap();
    assert_eq!(tools(&plan), ["cpython-3.12"]);
    assert!(plan.notes.contains(&"Python 3.12 (from PYTHON_VERSION).".to_owned()));
    for bad in ["../../x", "3.12'; id '", ""] {
        let sentence = look_with(&python, ("PYTHON_VERSION", bad)).unwrap_err();
        assert!(sentence.starts_with("PYTHON_VERSION asks for"), "{sentence}");
    }
}
