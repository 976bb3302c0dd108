//! An app out of a row of the database.

use super::StoreError;
use super::app::{App, Process};
use crate::model::{AppStatus, DeployStatus, Trigger, Wanted};
use rusqlite::Row;

/// What [`read_app`] reads, but for the end of the statement.
pub(super) const SELECT: &str = "SELECT a.id, a.name, a.slot, NULLIF(a.git_repo, '') AS git_repo, a.settings, \
     a.git_token IS NOT NULL AS has_git_token, a.webhook_secret IS NOT NULL AS has_webhook_secret, \
     a.is_static, a.wanted, a.live_deploy, a.created_at, \
     (SELECT COALESCE(release, id) FROM deploys WHERE id = a.live_deploy) AS live_release, \
     p.deploy_id, p.pid, p.start_ticks, p.port, p.ended, p.env, last.id AS last_deploy, last.status, \
     last.trigger, EXISTS (SELECT 1 FROM workers WHERE app_id = a.id) AS has_workers, \
     concat_ws(',', iif(a.git_token = 'enc:lost', 'Git token', NULL), \
     iif(a.webhook_secret = 'enc:lost', 'webhook secret', NULL), (SELECT group_concat(name) \
     FROM env WHERE app_id = a.id AND value = 'enc:lost')) AS lost \
     FROM apps a LEFT JOIN processes p ON p.app_id = a.id LEFT JOIN deploys last \
     ON last.seq = (SELECT max(seq) FROM deploys WHERE app_id = a.id)";

/// Reads a row that [`SELECT`] has found.
pub(super) fn read_app(row: &Row<'_>) -> Result<App, StoreError> {
    let process = match row.get("deploy_id")? {
        Some(deploy) => Some(Process {
            deploy,
            pid: row.get("pid")?,
            start_ticks: row.get("start_ticks")?,
            port: row.get("port")?,
            ended: row.get("ended")?,
            env: row.get::<_, Option<String>>("env")?.and_then(|e| serde_json::from_str(&e).ok()),
        }),
        None => None,
    };
    let mut app = App {
        id: row.get("id")?,
        name: row.get("name")?,
        slot: row.get("slot")?,
        git_repo: row.get("git_repo")?,
        settings: row.get("settings")?,
        has_git_token: row.get("has_git_token")?,
        has_webhook_secret: row.get("has_webhook_secret")?,
        lost: row.get::<_, String>("lost")?.split_terminator(',').map(str::to_owned).collect(),
        is_static: row.get("is_static")?,
        wanted: row.get("wanted")?,
        live_deploy: row.get("live_deploy")?,
        live_release: row.get("live_release")?,
        last_deploy: row.get("last_deploy")?,
        process,
        status: AppStatus::New,
        created_at: row.get("created_at")?,
    };
    if let Some(last) = row.get("status")? {
        app.status = status(&app, last, row.get("trigger")?, row.get("has_workers")?);
    }
    Ok(app)
}

fn status(app: &App, last: DeployStatus, trigger: Trigger, has_workers: bool) -> AppStatus {
    let is_wanted = app.wanted == Wanted::Running;
    let is_up = match app.is_workers_only() {
        // Whether one of them crashes its supervisor knows.
        true => is_wanted || has_workers,
        false if app.is_static => is_wanted,
        false => app.port().is_some(),
    };
    match (app.wanted, is_up) {
        _ if !last.is_final() && trigger == Trigger::Restart => AppStatus::Restarting,
        _ if !last.is_final() => AppStatus::Deploying,
        (Wanted::Stopped, true) => AppStatus::Stopping,
        (Wanted::Running, true) => AppStatus::Running,
        (Wanted::Stopped, false) => AppStatus::Stopped,
        (Wanted::Running, false) if app.live_deploy.is_some() => AppStatus::Crashed,
        (Wanted::Running, false) => AppStatus::Failed,
    }
}
