//! Apps: list, create, show, change, remove, run.

use super::fields::{Fields, Nullable, token};
use super::json::{self, Object};
use super::query::Query;
use super::{Answer, Api, ApiError, Request};
use crate::auth::Session;
use crate::deploy::{DeployError, Deployer};
use crate::gate::answer::Body;
use crate::journal::{Journal, Redactor};
use crate::model::{
    AppId, AppName, Branch, CpuPercent, Domain, HealthPath, HealthTimeout, HostSocket, MAX_DOMAINS,
    MAX_HOST_SOCKETS, MaxProcesses, MemoryMb, RepoUrl, RootDir, ShellCommand,
};
use crate::sandbox::limits_report::{Held, Holder};
use crate::store::{App, AppDraft, AppSettings, AppText, Store, TokenChange};
use serde::Serialize;
use std::io;
use std::sync::Arc;

/// Lines of an app's log that an answer holds when nothing else is asked for.
const LOG_LINES: u32 = 200;
/// The most that may be asked for: about as much as anybody reads at once.
const MAX_LOG_LINES: u32 = 1000;

/// One limit of an app as it is.
#[derive(Serialize)]
struct LimitView {
    value: Option<u64>,
    by: &'static str,
    note: Option<String>,
}

/// The limits of an app as they are.
#[derive(Serialize)]
struct LimitsView {
    memory: LimitView,
    cpu: LimitView,
    processes: LimitView,
}

impl From<Held> for LimitView {
    fn from(held: Held) -> Self {
        let by = match held.by {
            Holder::Cgroup => "cgroup",
            Holder::Process => "process",
            Holder::User => "user",
            Holder::None => "none",
        };
        Self { value: held.value, by, note: held.note }
    }
}

/// First bytes to make room for in a list of apps: a dozen with long commands.
const USUAL_LIST: usize = 16 * 1024;

/// Writes the fields of an app as the API shows it.
fn write(app: &AppText<'_>, deployer: &Deployer, out: &mut Object<'_>) {
    let (urls, state) = (deployer.urls(app), deployer.state(app));
    out.text("id", app.id);
    out.text("name", app.name);
    out.text("gitRepo", app.git_repo);
    out.text("branch", app.branch);
    out.flag("hasGitToken", app.has_git_token);
    out.text("rootDir", app.root_dir);
    out.text("buildCommand", app.build_command);
    out.text("startCommand", app.start_command);
    out.text("healthPath", app.health_path);
    out.number("healthTimeoutSeconds", app.health_timeout);
    out.texts("domains", &app.domains);
    out.number("memoryMb", app.memory);
    out.number("cpuPercent", app.cpu);
    out.number("maxProcesses", app.max_processes);
    out.texts("hostSockets", &app.host_sockets);
    out.flag("autoDeploy", app.auto_deploy);
    out.flag("hasWebhookSecret", app.has_webhook_secret);
    out.text("status", state.status.as_str());
    out.maybe_text("statusDetail", state.detail.as_deref());
    out.number("restarts", state.restarts.into());
    out.maybe_text("lastExit", state.last_exit.as_deref());
    out.value("nextStartAt", &state.next_start_at);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    out.maybe_text("url", urls.first().copied());
    out.texts("urls", &urls);
    out.maybe_text("liveDeployId", app.live_deploy);
    out.maybe_text("lastDeployId", app.last_deploy);
    out.number("createdAt", app.created_at);
}

impl Api {
    /// Writes an app as the API shows it.
    pub(super) fn view(&self, app: &AppText<'_>, out: &mut Vec<u8>) {
        json::object(out, |out| write(app, &self.deployer, out));
    }

    /// An answer that shows an app.
    fn shown(&self, status: u16, app: &AppId) -> Result<Answer, ApiError> {
        let mut out = Vec::new();
        let shown = self.store.show_app(app, |app| self.view(app, &mut out))?;
        shown.ok_or_else(ApiError::no_app)?;
        Ok(Answer::json_bytes(status, out))
    }

    /// Stores a new app, and gives it its host names.
    pub(super) fn make(&self, draft: &AppDraft) -> Result<App, ApiError> {
        self.deployer.admit(None, &draft.name, &draft.settings.domains)?;
        let id = self.store.create_app(draft)?;
        let app = self.store.app(&id)?.ok_or_else(ApiError::internal)?;
        self.deployer.name_app(&app.id);
        Ok(app)
    }

    /// The app of an id in a path.
    pub(super) fn app(&self, id: &str) -> Result<App, ApiError> {
        let id = AppId::parse(id).map_err(|_| ApiError::no_app())?;
        self.store.app(&id)?.ok_or_else(ApiError::no_app)
    }
}

pub(super) fn list(api: &Api, _: &Session, _: &Request<'_>) -> Result<Answer, ApiError> {
    let mut out = Vec::with_capacity(USUAL_LIST);
    let mut before = b"{\"apps\":[".as_slice();
    api.store.show_apps(|app| {
        out.extend_from_slice(std::mem::replace(&mut before, b","));
        api.view(app, &mut out);
    })?;
    out.extend_from_slice(if out.is_empty() { b"{\"apps\":[]}" } else { b"]}" });
    Ok(Answer::json_bytes(200, out))
}

pub(super) fn create(api: &Api, _: &Session, request: &Request<'_>) -> Result<Answer, ApiError> {
    let mut fields = Fields::of(request.body)?;
    let mut draft = AppDraft {
        name: fields.required("name", AppName::parse)?,
        git_repo: fields.required("gitRepo", RepoUrl::read)?,
        git_token: git_token(&mut fields)?,
        settings: AppSettings::default(),
    };
    choose(&mut draft.settings, &mut fields)?;
    fields.finish()?;
    let app = api.make(&draft)?;
    let mut answer = api.shown(201, &app.id)?;
    answer.header("Location", format!("/api/apps/{}", app.id));
    Ok(answer)
}

fn git_token(fields: &mut Fields) -> Result<TokenChange, ApiError> {
    Ok(match fields.nullable_text("gitToken", token)? {
        Nullable::Absent => TokenChange::Keep,
        Nullable::Null => TokenChange::Remove,
        Nullable::Value(token) => TokenChange::Set(token),
    })
}

/// `/apps/web/` is as often written as `apps/web`, and can mean nothing else.
fn without_slashes(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path)
}

/// Changes the settings that the request names.
fn choose(settings: &mut AppSettings, fields: &mut Fields) -> Result<(), ApiError> {
    let AppSettings {
        branch,
        root_dir,
        build_command,
        start_command,
        health_path,
        health_timeout,
        domains,
        memory,
        cpu,
        max_processes,
        host_sockets,
        auto_deploy,
    } = settings;
    put(branch, fields.text("branch", Branch::parse)?);
    put(root_dir, fields.text("rootDir", |text| RootDir::parse(without_slashes(text)))?);
    put(build_command, fields.text("buildCommand", ShellCommand::parse)?);
    put(start_command, fields.text("startCommand", ShellCommand::parse)?);
    put(health_path, fields.text("healthPath", HealthPath::parse)?);
    put(health_timeout, fields.integer("healthTimeoutSeconds", HealthTimeout::new)?);
    put(domains, fields.texts("domains", MAX_DOMAINS, Domain::parse)?);
    put(memory, fields.integer("memoryMb", MemoryMb::new)?);
    put(cpu, fields.integer("cpuPercent", CpuPercent::new)?);
    put(max_processes, fields.integer("maxProcesses", MaxProcesses::new)?);
    put(host_sockets, fields.texts("hostSockets", MAX_HOST_SOCKETS, HostSocket::parse)?);
    put(auto_deploy, fields.boolean("autoDeploy")?);
    Ok(())
}

fn put<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

pub(super) fn show(api: &Api, _: &Session, id: &str) -> Result<Answer, ApiError> {
    let app = api.app(id)?;
    let limits = api.deployer.limits(&app).map(|held| LimitsView {
        memory: held.memory.into(),
        cpu: held.cpu.into(),
        processes: held.processes.into(),
    });
    let mut out = Vec::new();
    let shown = api.store.show_app(&app.id, |text| {
        json::object(&mut out, |out| {
            write(text, &api.deployer, out);
            // Looked up for one app at a time.
            if let Some(limits) = &limits {
                out.value("limits", limits);
            }
        });
    })?;
    shown.ok_or_else(ApiError::no_app)?;
    Ok(Answer::json_bytes(200, out))
}

pub(super) fn change(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let mut draft = app.draft();
    put(&mut draft.name, fields.text("name", AppName::parse)?);
    put(&mut draft.git_repo, fields.text("gitRepo", RepoUrl::read)?);
    draft.git_token = git_token(&mut fields)?;
    choose(&mut draft.settings, &mut fields)?;
    fields.finish()?;
    let named = draft.name != app.name || draft.settings.domains != app.settings.domains;
    if named {
        api.deployer.admit(Some(&app.id), &draft.name, &draft.settings.domains)?;
    }
    if !api.store.update_app(&app.id, &draft)? {
        return Err(ApiError::no_app());
    }
    let app = api.app(id)?;
    // First, for what is stored counts: should the next step fail, the names are right.
    api.deployer.name_app(&app.id);
    api.refresh_redactor(&app.id)?;
    api.shown(200, &app.id)
}

pub(super) fn remove(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let mut query = Query::of(request.query)?;
    let keep_data = query.flag("keepData")?;
    query.finish()?;
    let app = api.app(id)?;
    api.deployer.remove_app(&app.id, keep_data)?;
    Ok(Answer::no_content())
}

/// `POST` to an app's `stop`, `start` or `restart`.
pub(super) fn act(
    api: &Api,
    _: &Session,
    id: &str,
    action: fn(&Deployer, &AppId) -> Result<(), DeployError>,
) -> Result<Answer, ApiError> {
    let app = api.app(id)?;
    action(&api.deployer, &app.id)?;
    api.shown(202, &app.id)
}

pub(super) fn log(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let mut query = Query::of(request.query)?;
    let lines = query.count("lines", LOG_LINES, MAX_LOG_LINES)?;
    query.finish()?;
    let app = api.app(id)?;
    let (store, journal) = (Arc::clone(&api.store), Arc::clone(&api.journal));
    let make = move || tail(&store, &journal, &app.id, lines as usize);
    Ok(Answer::text(Body::Made(Box::new(make))))
}

/// The last lines of an app's log. A long one takes a while: each line is searched for
/// secrets in all their spellings.
fn tail(store: &Store, journal: &Journal, app: &AppId, lines: usize) -> io::Result<Vec<u8>> {
    let secrets = store.secrets_of(app).map_err(io::Error::other)?;
    let mut text = journal.app_tail(app, lines, &Redactor::new(secrets))?.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    Ok(text.into_bytes())
}
