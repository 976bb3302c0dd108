//! An app out of a row of the database.

use super::app::{App, Process};
use super::draft::AppSettings;
use super::{StoreError, parsed};
use crate::model::{
    AppId, AppName, AppStatus, Branch, CpuPercent, DeployId, DeployStatus, Domain, HealthPath,
    HealthTimeout, HostSocket, Invalid, MaxProcesses, MemoryMb, RepoUrl, RootDir, ShellCommand,
    Trigger, UnixMillis, Wanted,
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
             a.webhook_secret IS NOT NULL, a.is_static, \
             (SELECT group_concat(domain, char(10)) FROM (SELECT domain FROM domains \
              WHERE app_id = a.id ORDER BY position)), \
             (SELECT COALESCE(d.release, d.id) FROM deploys d WHERE d.id = a.live_deploy), \
             (SELECT d.id FROM deploys d WHERE d.app_id = a.id ORDER BY d.seq DESC LIMIT 1), \
             (SELECT d.trigger FROM deploys d WHERE d.app_id = a.id ORDER BY d.seq DESC LIMIT 1) \
             FROM apps a LEFT JOIN processes p ON p.app_id = a.id ",
            $rest
        )
    };
}
pub(super) use select_app;

/// The columns of [`select_app`], in its order.
#[derive(Clone, Copy)]
enum Column {
    Id,
    Name,
    Slot,
    GitRepo,
    Branch,
    HasGitToken,
    RootDir,
    BuildCommand,
    StartCommand,
    HealthPath,
    HealthTimeout,
    Wanted,
    LiveDeploy,
    CreatedAt,
    ProcessDeploy,
    ProcessId,
    ProcessStart,
    ProcessPort,
    ProcessEnded,
    LastStatus,
    Memory,
    Cpu,
    MaxProcesses,
    HostSockets,
    AutoDeploy,
    HasWebhookSecret,
    IsStatic,
    Domains,
    LiveRelease,
    LastDeploy,
    LastTrigger,
}

/// An app as its row has it, without a copy: enough for an answer that only shows it.
/// What acts on an app takes an [`App`], whose values were read into their types and
/// which says more of the fields.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct AppText<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub git_repo: &'a str,
    pub branch: &'a str,
    pub has_git_token: bool,
    pub root_dir: &'a str,
    pub build_command: &'a str,
    pub start_command: &'a str,
    pub health_path: &'a str,
    /// In seconds.
    pub health_timeout: i64,
    pub domains: Vec<&'a str>,
    /// In MiB; 0 is the platform's default.
    pub memory: i64,
    /// In percent of one CPU; 0 is the platform's default.
    pub cpu: i64,
    /// 0 is the platform's default.
    pub max_processes: i64,
    pub host_sockets: Vec<&'a str>,
    pub auto_deploy: bool,
    pub has_webhook_secret: bool,
    /// Whether its live release is files and no process.
    pub is_static: bool,
    pub wanted: Wanted,
    pub live_deploy: Option<&'a str>,
    pub live_release: Option<&'a str>,
    /// Its newest deploy, however that ended or will end.
    pub last_deploy: Option<&'a str>,
    /// The port of its process, while that runs.
    pub port: Option<u16>,
    /// As far as the database knows it; its supervisor knows more.
    pub status: AppStatus,
    pub created_at: UnixMillis,
}

impl<'a> AppText<'a> {
    /// Takes what [`select_app`] asks for.
    pub(super) fn of(row: &'a Row<'_>) -> Result<Self, StoreError> {
        let text = |column| optional_text(row, column)?.ok_or(StoreError::Corrupt);
        let wanted = parsed(text(Column::Wanted)?, Wanted::parse)?;
        let live_deploy = optional_text(row, Column::LiveDeploy)?;
        let has_process = optional_text(row, Column::ProcessDeploy)?.is_some();
        let ended = optional_text(row, Column::ProcessEnded)?;
        let runs = has_process && ended.is_none();
        let is_static = row.get(Column::IsStatic as usize)?;
        let serves = if is_static { wanted == Wanted::Running } else { runs };
        let last =
            optional_text(row, Column::LastStatus)?.zip(optional_text(row, Column::LastTrigger)?);
        let last = match last {
            Some((s, t)) => Some((parsed(s, DeployStatus::parse)?, parsed(t, Trigger::parse)?)),
            None => None,
        };
        Ok(Self {
            id: text(Column::Id)?,
            name: text(Column::Name)?,
            git_repo: text(Column::GitRepo)?,
            branch: text(Column::Branch)?,
            has_git_token: row.get(Column::HasGitToken as usize)?,
            root_dir: text(Column::RootDir)?,
            build_command: text(Column::BuildCommand)?,
            start_command: text(Column::StartCommand)?,
            health_path: text(Column::HealthPath)?,
            health_timeout: row.get(Column::HealthTimeout as usize)?,
            domains: lines(optional_text(row, Column::Domains)?),
            memory: row.get(Column::Memory as usize)?,
            cpu: row.get(Column::Cpu as usize)?,
            max_processes: row.get(Column::MaxProcesses as usize)?,
            host_sockets: lines(optional_text(row, Column::HostSockets)?),
            auto_deploy: row.get(Column::AutoDeploy as usize)?,
            has_webhook_secret: row.get(Column::HasWebhookSecret as usize)?,
            is_static,
            wanted,
            live_deploy,
            live_release: optional_text(row, Column::LiveRelease)?,
            last_deploy: optional_text(row, Column::LastDeploy)?,
            port: if runs { Some(row.get(Column::ProcessPort as usize)?) } else { None },
            status: status(wanted, live_deploy.is_some(), serves, last),
            created_at: row.get(Column::CreatedAt as usize)?,
        })
    }
}

/// Reads what [`select_app`] asks for.
pub(super) fn read_app(row: &Row<'_>) -> Result<App, StoreError> {
    let text = AppText::of(row)?;
    Ok(App {
        id: parsed(text.id, AppId::parse)?,
        name: parsed(text.name, AppName::parse)?,
        slot: row.get(Column::Slot as usize)?,
        git_repo: parsed(text.git_repo, RepoUrl::parse)?,
        has_git_token: text.has_git_token,
        has_webhook_secret: text.has_webhook_secret,
        is_static: text.is_static,
        wanted: text.wanted,
        live_deploy: text.live_deploy.map(|d| parsed(d, DeployId::parse)).transpose()?,
        live_release: text.live_release.map(|d| parsed(d, DeployId::parse)).transpose()?,
        process: read_process(row)?,
        status: text.status,
        created_at: text.created_at,
        settings: AppSettings {
            branch: parsed(text.branch, Branch::parse)?,
            root_dir: parsed(text.root_dir, RootDir::parse)?,
            build_command: parsed(text.build_command, ShellCommand::parse)?,
            start_command: parsed(text.start_command, ShellCommand::parse)?,
            health_path: parsed(text.health_path, HealthPath::parse)?,
            health_timeout: checked(text.health_timeout, HealthTimeout::new)?,
            domains: all(text.domains, Domain::parse)?,
            memory: checked(text.memory, MemoryMb::new)?,
            cpu: checked(text.cpu, CpuPercent::new)?,
            max_processes: checked(text.max_processes, MaxProcesses::new)?,
            host_sockets: all(text.host_sockets, HostSocket::parse)?,
            auto_deploy: text.auto_deploy,
        },
    })
}

/// A text column without a copy of it.
fn optional_text<'r>(row: &'r Row<'_>, column: Column) -> Result<Option<&'r str>, StoreError> {
    row.get_ref(column as usize)?.as_str_or_null().map_err(|_| StoreError::Corrupt)
}

fn read_process(row: &Row<'_>) -> Result<Option<Process>, StoreError> {
    let Some(deploy) = optional_text(row, Column::ProcessDeploy)? else { return Ok(None) };
    let ticks: i64 = row.get(Column::ProcessStart as usize)?;
    Ok(Some(Process {
        deploy: parsed(deploy, DeployId::parse)?,
        pid: row.get(Column::ProcessId as usize)?,
        start_ticks: u64::try_from(ticks).map_err(|_| StoreError::Corrupt)?,
        port: row.get(Column::ProcessPort as usize)?,
        ended: row.get(Column::ProcessEnded as usize)?,
    }))
}

fn checked<T>(number: i64, parse: fn(i64) -> Result<T, Invalid>) -> Result<T, StoreError> {
    parse(number).map_err(|_| StoreError::Corrupt)
}

fn status(
    wanted: Wanted,
    has_live: bool,
    runs: bool,
    last_deploy: Option<(DeployStatus, Trigger)>,
) -> AppStatus {
    match last_deploy {
        None => AppStatus::New,
        Some((step, Trigger::Restart)) if !step.is_final() => AppStatus::Restarting,
        Some((step, _)) if !step.is_final() => AppStatus::Deploying,
        Some(_) if runs && wanted == Wanted::Stopped => AppStatus::Stopping,
        Some(_) if runs => AppStatus::Running,
        Some(_) if wanted == Wanted::Stopped => AppStatus::Stopped,
        Some(_) if has_live => AppStatus::Crashed,
        Some(_) => AppStatus::Failed,
    }
}

/// The lines of a text column.
fn lines(text: Option<&str>) -> Vec<&str> {
    text.into_iter().flat_map(str::lines).collect()
}

fn all<T>(texts: Vec<&str>, parse: fn(&str) -> Result<T, Invalid>) -> Result<Vec<T>, StoreError> {
    texts.into_iter().map(|text| parsed(text, parse)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::with_an_app;

    #[test]
    fn the_columns_are_those_that_are_asked_for() {
        let (store, ..) = with_an_app();
        let connection = store.read();
        let statement = connection.prepare(select_app!("")).unwrap();
        assert_eq!(statement.column_count(), Column::LastTrigger as usize + 1);
        for (column, name) in [
            (Column::GitRepo, "git_repo"),
            (Column::CreatedAt, "created_at"),
            (Column::ProcessDeploy, "deploy_id"),
            (Column::Memory, "memory_mb"),
            (Column::AutoDeploy, "auto_deploy"),
        ] {
            assert_eq!(statement.column_name(column as usize), Ok(name));
        }
    }
}
