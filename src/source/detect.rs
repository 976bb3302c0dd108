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

/// What this machine has to build with.
pub trait Tools {
    /// Whether a program is there.
    fn has(&self, program: &str) -> bool;
    /// Whether Python can make virtual environments: on Debian a package of its own.
    fn has_venv(&self) -> bool;
}

/// The tools that are installed.
pub struct Installed;

impl Tools for Installed {
    fn has(&self, program: &str) -> bool {
        proc::find(program).is_some()
    }

    fn has_venv(&self) -> bool {
        // Isolated (-I): it imports the system's own modules only.
        let exec = Exec::new("python3").args(["-I", "-c", "import ensurepip, venv"]);
        exec.deadline(ASKING_PYTHON).run().is_ok_and(|o| o.exit.is_success())
    }
}

/// Looks at a release. What the owner wrote always wins; the rest is detected.
///
/// # Errors
/// The sentence for the owner: what is missing and what to do.
pub fn detect(
    tree: &Tree,
    build: &ShellCommand,
    start: &ShellCommand,
    tools: &dyn Tools,
) -> Result<Plan, String> {
    let given = |command: &ShellCommand| {
        Some(command.as_str()).filter(|c| !c.trim().is_empty()).map(str::to_owned)
    };
    let (given_build, given_start) = (given(build), given(start));
    let procfile = if given_start.is_none() { web_process(tree)? } else { None };
    let language = Language::of(tree);
    if let Some(language) = language {
        language.check_size(tree)?;
    }
    let build = match (&given_build, language) {
        (Some(_), _) => given_build.clone(),
        (None, Some(language)) => language.build(tree, tools)?,
        (None, None) => None,
    };
    let start_from = match (&given_start, &procfile) {
        (Some(_), _) => "the start command is the owner's",
        (None, Some(_)) => "the Procfile says how to start it",
        (None, None) => "the start command follows from it",
    };
    let start = match (given_start.or(procfile), language) {
        (Some(command), _) => Some(command),
        (None, Some(language)) => Some(language.start(tree)?),
        // Its owner means a program, whose source is for nobody to read.
        (None, None) if tree.has_file("Procfile") => return Err(NO_WEB_LINE.to_owned()),
        (None, None) if tree.has_file("index.html") => {
            let found = "Found index.html and nothing to run: a static site.".to_owned();
            return Ok(Plan { found, build, start: None });
        }
        (None, None) => return Err(NOTHING_FOUND.to_owned()),
    };
    let found = match (language, &given_build) {
        (Some(language), None) => format!("Found {}; {start_from}.", language.sentence()),
        (Some(language), Some(_)) => {
            let what = language.sentence();
            format!("Found {what}; {start_from}, the build command is the owner's.")
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

impl Language {
    const IN_ORDER: [(Self, &'static str); 6] = [
        (Self::Node, "package.json"),
        (Self::Requirements, "requirements.txt"),
        (Self::Pyproject, "pyproject.toml"),
        (Self::Go, "go.mod"),
        (Self::Rust, "Cargo.toml"),
        (Self::Ruby, "Gemfile"),
    ];

    fn of(tree: &Tree) -> Option<Self> {
        let found = Self::IN_ORDER.iter().find(|(_, manifest)| tree.has_file(manifest));
        found.map(|(language, _)| *language)
    }

    /// What is too large to be read must not look like a manifest that says nothing.
    fn check_size(self, tree: &Tree) -> Result<(), String> {
        let manifest = Self::IN_ORDER.iter().find(|(language, _)| *language == self);
        manifest.map_or(Ok(()), |(_, name)| read(tree, name, MANIFEST_CAP).map(drop))
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Node => "package.json, a Node.js app",
            Self::Requirements => "requirements.txt, a Python app",
            Self::Pyproject => "pyproject.toml, a Python app",
            Self::Go => "go.mod, a Go app",
            Self::Rust => "Cargo.toml, a Rust app",
            Self::Ruby => "Gemfile, a Ruby app",
        }
    }

    fn build(self, tree: &Tree, tools: &dyn Tools) -> Result<Option<String>, String> {
        let command = match self {
            Self::Node => node_build(tree, tools)?,
            Self::Requirements | Self::Pyproject => {
                need(tools, "python3", "apt install python3 python3-venv")?;
                if !tools.has_venv() {
                    return Err(missing("Python's venv module", "apt install python3-venv"));
                }
                let what = if self == Self::Pyproject { "." } else { "-r requirements.txt" };
                format!("python3 -m venv --clear .venv && .venv/bin/pip install {what}")
            }
            Self::Go => {
                need(tools, "go", "apt install golang-go")?;
                "go build -o .better-paas/app .".to_owned()
            }
            Self::Rust => {
                need(tools, "cargo", "apt install cargo")?;
                let locked = if tree.has_file("Cargo.lock") { " --locked" } else { "" };
                // Installed, not just built: the release then holds the program alone,
                // and what was compiled stays in the cache for the next build.
                format!("cargo install --path . --root .better-paas{locked}")
            }
            Self::Ruby => {
                need(tools, "bundle", "apt install ruby-bundler ruby-dev build-essential")?;
                "bundle install".to_owned()
            }
        };
        Ok(Some(command))
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

fn missing(what: &str, command: &str) -> String {
    format!("{what} is not installed on this machine; run `{command}`, or give a build command")
}

fn need(tools: &dyn Tools, program: &str, command: &str) -> Result<(), String> {
    if tools.has(program) { Ok(()) } else { Err(missing(program, command)) }
}

/// `--include=dev`: builds need their tools also where `NODE_ENV` is `production`.
fn node_build(tree: &Tree, tools: &dyn Tools) -> Result<String, String> {
    need(tools, "node", "apt install nodejs npm")?;
    if tree.has_file("pnpm-lock.yaml") {
        need(tools, "pnpm", "npm install --global pnpm")?;
        return Ok(
            "pnpm install --frozen-lockfile --prod=false && pnpm run --if-present build".into()
        );
    }
    if tree.has_file("yarn.lock") {
        let build = if script(tree, "build").is_some() { " && yarn run build" } else { "" };
        return Ok(format!("{}{build}", yarn_install(tree, tools)?));
    }
    need(tools, "npm", "apt install npm")?;
    let locked = tree.has_file("package-lock.json") || tree.has_file("npm-shrinkwrap.json");
    let install = if locked { "npm ci" } else { "npm install" };
    Ok(format!("{install} --include=dev --no-audit --no-fund && npm run build --if-present"))
}

/// Yarn 1 and its successors take different options, and tell each other's lock files apart by this section.
fn yarn_install(tree: &Tree, tools: &dyn Tools) -> Result<&'static str, String> {
    if tree.read("yarn.lock", LOCK_CAP).is_some_and(|text| text.contains("__metadata:")) {
        need(tools, "yarn", "npm install --global corepack && corepack enable")?;
        // Without this setting, packages stay in the cache of the build, where the app does not see them.
        Ok("YARN_NODE_LINKER=node-modules yarn install --immutable")
    } else {
        need(tools, "yarn", "npm install --global yarn@1")?;
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
