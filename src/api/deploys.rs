//! Deploys: ask for one, look at one, read its log.

use super::apps::AppView;
use super::fields::{Fields, token};
use super::logs;
use super::query::parameters;
use super::{Answer, Answered, Api, ApiError, Call};
use crate::deploy::Deployer;
use crate::journal::LogOf;
use crate::model::{AppName, Branch, DeployId, Invalid, MAX_APP_NAME, RepoUrl, Trigger};
use crate::store::{App, AppDraft, AppSettings, Deploy, TokenChange};
use serde::Serialize;
use serde_json::json;

/// Deploys that a page of the history holds unless asked otherwise, and at most.
const PAGE: u32 = 20;
const MAX_PAGE: u32 = 100;

/// A deploy as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeployView<'a> {
    #[serde(flatten)]
    deploy: &'a Deploy,
    can_roll_back: bool,
}

impl<'a> DeployView<'a> {
    /// The deploy as it is, and what the pipeline can do with it.
    pub fn new(deploy: &'a Deploy, deployer: &Deployer) -> Self {
        Self { deploy, can_roll_back: deployer.can_roll_back(deploy) }
    }
}

pub(super) fn create(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    let deploy = api.deployer.request(&app.id, Trigger::Manual)?;
    Ok(accepted(api, &deploy))
}

/// `POST /api/apps/{id}/rollback`.
pub(super) fn roll_back(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let to = fields.required("deployId", DeployId::parse)?;
    fields.finish()?;
    let deploy = api.deployer.roll_back(&app.id, &to)?;
    Ok(accepted(api, &deploy))
}

/// `POST /api/deploys/{id}/cancel`.
pub(super) fn cancel(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    api.deployer.cancel(&find(api, id)?.id)?;
    Ok(accepted(api, &find(api, id)?))
}

fn accepted(api: &Api, deploy: &Deploy) -> Answer {
    let mut answer = Answer::json(202, &DeployView::new(deploy, &api.deployer));
    answer.header("Location", format!("/api/deploys/{}", deploy.id));
    answer
}

pub(super) fn history(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let mut query = parameters(request.query)?;
    let before = query.text("before", DeployId::parse)?;
    let limit = query.count("limit", PAGE, MAX_PAGE)?;
    query.finish()?;
    let app = api.app(id)?;
    let deploys = api.store.deploys(&app.id, before.as_ref(), limit)?;
    let views: Vec<_> = deploys.iter().map(|d| DeployView::new(d, &api.deployer)).collect();
    Ok(Answer::json(200, &json!({"deploys": views})))
}

pub(super) fn show(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    Ok(Answer::json(200, &DeployView::new(&find(api, id)?, &api.deployer)))
}

pub(super) fn log(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    logs::of_one(api, request, LogOf::Deploy(find(api, id)?.id))
}

fn find(api: &Api, id: &str) -> Result<Deploy, ApiError> {
    let id = DeployId::parse(id).map_err(|_| ApiError::no_deploy())?;
    api.store.deploy(&id)?.ok_or_else(ApiError::no_deploy)
}

/// `POST /api/deploy`: finds or makes the app, then deploys it.
pub(super) fn one_line(Call { api, request, .. }: &Call<'_>, _: &str) -> Answered {
    let mut fields = Fields::of(request.body)?;
    let repo = fields.required("gitRepo", RepoUrl::read)?;
    let branch = fields.text("branch", Branch::parse)?.unwrap_or_default();
    let name = fields.text("name", AppName::parse)?;
    let git_token = fields.nullable_text("gitToken", token)?.flatten();
    fields.finish()?;
    // Nothing is made or changed for a deploy that cannot be.
    api.deployer.check_runtime()?;
    let app = match existing(api, &repo, &branch, name.as_ref())? {
        Some(app) => {
            if let Some(token) = git_token {
                let draft = AppDraft { git_token: TokenChange::Set(token), ..app.draft() };
                api.store.update_app(&app.id, &draft)?;
                api.refresh_redactor(&app.id)?;
            }
            app
        }
        None => api.deployer.make(&AppDraft {
            name: name.map_or_else(|| name_from(&repo), Ok)?,
            git_repo: Some(repo),
            git_token: git_token.map_or(TokenChange::Keep, TokenChange::Set),
            settings: AppSettings { branch, ..AppSettings::default() },
        })?,
    };
    let deploy = api.deployer.request(&app.id, Trigger::Api)?;
    let app = api.store.app(&app.id)?.ok_or_else(ApiError::no_app)?;
    let (app, view) = (AppView::of(&app, &api.deployer), DeployView::new(&deploy, &api.deployer));
    let mut answer = Answer::json(202, &json!({"app": app, "deploy": view}));
    answer.header("Location", format!("/api/deploys/{}", deploy.id));
    Ok(answer)
}

fn existing(
    api: &Api,
    repo: &RepoUrl,
    branch: &Branch,
    name: Option<&AppName>,
) -> Result<Option<App>, ApiError> {
    let is_it = |app: &App| app.git_repo.as_ref() == Some(repo) && app.settings.branch == *branch;
    let Some(name) = name else { return Ok(api.store.apps()?.into_iter().find(is_it)) };
    match api.store.app_named(name)? {
        Some(app) if !is_it(&app) => Err(ApiError::new(
            409,
            "name_taken",
            "name belongs to an app with another repository or branch; choose another name",
        )),
        found => Ok(found),
    }
}

/// A name out of the repository's: lower case, other characters as dashes.
fn name_from(repo: &RepoUrl) -> Result<AppName, ApiError> {
    let lower = repo.repository().to_ascii_lowercase();
    let dashed = lower.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let dashed: String = dashed.chars().take(MAX_APP_NAME).collect();
    AppName::parse(dashed.trim_matches('-')).map_err(|_| {
        ApiError::field("name", Invalid("cannot be taken from the repository's; give one"))
    })
}
