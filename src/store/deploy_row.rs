//! A deploy as its row of the database holds it.

use super::{StoreError, parsed};
use crate::model::{AppId, DeployId, DeployStatus, Trigger, UnixMillis};
use rusqlite::Row;

/// A step that a deploy has taken or is taking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which one.
    pub step: DeployStatus,
    /// When it began.
    pub started_at: UnixMillis,
    /// When the next one began, or the deploy ended.
    pub finished_at: Option<UnixMillis>,
}

/// One deploy.
#[derive(Debug, Clone)]
pub struct Deploy {
    /// Its identifier.
    pub id: DeployId,
    /// The app that it deploys.
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
    pub release: Option<DeployId>,
    /// When it was asked for.
    pub created_at: UnixMillis,
    /// When its first step began.
    pub started_at: Option<UnixMillis>,
    /// When it became live or failed.
    pub finished_at: Option<UnixMillis>,
}

pub(super) const SELECT: &str = "SELECT id, app_id, status, trigger, commit_hash, commit_message, error, \
     created_at, started_at, finished_at, release, commit_author, \
     fetching_at, building_at, starting_at, checking_at FROM deploys";

/// The steps that take time, in the order of their columns in [`SELECT`], which begin there.
const STEPS: [DeployStatus; 4] = [
    DeployStatus::Fetching,
    DeployStatus::Building,
    DeployStatus::Starting,
    DeployStatus::Checking,
];
const FIRST_STEP: usize = 12;

/// Reads a row that [`SELECT`] has found.
pub(super) fn read_deploy(row: &Row<'_>) -> Result<Deploy, StoreError> {
    let text = |i: usize| row.get::<_, String>(i);
    let finished_at = row.get(9)?;
    let mut steps: Vec<Step> = Vec::new();
    // From the last, which ends with the deploy.
    for (n, step) in STEPS.into_iter().enumerate().rev() {
        if let Some(started_at) = row.get(FIRST_STEP + n)? {
            let finished_at = steps.last().map_or(finished_at, |next| Some(next.started_at));
            steps.push(Step { step, started_at, finished_at });
        }
    }
    steps.reverse();
    Ok(Deploy {
        id: parsed(&text(0)?, DeployId::parse)?,
        app: parsed(&text(1)?, AppId::parse)?,
        status: parsed(&text(2)?, DeployStatus::parse)?,
        trigger: parsed(&text(3)?, Trigger::parse)?,
        commit: row.get(4)?,
        commit_message: row.get(5)?,
        error: row.get(6)?,
        created_at: row.get(7)?,
        started_at: row.get(8)?,
        finished_at,
        commit_author: row.get(11)?,
        steps,
        release: row
            .get::<_, Option<String>>(10)?
            .map(|id| parsed(&id, DeployId::parse))
            .transpose()?,
    })
}
