//! `server import DIR`: moves in what the platform that this one grew out of has in its data
//! directory. All of it goes through our own types, what does not fit is told, and nothing is
//! written without `--yes`.

use super::{existing, installed_key, key_of, read_key};
use crate::config::Settings;
use crate::data_dir::{gone_is_fine, read_secret_at};
use crate::model::{
    AnyError, AppName, EnvName, EnvValue, Invalid, Job, MAX_APP_NAME, RepoUrl, Schedule, Secret,
    failed,
};
use crate::store::{
    AppDraft, AppSettings, DATABASE, EnvInput, ForeignRow, MovedIn, Store, TokenChange,
    foreign_rows,
};
use crate::vault::key::{self, Key};
use crate::vault::{Place, Vault};
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Where the database may be below the directory that is named.
const PLACES: [&str; 3] = ["", "data", "backend/data"];

/// The database, and what of it may still be in its log.
const FILES: [&str; 2] = ["baas.db", "baas.db-wal"];

/// The place of a value that is bound to none, as those of earlier versions.
const NOWHERE: Place<'static> = Place { table: "apps", column: "", row: "", context: "" };

/// What is written there, its usual value, and what an owner should know of another one.
const NO_EQUIVALENT: [(&str, &str, &str); 4] = [
    ("port_override", "0", "the port that it listened on: here it is told one in PORT, or set it"),
    ("build_method", "nixpacks", "how it was built: here that is detected, or set its commands"),
    ("server_id", "localhost", "the other machine that it ran on"),
    ("webhook_secret", "", "its webhook: make a new one, for its address is another"),
];

/// Says what would be moved in, and does it with `yes`.
///
/// # Errors
/// When it is no such directory, its key does not open its secrets, or the server runs.
pub fn run(dir: &Path, yes: bool) -> Result<String, AnyError> {
    // Opened as whoever runs this, perhaps root; what is in it is read as the data's owner.
    let found = PLACES.iter().map(|place| dir.join(place)).find(|at| at.join(FILES[0]).is_file());
    let found = found.ok_or_else(|| {
        format!("there is no {} in {}, nor in its data or backend/data", FILES[0], dir.display())
    })?;
    let key = read_secret_at(&found.join(key::FILE))?;
    let files = FILES.map(|name| (name, File::open(found.join(name))));
    let installed = installed_key().map(read_key).transpose()?;
    let (config, data) = existing(&Settings::of_this_program()?)?;
    let _lock = data.lock(config.admin_token.is_some()).map_err(|error| {
        format!("{error}; stop the server for this (systemctl stop better-paas.socket)")
    })?;
    let key = key.map(|text| Key::parse(text.expose()).ok_or("its secret.key holds no key"));
    let mut plan = Plan { vault: key.transpose()?.map(Vault::new), ..Plan::default() };
    // SQLite writes beside a database in which something is still in the log.
    // The log of a copy that was left by a kill is not this one's.
    gone_is_fine(fs::remove_dir_all(data.join("import")))?;
    let copy = data.make_dir("import")?;
    let read = files.into_iter().try_for_each(|(name, file)| match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => io::copy(&mut file?, &mut File::create(copy.join(name))?).map(drop),
    });
    let tables = read.map_err(failed("the database could not be copied")).and_then(|()| {
        let tables = ["apps", "cron_jobs", "projects", "addons", "meta"];
        Ok(foreign_rows(&copy.join(FILES[0]), tables)?)
    });
    fs::remove_dir_all(&copy)?;
    plan.read(&tables?)?;
    let count = plan.apps.len();
    plan.lines.push(if yes {
        let (key, _) = key_of(&config, &data, installed.as_ref(), false)?;
        let store = Store::open(&data.join(DATABASE), Vault::new(key))?;
        store.import(&plan.apps, plan.github_token.as_ref())?;
        format!("{count} apps were moved in; start the server and deploy each once")
    } else {
        format!("{count} apps would be moved in; --yes does it")
    });
    Ok(plan.lines.join("\n"))
}

/// What is moved in, and what an owner should know about it.
#[derive(Default)]
struct Plan {
    vault: Option<Vault>,
    apps: Vec<MovedIn>,
    github_token: Option<Secret>,
    lines: Vec<String>,
}

impl Plan {
    fn read(
        &mut self,
        [apps, jobs, projects, addons, meta]: &[Vec<ForeignRow>; 5],
    ) -> Result<(), AnyError> {
        for row in apps {
            let project = projects.iter().find(|p| text(p, "id") == text(row, "project_id"));
            let jobs = jobs.iter().filter(|job| text(job, "app_id") == text(row, "id"));
            let at = self.lines.len();
            let named = app_name(row, project.map_or("", |project| text(project, "name")));
            let repo = RepoUrl::parse(text(row, "git_repo"));
            let (Ok(name), Ok(repo)) = (named, repo) else {
                self.leave_out("app", text(row, "name"), &"it needs a name, and a Git repository");
                continue;
            };
            let app = self.app(row, (name, repo), jobs)?;
            let MovedIn { draft, env, jobs } = &app;
            let secret = env.iter().filter(|entry| entry.secret).count();
            let line = format!(
                "app {}: {}, {} variables ({secret} secret), {} domains, {} jobs",
                draft.name.as_str(),
                text(row, "git_repo"),
                env.len(),
                draft.settings.domains.len(),
                jobs.len()
            );
            self.lines.insert(at, line);
            self.apps.push(app);
        }
        for addon in addons {
            let why = "install it from packages, and move its data by its own dump";
            self.leave_out(text(addon, "type"), text(addon, "name"), &why);
        }
        let saved = meta.iter().find(|row| text(row, "key") == "github_token");
        if let Some(stored) = saved.map(|row| text(row, "value")).filter(|text| !text.is_empty()) {
            self.github_token = Some(self.opened(stored, "the GitHub token")?);
            self.lines.push("the GitHub token".to_owned());
        }
        Ok(())
    }

    fn app<'a>(
        &mut self,
        row: &ForeignRow,
        (name, repo): (AppName, RepoUrl),
        jobs: impl Iterator<Item = &'a ForeignRow>,
    ) -> Result<MovedIn, AnyError> {
        let git_token = match text(row, "git_token") {
            "" => TokenChange::Keep,
            stored => TokenChange::Set(self.opened(stored, &format!("the token of {name}"))?),
        };
        let settings = self.settings(row);
        let env = self.env(row, &name)?;
        let jobs = jobs.filter_map(|row| self.job(row)).collect();
        for volume in self.list(row, "volumes") {
            self.leave_out("volume", &volume, &"copy its files into the app's /data");
        }
        for (column, usual, what) in NO_EQUIVALENT {
            let value = text(row, column);
            if !value.is_empty() && value != usual {
                self.leave_out(column, if column.ends_with("secret") { "" } else { value }, &what);
            }
        }
        let draft = AppDraft { name, git_repo: Some(repo), git_token, settings };
        Ok(MovedIn { draft, env, jobs })
    }

    /// What its owner chose, as far as our own settings take it.
    fn settings(&mut self, row: &ForeignRow) -> AppSettings {
        let commands = [text(row, "install_command"), text(row, "build_command")];
        let commands = commands.into_iter().filter(|command| !command.trim().is_empty());
        let build = commands.collect::<Vec<_>>().join(" && ");
        let mut chosen = vec![
            ("branch", json!(text(row, "branch"))),
            ("rootDir", json!(below(text(row, "root_dir")))),
            ("buildCommand", json!(build)),
            ("startCommand", json!(text(row, "start_command"))),
            ("healthPath", json!(text(row, "health_path"))),
            ("memoryMb", json!(mebibytes(text(row, "memory")))),
            ("cpuPercent", json!(number(text(row, "cpus"), 100.0))),
            ("autoDeploy", json!(text(row, "auto_deploy") == "1")),
        ];
        let mut domains = Vec::new();
        for domain in self.list(row, "domains") {
            match AppSettings::deserialize(json!({"domains": [&domain]})) {
                Ok(_) => domains.push(domain),
                Err(why) => self.leave_out("domain", &domain, &why),
            }
        }
        chosen.push(("domains", json!(domains)));
        let mut settings = json!({});
        for (name, value) in chosen {
            match AppSettings::deserialize(json!({ name: &value })) {
                Ok(_) => settings[name] = value,
                Err(why) => self.leave_out(name, &value.to_string(), &why),
            }
        }
        AppSettings::deserialize(settings).unwrap_or_default()
    }

    fn env(&mut self, row: &ForeignRow, app: &AppName) -> Result<Vec<EnvInput>, AnyError> {
        // What cannot be read may have named any of them.
        let secret: Option<Vec<String>> = json_of(text(row, "secret_keys"));
        let stored = self.opened(text(row, "env_vars"), &format!("the environment of {app}"))?;
        let written: Option<BTreeMap<String, Value>> = json_of(stored.expose());
        if written.is_none() {
            self.leave_out("all variables of", app.as_str(), &"they are not written as JSON");
        }
        let mut env = Vec::new();
        for (name, value) in written.unwrap_or_default() {
            let value = match value {
                Value::String(text) => self.opened(&text, &format!("a variable of {app}"))?,
                Value::Number(_) | Value::Bool(_) => Secret::new(value.to_string()),
                _ => {
                    self.leave_out("variable", &name, &"its value is no text");
                    continue;
                }
            };
            let is_secret = secret.as_ref().is_none_or(|names| names.contains(&name));
            match EnvName::parse(&name).and_then(|n| Ok((n, EnvValue::parse(value.expose())?))) {
                Ok((name, value)) => {
                    env.push(EnvInput { name, value: Some(value), secret: is_secret });
                }
                // A value is never told, whether it was marked secret or not.
                Err(why) => self.leave_out("variable", &name, &why),
            }
        }
        Ok(env)
    }

    fn job(&mut self, row: &ForeignRow) -> Option<Job> {
        let name = AppName::parse(&format!("job-{}", text(row, "id").to_ascii_lowercase()));
        let read = match text(row, "enabled") {
            "0" => Err(Invalid("is off")),
            _ => Schedule::parse(text(row, "schedule")).and_then(|schedule| {
                Ok(Job { name: name?, command: Job::command(text(row, "command"))?, schedule })
            }),
        };
        read.map_err(|why| self.leave_out("job", text(row, "command"), &why)).ok()
    }

    fn list(&mut self, row: &ForeignRow, column: &str) -> Vec<String> {
        json_of(text(row, column)).unwrap_or_else(|| {
            self.leave_out(column, text(row, column), &"is no list of texts");
            Vec::new()
        })
    }

    fn leave_out(&mut self, what: &str, value: &str, why: &dyn std::fmt::Display) {
        self.lines.push(format!("left out: {what} {}: {why}", value.escape_debug()));
    }

    /// A stored value in the clear.
    fn opened(&self, stored: &str, what: &str) -> Result<Secret, AnyError> {
        if !stored.starts_with("enc:") {
            return Ok(Secret::new(stored.to_owned()));
        }
        let advice =
            "write the key, 32 bytes in hex or base64, into secret.key beside the database";
        let Some(vault) = &self.vault else {
            return Err(format!("{what} is encrypted, and there is no key; {advice}").into());
        };
        match vault.open(&NOWHERE, stored) {
            Ok(opened) => Ok(opened.secret),
            Err(_) => Err(format!("{what} does not open with this key; {advice}").into()),
        }
    }
}

fn text<'a>(row: &'a ForeignRow, column: &str) -> &'a str {
    row.get(column).map_or("", String::as_str)
}

/// What a text holds, none and `null` being the default; `None` when it cannot be read.
fn json_of<T: DeserializeOwned + Default>(text: &str) -> Option<T> {
    let text = if text.is_empty() { "null" } else { text };
    serde_json::from_str::<Option<T>>(text).ok().map(Option::unwrap_or_default)
}

/// `.` and `./web` are what people write for a directory of the repository.
fn below(path: &str) -> &str {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path == "." { "" } else { path }
}

/// The name, behind that of its project.
fn app_name(row: &ForeignRow, project: &str) -> Result<AppName, Invalid> {
    let whole = match text(row, "name") {
        name if project.is_empty() || name.starts_with(project) => name.to_owned(),
        name => format!("{project}-{name}"),
    };
    let lower = whole.to_ascii_lowercase();
    let dashed = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    AppName::parse(dashed.take(MAX_APP_NAME).collect::<String>().trim_matches('-'))
}

/// Of `512m` or `0.5g` the MiB; of nothing the default, 0.
fn mebibytes(text: &str) -> Value {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    match lower.strip_suffix('g') {
        Some(gibibytes) => json!(number(gibibytes, 1024.0)),
        None => json!(number(lower.strip_suffix('m').unwrap_or(lower), 1.0)),
    }
}

/// A number times something, whole; 0 for nothing, and nothing for what is no number.
fn number(text: &str, times: f64) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let number = text.trim().parse::<f64>().ok().filter(|number| (0.0..1e9).contains(number))?;
    Some((number * times).round() as i64)
}
