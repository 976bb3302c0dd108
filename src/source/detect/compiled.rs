//! Languages whose build leaves one program: Go, Rust, Java.

use super::repo::{Repo, entry, is_plain};
use super::tools::Tool;
use super::{Candidate, Machine, NAMED, Plan, Serve, missing, need, versions};

/// Where built programs go: on `PATH`, so that a Procfile may name them.
pub const BIN: &str = ".better-paas/bin";

/// Go.
///
/// # Errors
/// The sentence for the owner.
pub fn go(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let mut plan = Plan::found("go.mod, a Go app");
    let wanted = versions::go(repo);
    let own = machine.version("go").as_deref().and_then(versions::padded);
    match (wanted, own) {
        (wanted, Some(own)) if wanted.is_none_or(|wanted| own >= wanted) => {}
        // From 1.21 on it fetches the one that go.mod asks for by itself.
        (Some([major, minor, patch]), Some(own)) if own >= [1, 21, 0] => {
            plan.notes.push(format!("Go {major}.{minor}.{patch} (from go.mod)."));
        }
        (wanted, _) if machine.has("mise") => {
            let [major, minor, patch] = wanted.unwrap_or([1, 25, 0]);
            let last = if patch == 0 { String::new() } else { format!(".{patch}") };
            let version = format!("{major}.{minor}{last}");
            plan.notes.push(format!("Go {version} (from go.mod)."));
            plan.tools.push(Tool::mise("go", &version));
        }
        (Some([major, minor, _]), Some(_)) => {
            let what = format!("Go {major}.{minor} (from go.mod)");
            return Err(missing(&what, "apt install -t stable-backports golang-go"));
        }
        _ => return Err(missing("go", "apt install golang-go")),
    }
    let text = repo.text("go.mod");
    let module = text.lines().find_map(|line| line.strip_prefix("module "));
    let module = module.map(|path| path.trim().trim_matches('"')).filter(|path| is_plain(path));
    // `example.com/shop/v2` is called shop.
    let named = module.unwrap_or("app").rsplit('/').find(|part| {
        !part.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    });
    let name = named.unwrap_or("app");
    let is_main = |path: &String| {
        is_plain(path) && repo.text(path).lines().any(|line| line.trim() == "package main")
    };
    let mut dirs: Vec<String> = repo.own(&["main.go"]).into_iter().filter(is_main).collect();
    dirs.iter_mut().for_each(|path| *path = path.trim_end_matches("/main.go").to_owned());
    let likely = ["server", "web", "api", "app", "www", name];
    let is_likely = |dir: &&String| dir.rsplit('/').next().is_some_and(|d| likely.contains(&d));
    let package = match &dirs[..] {
        _ if repo.find("*.go").iter().any(is_main) => ".".to_owned(),
        [one] => format!("./{one}"),
        several => match several.iter().find(is_likely) {
            Some(dir) => format!("./{dir}"),
            None => {
                let command = "go build -o .better-paas/bin/app ./cmd/NAME";
                plan.otherwise = which("Go programs", &dirs, command);
                return Ok(plan);
            }
        },
    };
    let cgo = if text.contains("mattn/go-sqlite3") { "CGO_ENABLED=1 " } else { "" };
    plan.build = Some(format!("{cgo}go build -ldflags='-s -w' -o {BIN}/{name} {package}"));
    Ok(plan.starts(format!("./{BIN}/{name}")))
}

/// Rust. Installed, not just built: the release then holds the program alone, and what was
/// compiled stays in the cache for the next build.
///
/// # Errors
/// The sentence for the owner.
pub fn rust(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    need(machine, "cargo", "apt install cargo")?;
    let mut plan = Plan::found("Cargo.toml, a Rust app");
    let top = repo.manifest("Cargo.toml")?.unwrap_or_default();
    let mut packages: Vec<(String, Vec<String>)> = Vec::new();
    for path in repo.own(&["Cargo.toml"]).into_iter().filter(|path| is_plain(path)) {
        let dir = path.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned();
        let at =
            |file: &str| if dir.is_empty() { file.to_owned() } else { format!("{dir}/{file}") };
        let text = repo.text(&path);
        let Some(name) = entry(&text, "package", "name") else { continue };
        let mut programs: Vec<String> = entry(&text, "bin", "name").into_iter().collect();
        if programs.is_empty() && repo.has(&at("src/main.rs")) {
            programs.push(name);
        }
        if programs.is_empty() {
            let files = repo.find(&at("src/bin/*.rs")).into_iter();
            let name =
                |p: String| p.rsplit('/').next().map(|n| n.trim_end_matches(".rs").to_owned());
            programs.extend(files.filter_map(name));
        }
        if let Some(default) = entry(&text, "package", "default-run") {
            programs = vec![default];
        }
        programs.retain(|name| is_plain(name));
        if !programs.is_empty() {
            packages.push((dir, programs));
        }
    }
    // The package at the top is the app; a workspace without one has the app among its members.
    let likely = ["server", "web", "api", "app", "backend"];
    let serves = |dir: &str| likely.iter().any(|name| dir.rsplit('/').next() == Some(name));
    let chosen = match &packages[..] {
        [one] => Some(one),
        [first, ..] if first.0.is_empty() => Some(first),
        many => many.iter().find(|(dir, _)| serves(dir)),
    };
    match chosen {
        Some((dir, programs))
            if programs.len() == 1 || programs.iter().any(|name| serves(name)) =>
        {
            let name = programs.iter().find(|name| serves(name)).unwrap_or(&programs[0]);
            let path = if dir.is_empty() { "." } else { dir.as_str() };
            let locked = if repo.has("Cargo.lock") { " --locked" } else { "" };
            plan.build = Some(format!(
                "cargo install --path {path} --bin {name} --root .better-paas{locked}"
            ));
            plan = plan.starts(format!("./{BIN}/{name}"));
        }
        _ => {
            let all: Vec<_> = packages.into_iter().flat_map(|(_, programs)| programs).collect();
            plan.otherwise = if all.is_empty() && !top.contains("[workspace]") {
                "found Cargo.toml but no program's name in it: give a start command such as `./.better-paas/bin/shop`".to_owned()
            } else {
                which("Rust programs", &all, "cargo install --path DIRECTORY --root .better-paas")
            };
        }
    }
    Ok(plan)
}

/// Java, by Maven, Gradle, or as a single source.
///
/// # Errors
/// The sentence for the owner.
pub fn java(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    need(machine, "java", "apt install default-jdk-headless")?;
    let run = |jar: &str| {
        Serve::Process(format!(
            "exec java -jar $(ls -S {jar} | grep -v -e -plain.jar -e -sources.jar -e -javadoc.jar -e original- | head -1)"
        ))
    };
    let mut plan = Plan::found("a Java app");
    if repo.has("pom.xml") {
        let maven = if repo.has("mvnw")
            && repo.has(".mvn/wrapper/maven-wrapper.properties")
            && !machine.has("mvn")
        {
            "sh ./mvnw"
        } else {
            need(machine, "mvn", "apt install maven")?;
            "mvn"
        };
        plan.build =
            Some(format!("{maven} -B -q -DskipTests -Dmaven.repo.local=/cache/maven package"));
        plan.serve = vec![
            Candidate::when(
                "target/quarkus-app/quarkus-run.jar",
                Serve::Process("java -jar target/quarkus-app/quarkus-run.jar".to_owned()),
            ),
            Candidate::when("target/*.jar", run("target/*.jar")),
        ];
    } else if repo.first_of("gradlew build.gradle build.gradle.kts").is_some() {
        let gradle = if repo.has("gradlew") { "sh ./gradlew" } else { "gradle" };
        if gradle == "gradle" {
            need(machine, "gradle", "apt install gradle")?;
        }
        plan.build = Some(format!("{gradle} --no-daemon build -x test"));
        plan.serve = vec![Candidate::when("build/libs/*.jar", run("build/libs/*.jar"))];
    } else {
        plan.build = Some(
            "mkdir -p .better-paas/classes && javac -d .better-paas/classes *.java".to_owned(),
        );
        return Ok(plan.starts("java -cp .better-paas/classes Main"));
    }
    Ok(plan)
}

fn which(what: &str, all: &[String], command: &str) -> String {
    let named: Vec<&str> = all.iter().map(String::as_str).take(NAMED).collect();
    format!(
        "found several {what} or none ({}): give a build command such as `{command}` and a start command",
        named.join(", ")
    )
}
