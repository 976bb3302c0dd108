//! Python: one environment made by uv, whatever the lock file, and the server that fits the app.

use super::repo::{Repo, has_word, is_plain, join, name};
use super::tools::Tool;
use super::{Machine, Plan, Serve, VENV, node, versions};

/// Reads the locks of other managers in the sandbox, and writes what uv takes.
const LOCKED: &str = include_str!("locked.py");

/// What says which packages an app needs, the surest first.
const LOCKS: &str =
    "uv.lock poetry.lock pdm.lock Pipfile.lock requirements.txt Pipfile pyproject.toml";

/// What names packages in words.
const LISTS: &str =
    "requirements.txt pyproject.toml Pipfile requirements/production.txt requirements/base.txt";

/// What to say when nothing starts it.
const OTHERWISE: &str = "found a Python app but neither an app object (such as `app = \
     Flask(__name__)`) nor main.py, app.py, server.py or run.py: give a start command such as \
     `gunicorn shop.wsgi --bind 127.0.0.1:$PORT`";

/// What to say of what no build does.
const MIGRATIONS: &str = "Migrations are not run by themselves: a Procfile with the line `release: \
     python manage.py migrate` does that before each start of a new release.";

/// Collects Django's static files, where its settings, as they are here, say to where.
const COLLECT: &str = "{ ! python manage.py diffsettings | grep -q '^STATIC_ROOT' || \
     python manage.py collectstatic --noinput; }";

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

/// Where app objects are, the likeliest name first.
const USUAL: &str = "\
    app.py main.py wsgi.py asgi.py application.py server.py api.py run.py __init__.py";

/// The plan for Python.
///
/// # Errors
/// The sentence for the owner.
pub fn plan(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let known = Sources::read(repo);
    let is_django = repo.has("manage.py");
    if repo.first_of(LOCKS).is_none() && !is_django {
        let mut plan = Plan::found("a Python program that needs nothing else");
        // The machine's own: there is no environment.
        let command = known.program().map(|command| command.replacen("python", "python3", 1));
        plan.serve.extend(command.map(Serve::run));
        return Ok(plan.otherwise(OTHERWISE));
    }
    let mut plan = environment(repo, machine)?;
    let app = if is_django { known.django() } else { known.app_object() };
    let command = match &app {
        Some(app) => {
            let (command, missing) = known.server(app);
            if let Some(package) = missing {
                plan.build.push(format!("uv pip install {package}"));
                plan.notes.push(format!("It names no server: {package} is installed."));
            }
            Some(command)
        }
        None => known.program(),
    };
    if is_django && app.is_some() {
        if !repo.text("Procfile").contains("release:") {
            plan.notes.push(MIGRATIONS.to_owned());
        }
        // No reason to fail: they may be for developers alone.
        let _ = node::assets(repo, machine, &mut plan);
        let mut settings = known.files.iter().filter(|(path, _)| path.contains("settings"));
        if settings.any(|(_, text)| text.contains("STATIC_ROOT")) {
            plan.build.push(COLLECT.to_owned());
        }
    }
    plan.serve.extend(command.map(Serve::run));
    Ok(plan.otherwise(OTHERWISE))
}

/// A site of MkDocs.
///
/// # Errors
/// The sentence for the owner.
pub fn mkdocs(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let mut plan = environment(repo, machine)?;
    let lists =
        "docs/requirements.txt requirements-docs.txt requirements/docs.txt requirements.txt";
    let asked = repo.first_of(lists).map_or(String::new(), |list| format!(" -r {list}"));
    let theme = if repo.text("mkdocs.yml").contains("material") { " mkdocs-material" } else { "" };
    let install = format!("uv pip install mkdocs{theme}{asked}");
    plan.build = vec!["uv venv --clear .venv".to_owned(), install];
    Ok(plan.builds("mkdocs build -d site").publishes("site"))
}

/// Makes the environment with what the repository asks for.
fn environment(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    machine.need("python3", "apt install python3 python3-venv")?;
    let lock = repo.first_of(LOCKS);
    let mut plan = Plan::found(&format!("{}, a Python app", lock.unwrap_or("manage.py")));
    if !machine.has("uv") {
        machine.need(VENV, "apt install python3-venv")?;
        plan.tools.push(Tool::uv());
    }
    let mut venv = "uv venv --clear --python '3' .venv".to_owned();
    if let Some(wanted) = versions::python(repo, machine)? {
        plan.notes.push(format!("Python {} (from {}).", wanted.version, wanted.from));
        plan.tools.push(Tool::python(&wanted.version));
        venv = format!("uv venv --clear --python '{}' .venv", wanted.version);
    }
    plan.build.push(venv);
    plan.build.extend(lock.map(|lock| match lock {
        "uv.lock" => "uv sync --frozen --no-dev --no-install-project --inexact".to_owned(),
        // Packages of some years ago use what later ones of this no longer have, and say nothing.
        "requirements.txt" if !repo.text("requirements.txt").contains("setuptools") => {
            "echo 'setuptools<81' | uv pip install -r requirements.txt -c -".to_owned()
        }
        "requirements.txt" => "uv pip install -r requirements.txt".to_owned(),
        "pyproject.toml" if !repo.text("pyproject.toml").contains("[tool.poetry") => {
            "uv pip install -r pyproject.toml".to_owned()
        }
        file => format!(
            "mkdir -p .better-paas && cat >.better-paas/locked.py <<'END'\n{LOCKED}END\n\
             .venv/bin/python .better-paas/locked.py {file} && \
             uv pip install -r .better-paas/top.txt -c .better-paas/locked.txt"
        ),
    }));
    Ok(plan)
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
        let packages = LISTS.split(' ').map(|list| repo.text(list).to_ascii_lowercase()).collect();
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
        let file = if is_asgi { "/asgi.py" } else { "/wsgi.py" };
        let (path, _) = self.files.iter().find(|(path, _)| path.ends_with(file))?;
        let name = format!("{}:application", module(path));
        Some(AppObject { dir: String::new(), name, is_asgi })
    }

    /// The app object: in the file of the likeliest name, the nearest to the top. An object
    /// beats a function that would make one, wherever the two are.
    fn app_object(&self) -> Option<AppObject> {
        let rank = |path: &str| {
            let at = USUAL.split(' ').position(|usual| usual == name(path));
            (at.unwrap_or(usize::MAX), path.matches('/').count())
        };
        let found = self.files.iter().filter_map(|file| {
            let (object, is_asgi) = object(&file.1)?;
            Some((object.ends_with("()"), rank(&file.0), file, object, is_asgi))
        });
        let (_, _, (path, text), object, is_asgi) = found.min()?;
        let (dir, module) = self.import(path, text);
        Some(AppObject { dir, name: format!("{module}:{object}"), is_asgi })
    }

    /// From where a file is imported, and by which name.
    fn import(&self, path: &str, text: &str) -> (String, String) {
        let Some((dir, file)) = path.rsplit_once('/') else { return (String::new(), module(path)) };
        let (top, rest) = path.split_once('/').unwrap_or_default();
        let is_relative = text.lines().any(|line| line.trim_start().starts_with("from ."));
        let is_named = self.files.iter().any(|(_, text)| imports(text, top));
        let is_package = top != "src" && self.repo.has(&join(top, "__init__.py"));
        let is_whole = is_named || is_package;
        if !is_whole && top == "src" && (rest.contains('/') || !is_relative) {
            // A package below `src`, which is imported without it.
            ("src".to_owned(), module(rest))
        } else if is_whole || is_relative || file == "__init__.py" {
            (String::new(), module(path))
        } else {
            (dir.to_owned(), module(file))
        }
    }

    /// How the app object is served, and the package to install for it.
    fn server(&self, app: &AppObject) -> (String, Option<&'static str>) {
        let AppObject { dir, name, is_asgi } = app;
        let within = |option: &str| match dir.as_str() {
            "" => String::new(),
            dir => format!("{option}{dir} "),
        };
        let function = name.strip_suffix("()");
        let (package, command) = if *is_asgi {
            let factory = if function.is_some() { "--factory " } else { "" };
            let (name, within) = (function.unwrap_or(name), within("--app-dir "));
            let listen = "--host 127.0.0.1 --port $PORT";
            ("uvicorn", format!("uvicorn {name} {factory}{within}{listen}"))
        } else if name.ends_with(".server") {
            // An attribute of Dash's app, which gunicorn does not take.
            let within = within("PYTHONPATH=");
            ("waitress", format!("{within}waitress-serve --listen=127.0.0.1:$PORT {name}"))
        } else {
            let quote = if function.is_some() { "'" } else { "" };
            let within = within("--chdir ");
            ("gunicorn", format!("gunicorn {quote}{name}{quote} {within}-b 127.0.0.1:$PORT"))
        };
        let brings = package == "uvicorn" && self.packages.contains("fastapi[");
        (command, Some(package).filter(|package| !brings && !self.uses(package)))
    }

    /// A program that serves by itself.
    fn program(&self) -> Option<String> {
        let of = |package: &str| {
            let files = self.files.iter().filter(|(path, _)| !path.contains("pages/"));
            let importing = files.filter(|(_, text)| imports(text, package));
            importing.map(|(path, _)| path.as_str()).min_by_key(|path| !has_word(PROGRAMS, path))
        };
        if self.uses("streamlit") {
            let file = self.repo.first_of("streamlit_app.py").or_else(|| of("streamlit"))?;
            let listen = "--server.port $PORT --server.address 127.0.0.1 --server.headless true";
            return Some(format!("streamlit run {file} {listen}"));
        }
        let gradio = if self.uses("gradio") { of("gradio") } else { None };
        let usual = || self.repo.first_of(PROGRAMS);
        let file = gradio.filter(|file| has_word(PROGRAMS, file)).or_else(usual).or(gradio)?;
        // Packages below `src` are not installed, and are imported without it.
        let has_packages = !self.repo.find("src/*/__init__.py").is_empty();
        let path = if has_packages { "PYTHONPATH=src " } else { "" };
        Some(format!("{path}python {file}"))
    }
}

/// By which name a file is imported.
fn module(path: &str) -> String {
    path.trim_end_matches(".py").trim_end_matches("/__init__").replace('/', ".")
}

/// Whether a source imports a package, or something of it.
fn imports(text: &str, package: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        let imported = line.strip_prefix("from ").or_else(|| line.strip_prefix("import "));
        let rest = imported.and_then(|imported| imported.strip_prefix(package));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ']))
    })
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
