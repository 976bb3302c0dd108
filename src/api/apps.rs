//! Apps: list, create, show, change, remove, run.

use super::fields::Fields;
use super::query::Query;
use super::{Answer, Api, ApiError, Request};
use crate::auth::Session;
use crate::model::{
    AppId, AppName, Branch, CpuPercent, Domain, HealthPath, HealthTimeout, HostSocket, Invalid,
    MAX_DOMAINS, MAX_HOST_SOCKETS, MaxProcesses, MemoryMb, RepoUrl, RootDir, Secret, ShellCommand,
    UnixMillis, Wanted,
};
use crate::store::{App, AppChanges, AppDraft, TokenChange};
use serde::Serialize;

/// Lines of an app's log that an answer holds when nothing else is asked for.
const LOG_LINES: u32 = 200;
/// The most that may be asked for: about as much as anybody reads at once.
const MAX_LOG_LINES: u32 = 1000;

/// An app as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppView<'a> {
    id: &'a str,
    name: &'a str,
    git_repo: &'a str,
    branch: &'a str,
    has_git_token: bool,
    root_dir: &'a str,
    build_command: &'a str,
    start_command: &'a str,
    health_path: &'a str,
    health_timeout_seconds: u32,
    domains: Vec<&'a str>,
    memory_mb: u32,
    cpu_percent: u32,
    max_processes: u32,
    host_sockets: Vec<&'a str>,
    auto_deploy: bool,
    has_webhook_secret: bool,
    status: &'static str,
    status_detail: Option<&'a str>,
    /// Where it answers, while it runs.
    url: Option<String>,
    live_deploy_id: Option<&'a str>,
    created_at: UnixMillis,
}

impl<'a> AppView<'a> {
    /// An app, and where it answers.
    pub(super) fn new(app: &'a App, url: Option<String>) -> Self {
        Self {
            id: app.id.as_str(),
            name: app.name.as_str(),
            git_repo: app.git_repo.as_str(),
            branch: app.branch.as_str(),
            has_git_token: app.has_git_token,
            root_dir: app.root_dir.as_str(),
            build_command: app.build_command.as_str(),
            start_command: app.start_command.as_str(),
            health_path: app.health_path.as_str(),
            health_timeout_seconds: app.health_timeout.seconds(),
            domains: app.domains.iter().map(Domain::as_str).collect(),
            memory_mb: app.memory.get(),
            cpu_percent: app.cpu.get(),
            max_processes: app.max_processes.get(),
            host_sockets: app.host_sockets.iter().map(HostSocket::as_str).collect(),
            auto_deploy: app.auto_deploy,
            has_webhook_secret: app.has_webhook_secret,
            status: app.status.as_str(),
            status_detail: match app.wanted {
                Wanted::Running => app.process.as_ref().and_then(|p| p.ended.as_deref()),
                Wanted::Stopped => None,
            },
            url,
            live_deploy_id: app.live_deploy.as_ref().map(|d| d.as_str()),
            created_at: app.created_at,
        }
    }
}

#[derive(Serialize)]
struct AppList<'a> {
    apps: Vec<AppView<'a>>,
}

impl Api {
    /// An app as the API shows it.
    pub(super) fn view<'a>(&self, app: &'a App) -> AppView<'a> {
        AppView::new(app, self.deployer.url(app))
    }

    /// Stores a new app, once the router takes its host names.
    pub(super) fn make(&self, draft: &AppDraft) -> Result<App, ApiError> {
        self.deployer.admit(None, &draft.name, &draft.domains)?;
        let id = self.store.create_app(draft).inspect_err(|_| self.deployer.readmit())?;
        let app = self.store.app(&id)?.ok_or_else(ApiError::internal)?;
        self.deployer.name_app(&app);
        Ok(app)
    }

    /// The app of an id in a path.
    pub(super) fn app(&self, id: &str) -> Result<App, ApiError> {
        let id = AppId::parse(id).map_err(|_| ApiError::no_app())?;
        self.store.app(&id)?.ok_or_else(ApiError::no_app)
    }
}

pub(super) fn list(api: &Api, _: &Session, request: &Request<'_>) -> Result<Answer, ApiError> {
    Query::of(request.query)?.finish()?;
    let apps = api.store.apps()?;
    Ok(Answer::json(200, &AppList { apps: apps.iter().map(|app| api.view(app)).collect() }))
}

pub(super) fn create(api: &Api, _: &Session, request: &Request<'_>) -> Result<Answer, ApiError> {
    let mut fields = Fields::of(request.body)?;
    let draft = AppDraft {
        name: fields.required("name", AppName::parse)?,
        git_repo: fields.required("gitRepo", RepoUrl::parse)?,
        branch: or_empty(fields.text("branch", Branch::parse)?, Branch::parse)?,
        git_token: fields.nullable_text("gitToken", token)?.flatten(),
        root_dir: or_empty(fields.text("rootDir", RootDir::parse)?, RootDir::parse)?,
        build_command: or_empty(
            fields.text("buildCommand", ShellCommand::parse)?,
            ShellCommand::parse,
        )?,
        start_command: or_empty(
            fields.text("startCommand", ShellCommand::parse)?,
            ShellCommand::parse,
        )?,
        health_path: or_empty(fields.text("healthPath", HealthPath::parse)?, HealthPath::parse)?,
        health_timeout: fields
            .integer("healthTimeoutSeconds", HealthTimeout::new)?
            .unwrap_or(HealthTimeout::DEFAULT),
        domains: domains(&mut fields)?.unwrap_or_default(),
        memory: fields.integer("memoryMb", MemoryMb::new)?.unwrap_or_default(),
        cpu: fields.integer("cpuPercent", CpuPercent::new)?.unwrap_or_default(),
        max_processes: fields.integer("maxProcesses", MaxProcesses::new)?.unwrap_or_default(),
        host_sockets: host_sockets(&mut fields)?.unwrap_or_default(),
        auto_deploy: fields.boolean("autoDeploy")?.unwrap_or(true),
    };
    fields.finish()?;
    let app = api.make(&draft)?;
    let id = &app.id;
    let mut answer = Answer::json(201, &api.view(&app));
    answer.header("Location", format!("/api/apps/{id}"));
    Ok(answer)
}

fn domains(fields: &mut Fields) -> Result<Option<Vec<Domain>>, ApiError> {
    fields.texts("domains", MAX_DOMAINS, Domain::parse)
}

fn host_sockets(fields: &mut Fields) -> Result<Option<Vec<HostSocket>>, ApiError> {
    fields.texts("hostSockets", MAX_HOST_SOCKETS, HostSocket::parse)
}

pub(super) fn show(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    Query::of(request.query)?.finish()?;
    Ok(Answer::json(200, &api.view(&api.app(id)?)))
}

pub(super) fn change(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let changes = AppChanges {
        name: fields.text("name", AppName::parse)?,
        git_repo: fields.text("gitRepo", RepoUrl::parse)?,
        branch: fields.text("branch", Branch::parse)?,
        git_token: match fields.nullable_text("gitToken", token)? {
            None => TokenChange::Keep,
            Some(None) => TokenChange::Remove,
            Some(Some(token)) => TokenChange::Set(token),
        },
        root_dir: fields.text("rootDir", RootDir::parse)?,
        build_command: fields.text("buildCommand", ShellCommand::parse)?,
        start_command: fields.text("startCommand", ShellCommand::parse)?,
        health_path: fields.text("healthPath", HealthPath::parse)?,
        health_timeout: fields.integer("healthTimeoutSeconds", HealthTimeout::new)?,
        domains: domains(&mut fields)?,
        memory: fields.integer("memoryMb", MemoryMb::new)?,
        cpu: fields.integer("cpuPercent", CpuPercent::new)?,
        max_processes: fields.integer("maxProcesses", MaxProcesses::new)?,
        host_sockets: host_sockets(&mut fields)?,
        auto_deploy: fields.boolean("autoDeploy")?,
    };
    fields.finish()?;
    let named = changes.name.is_some() || changes.domains.is_some();
    if named {
        let name = changes.name.as_ref().unwrap_or(&app.name);
        let domains = changes.domains.as_ref().unwrap_or(&app.domains);
        api.deployer.admit(Some(&app.id), name, domains)?;
    }
    let updated = api.store.update_app(&app.id, &changes);
    if named && !matches!(updated, Ok(true)) {
        api.deployer.readmit();
    }
    if !updated? {
        return Err(ApiError::no_app());
    }
    api.refresh_redactor(&app.id)?;
    let app = api.app(id)?;
    api.deployer.name_app(&app);
    Ok(Answer::json(200, &api.view(&app)))
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

pub(super) fn stop(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let app = acting_on(api, request, id)?;
    api.deployer.stop_app(&app.id)?;
    Ok(Answer::json(202, &api.view(&api.app(id)?)))
}

pub(super) fn start(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let app = acting_on(api, request, id)?;
    api.deployer.start_app(&app.id)?;
    Ok(Answer::json(202, &api.view(&api.app(id)?)))
}

pub(super) fn restart(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let app = acting_on(api, request, id)?;
    api.deployer.restart_app(&app.id)?;
    Ok(Answer::json(202, &api.view(&api.app(id)?)))
}

fn acting_on(api: &Api, request: &Request<'_>, id: &str) -> Result<App, ApiError> {
    no_body(request)?;
    api.app(id)
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
    let redactor = api.journal.redactor(&app.id);
    let tail = api.journal.app_tail(&app.id, lines as usize, &redactor).map_err(|error| {
        log::error!("the log of app {} could not be read: {error}", app.id);
        ApiError::internal()
    })?;
    let mut text = tail.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    Ok(Answer::text(text))
}

/// Refuses a body where none is expected, but for an empty object.
pub(super) fn no_body(request: &Request<'_>) -> Result<(), ApiError> {
    if request.body.is_empty() { Ok(()) } else { Fields::of(request.body)?.finish() }
}

/// A Git host's token: one visible ASCII word.
pub(super) fn token(text: &str) -> Result<Secret, Invalid> {
    if text.is_empty() || text.len() > 1024 {
        Err(Invalid("must have 1 to 1024 characters"))
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        Err(Invalid("must be one word of visible ASCII characters; paste the token alone"))
    } else {
        Ok(Secret::new(text.to_owned()))
    }
}

/// A field that was left out is the empty value of its type.
pub(super) fn or_empty<T>(
    value: Option<T>,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Result<T, ApiError> {
    value.map_or_else(|| parse("").map_err(|_| ApiError::internal()), Ok)
}
