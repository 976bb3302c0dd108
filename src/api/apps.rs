//! Apps: list, create, show, change, remove, run.

use super::fields::{Fields, token};
use super::logs;
use super::query::parameters;
use super::{Answer, Answered, Api, ApiError, Call};
use crate::deploy::host_names::{admit, urls};
use crate::deploy::{DeployError, Deployer};
use crate::gate::answer::Body;
use crate::journal::Redactor;
use crate::model::{AppId, AppName, RepoUrl};
use crate::runtime::status_board::AppState;
use crate::runtime::tools::{Message, Tools};
use crate::sandbox::limits_report::{Report, report};
use crate::store::{App, AppDraft, AppSettings, TokenChange};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

/// Lines of an app's log that an answer holds when nothing else is asked for.
const LOG_LINES: u32 = 200;
/// The most that may be asked for: about as much as anybody reads at once.
const MAX_LOG_LINES: u32 = 1000;

/// An app as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppView<'a> {
    #[serde(flatten)]
    app: &'a App,
    #[serde(flatten)]
    state: AppState,
    url: Option<String>,
    urls: Vec<String>,
    /// The names of variables that are saved and not those of its process. Looked up for one app
    /// at a time, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    env_not_live: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Report>,
}

impl<'a> AppView<'a> {
    pub(super) fn of(app: &'a App, deployer: &Deployer) -> Self {
        let Tools { router, board, .. } = &*deployer.tools;
        let (urls, state) = (urls(router, app), board.state(app));
        Self { app, state, url: urls.first().cloned(), urls, env_not_live: None, limits: None }
    }
}

impl Api {
    /// An answer that shows an app.
    fn shown(&self, status: u16, app: &AppId) -> Result<Answer, ApiError> {
        let app = self.store.app(app)?.ok_or_else(ApiError::no_app)?;
        Ok(Answer::json(status, &self.alone(&app)?))
    }

    /// An app by itself, with what is looked up for no list.
    fn alone<'a>(&self, app: &'a App) -> Result<AppView<'a>, ApiError> {
        let env_not_live = Some(app.env_not_live(&self.store.env_marks(&app.id)?));
        Ok(AppView { env_not_live, ..AppView::of(app, &self.deployer) })
    }

    /// The app of an id in a path.
    pub(super) fn app(&self, id: &str) -> Result<App, ApiError> {
        let id = AppId::parse(id).map_err(|_| ApiError::no_app())?;
        self.store.app(&id)?.ok_or_else(ApiError::no_app)
    }
}

pub(super) fn list(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let apps = api.store.shared_apps()?;
    let views: Vec<_> = apps.iter().map(|app| AppView::of(app, &api.deployer)).collect();
    Ok(Answer::json(200, &HashMap::from([("apps", views)])))
}

pub(super) fn create(Call { api, request, .. }: &Call<'_>, _: &str) -> Answered {
    let mut fields = Fields::of(request.body)?;
    let draft = AppDraft {
        name: fields.required("name", AppName::parse)?,
        git_repo: fields.text("gitRepo", RepoUrl::read)?,
        git_token: git_token(&mut fields)?,
        settings: fields.settings(AppSettings::default())?,
    };
    fields.finish()?;
    let app = api.deployer.make(&draft)?;
    let mut answer = api.shown(201, &app.id)?;
    answer.header("Location", format!("/api/apps/{}", app.id));
    Ok(answer)
}

fn git_token(fields: &mut Fields) -> Result<TokenChange, ApiError> {
    Ok(match fields.nullable_text("gitToken", token)? {
        None => TokenChange::Keep,
        Some(None) => TokenChange::Remove,
        Some(Some(token)) => TokenChange::Set(token),
    })
}

pub(super) fn show(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    let mut view = api.alone(&app)?;
    let host = api.deployer.tools.host.last().and_then(Result::ok);
    view.limits = host.map(|host| report(&app, &host));
    Ok(Answer::json(200, &view))
}

pub(super) fn change(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let mut draft = app.draft();
    draft.name = fields.text("name", AppName::parse)?.unwrap_or(draft.name);
    draft.git_repo = fields.text("gitRepo", RepoUrl::read)?.or(draft.git_repo);
    draft.git_token = git_token(&mut fields)?;
    draft.settings = fields.settings(draft.settings)?;
    fields.finish()?;
    let (old, new) = (&app.settings, &draft.settings);
    if draft.name != app.name || (&old.domains, old.port) != (&new.domains, new.port) {
        admit(&api.deployer.tools, Some(&app.id), &draft)?;
    }
    ApiError::no_app_unless(api.store.update_app(&app.id, &draft)?)?;
    // First, for what is stored counts: should the next step fail, the names are right.
    api.deployer.name_app(&app.id);
    if old.scale != new.scale {
        api.deployer.tools.mailbox.send(Message::Scale(app.id.clone()));
    }
    api.refresh_redactor(&app.id)?;
    api.shown(200, &app.id)
}

pub(super) fn remove(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let mut query = parameters(request.query)?;
    let keep_data = query.flag("keepData")?;
    query.finish()?;
    let app = api.app(id)?;
    api.deployer.remove_app(&app.id, keep_data)?;
    Ok(Answer::no_content())
}

/// Has an app do something that takes a while.
pub(super) fn act(
    Call { api, .. }: &Call<'_>,
    id: &str,
    action: fn(&Deployer, &AppId) -> Result<(), DeployError>,
) -> Answered {
    let app = api.app(id)?;
    action(&api.deployer, &app.id)?;
    api.shown(202, &app.id)
}

pub(super) fn log(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let mut query = parameters(request.query)?;
    let lines = query.count("lines", LOG_LINES, MAX_LOG_LINES)?;
    let wanted = logs::wanted(&mut query)?;
    query.finish()?;
    let app = api.app(id)?;
    let (store, journal) = (Arc::clone(&api.store), Arc::clone(&api.journal));
    let (id, redacted) = (app.id.clone(), app.id);
    let redactor = move || store.secrets_of(&redacted).map(Redactor::new).map_err(io::Error::other);
    if let Some(wanted) = wanted {
        return Ok(logs::answer(move || journal.app_page(&id, &wanted, &redactor()?)));
    }
    // A long one takes a while: each line is searched for secrets in all their spellings.
    let make = move || {
        let lines = journal.app_tail(&id, lines as usize, &redactor()?)?;
        Ok(lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes())
    };
    Ok(Answer::text(Body::Made(Box::new(make))))
}
