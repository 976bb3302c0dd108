//! An app out of a row of the database.

use super::apps::{App, Process};
use super::{StoreError, parsed};
use crate::model::{
    AppId, AppName, AppStatus, Branch, CpuPercent, DeployId, DeployStatus, Domain, HealthPath,
    HealthTimeout, HostSocket, Invalid, MaxProcesses, MemoryMb, RepoUrl, RootDir, ShellCommand,
    Wanted,
};
use rusqlite::Row;

/// One text for each question, so that the statement cache finds it as it stands.
macro_rules! select_app {
    ($rest:literal) => {
        concat!(
            "SELECT a.id, a.name, a.slot, a.git_repo, a.branch, a.git_token IS NOT NULL, \
             a.root_dir, a.build_command, a.start_command, a.health_path, \
             a.health_timeout_seconds, a.wanted, a.live_deploy, a.created_at, \
             p.deploy_id, p.pid, p.start_ticks, p.port, p.ended, \
             (SELECT d.status FROM deploys d WHERE d.app_id = a.id ORDER BY d.seq DESC LIMIT 1), \
             a.memory_mb, a.cpu_percent, a.max_processes, a.host_sockets, a.auto_deploy, \
             a.webhook_secret IS NOT NULL, a.static_root, \
             (SELECT group_concat(domain, char(10)) FROM (SELECT domain FROM domains \
              WHERE app_id = a.id ORDER BY position)), \
             (SELECT COALESCE(d.release, d.id) FROM deploys d WHERE d.id = a.live_deploy) \
             FROM apps a LEFT JOIN processes p ON p.app_id = a.id ",
            $rest
        )
    };
}
pub(super) use select_app;

/// Reads what [`select_app`] asks for.
pub(super) fn read_app(row: &Row<'_>) -> Result<App, StoreError> {
    let text = |i| optional_text(row, i)?.ok_or(StoreError::Corrupt);
    let wanted = parsed(text(11)?, Wanted::parse)?;
    let live_deploy = optional_text(row, 12)?.map(|d| parsed(d, DeployId::parse)).transpose()?;
    let process = read_process(row)?;
    let static_root = optional_text(row, 26)?.map(str::to_owned);
    let runs = match &static_root {
        Some(_) => wanted == Wanted::Running,
        None => process.as_ref().is_some_and(|p| p.ended.is_none()),
    };
    let last = optional_text(row, 19)?.map(|s| parsed(s, DeployStatus::parse)).transpose()?;
    Ok(App {
        id: parsed(text(0)?, AppId::parse)?,
        name: parsed(text(1)?, AppName::parse)?,
        slot: row.get(2)?,
        git_repo: parsed(text(3)?, RepoUrl::parse)?,
        branch: parsed(text(4)?, Branch::parse)?,
        has_git_token: row.get(5)?,
        root_dir: parsed(text(6)?, RootDir::parse)?,
        build_command: parsed(text(7)?, ShellCommand::parse)?,
        start_command: parsed(text(8)?, ShellCommand::parse)?,
        health_path: parsed(text(9)?, HealthPath::parse)?,
        health_timeout: HealthTimeout::new(row.get(10)?).map_err(|_| StoreError::Corrupt)?,
        domains: lines(optional_text(row, 27)?, Domain::parse)?,
        memory: limit(row, 20, MemoryMb::new)?,
        cpu: limit(row, 21, CpuPercent::new)?,
        max_processes: limit(row, 22, MaxProcesses::new)?,
        host_sockets: lines(optional_text(row, 23)?, HostSocket::parse)?,
        auto_deploy: row.get(24)?,
        has_webhook_secret: row.get(25)?,
        status: status(wanted, live_deploy.is_some(), runs, last),
        static_root,
        wanted,
        live_deploy,
        live_release: optional_text(row, 28)?.map(|d| parsed(d, DeployId::parse)).transpose()?,
        process,
        created_at: row.get(13)?,
    })
}

/// A text column without a copy of it.
fn optional_text<'r>(row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, StoreError> {
    row.get_ref(column)?.as_str_or_null().map_err(|_| StoreError::Corrupt)
}

fn read_process(row: &Row<'_>) -> Result<Option<Process>, StoreError> {
    let Some(deploy) = optional_text(row, 14)? else { return Ok(None) };
    let ticks: i64 = row.get(16)?;
    Ok(Some(Process {
        deploy: parsed(deploy, DeployId::parse)?,
        pid: row.get(15)?,
        start_ticks: u64::try_from(ticks).map_err(|_| StoreError::Corrupt)?,
        port: row.get(17)?,
        ended: row.get(18)?,
    }))
}

fn limit<T>(
    row: &Row<'_>,
    column: usize,
    parse: fn(i64) -> Result<T, Invalid>,
) -> Result<T, StoreError> {
    parse(row.get(column)?).map_err(|_| StoreError::Corrupt)
}

fn status(
    wanted: Wanted,
    has_live: bool,
    runs: bool,
    last_deploy: Option<DeployStatus>,
) -> AppStatus {
    match last_deploy {
        None => AppStatus::New,
        Some(step) if !step.is_final() => AppStatus::Deploying,
        Some(_) if runs => AppStatus::Running,
        Some(_) if wanted == Wanted::Stopped => AppStatus::Stopped,
        Some(_) if has_live => AppStatus::Crashed,
        Some(_) => AppStatus::Failed,
    }
}

/// The lines of a text column, each read into its type.
fn lines<T>(
    text: Option<&str>,
    parse: fn(&str) -> Result<T, Invalid>,
) -> Result<Vec<T>, StoreError> {
    text.into_iter().flat_map(str::lines).map(|line| parsed(line, parse)).collect()
}
