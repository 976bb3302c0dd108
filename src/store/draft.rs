//! What an owner writes about an app: a new one, or what one shall be from now on.

use crate::model::{
    AppName, Branch, CpuPercent, Domain, FixedPort, HealthPath, HealthTimeout, HostSocket,
    MAX_DOMAINS, MAX_HOST_SOCKETS, MaxProcesses, MemoryMb, ProcessName, RepoUrl, RootDir, Scale,
    Secret, ShellCommand,
};
use serde::de::{Error as _, IntoDeserializer, value};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// What an owner chooses for an app and may as well leave to the platform. As JSON it is what
/// the API takes and shows, and what the database keeps: a new setting is written here, in its
/// type and in the API's description, and nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AppSettings {
    /// The branch that is deployed.
    pub branch: Branch,
    /// The directory of the repository that holds it.
    pub root_dir: RootDir,
    /// The owner's build command; empty means detected.
    pub build_command: ShellCommand,
    /// The owner's start command; empty means detected.
    pub start_command: ShellCommand,
    /// The directory whose files are served, in place of a process; empty means detected.
    pub publish_dir: RootDir,
    /// Whether a site's page at the top shows the other paths too; `null` means detected.
    pub spa_fallback: Option<bool>,
    /// The port that it listens at whatever it is told; `null` gives it one of ours.
    pub port: Option<FixedPort>,
    /// Whether one process of it ends before the next starts.
    pub one_at_a_time: bool,
    /// How many processes it has of a name; one where it is not said.
    pub scale: BTreeMap<ProcessName, Scale>,
    /// Where it says that it is well.
    pub health_path: HealthPath,
    /// How long a release may take to prove itself.
    #[serde(rename = "healthTimeoutSeconds")]
    pub health_timeout: HealthTimeout,
    /// Host names besides the one that follows from its name, in its owner's order.
    #[serde(deserialize_with = "texts::<MAX_DOMAINS, _, _>")]
    pub domains: Vec<Domain>,
    /// Memory that it may take.
    #[serde(rename = "memoryMb")]
    pub memory: MemoryMb,
    /// CPU time that it may take.
    #[serde(rename = "cpuPercent")]
    pub cpu: CpuPercent,
    /// Processes that it may have.
    pub max_processes: MaxProcesses,
    /// Directories with sockets of the machine that it may use.
    #[serde(deserialize_with = "texts::<MAX_HOST_SOCKETS, _, _>")]
    pub host_sockets: Vec<HostSocket>,
    /// Whether pushes are deployed.
    pub auto_deploy: AutoDeploy,
}

impl AppSettings {
    /// Whether the app cannot run twice at once: two processes have no port in common.
    #[must_use]
    pub const fn runs_alone(&self) -> bool {
        self.one_at_a_time || self.port.is_some()
    }

    /// How many processes of this name the app has.
    #[must_use]
    pub fn scale_of(&self, name: &ProcessName) -> u32 {
        self.scale.get(name).copied().unwrap_or_default().get()
    }
}

/// Whether a push that a webhook tells of is deployed: yes, unless its owner says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AutoDeploy(pub bool);

impl Default for AutoDeploy {
    fn default() -> Self {
        Self(true)
    }
}

impl<'de> Deserialize<'de> for AutoDeploy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let flag = bool::deserialize(from).map(Self);
        flag.map_err(|_| D::Error::custom("must be true or false"))
    }
}

/// A list of at most `MOST` texts, none of them twice.
fn texts<'de, const MOST: usize, T: Deserialize<'de> + PartialEq, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(from);
    let texts = texts.map_err(|_| D::Error::custom("must be a list of texts"))?;
    if texts.len() > MOST {
        return Err(D::Error::custom("has too many entries"));
    }
    let mut read = Vec::with_capacity(texts.len());
    for (at, text) in texts.into_iter().enumerate() {
        let value = T::deserialize(text.into_deserializer())
            .map_err(|e: value::Error| D::Error::custom(format!("entry {} {e}", at + 1)))?;
        if read.contains(&value) {
            return Err(D::Error::custom("holds the same entry twice"));
        }
        read.push(value);
    }
    Ok(read)
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
    /// Where its source comes from; `None`: from archives alone.
    pub git_repo: Option<RepoUrl>,
    /// What becomes of the token for the repository's host.
    pub git_token: TokenChange,
    /// The rest.
    pub settings: AppSettings,
}
