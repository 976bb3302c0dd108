//! What an owner writes about an app: a new one, or what one shall be from now on.

use crate::model::{
    AppName, Branch, CpuPercent, Domain, HealthPath, HealthTimeout, HostSocket, MaxProcesses,
    MemoryMb, RepoUrl, RootDir, Secret, ShellCommand,
};

/// What an owner chooses for an app and may as well leave to the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSettings {
    /// The branch that is deployed.
    pub branch: Branch,
    /// The directory of the repository that holds it.
    pub root_dir: RootDir,
    /// The owner's build command; empty means detected.
    pub build_command: ShellCommand,
    /// The owner's start command; empty means detected.
    pub start_command: ShellCommand,
    /// Where it says that it is well.
    pub health_path: HealthPath,
    /// How long a release may take to prove itself.
    pub health_timeout: HealthTimeout,
    /// Host names besides the one that follows from its name, in its owner's order.
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

impl Default for AppSettings {
    fn default() -> Self {
        Self {
            branch: Branch::default(),
            root_dir: RootDir::default(),
            build_command: ShellCommand::default(),
            start_command: ShellCommand::default(),
            health_path: HealthPath::default(),
            health_timeout: HealthTimeout::default(),
            domains: Vec::new(),
            memory: MemoryMb::default(),
            cpu: CpuPercent::default(),
            max_processes: MaxProcesses::default(),
            host_sockets: Vec::new(),
            auto_deploy: true,
        }
    }
}

/// What becomes of the stored Git token.
#[derive(Debug, Clone, Default)]
pub enum TokenChange {
    /// It stays, unless the app moves to another host (P16). A new app has none.
    #[default]
    Keep,
    /// It is removed.
    Remove,
    /// It becomes this one.
    Set(Secret),
}

/// An app as its owner wants it.
#[derive(Debug, Clone)]
pub struct AppDraft {
    /// Its name.
    pub name: AppName,
    /// Where its source comes from.
    pub git_repo: RepoUrl,
    /// What becomes of the token for the repository's host.
    pub git_token: TokenChange,
    /// The rest.
    pub settings: AppSettings,
}
