//! Finds out how to build and start an app whose owner did not say: a table of kinds, in order.
//!
//! It only reads a few small files of the release; what it finds becomes commands that are
//! fixed here. No text out of a repository gets into a command but file names and versions of
//! a harmless alphabet, and what its author wrote as a command: the `web:` line of a
//! `Procfile` and the start script of a `package.json`.

use crate::disk::tree::Tree;
use crate::model::{RootDir, ShellCommand};
use crate::proc::{self, Exec};
use crate::store::AppSettings;
use repo::Repo;
use std::time::Duration;
use tools::Tool;

mod compiled;
mod managers;
mod node;
mod python;
pub mod repo;
mod scripted;
mod sites;
pub mod tools;
mod versions;

/// How long a program may take to say its version.
const ASKING: Duration = Duration::from_secs(10);

/// Apps below a directory that a sentence names.
const NAMED: usize = 5;

/// How an app is built and started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What was found and what follows from it, for the log: a sentence each.
    pub notes: Vec<String>,
    /// What the machine lacks, in the order in which it is needed.
    pub tools: Vec<Tool>,
    /// The build command, if there is anything to build.
    pub build: Option<String>,
    /// What the release may turn out to be: the first whose file is there after the build.
    pub serve: Vec<Candidate>,
    /// What to say when it is none of those.
    pub otherwise: String,
}

/// Something that a release may turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file that is there then, in which `*` stands for one name; empty when it surely is.
    pub needs: String,
    /// What runs.
    pub serve: Serve,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serve {
    /// A process, by its start command.
    Process(String),
    /// The files of a directory, which no process serves.
    Files {
        /// The directory.
        dir: String,
        /// Whether the page at its top shows the other paths too.
        spa: bool,
    },
}

impl Candidate {
    fn when(needs: &str, serve: Serve) -> Self {
        Self { needs: needs.to_owned(), serve }
    }

    const fn always(serve: Serve) -> Self {
        Self { needs: String::new(), serve }
    }
}

impl Plan {
    fn found(what: &str) -> Self {
        Self { notes: vec![format!("Found {what}.")], ..Self::default() }
    }

    /// A command that surely starts it.
    fn starts(mut self, command: impl Into<String>) -> Self {
        self.serve.push(Candidate::always(Serve::Process(command.into())));
        self
    }

    /// What the release has turned out to be.
    ///
    /// # Errors
    /// The sentence for one that is nothing of what it might have been.
    pub fn after_build(&self, tree: &Tree) -> Result<Serve, String> {
        let repo = Repo { tree, top: None };
        self.serve.iter().find_map(|candidate| candidate.holds(&repo)).ok_or_else(|| {
            let looked: Vec<_> = self.serve.iter().map(|c| c.needs.as_str()).take(NAMED).collect();
            if looked.is_empty() {
                return self.otherwise.clone();
            }
            format!(
                "the build left nothing that can be served: neither {} nor others that are usual; set the \
                 publish directory, or give a start command",
                looked.join(", ")
            )
        })
    }
}

impl Candidate {
    fn holds(&self, repo: &Repo<'_>) -> Option<Serve> {
        if self.needs.is_empty() {
            return Some(self.serve.clone());
        }
        let found = repo.find(&self.needs).into_iter().next()?;
        Some(match &self.serve {
            Serve::Files { spa, .. } => {
                let dir = found.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
                Serve::Files { dir, spa: *spa }
            }
            process @ Serve::Process(_) => process.clone(),
        })
    }
}

/// What this machine has to build and run with.
pub struct Machine<'a> {
    /// Whether a program is there.
    pub has: &'a dyn Fn(&str) -> bool,
    /// What a program says to `--version`.
    pub version: &'a dyn Fn(&str) -> Option<String>,
}

impl Machine<'_> {
    /// The one that we run on.
    #[must_use]
    pub fn here() -> Self {
        Self { has: &is_installed, version: &installed_version }
    }

    fn has(&self, program: &str) -> bool {
        (self.has)(program)
    }

    fn version(&self, program: &str) -> Option<String> {
        if self.has(program) { (self.version)(program) } else { None }
    }
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
    exec.deadline(ASKING).run().is_ok_and(|o| o.exit.is_success())
}

/// The version of a program of this machine: the first word of what it says that is one.
#[must_use]
pub fn installed_version(program: &str) -> Option<String> {
    let argument = if program == "go" { "version" } else { "--version" };
    let output = Exec::new(program).arg(argument).deadline(ASKING).run().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().find(|word| versions::padded(word).is_some()).map(str::to_owned)
}

/// What the owner says of an app, which always wins; empty is nothing.
#[derive(Debug)]
pub struct Given<'a> {
    /// The build command.
    pub build: &'a ShellCommand,
    /// The start command.
    pub start: &'a ShellCommand,
    /// The directory whose files are served.
    pub publish: &'a RootDir,
}

impl<'a> Given<'a> {
    /// What an app's settings say.
    #[must_use]
    pub const fn by(settings: &'a AppSettings) -> Self {
        Self {
            build: &settings.build_command,
            start: &settings.start_command,
            publish: &settings.publish_dir,
        }
    }
}

type Find = fn(&Repo<'_>, &Machine<'_>) -> Result<Plan, String>;

/// The kinds, by the files that tell them, in the order in which they are asked: many
/// frameworks of other languages carry a `package.json` for their assets.
const KINDS: [(&str, Find); 12] = [
    ("composer.json index.php artisan", scripted::php),
    ("go.mod go.work main.go", compiled::go),
    ("pom.xml gradlew build.gradle build.gradle.kts Main.java", compiled::java),
    ("Cargo.toml", compiled::rust),
    ("Gemfile", scripted::ruby),
    (PYTHON, python::plan),
    ("deno.json deno.jsonc", scripted::deno),
    ("package.json", node::plan),
    ("hugo.toml hugo.yaml hugo.yml hugo.json config.toml config.yaml config.yml", sites::generated),
    ("mkdocs.yml", python::mkdocs),
    ("_config.yml", sites::jekyll),
    ("index.html public/index.html Staticfile docs/index.html", sites::plain),
];
const PYTHON: &str = "manage.py uv.lock poetry.lock pdm.lock Pipfile requirements.txt pyproject.toml \
                      main.py app.py server.py wsgi.py bot.py";

/// Looks at a release. What the owner wrote always wins; the rest is detected.
///
/// # Errors
/// The sentence for the owner: what is missing and what to do.
pub fn detect(
    tree: &Tree,
    top: Option<&Tree>,
    given: &Given<'_>,
    machine: &Machine<'_>,
) -> Result<Plan, String> {
    let repo = Repo { tree, top };
    let text =
        |command: &ShellCommand| Some(command.as_str().trim().to_owned()).filter(|c| !c.is_empty());
    let (build, start) = (text(given.build), text(given.start));
    let publish = Some(given.publish).filter(|dir| !dir.as_str().is_empty());
    let procfile = Procfile::read(&repo)?;
    let web = if start.is_none() && publish.is_none() { procfile.web.clone() } else { None };
    let has_start = start.is_some() || publish.is_some() || web.is_some();

    let mut plan = best(&repo, machine, build.is_some(), has_start)?;
    plan.notes.extend(procfile.notes);
    if let Some(command) = build {
        plan.notes.push("The build command is the owner's.".to_owned());
        plan.build = Some(command);
    }
    if let Some(dir) = publish {
        let needs = format!("{}/index.html", dir.as_str());
        let spa = plan.serve.iter().any(|c| matches!(c.serve, Serve::Files { spa: true, .. }));
        let files = Serve::Files { dir: dir.as_str().to_owned(), spa };
        plan.serve = vec![Candidate::when(&needs, files)];
        plan.otherwise = format!("the build left no {needs}: correct the publish directory");
    } else if let Some(command) = start {
        plan.notes.push("The start command is the owner's.".to_owned());
        plan.serve.clear();
        plan = plan.starts(command);
    } else if let Some(command) = web {
        plan.notes.push("The Procfile says how to start it.".to_owned());
        plan.serve.clear();
        plan = plan.starts(scripted::procfile_command(command));
    } else if plan.serve.is_empty() {
        return Err(if procfile.is_there { NO_WEB_LINE.to_owned() } else { plan.otherwise });
    }
    for candidate in &plan.serve {
        // It is said in the log, where a second line of it could pass for one of ours.
        if let Serve::Process(command) = &candidate.serve {
            ShellCommand::parse(command)
                .map_err(|why| format!("the start command in package.json or Procfile {why}"))?;
        }
    }
    Ok(plan)
}

/// The plan of the first kind that knows how to start the app; else of the first.
fn best(
    repo: &Repo<'_>,
    machine: &Machine<'_>,
    builds: bool,
    starts: bool,
) -> Result<Plan, String> {
    let mut first = None;
    for (_, find) in KINDS.iter().filter(|(signs, _)| signs.split(' ').any(|sign| repo.has(sign))) {
        let plan = match find(repo, machine) {
            Err(_) if builds => Plan::default(),
            found => found?,
        };
        if !plan.serve.is_empty() || starts && first.is_none() {
            return Ok(plan);
        }
        first.get_or_insert(plan);
    }
    if let Some(plan) = first {
        return Ok(plan);
    }
    let otherwise = nothing(repo);
    // Most languages without dependencies have no manifest.
    Ok(Plan { notes: vec!["There is nothing to build.".to_owned()], otherwise, ..Plan::default() })
}

/// What a `Procfile` says.
#[derive(Default)]
struct Procfile {
    is_there: bool,
    web: Option<String>,
    notes: Vec<String>,
}

impl Procfile {
    fn read(repo: &Repo<'_>) -> Result<Self, String> {
        let mut read = Self::default();
        let Some(text) = repo.manifest("Procfile")? else {
            if repo.tree.names("", 1000).iter().any(|name| name == "Procfile") {
                read.notes.push("Procfile is no plain file (a link?) and is not read.".to_owned());
            }
            return Ok(read);
        };
        read.is_there = true;
        // Some editors begin a file with a mark of its encoding.
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
            let Some((name, command)) = line.split_once(':') else { continue };
            let command = command.trim();
            match name.trim() {
                _ if line.starts_with('#') || command.is_empty() => {}
                "web" => read.web = read.web.or(Some(command.to_owned())),
                name if repo::is_plain(name) => read.notes.push(format!(
                    "The Procfile's `{name}:` is not run: only `web:` is, at this version."
                )),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// What to say of a `Procfile` that names no command for the web.
const NO_WEB_LINE: &str = "the Procfile has no `web:` line with a command: write one such as \
     `web: python3 app.py`, or give a start command";

/// What to say when nothing tells what an app is.
fn nothing(repo: &Repo<'_>) -> String {
    let apps = apps_below(repo);
    if !apps.is_empty() {
        return choose_a_directory(&apps);
    }
    let image = "Dockerfile compose.yaml compose.yml docker-compose.yml";
    if let Some(file) = repo.first_of(image) {
        return format!(
            "found only {file}, and containers are not run here: give the build and start commands that \
             it holds as settings, and its services' addresses as environment"
        );
    }
    "found neither Procfile, package.json, requirements.txt, pyproject.toml, go.mod, Cargo.toml, Gemfile, \
     composer.json, pom.xml, deno.json nor index.html: give a start command, or set the root directory if the \
     app is not at the top of its repository"
        .to_owned()
}

/// The directories below that look like apps.
fn apps_below(repo: &Repo<'_>) -> Vec<String> {
    // A page alone may be anything: a template, an example.
    let all = KINDS.iter().flat_map(|(signs, _)| signs.split(' ')).chain(["Procfile"]);
    let signs: Vec<&str> =
        all.filter(|sign| !sign.contains("html") && !sign.contains("config.")).collect();
    let mut dirs: Vec<String> = Vec::new();
    for path in repo.own(&signs) {
        let Some((dir, name)) = path.rsplit_once('/') else { continue };
        let inside = |above: &String| dir == above || dir.starts_with(&format!("{above}/"));
        if signs.contains(&name) && !dirs.iter().any(inside) {
            dirs.push(dir.to_owned());
        }
    }
    dirs
}

fn choose_a_directory(apps: &[String]) -> String {
    let named: Vec<_> = apps.iter().take(NAMED).map(|dir| format!("`{dir}`")).collect();
    let more = apps.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "nothing can be started at the top of the repository; these directories look like apps: {}{more}. Set \
         the root directory to the one that is meant",
        named.join(", ")
    )
}

fn missing(what: &str, command: &str) -> String {
    format!("{what} is not installed on this machine; run `{command}`, or give a build command")
}

fn need(machine: &Machine<'_>, what: &str, command: &str) -> Result<(), String> {
    if machine.has(what) { Ok(()) } else { Err(missing(what, command)) }
}

#[cfg(test)]
mod tests;
