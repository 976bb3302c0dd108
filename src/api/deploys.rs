//! Deploys: ask for one, look at one, read its log.

use super::fields::{Fields, token};
use super::json;
use super::query::Query;
use super::{Answer, Api, ApiError, Request};
use crate::auth::Session;
use crate::deploy::Deployer;
use crate::gate::answer::Body;
use crate::model::{
    AppName, Branch, DeployId, Invalid, MAX_APP_NAME, RepoUrl, Secret, Trigger, UnixMillis,
};
use crate::store::{App, AppDraft, AppSettings, Deploy, Step, TokenChange};
use serde::Serialize;

/// Deploys that a page of the history holds unless asked otherwise, and at most.
const PAGE: u32 = 20;
const MAX_PAGE: u32 = 100;

/// A deploy as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeployView<'a> {
    id: &'a str,
    app_id: &'a str,
    status: &'static str,
    trigger: &'static str,
    commit: Option<&'a str>,
    commit_message: Option<&'a str>,
    commit_author: Option<&'a str>,
    error: Option<&'a str>,
    steps: Vec<StepView>,
    can_roll_back: bool,
    created_at: UnixMillis,
    started_at: Option<UnixMillis>,
    finished_at: Option<UnixMillis>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView {
    step: &'static str,
    started_at: UnixMillis,
    finished_at: Option<UnixMillis>,
}

impl<'a> DeployView<'a> {
    /// The deploy as it is, and what the pipeline can do with it.
    #[must_use]
    pub fn new(deploy: &'a Deploy, deployer: &Deployer) -> Self {
        let step = |s: &Step| StepView {
            step: s.step.as_str(),
            started_at: s.started_at,
            finished_at: s.finished_at,
        };
        Self {
            id: deploy.id.as_str(),
            app_id: deploy.app.as_str(),
            status: deploy.status.as_str(),
            trigger: deploy.trigger.as_str(),
            commit: deploy.commit.as_deref(),
            commit_message: deploy.commit_message.as_deref(),
            commit_author: deploy.commit_author.as_deref(),
            error: deploy.error.as_deref(),
            steps: deploy.steps.iter().map(step).collect(),
            can_roll_back: deployer.can_roll_back(deploy),
            created_at: deploy.created_at,
            started_at: deploy.started_at,
            finished_at: deploy.finished_at,
        }
    }
}

#[derive(Serialize)]
struct DeployList<'a> {
    deploys: Vec<DeployView<'a>>,
}

pub(super) fn create(api: &Api, _: &Session, id: &str) -> Result<Answer, ApiError> {
    let app = api.app(id)?;
    let deploy = api.deployer.request(&app.id, Trigger::Manual)?;
    Ok(accepted(api, &deploy))
}

/// `POST /api/apps/{id}/rollback`.
pub(super) fn roll_back(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let to = fields.required("deployId", DeployId::parse)?;
    fields.finish()?;
    let deploy = api.deployer.roll_back(&app.id, &to)?;
    Ok(accepted(api, &deploy))
}

/// `POST /api/deploys/{id}/cancel`.
pub(super) fn cancel(api: &Api, _: &Session, id: &str) -> Result<Answer, ApiError> {
    api.deployer.cancel(&find(api, id)?.id)?;
    Ok(accepted(api, &find(api, id)?))
}

fn accepted(api: &Api, deploy: &Deploy) -> Answer {
    let mut answer = Answer::json(202, &DeployView::new(deploy, &api.deployer));
    answer.header("Location", format!("/api/deploys/{}", deploy.id));
    answer
}

pub(super) fn history(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let mut query = Query::of(request.query)?;
    let before = query.text("before", DeployId::parse)?;
    let limit = query.count("limit", PAGE, MAX_PAGE)?;
    query.finish()?;
    let app = api.app(id)?;
    let deploys = api.store.deploys(&app.id, before.as_ref(), limit)?;
    let deploys = deploys.iter().map(|d| DeployView::new(d, &api.deployer)).collect();
    Ok(Answer::json(200, &DeployList { deploys }))
}

pub(super) fn show(api: &Api, _: &Session, id: &str) -> Result<Answer, ApiError> {
    Ok(Answer::json(200, &DeployView::new(&find(api, id)?, &api.deployer)))
}

pub(super) fn log(api: &Api, _: &Session, id: &str) -> Result<Answer, ApiError> {
    let path = api.journal.deploy_log(&find(api, id)?.id);
    // A deploy that still waits in the queue has no log yet.
    Ok(Answer::text(if path.exists() { Body::File(path) } else { Vec::new().into() }))
}

fn find(api: &Api, id: &str) -> Result<Deploy, ApiError> {
    let id = DeployId::parse(id).map_err(|_| ApiError::no_deploy())?;
    api.store.deploy(&id)?.ok_or_else(ApiError::no_deploy)
}

/// `POST /api/deploy`: finds or makes the app, then deploys it.
pub(super) fn one_line(api: &Api, _: &Session, request: &Request<'_>) -> Result<Answer, ApiError> {
    let mut fields = Fields::of(request.body)?;
    let repo = fields.required("gitRepo", RepoUrl::read)?;
    let branch = fields.text("branch", Branch::parse)?.unwrap_or_default();
    let name = fields.text("name", AppName::parse)?;
    let git_token = fields.nullable_text("gitToken", token)?.value();
    fields.finish()?;
    // Nothing is made or changed for a deploy that cannot be.
    api.deployer.check_runtime()?;
    let app = match existing(api, &repo, &branch, name.as_ref())? {
        Some(app) => with_token(api, app, git_token)?,
        None => new_app(api, repo, branch, name, git_token)?,
    };
    let deploy = api.deployer.request(&app.id, Trigger::Api)?;
    let mut out = Vec::new();
    let shown = api.store.show_app(&app.id, |app| {
        json::object(&mut out, |out| {
            out.written("app", |out| api.view(app, out));
            out.value("deploy", &DeployView::new(&deploy, &api.deployer));
        });
    })?;
    shown.ok_or_else(ApiError::no_app)?;
    Ok(Answer::json_bytes(202, out))
}

fn existing(
    api: &Api,
    repo: &RepoUrl,
    branch: &Branch,
    name: Option<&AppName>,
) -> Result<Option<App>, ApiError> {
    let Some(name) = name else {
        let apps = api.store.apps()?;
        return Ok(apps.into_iter().find(|a| a.git_repo == *repo && a.settings.branch == *branch));
    };
    match api.store.app_named(name)? {
        Some(app) if app.git_repo != *repo || app.settings.branch != *branch => Err(ApiError::new(
            409,
            "name_taken",
            "name belongs to an app with another repository or branch; choose another name",
        )),
        found => Ok(found),
    }
}

fn with_token(api: &Api, app: App, token: Option<Secret>) -> Result<App, ApiError> {
    if let Some(token) = token {
        let draft = AppDraft { git_token: TokenChange::Set(token), ..app.draft() };
        api.store.update_app(&app.id, &draft)?;
        api.refresh_redactor(&app.id)?;
    }
    Ok(app)
}

fn new_app(
    api: &Api,
    repo: RepoUrl,
    branch: Branch,
    name: Option<AppName>,
    git_token: Option<Secret>,
) -> Result<App, ApiError> {
    let name = name.map_or_else(|| name_from(&repo), Ok)?;
    let draft = AppDraft {
        name,
        git_repo: repo,
        git_token: git_token.map_or(TokenChange::Keep, TokenChange::Set),
        settings: AppSettings { branch, ..AppSettings::default() },
    };
    api.make(&draft)
}

/// A name out of the repository's: lower case, other characters as dashes.
fn name_from(repo: &RepoUrl) -> Result<AppName, ApiError> {
    let lower = repo.repository().to_ascii_lowercase();
    let dashed: String = lower
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX_APP_NAME)
        .collect();
    AppName::parse(dashed.trim_matches('-')).map_err(|_| {
        ApiError::field("name", Invalid("cannot be taken from the repository's; give one"))
    })
}
