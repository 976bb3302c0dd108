//! What an owner writes about an app: a new one, or changes to one.

use crate::model::{
    AppName, Branch, CpuPercent, Domain, HealthPath, HealthTimeout, HostSocket, MaxProcesses,
    MemoryMb, RepoUrl, RootDir, Secret, ShellCommand,
};

/// A new app, as its owner wrote it.
#[derive(Debug, Clone)]
pub struct AppDraft {
    /// Its name.
    pub name: AppName,
    /// Where its source comes from.
    pub git_repo: RepoUrl,
    /// The branch to deploy.
    pub branch: Branch,
    /// A token for the repository's host.
    pub git_token: Option<Secret>,
    /// The directory of the repository that holds it.
    pub root_dir: RootDir,
    /// Build command; empty means detected.
    pub build_command: ShellCommand,
    /// Start command; empty means detected.
    pub start_command: ShellCommand,
    /// Where it says that it is well.
    pub health_path: HealthPath,
    /// How long a release may take to prove itself.
    pub health_timeout: HealthTimeout,
    /// Host names besides the one that follows from its name.
    pub domains: Vec<Domain>,
    /// Memory that it may take.
    pub memory: MemoryMb,
    /// CPU time that it may take.
    pub cpu: CpuPercent,
    /// Processes that it may have.
    pub max_processes: MaxProcesses,
    /// Directories with sockets of the machine that it may use.
    pub host_sockets: Vec<HostSocket>,
    /// Whether a push that a webhook tells of is deployed.
    pub auto_deploy: bool,
}

/// What a change does to the stored token.
#[derive(Debug, Clone, Default)]
pub enum TokenChange {
    /// Leave it, unless the app moves to another host (P16).
    #[default]
    Keep,
    /// Remove it.
    Remove,
    /// Store this one.
    Set(Secret),
}

/// The fields to change; `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // the names are those of `App`
pub struct AppChanges {
    pub name: Option<AppName>,
    pub git_repo: Option<RepoUrl>,
    pub branch: Option<Branch>,
    pub git_token: TokenChange,
    pub root_dir: Option<RootDir>,
    pub build_command: Option<ShellCommand>,
    pub start_command: Option<ShellCommand>,
    pub health_path: Option<HealthPath>,
    pub health_timeout: Option<HealthTimeout>,
    pub domains: Option<Vec<Domain>>,
    pub memory: Option<MemoryMb>,
    pub cpu: Option<CpuPercent>,
    pub max_processes: Option<MaxProcesses>,
    pub host_sockets: Option<Vec<HostSocket>>,
    pub auto_deploy: Option<bool>,
}
