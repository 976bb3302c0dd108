//! An app, and its process, as the rest of the program knows them.

use super::draft::{AppDraft, AppSettings, TokenChange};
use crate::model::{AppId, AppName, AppStatus, DeployId, RepoUrl, UnixMillis, Wanted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One app, with its state as far as the database knows it; as JSON it is what the API shows of
/// it, but for that state.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Its identifier.
    pub id: AppId,
    /// Its name, unique.
    pub name: AppName,
    /// A small number of its own; host uids follow from it.
    #[serde(skip)]
    pub slot: u16,
    /// Where its source comes from; `None` of one that is deployed from archives alone.
    pub git_repo: Option<RepoUrl>,
    /// What its owner chose.
    #[serde(flatten)]
    pub settings: AppSettings,
    /// Whether a token of its own is stored.
    pub has_git_token: bool,
    /// Whether a webhook's secret is stored.
    pub has_webhook_secret: bool,
    /// What was lost with the key and is wanted anew: `Git token`, `webhook secret`, variables.
    pub lost: Vec<String>,
    /// Whether its live release is files and no process.
    #[serde(skip)]
    pub is_static: bool,
    /// What its owner wants of it.
    #[serde(skip)]
    pub wanted: Wanted,
    /// The deploy that is live.
    #[serde(rename = "liveDeployId")]
    pub live_deploy: Option<DeployId>,
    /// The deploy whose release it runs: itself, or after a rollback an earlier one.
    #[serde(skip)]
    pub live_release: Option<DeployId>,
    /// Its newest deploy, however that ended or will end.
    #[serde(rename = "lastDeployId")]
    pub last_deploy: Option<DeployId>,
    /// The process of the live release, running or ended.
    #[serde(skip)]
    pub process: Option<Process>,
    /// What it is doing now as far as the database knows it; its supervisor knows more. It
    /// follows from the fields above and its last deploy.
    #[serde(skip)]
    pub status: AppStatus,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// A process of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The release that it runs.
    pub deploy: DeployId,
    /// Its process id on the host.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with the pid, a name that is never reused.
    pub start_ticks: u64,
    /// The loopback port that it was given.
    pub port: u16,
    /// How it ended, such as `exit code 1`; `None` while it runs.
    pub ended: Option<String>,
    /// The variables that it was started with; `None` where that is not known any more.
    pub env: Option<Vec<EnvMark>>,
}

/// A variable without its value: what tells whether that, or anything else of it, has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvMark {
    /// Its name.
    pub name: String,
    /// Another one after each change of its value, by chance: it says nothing of what that is.
    pub mark: String,
    /// Whether it is marked secret.
    pub secret: bool,
}

impl App {
    /// The port of its process, while that runs.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.process.as_ref().filter(|p| p.ended.is_none()).map(|p| p.port)
    }

    /// The names of variables that its process was started without, or with other values, or
    /// should not have any more, `now` that they are these.
    #[must_use]
    pub fn env_not_live(&self, now: &[EnvMark]) -> BTreeSet<String> {
        let process = self.process.as_ref().filter(|process| process.ended.is_none());
        let Some(started) = process.and_then(|process| process.env.as_ref()) else {
            return BTreeSet::new();
        };
        let values = |marks: &[EnvMark]| -> BTreeSet<(String, String)> {
            marks.iter().map(|one| (one.name.clone(), one.mark.clone())).collect()
        };
        (&values(started) ^ &values(now)).into_iter().map(|(name, _)| name).collect()
    }

    /// Whether its live release has neither a port nor files: its workers are all of it.
    #[must_use]
    pub const fn is_workers_only(&self) -> bool {
        self.live_deploy.is_some() && !self.is_static && self.process.is_none()
    }

    /// The app as it is, for its owner to change.
    #[must_use]
    pub fn draft(&self) -> AppDraft {
        AppDraft {
            name: self.name.clone(),
            git_repo: self.git_repo.clone(),
            git_token: TokenChange::Keep,
            settings: self.settings.clone(),
        }
    }
}
