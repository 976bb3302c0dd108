//! A deploy as its row of the database holds it.

use super::StoreError;
use crate::model::{AppId, DeployId, DeployStatus, Trigger, UnixMillis};
use rusqlite::Row;
use serde::Serialize;

/// A step that a deploy has taken or is taking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Which one.
    pub step: DeployStatus,
    /// When it began.
    pub started_at: UnixMillis,
    /// When the next one began, or the deploy ended.
    pub finished_at: Option<UnixMillis>,
}

/// One deploy; as JSON it is what the API shows of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deploy {
    /// Its identifier.
    pub id: DeployId,
    /// The app that it deploys.
    #[serde(rename = "appId")]
    pub app: AppId,
    /// How far it has come.
    pub status: DeployStatus,
    /// Who asked for it.
    pub trigger: Trigger,
    /// The commit's hash, once fetched.
    pub commit: Option<String>,
    /// The first line of the commit's message, once fetched.
    pub commit_message: Option<String>,
    /// Whom the commit names as its author, once fetched.
    pub commit_author: Option<String>,
    /// The steps that it has taken, in their order.
    pub steps: Vec<Step>,
    /// Why it failed, in one sentence.
    pub error: Option<String>,
    /// The deploy whose release it uses, when that is not its own: a rollback.
    #[serde(skip)]
    pub release: Option<DeployId>,
    /// When it was asked for.
    pub created_at: UnixMillis,
    /// When its first step began.
    pub started_at: Option<UnixMillis>,
    /// When it became live or failed.
    pub finished_at: Option<UnixMillis>,
}

pub(super) const SELECT: &str = "SELECT id, app_id, status, trigger, commit_hash, commit_message, \
     commit_author, error, release, created_at, started_at, finished_at, \
     fetching_at, building_at, starting_at, checking_at FROM deploys";

/// The steps that take time, in their order.
const STEPS: [DeployStatus; 4] = [
    DeployStatus::Fetching,
    DeployStatus::Building,
    DeployStatus::Starting,
    DeployStatus::Checking,
];

/// Reads a row that [`SELECT`] has found.
pub(super) fn read_deploy(row: &Row<'_>) -> Result<Deploy, StoreError> {
    let finished_at = row.get("finished_at")?;
    let mut steps: Vec<Step> = Vec::new();
    // From the last, which ends with the deploy.
    for step in STEPS.into_iter().rev() {
        if let Some(started_at) = row.get(format!("{}_at", step.as_str()).as_str())? {
            let finished_at = steps.last().map_or(finished_at, |next| Some(next.started_at));
            steps.push(Step { step, started_at, finished_at });
        }
    }
    steps.reverse();
    Ok(Deploy {
        id: row.get("id")?,
        app: row.get("app_id")?,
        status: row.get("status")?,
        trigger: row.get("trigger")?,
        commit: row.get("commit_hash")?,
        commit_message: row.get("commit_message")?,
        commit_author: row.get("commit_author")?,
        steps,
        error: row.get("error")?,
        release: row.get("release")?,
        created_at: row.get("created_at")?,
        started_at: row.get("started_at")?,
        finished_at,
    })
}
