//! Finds out how to build and start an app whose owner did not say.
//!
//! It only reads a few small files of the release; what it finds becomes
//! commands that are fixed here. No text out of a repository gets into a command
//! but file names of a harmless alphabet, and the `web:` line of a `Procfile`,
//! which is the owner's own start command.

use crate::disk::tree::Tree;
use crate::model::ShellCommand;
use crate::proc::{self, Exec};
use serde_json::Value;
use std::time::Duration;

/// Bytes that a `Procfile` may have.
const PROCFILE_CAP: u64 = 64 * 1024;
/// Bytes that a manifest such as `package.json` may have.
const MANIFEST_CAP: u64 = 1024 * 1024;

/// Bytes that a lock file may have to be looked into.
const LOCK_CAP: u64 = 8 * 1024 * 1024;
/// How long Python may take to say whether it can make virtual environments.
const ASKING_PYTHON: Duration = Duration::from_secs(10);

/// How an app is built and started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was found, for the log: one sentence.
    pub found: String,
    /// The build command, if there is anything to build.
    pub build: Option<String>,
    /// The start command; `None` for a static site, which has no process.
    pub start: Option<String>,
}

/// The name of Python's module for virtual environments: on Debian a package of its own.
const VENV: &str = "Python's venv module";

/// Whether this machine has a program to build with, or [`VENV`].
#[must_use]
pub fn is_installed(program: &str) -> bool {
    if program != VENV {
        return proc::find(program).is_some();
    }
    // Isolated (-I): it imports the system's own modules only.
    let exec = Exec::new("python3").args(["-I", "-c", "import ensurepip, venv"]);
    exec.deadline(ASKING_PYTHON).run().is_ok_and(|o| o.exit.is_success())
}

/// Whether a program is there.
type Has<'a> = &'a dyn Fn(&str) -> bool;

/// Looks at a release. What the owner wrote always wins; the rest is detected.
///
/// # Errors
/// The sentence for the owner: what is missing and what to do.
pub fn detect(
    tree: &Tree,
    build: &ShellCommand,
    start: &ShellCommand,
    has: Has<'_>,
) -> Result<Plan, String> {
    let given = |command: &ShellCommand| {
        Some(command.as_str()).filter(|c| !c.trim().is_empty()).map(str::to_owned)
    };
    let (given_build, given_start) = (given(build), given(start));
    let procfile = if given_start.is_none() { web_process(tree)? } else { None };
    let project = PROJECTS.iter().find(|(_, manifest, _)| tree.has_file(manifest));
    if let Some((_, manifest, _)) = project {
        // What is too large to be read must not look like a manifest that says nothing.
        read(tree, manifest, MANIFEST_CAP)?;
    }
    let build = match (&given_build, project) {
        (Some(_), _) => given_build.clone(),
        (None, Some((language, ..))) => Some(language.build(tree, has)?),
        (None, None) => None,
    };
    let start_from = match (&given_start, &procfile) {
        (Some(_), _) => "the start command is the owner's",
        (None, Some(_)) => "the Procfile says how to start it",
        (None, None) => "the start command follows from it",
    };
    let start = match (given_start.or(procfile), project) {
        (Some(command), _) => Some(command),
        (None, Some((language, ..))) => Some(language.start(tree)?),
        // Its owner means a program, whose source is for nobody to read.
        (None, None) if tree.has_file("Procfile") => return Err(NO_WEB_LINE.to_owned()),
        (None, None) if tree.has_file("index.html") => {
            let found = "Found index.html and nothing to run: a static site.".to_owned();
            return Ok(Plan { found, build, start: None });
        }
        (None, None) => return Err(NOTHING_FOUND.to_owned()),
    };
    let found = match (project, &given_build) {
        (Some((_, manifest, what)), None) => format!("Found {manifest}, {what}; {start_from}."),
        (Some((_, manifest, what)), Some(_)) => {
            format!("Found {manifest}, {what}; {start_from}, the build command is the owner's.")
        }
        // Nothing is wrong: most languages without dependencies have no manifest.
        (None, None) => format!("There is nothing to build; {start_from}."),
        (None, Some(_)) => format!("The build command is the owner's; {start_from}."),
    };
    Ok(Plan { found, build, start })
}

/// The command of the `web` process in a `Procfile`.
fn web_process(tree: &Tree) -> Result<Option<String>, String> {
    let Some(text) = read(tree, "Procfile", PROCFILE_CAP)? else { return Ok(None) };
    // Some editors begin a file with a mark of its encoding.
    let text = text.trim_start_matches('\u{feff}');
    let Some(command) = text.lines().find_map(|line| line.trim().strip_prefix("web:")) else {
        return Ok(None);
    };
    let command = ShellCommand::parse(command.trim())
        .map_err(|why| format!("the web command in the Procfile {why}"))?;
    Ok(Some(command.as_str().to_owned()).filter(|c| !c.is_empty()))
}

/// A manifest's text; one that is too large to be one is an error rather than absent.
fn read(tree: &Tree, name: &str, cap: u64) -> Result<Option<String>, String> {
    match tree.size(name) {
        Some(size) if size > cap => Err(format!(
            "{name} has {} KiB, and no more than {} KiB of it are read; is it the right file?",
            size / 1024,
            cap / 1024
        )),
        _ => Ok(tree.read(name, cap)),
    }
}

/// What to say of a `Procfile` that names no command for the web.
const NO_WEB_LINE: &str = "the Procfile has no `web:` line with a command: write one such as \
     `web: python3 app.py`, or give a start command";

/// What to say when nothing tells what an app is.
const NOTHING_FOUND: &str = "found neither Procfile, package.json, requirements.txt, pyproject.toml, go.mod, Cargo.toml, \
     Gemfile nor index.html: give a start command, or set the root directory if the app is not at \
     the top of its repository";

/// A kind of project, known by its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Node,
    Requirements,
    Pyproject,
    Go,
    Rust,
    Ruby,
}

/// The manifests that are looked for, in this order.
const PROJECTS: [(Language, &str, &str); 6] = [
    (Language::Node, "package.json", "a Node.js app"),
    (Language::Requirements, "requirements.txt", "a Python app"),
    (Language::Pyproject, "pyproject.toml", "a Python app"),
    (Language::Go, "go.mod", "a Go app"),
    (Language::Rust, "Cargo.toml", "a Rust app"),
    (Language::Ruby, "Gemfile", "a Ruby app"),
];

impl Language {
    fn build(self, tree: &Tree, has: Has<'_>) -> Result<String, String> {
        Ok(match self {
            Self::Node => node_build(tree, has)?,
            Self::Requirements | Self::Pyproject => {
                need(has, "python3", "apt install python3 python3-venv")?;
                need(has, VENV, "apt install python3-venv")?;
                let what = if self == Self::Pyproject { "." } else { "-r requirements.txt" };
                format!("python3 -m venv --clear .venv && .venv/bin/pip install {what}")
            }
            Self::Go => {
                need(has, "go", "apt install golang-go")?;
                "go build -o .better-paas/app .".to_owned()
            }
            Self::Rust => {
                need(has, "cargo", "apt install cargo")?;
                let locked = if tree.has_file("Cargo.lock") { " --locked" } else { "" };
                // Installed, not just built: the release then holds the program alone,
                // and what was compiled stays in the cache for the next build.
                format!("cargo install --path . --root .better-paas{locked}")
            }
            Self::Ruby => {
                need(has, "bundle", "apt install ruby-bundler ruby-dev build-essential")?;
                "bundle install".to_owned()
            }
        })
    }

    fn start(self, tree: &Tree) -> Result<String, String> {
        match self {
            Self::Node => node_start(tree),
            Self::Requirements | Self::Pyproject => {
                let file = ["main.py", "app.py", "server.py", "run.py"];
                let file = file.into_iter().find(|name| tree.has_file(name)).ok_or(
                    "found a Python app but neither main.py, app.py, server.py nor run.py: give a \
                     start command such as `gunicorn shop.wsgi --bind 127.0.0.1:$PORT`",
                )?;
                Ok(format!(".venv/bin/python {file}"))
            }
            Self::Go => Ok("./.better-paas/app".to_owned()),
            Self::Rust => {
                let manifest = tree.read("Cargo.toml", MANIFEST_CAP).unwrap_or_default();
                let name = cargo_program(&manifest).ok_or(
                    "found Cargo.toml but no program's name in it: give a start command such as \
                     `./.better-paas/bin/shop`",
                )?;
                Ok(format!("./.better-paas/bin/{name}"))
            }
            Self::Ruby if tree.has_file("bin/rails") => {
                Ok("bundle exec rails server -b 127.0.0.1 -p $PORT".to_owned())
            }
            Self::Ruby if tree.has_file("config.ru") => {
                Ok("bundle exec rackup --host 127.0.0.1 --port $PORT".to_owned())
            }
            Self::Ruby => {
                Err("found a Ruby app but neither config.ru nor bin/rails: give a start \
                               command such as `bundle exec ruby app.rb -p $PORT`"
                    .to_owned())
            }
        }
    }
}

fn need(has: Has<'_>, what: &str, command: &str) -> Result<(), String> {
    let missing = || {
        format!("{what} is not installed on this machine; run `{command}`, or give a build command")
    };
    if has(what) { Ok(()) } else { Err(missing()) }
}

/// `--include=dev`: builds need their tools also where `NODE_ENV` is `production`.
fn node_build(tree: &Tree, has: Has<'_>) -> Result<String, String> {
    need(has, "node", "apt install nodejs npm")?;
    if tree.has_file("pnpm-lock.yaml") {
        need(has, "pnpm", "npm install --global pnpm")?;
        return Ok(
            "pnpm install --frozen-lockfile --prod=false && pnpm run --if-present build".into()
        );
    }
    if tree.has_file("yarn.lock") {
        let build = if script(tree, "build").is_some() { " && yarn run build" } else { "" };
        return Ok(format!("{}{build}", yarn_install(tree, has)?));
    }
    need(has, "npm", "apt install npm")?;
    let locked = tree.has_file("package-lock.json") || tree.has_file("npm-shrinkwrap.json");
    let install = if locked { "npm ci" } else { "npm install" };
    Ok(format!("{install} --include=dev --no-audit --no-fund && npm run build --if-present"))
}

/// Yarn 1 and its successors take different options, and tell each other's lock files apart by this section.
fn yarn_install(tree: &Tree, has: Has<'_>) -> Result<&'static str, String> {
    if tree.read("yarn.lock", LOCK_CAP).is_some_and(|text| text.contains("__metadata:")) {
        need(has, "yarn", "npm install --global corepack && corepack enable")?;
        // Without this setting, packages stay in the cache of the build, where the app does not see them.
        Ok("YARN_NODE_LINKER=node-modules yarn install --immutable")
    } else {
        need(has, "yarn", "npm install --global yarn@1")?;
        Ok("yarn install --frozen-lockfile --production=false")
    }
}

fn node_start(tree: &Tree) -> Result<String, String> {
    if script(tree, "start").is_some() {
        return Ok("npm start".to_owned());
    }
    let main = package(tree).and_then(|p| Some(p.get("main")?.as_str()?.to_owned()));
    let main = main.filter(|name| is_harmless(name) && tree.has_file(name));
    let usual = ["server.js", "index.js", "app.js"];
    let file = main.or_else(|| usual.iter().find(|f| tree.has_file(f)).map(|&f| f.to_owned()));
    file.map(|file| format!("node {file}")).ok_or_else(|| {
        "found package.json without a start script, and neither its main file, server.js, \
         index.js nor app.js: add a start script, or give a start command"
            .to_owned()
    })
}

fn package(tree: &Tree) -> Option<Value> {
    serde_json::from_str(&tree.read("package.json", MANIFEST_CAP)?).ok()
}

fn script(tree: &Tree, name: &str) -> Option<String> {
    Some(package(tree)?.get("scripts")?.get(name)?.as_str()?.to_owned())
}

/// The name of the program that Cargo installs: of the first `[[bin]]`, else of the package.
fn cargo_program(manifest: &str) -> Option<String> {
    let mut section = "";
    let mut names = [None, None];
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let rank = match (section, key.trim()) {
            ("[[bin]]", "name") => 0,
            ("[package]", "name") => 1,
            _ => continue,
        };
        let value = value.trim().trim_matches(['"', '\'']);
        if names[rank].is_none() && is_harmless(value) {
            names[rank] = Some(value.to_owned());
        }
    }
    let [program, package] = names;
    program.or(package)
}

/// A file name that means nothing to a shell and is no option.
fn is_harmless(name: &str) -> bool {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    !name.is_empty() && !name.starts_with(['-', '/']) && name.bytes().all(harmless)
}

#[cfg(test)]
mod tests;
