//! Python: one environment made by uv, whatever the lock file, and the server that fits the app.

use super::repo::{Repo, is_plain};
use super::tools::Tool;
use super::{Candidate, Machine, Plan, Serve, VENV, missing, need, versions};

/// Reads the locks of other managers in the sandbox, and writes what uv takes.
const LOCKED: &str = include_str!("locked.py");

/// What says which packages an app needs, the surest first.
const LOCKS: &str =
    "uv.lock poetry.lock pdm.lock Pipfile.lock requirements.txt Pipfile pyproject.toml";

/// What to say when nothing starts it.
const OTHERWISE: &str = "found a Python app but neither an app object (such as `app = \
     Flask(__name__)`) nor main.py, app.py, server.py or run.py: give a start command such as \
     `gunicorn shop.wsgi --bind 127.0.0.1:$PORT`";

/// Bytes of all sources that are searched for an app object.
const SEARCHED: usize = 4 * 1024 * 1024;

/// What makes an app object that speaks WSGI, and one that speaks ASGI.
const WSGI: &str = "\
    Flask( Falcon( falcon.App( Bottle( bottle.Bottle( dash.Dash( Dash( get_wsgi_application(";
const ASGI: &str = "FastAPI( Starlette( Quart( Litestar( BlackSheep( get_asgi_application(";
/// What a function is called that makes one.
const FACTORIES: &str = "create_app make_app get_app create_application";

/// Programs that are started by themselves, the likeliest name first.
const PROGRAMS: &str = "\
    main.py app.py server.py run.py bot.py start.py wsgi.py src/main.py app/main.py";

/// The plan for Python.
///
/// # Errors
/// The sentence for the owner.
pub fn plan(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let known = Sources::read(repo);
    if repo.first_of(LOCKS).is_none() && !repo.has("manage.py") {
        let mut plan = Plan::found("a Python program that needs nothing else");
        plan.otherwise = OTHERWISE.to_owned();
        // The machine's own: there is no environment.
        let command = known.program().map(|command| command.replacen("python", "python3", 1));
        return Ok(if let Some(command) = command { plan.starts(command) } else { plan });
    }
    let (mut plan, mut build) = environment(repo, machine)?;
    let app = if repo.has("manage.py") { known.django() } else { known.app_object() };
    match app {
        Some(app) => {
            let (command, server) = known.server(&app);
            if let Some(package) = server {
                build += &format!(" && uv pip install {package}");
                plan.notes.push(format!("It names no server: {package} is installed."));
            }
            if repo.has("manage.py") {
                if repo.has("package.json")
                    && let Ok(assets) = super::node::tools(repo, machine, &mut plan)
                {
                    build += &format!(" && {assets}");
                }
                if known
                    .files
                    .iter()
                    .any(|(path, text)| path.contains("settings") && text.contains("STATIC_ROOT"))
                {
                    build += " && python manage.py collectstatic --noinput";
                }
            }
            plan = plan.starts(command);
        }
        None => {
            if let Some(command) = known.program() {
                plan = plan.starts(command);
            }
        }
    }
    plan.build = Some(build);
    plan.otherwise = OTHERWISE.to_owned();
    Ok(plan)
}

/// A site of MkDocs.
///
/// # Errors
/// The sentence for the owner.
pub fn mkdocs(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let (mut plan, _) = environment(repo, machine)?;
    let lists =
        "docs/requirements.txt requirements-docs.txt requirements/docs.txt requirements.txt";
    let asked = repo.first_of(lists).map_or(String::new(), |list| format!(" -r {list}"));
    let theme = if repo.text("mkdocs.yml").contains("material") { " mkdocs-material" } else { "" };
    plan.build = Some(format!(
        "uv venv --clear .venv && uv pip install mkdocs{theme}{asked} && mkdocs build -d site"
    ));
    let files = Serve::Files { dir: "site".to_owned(), spa: false };
    plan.serve = vec![Candidate::when("site/index.html", files)];
    Ok(plan)
}

/// The environment with what the repository asks for, and the commands that make it.
fn environment(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<(Plan, String), String> {
    need(machine, "python3", "apt install python3 python3-venv")?;
    let lock = repo.first_of(LOCKS);
    let mut plan = Plan::found(&format!("{}, a Python app", lock.unwrap_or("manage.py")));
    if !machine.has("uv") {
        if !machine.has(VENV) {
            return Err(missing(VENV, "apt install python3-venv"));
        }
        plan.tools.push(Tool::uv());
    }
    let wanted = versions::python(repo)?;
    let python = wanted.as_ref().map_or("3", |wanted| wanted.version.as_str());
    if let Some(wanted) = &wanted {
        plan.notes.push(format!("Python {} (from {}).", wanted.version, wanted.from));
        plan.tools.push(Tool::python(&wanted.version));
    }
    let venv = format!("uv venv --clear --python '{python}' .venv");
    let install = match lock {
        Some("uv.lock") => "uv sync --frozen --no-dev --no-install-project --inexact".to_owned(),
        Some("requirements.txt") => "uv pip install -r requirements.txt".to_owned(),
        Some("pyproject.toml") if !repo.text("pyproject.toml").contains("[tool.poetry") => {
            "uv pip install -r pyproject.toml".to_owned()
        }
        Some(file) => format!(
            "mkdir -p .better-paas && cat >.better-paas/locked.py <<'END'\n{LOCKED}END\n\
             .venv/bin/python .better-paas/locked.py {file} && \
             uv pip install -r .better-paas/top.txt -c .better-paas/locked.txt"
        ),
        None => return Ok((plan, venv)),
    };
    Ok((plan, format!("{venv} && {install}")))
}

/// What an app's server is given.
struct AppObject {
    /// The directory from which it is imported.
    dir: String,
    /// Such as `shop.web:app`.
    name: String,
    is_asgi: bool,
}

/// The repository's own Python files.
struct Sources<'a> {
    repo: &'a Repo<'a>,
    files: Vec<(String, String)>,
    /// All that names packages.
    packages: String,
}

impl<'a> Sources<'a> {
    fn read(repo: &'a Repo<'a>) -> Self {
        let mut files = Vec::new();
        let mut bytes = 0;
        for path in repo.own(&[".py"]).into_iter().filter(|path| is_plain(path)) {
            let text = repo.text(&path);
            bytes += text.len();
            if bytes > SEARCHED {
                break;
            }
            files.push((path, text));
        }
        let lists = "requirements.txt pyproject.toml Pipfile requirements/production.txt requirements/base.txt";
        let packages = lists.split(' ').map(|list| repo.text(list).to_ascii_lowercase()).collect();
        Self { repo, files, packages }
    }

    /// Whether the repository names a package.
    fn uses(&self, package: &str) -> bool {
        self.packages
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
            .any(|word| word == package)
    }

    /// Django's own app object, which `manage.py` leads to.
    fn django(&self) -> Option<AppObject> {
        let is_asgi = ["uvicorn", "daphne", "hypercorn"].iter().any(|server| self.uses(server))
            && !self.uses("gunicorn");
        let file = if is_asgi { "asgi.py" } else { "wsgi.py" };
        let (path, _) = self.files.iter().find(|(path, _)| path.ends_with(&format!("/{file}")))?;
        let name = format!("{}:application", path.trim_end_matches(".py").replace('/', "."));
        Some(AppObject { dir: String::new(), name, is_asgi })
    }

    /// The app object: the nearest to the top, in the file of the likeliest name.
    fn app_object(&self) -> Option<AppObject> {
        let usual = [
            "app.py",
            "main.py",
            "wsgi.py",
            "asgi.py",
            "application.py",
            "server.py",
            "api.py",
            "run.py",
            "__init__.py",
        ];
        let rank = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            (
                usual.iter().position(|u| *u == name).unwrap_or(usual.len()),
                path.matches('/').count(),
            )
        };
        let mut found: Vec<(_, &str, String, bool)> = self
            .files
            .iter()
            .filter_map(|(path, text)| {
                let (object, is_asgi) = object(text)?;
                Some((rank(path), path.as_str(), object, is_asgi))
            })
            .collect();
        found.sort();
        // An object beats a function that would make one, wherever the two are.
        let at = found.iter().position(|(.., object, _)| !object.ends_with("()")).unwrap_or(0);
        let (_, path, object, is_asgi) = found.into_iter().nth(at)?;
        let (dir, module) = self.import(path);
        Some(AppObject { dir, name: format!("{module}:{object}"), is_asgi })
    }

    /// Whether any file imports a package, or a file something beside it.
    fn imports(text: &str, package: &str) -> bool {
        let begins = [format!("from {package}"), format!("import {package}")];
        text.lines().map(str::trim_start).any(|line| {
            let rest = begins.iter().find_map(|begin| line.strip_prefix(begin.as_str()));
            rest.is_some_and(|rest| {
                package.is_empty() || rest.is_empty() || rest.starts_with(['.', ' '])
            })
        })
    }

    /// From where a file is imported, and by which name.
    fn import(&self, path: &str) -> (String, String) {
        let module = |path: &str| {
            path.trim_end_matches(".py").trim_end_matches("/__init__").replace('/', ".")
        };
        let Some((dir, file)) = path.rsplit_once('/') else { return (String::new(), module(path)) };
        let top = dir.split('/').next().unwrap_or_default();
        let text = self.files.iter().find(|(p, _)| p == path).map_or("", |(_, text)| text);
        let is_relative = text.lines().any(|line| line.trim_start().starts_with("from ."));
        let is_named = self.files.iter().any(|(_, text)| Self::imports(text, top));
        let is_package = top != "src" && self.repo.has(&format!("{top}/__init__.py"));
        match path.split_once('/') {
            _ if is_named || is_package => (String::new(), module(path)),
            // A package below `src`, which is imported without it.
            Some(("src", rest)) if rest.contains('/') || !is_relative => {
                ("src".to_owned(), module(rest))
            }
            _ if is_relative || file == "__init__.py" => (String::new(), module(path)),
            _ => (dir.to_owned(), module(file)),
        }
    }

    /// How the app object is served, and the package to install for it.
    fn server(&self, app: &AppObject) -> (String, Option<&'static str>) {
        let AppObject { dir, name, is_asgi } = app;
        let within = |option: &str| {
            if dir.is_empty() { String::new() } else { format!(" {option} {dir}") }
        };
        let function = name.strip_suffix("()");
        if *is_asgi {
            let (within, factory) =
                (within("--app-dir"), if function.is_some() { " --factory" } else { "" });
            let name = function.unwrap_or(name);
            let known = self.uses("uvicorn") || self.packages.contains("fastapi[");
            let run = format!("uvicorn {name}{factory}{within} --host 127.0.0.1 --port $PORT");
            return (run, (!known).then_some("uvicorn"));
        }
        if name.ends_with(".server") {
            // An attribute of Dash's app, which gunicorn does not take.
            let path = if dir.is_empty() { String::new() } else { format!("PYTHONPATH={dir} ") };
            let run = format!("{path}waitress-serve --listen=127.0.0.1:$PORT {name}");
            return (run, (!self.uses("waitress")).then_some("waitress"));
        }
        let quoted = if function.is_some() { format!("'{name}'") } else { name.clone() };
        let package = (!self.uses("gunicorn")).then_some("gunicorn");
        (format!("gunicorn {quoted}{} -b 127.0.0.1:$PORT", within("--chdir")), package)
    }

    /// A program that serves by itself.
    fn program(&self) -> Option<String> {
        let of = |word: &str| {
            let mut all = self.files.iter().filter(|(_, text)| Self::imports(text, word));
            let is_usual = |path: &str| PROGRAMS.split(' ').any(|usual| usual == path);
            let usual = all.clone().find(|(path, _)| is_usual(path));
            let found = usual.or_else(|| all.find(|(path, _)| !path.contains("pages/")));
            found.map(|(path, _)| path.as_str())
        };
        if self.uses("streamlit") {
            let file = self.repo.first_of("streamlit_app.py").or_else(|| of("streamlit"))?;
            return Some(format!(
                "streamlit run {file} --server.port $PORT --server.address 127.0.0.1 --server.headless true"
            ));
        }
        let file = if self.uses("gradio") { of("gradio") } else { None };
        let file = file.or_else(|| self.repo.first_of(PROGRAMS));
        file.map(|file| format!("python {file}"))
    }
}

/// The name to which a source binds an app object, or the function that makes one, and
/// whether that speaks ASGI.
fn object(text: &str) -> Option<(String, bool)> {
    let calls = |value: &str, all: &'static str| {
        all.split(' ').find(|call| value.starts_with(call) || value.contains(&format!(".{call}")))
    };
    let mut made = None;
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.split(':').next().unwrap_or_default().trim();
        let value = value.trim();
        let at_top = !line.starts_with(char::is_whitespace)
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let asgi = calls(value, ASGI);
        if let Some(call) = asgi.or_else(|| calls(value, WSGI)) {
            if at_top && !name.is_empty() {
                let server = if call.contains("Dash(") { ".server" } else { "" };
                return Some((format!("{name}{server}"), asgi.is_some()));
            }
            made = made.or(Some(asgi.is_some()));
        }
        let is_made = FACTORIES.split(' ').any(|f| value.starts_with(&format!("{f}(")));
        if at_top && is_made && ["app", "application"].contains(&name) {
            return Some((name.to_owned(), text.contains("FastAPI") || text.contains("Quart")));
        }
    }
    let is_asgi = made?;
    let defined = FACTORIES.split(' ').find(|name| text.contains(&format!("\ndef {name}(")))?;
    Some((format!("{defined}()"), is_asgi))
}
