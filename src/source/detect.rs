//! Finds out how to build and start an app whose owner did not say: a table of kinds, in order.
//!
//! It only reads a few small files of the release; what it finds becomes commands that are
//! fixed here. No text out of a repository gets into a command but file names and versions of
//! a harmless alphabet, and what its author wrote as a command: the lines of a `Procfile`, the
//! start script of a `package.json` and the jobs of an `app.json`.

use crate::disk::tree::Tree;
use crate::model::{EnvName, Job, ProcessName, Secret, ShellCommand};
use crate::proc::{self, Exec};
use crate::store::AppSettings;
use repo::{Repo, join};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tools::Tool;
use versions::Wanted;

mod compiled;
mod cron;
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

/// Processes that a `Procfile` may declare besides `web`.
const MAX_PROCESSES: usize = 10;

/// Apps below a directory that a sentence names.
const NAMED: usize = 5;

/// How an app is built and started.
#[derive(Debug, Default)]
pub struct Plan {
    /// What was found and what follows from it, for the log: a sentence each.
    pub notes: Vec<String>,
    /// What the machine lacks, in the order in which it is needed.
    pub tools: Vec<Tool>,
    /// The command that is run once before it is started.
    pub release: Option<String>,
    /// What is run at times of its own.
    pub jobs: Vec<Job>,
    /// Its processes without a port, with their commands.
    pub processes: BTreeMap<ProcessName, String>,
    /// The commands that build it, each after the one before has done its part.
    build: Vec<String>,
    /// What the release may turn out to be: the first whose file is there after the build.
    pub serve: Vec<Serve>,
    /// Whether the page at the top of its files shows the other paths too.
    pub spa: bool,
    /// What to say when nothing is known that would serve it.
    otherwise: String,
    /// What to add when the build has left nothing that would.
    elsewhere: String,
}

/// What serves a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serve {
    /// A process.
    Process {
        /// Its start command.
        command: String,
        /// The file that the build leaves for it, as a pattern; empty when it surely runs.
        needs: &'static str,
    },
    /// The files of a directory, which no process serves; `*` in it stands for one name.
    Files(String),
    /// Nothing: its processes without a port are all of it.
    Workers,
}

impl Serve {
    fn run(command: impl Into<String>) -> Self {
        Self::Process { command: command.into(), needs: "" }
    }

    fn needs(&self) -> String {
        match self {
            Self::Process { needs, .. } => (*needs).to_owned(),
            Self::Files(dir) => join(dir, "index.html"),
            Self::Workers => String::new(),
        }
    }

    /// What it is where the build has left the file that it needs.
    fn left_in(&self, repo: &Repo<'_>) -> Option<Self> {
        let needs = self.needs();
        let found = repo.find(&needs).into_iter().next();
        match self {
            Self::Files(_) => Some(Self::Files(repo::parent(&found?).to_owned())),
            _ => (needs.is_empty() || found.is_some()).then(|| self.clone()),
        }
    }
}

impl Plan {
    fn found(what: &str) -> Self {
        Self { notes: vec![format!("Found {what}.")], ..Self::default() }
    }

    /// A command that builds it, after those that are there already.
    fn builds(mut self, command: impl Into<String>) -> Self {
        self.build.push(command.into());
        self
    }

    /// A command that surely starts it.
    fn starts(mut self, command: impl Into<String>) -> Self {
        self.serve = vec![Serve::run(command)];
        self
    }

    /// A directory whose files are served.
    fn publishes(mut self, dir: &str) -> Self {
        self.serve = vec![Serve::Files(dir.to_owned())];
        self
    }

    /// What to say when nothing starts it.
    fn otherwise(mut self, sentence: impl Into<String>) -> Self {
        self.otherwise = sentence.into();
        self
    }

    /// The build command, if there is anything to build.
    pub fn build(&self) -> Option<String> {
        (!self.build.is_empty()).then(|| self.build.join(" && "))
    }

    /// What the release has turned out to be.
    ///
    /// # Errors
    /// The sentence for one that is nothing of what it might have been.
    pub fn after_build(&self, tree: &Tree) -> Result<Serve, String> {
        let repo = Repo { tree, top: None };
        self.serve.iter().find_map(|serve| serve.left_in(&repo)).ok_or_else(|| {
            let looked: Vec<_> = self.serve.iter().map(Serve::needs).take(NAMED).collect();
            format!(
                "the build left nothing that can be served, such as {}: correct the publish \
                 directory, or give a start command{}",
                looked.join(", "),
                self.elsewhere
            )
        })
    }
}

/// What this machine has to build and run with.
pub struct Machine<'a> {
    /// Whether a program is there.
    pub has: &'a dyn Fn(&str) -> bool,
    /// What a program says of its version.
    pub version: &'a dyn Fn(&str) -> String,
    /// What the owner has set for builds.
    pub env: &'a [(EnvName, Secret, bool)],
}

impl<'a> Machine<'a> {
    /// The one that we run on, with what the owner has set.
    pub fn here(env: &'a [(EnvName, Secret, bool)]) -> Self {
        Self { has: &is_installed, version: &said_version, env }
    }

    /// The version that the owner asks for by a variable.
    fn asked(&self, from: &'static str) -> Option<Wanted> {
        let (_, version, _) = self.env.iter().find(|(name, ..)| name.as_str() == from)?;
        Some(Wanted { version: version.expose().to_owned(), from })
    }

    fn has(&self, program: &str) -> bool {
        (self.has)(program)
    }

    /// The version of a program: the first word of what it says that is one.
    fn version(&self, program: &str) -> Option<[u32; 3]> {
        let said = if self.has(program) { (self.version)(program) } else { String::new() };
        said.split_whitespace().find_map(versions::padded)
    }

    fn need(&self, what: &str, command: &str) -> Result<(), String> {
        if self.has(what) { Ok(()) } else { Err(missing(what, command)) }
    }
}

fn missing(what: &str, command: &str) -> String {
    format!("{what} is not installed on this machine; run `{command}`, or give a build command")
}

/// The name of Python's module for virtual environments: on Debian a package of its own.
const VENV: &str = "Python's venv module";

fn is_installed(program: &str) -> bool {
    if program != VENV {
        return proc::find(program).is_some();
    }
    // Isolated (-I): it imports the system's own modules only.
    let exec = Exec::new("python3").args(["-I", "-c", "import ensurepip, venv"]);
    exec.deadline(ASKING).run().is_ok_and(|o| o.exit.is_success())
}

fn said_version(program: &str) -> String {
    let argument = if program == "go" { "version" } else { "--version" };
    let output = Exec::new(program).arg(argument).deadline(ASKING).run();
    output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
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
const PYTHON: &str = "\
    manage.py uv.lock poetry.lock pdm.lock Pipfile requirements.txt pyproject.toml main.py app.py \
    server.py wsgi.py bot.py";

/// Looks at a release, as its app's settings ask for it. What the owner wrote always wins; the
/// rest is detected.
///
/// # Errors
/// The sentence for the owner: what is missing and what to do.
pub fn detect(
    release: &Path,
    settings: &AppSettings,
    machine: &Machine<'_>,
) -> Result<Plan, String> {
    let root = settings.root_dir.as_str();
    let tree = Tree::open(release, root)
        .map_err(|_| format!("the repository has no directory {root} (or it is a link)"))?;
    let top = if root.is_empty() { None } else { Tree::open(release, "").ok() };
    let repo = Repo { tree: &tree, top: top.as_ref() };

    let [build, start] =
        [&settings.build_command, &settings.start_command].map(|c| c.as_str().trim());
    let publish = settings.publish_dir.as_str();
    let declared = procfile(&repo)?;
    let declares = !declared.serve.is_empty() || !declared.processes.is_empty();
    let has_start = !start.is_empty() || !publish.is_empty() || declares;
    let mut plan = best(&repo, machine, !build.is_empty(), has_start)?;
    plan.notes.extend(declared.notes);
    (plan.release, plan.processes) = (declared.release, declared.processes);
    plan.jobs = cron::declared(&repo, &mut plan.notes);
    if !build.is_empty() {
        plan.notes.push("The build command is the owner's.".to_owned());
        plan.build = vec![build.to_owned()];
    }
    if !publish.is_empty() {
        return Ok(plan.publishes(publish));
    }
    if !start.is_empty() {
        plan.notes.push("The start command is the owner's.".to_owned());
        return Ok(plan.starts(start));
    }
    if !declared.serve.is_empty() {
        plan.notes.push("The Procfile says how to start it.".to_owned());
        plan.serve = declared.serve;
    } else if !plan.processes.is_empty() {
        // What it declares is what runs; files need nobody for that.
        plan.serve.retain(|serve| matches!(serve, Serve::Files(_)));
        if plan.serve.is_empty() {
            plan.notes.push(NO_WEB_PROCESS.to_owned());
        }
        plan.serve.push(Serve::Workers);
    } else if plan.serve.is_empty() {
        return Err(if repo.has("Procfile") { NO_WEB_LINE.to_owned() } else { plan.otherwise });
    }
    let starts = plan.serve.iter().filter_map(|serve| match serve {
        Serve::Process { command, .. } => Some(command),
        Serve::Files(_) | Serve::Workers => None,
    });
    starts.into_iter().try_for_each(|command| one_line(command))?;
    Ok(plan)
}

/// Refuses a command that is more than a line: it is said in the log, where the second one could
/// pass for one of ours.
fn one_line(command: &str) -> Result<(), String> {
    let parsed = ShellCommand::parse(command).map(drop);
    parsed.map_err(|why| format!("a command in package.json or Procfile {why}"))
}

/// The plan of the first kind that knows how to start the app; else of the first.
fn best(
    repo: &Repo<'_>,
    machine: &Machine<'_>,
    builds: bool,
    starts: bool,
) -> Result<Plan, String> {
    let mut first = None;
    for (_, find) in KINDS.iter().filter(|(signs, _)| repo.first_of(signs).is_some()) {
        let plan = match find(repo, machine) {
            Err(why) if builds => Plan::default().otherwise(why),
            found => found?,
        };
        if !plan.serve.is_empty() || starts && first.is_none() {
            return Ok(plan);
        }
        first.get_or_insert(plan);
    }
    // Most languages without dependencies have no manifest.
    let notes = || vec!["There is nothing to build.".to_owned()];
    let none = || Plan { notes: notes(), otherwise: nothing(repo), ..Plan::default() };
    Ok(first.unwrap_or_else(none))
}

/// What a `Procfile` says, and what is to be said of lines that count for nothing.
fn procfile(repo: &Repo<'_>) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let Plan { serve, release, processes, notes, .. } = &mut plan;
    let text = repo.manifest("Procfile")?;
    if text.is_none() && repo.lists("Procfile") {
        notes.push("Procfile is no plain file (a link?) and is not read.".to_owned());
    }
    for (at, line) in text.unwrap_or_default().lines().map(str::trim).enumerate() {
        let Some((name, command)) = line.split_once(':') else { continue };
        let command = command.trim().to_owned();
        match (name.trim(), ProcessName::parse(name.trim())) {
            _ if line.starts_with('#') || command.is_empty() => {}
            ("web", _) if serve.is_empty() => serve.push(scripted::procfile_command(command)),
            ("web", _) => {}
            ("release", _) => *release = release.take().or(Some(command)),
            (_, Ok(name)) if processes.contains_key(&name) => {}
            (_, Ok(name)) if processes.len() < MAX_PROCESSES => {
                processes.insert(name, command);
            }
            // Not by its name, which may be anything; nor each of a thousand.
            _ if notes.len() < MAX_PROCESSES => {
                notes.push(format!("Line {} of the Procfile is left out: {NAMES}", at + 1));
            }
            _ => {}
        }
    }
    // Another one may take the place of the one for visitors.
    release.iter().chain(processes.values()).try_for_each(|command| one_line(command))?;
    Ok(plan)
}

/// What to say of a `Procfile` that names no command for the web.
const NO_WEB_LINE: &str = "the Procfile has no `web:` line with a command: write one such as \
     `web: python3 app.py`, or give a start command";

/// What to say of a line that is none of its processes.
const NAMES: &str = "besides `web` and `release` it may have 10 processes, with names of small \
     letters, digits, - and _.";

/// What to say of one that declares other processes alone.
const NO_WEB_PROCESS: &str = "The Procfile declares no `web:`, so the app has no port and nobody \
     visits it; a start command in its settings would give it one.";

/// What to say when nothing tells what an app is.
fn nothing(repo: &Repo<'_>) -> String {
    let apps = apps_below(repo);
    apps.unwrap_or_else(|| {
        match repo.first_of("Dockerfile compose.yaml compose.yml docker-compose.yml") {
            Some(file) => format!(
                "found only {file}, and containers are not run here: give the build and start \
             commands that it holds as settings, and its services' addresses as environment"
            ),
            None => {
                "found neither Procfile, package.json, requirements.txt, pyproject.toml, go.mod, \
             Cargo.toml, Gemfile, composer.json, pom.xml, deno.json nor index.html: give a start \
             command, or set the root directory if the app is not at the top of its repository"
                    .to_owned()
            }
        }
    })
}

/// What to say where directories below look like apps.
fn apps_below(repo: &Repo<'_>) -> Option<String> {
    // A page alone may be anything: a template, an example.
    let all = KINDS.iter().flat_map(|(signs, _)| signs.split(' ')).chain(["Procfile"]);
    let signs: Vec<&str> =
        all.filter(|sign| !sign.contains("html") && !sign.contains("config.")).collect();
    let mut dirs: Vec<String> = Vec::new();
    for path in repo.own(&signs) {
        let dir = repo::parent(&path);
        if !dir.is_empty() && !dirs.iter().any(|above| Path::new(dir).starts_with(above)) {
            dirs.push(dir.to_owned());
        }
    }
    let named: Vec<_> = dirs.iter().take(NAMED).map(|dir| format!("`{dir}`")).collect();
    let more = match dirs.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!dirs.is_empty()).then(|| {
        format!(
            "nothing can be started at the top of the repository; these directories look like \
             apps: {}{more}. Set the root directory to the one that is meant",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
