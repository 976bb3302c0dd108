//! Languages whose build leaves one program: Go, Rust, Java.

use super::repo::{Repo, entry, has_word, is_plain, join, name, parent};
use super::tools::Tool;
use super::{Machine, NAMED, Plan, Serve, missing, versions};

/// Where built programs go: on `PATH`, so that a Procfile may name them.
pub const BIN: &str = ".better-paas/bin";

/// What the one of several programs that serves is called.
const SERVERS: &str = "server web api app www backend";

/// Go.
///
/// # Errors
/// The sentence for the owner.
pub fn go(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let mut plan = Plan::found("go.mod, a Go app");
    let text = repo.text("go.mod");
    let wanted = versions::go(&text);
    let [major, minor, patch] = wanted.unwrap_or([1, 25, 0]);
    let last = if patch == 0 { String::new() } else { format!(".{patch}") };
    let version = format!("{major}.{minor}{last}");
    let note = format!("Go {version} (from go.mod).");
    match machine.version("go") {
        Some(own) if wanted.is_none_or(|wanted| own >= wanted) => {}
        // From 1.21 on it fetches the one that go.mod asks for by itself.
        Some(own) if own >= [1, 21, 0] => plan.notes.push(note),
        _ if machine.has("mise") => {
            plan.notes.push(note);
            plan.tools.push(Tool::mise("go", &version));
        }
        Some(_) => {
            let what = format!("Go {version} (from go.mod)");
            return Err(missing(&what, "apt install -t stable-backports golang-go"));
        }
        None => return Err(missing("go", "apt install golang-go")),
    }
    let module = text.lines().find_map(|line| line.strip_prefix("module ")).unwrap_or_default();
    let module = Some(module.trim().trim_matches('"')).filter(|path| is_plain(path));
    // `example.com/shop/v2` is called shop.
    let is_version = |part: &str| {
        part.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let app = module.and_then(|path| path.rsplit('/').find(|part| !is_version(part)));
    let app = app.unwrap_or("app");
    let is_main = |path: &String| {
        is_plain(path) && repo.text(path).lines().any(|line| line.trim() == "package main")
    };
    let mut dirs = repo.own(&["main.go"]);
    dirs.retain(is_main);
    let package = if repo.find("*.go").iter().any(is_main) {
        ".".to_owned()
    } else if let Some(path) = server(&dirs, |path| name(parent(path)), app) {
        format!("./{}", parent(path))
    } else {
        let found: Vec<&str> = dirs.iter().map(|path| parent(path)).collect();
        let command = "go build -o .better-paas/bin/app ./cmd/NAME";
        return Ok(plan.otherwise(which("Go programs", &found, command)));
    };
    let cgo = if text.contains("mattn/go-sqlite3") { "CGO_ENABLED=1 " } else { "" };
    let build = format!("{cgo}go build -ldflags='-s -w' -o {BIN}/{app} {package}");
    Ok(plan.builds(build).starts(format!("./{BIN}/{app}")))
}

/// Rust. Installed, not just built: the release then holds the program alone, and what was
/// compiled stays in the cache for the next build.
///
/// # Errors
/// The sentence for the owner.
pub fn rust(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    machine.need("cargo", "apt install cargo")?;
    let plan = Plan::found("Cargo.toml, a Rust app");
    let top = repo.manifest("Cargo.toml")?.unwrap_or_default();
    let mut packages: Vec<(String, Vec<String>)> = Vec::new();
    for path in repo.own(&["Cargo.toml"]).into_iter().filter(|path| is_plain(path)) {
        let (dir, text) = (parent(&path).to_owned(), repo.text(&path));
        let Some(package) = entry(&text, "package", "name") else { continue };
        let stated = entry(&text, "package", "default-run").or_else(|| entry(&text, "bin", "name"));
        let main = || repo.has(&join(&dir, "src/main.rs")).then_some(package);
        let mut programs = match stated.or_else(main) {
            Some(program) => vec![program],
            None => {
                let sources = repo.find(&join(&dir, "src/bin/*.rs"));
                sources.iter().map(|path| name(path).trim_end_matches(".rs").to_owned()).collect()
            }
        };
        programs.retain(|name| is_plain(name));
        if !programs.is_empty() {
            packages.push((dir, programs));
        }
    }
    // The package at the top is the app; a workspace without one has the app among its members.
    let at_top = packages.first().filter(|(dir, _)| dir.is_empty());
    let package = at_top.or_else(|| server(&packages, |(dir, _)| name(dir), ""));
    if let Some((dir, programs)) = package
        && let Some(program) = server(programs, |program| program, "")
    {
        let path = if dir.is_empty() { "." } else { dir.as_str() };
        let locked = if repo.has("Cargo.lock") { " --locked" } else { "" };
        let build =
            format!("cargo install --path {path} --bin {program} --root .better-paas{locked}");
        return Ok(plan.builds(build).starts(format!("./{BIN}/{program}")));
    }
    let all: Vec<&str> = packages.iter().flat_map(|(_, all)| all).map(String::as_str).collect();
    Ok(plan.otherwise(if all.is_empty() && !top.contains("[workspace]") {
        "found Cargo.toml but no program's name in it: give a start command such as \
         `./.better-paas/bin/shop`"
            .to_owned()
    } else {
        which("Rust programs", &all, "cargo install --path DIRECTORY --root .better-paas")
    }))
}

/// Java, by Maven, Gradle, or as a single source.
///
/// # Errors
/// The sentence for the owner.
pub fn java(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    machine.need("java", "apt install default-jdk-headless")?;
    let run = |jar: &'static str| {
        let others = "-e -plain.jar -e -sources.jar -e -javadoc.jar -e original-";
        let command = format!("exec java -jar $(ls -S {jar} | grep -v {others} | head -1)");
        Serve::Process { command, needs: jar }
    };
    let mut plan = Plan::found("a Java app");
    if repo.has("pom.xml") {
        let wrapper = repo.has("mvnw") && repo.has(".mvn/wrapper/maven-wrapper.properties");
        let maven = if wrapper && !machine.has("mvn") { "sh ./mvnw" } else { "mvn" };
        if maven == "mvn" {
            machine.need("mvn", "apt install maven")?;
        }
        plan.serve = ["target/quarkus-app/quarkus-run.jar", "target/*.jar"].map(run).to_vec();
        let options = "-B -q -DskipTests -Dmaven.repo.local=/cache/maven";
        Ok(plan.builds(format!("{maven} {options} package")))
    } else if repo.first_of("gradlew build.gradle build.gradle.kts").is_some() {
        let gradle = if repo.has("gradlew") { "sh ./gradlew" } else { "gradle" };
        if gradle == "gradle" {
            machine.need("gradle", "apt install gradle")?;
        }
        plan.serve = vec![run("build/libs/*.jar")];
        Ok(plan.builds(format!("{gradle} --no-daemon build -x test")))
    } else {
        let build = "mkdir -p .better-paas/classes && javac -d .better-paas/classes *.java";
        Ok(plan.builds(build).starts("java -cp .better-paas/classes Main"))
    }
}

/// The one of several that serves, by its name or the app's.
fn server<'a, T>(all: &'a [T], name: impl Fn(&T) -> &str, app: &str) -> Option<&'a T> {
    match all {
        [one] => Some(one),
        several => several.iter().find(|one| name(one) == app || has_word(SERVERS, name(one))),
    }
}

fn which(what: &str, all: &[&str], command: &str) -> String {
    format!(
        "found several {what} or none ({}): give a build command such as `{command}` and a start \
         command",
        all[..all.len().min(NAMED)].join(", ")
    )
}
