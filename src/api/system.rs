//! Facts about this server and its machine.

use super::{Answer, Answered, Api, Call};
use crate::checks::Level;
use crate::deploy::{Deployer, host_names::router_trouble};
use crate::router::RouterState;
use crate::sandbox::fences::Fences;
use serde::Serialize;
use serde_json::{Value, json};

/// The machine's numbers, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineFacts {
    /// All memory.
    pub memory_total_bytes: u64,
    /// Memory that a new program could have.
    pub memory_available_bytes: u64,
    /// The size of the data directory's file system.
    pub disk_total_bytes: u64,
    /// What is free on it.
    pub disk_free_bytes: u64,
    /// What this server itself takes; shown apart from the machine.
    #[serde(skip)]
    pub server_memory_bytes: u64,
}

/// The router as the API shows it.
fn router(deployer: &Deployer) -> Value {
    let (state, message, version, ports) = match deployer.tools.router.state() {
        RouterState::Off => ("off", None, None, None),
        RouterState::Starting => ("starting", None, None, None),
        RouterState::Missing(why) => ("missing", Some(why), None, None),
        RouterState::Running { version, ports, .. } => {
            ("running", router_trouble(&deployer.tools), Some(version), Some(ports))
        }
    };
    json!({
        "state": state,
        "message": message,
        "version": version,
        "httpPort": ports.map(|ports| ports.http),
        "httpsPort": ports.and_then(|ports| ports.https),
    })
}

/// The machine's host name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How many findings of the checklist have lasted.
fn findings(api: &Api) -> Value {
    let lasting = api.board.lasting();
    let count = |level| lasting.iter().filter(|finding| finding.level == level).count();
    json!({"fail": count(Level::Fail), "warn": count(Level::Warn)})
}

pub(super) fn session(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let (version, host) = (env!("CARGO_PKG_VERSION"), host_name());
    let answer = json!({"version": version, "hostName": host, "findings": findings(api)});
    Ok(Answer::json(200, &answer))
}

pub(super) fn system(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let machine = (api.machine)();
    let host = api.deployer.tools.host.last();
    let (ready, message) = match &host {
        Some(Ok(_)) => (true, None),
        Some(Err(sentence)) => (false, Some(sentence.as_str())),
        None => (false, Some("It is being looked at; that takes a moment.")),
    };
    let fences = api.deployer.tools.host.fences();
    let fence = |of: fn(&Fences) -> &Option<String>| {
        let problem = match fences.as_ref().map(of) {
            Some(found) => found.as_deref(),
            None => Some("it is being looked at; that takes a moment"),
        };
        json!({"inForce": problem.is_none(), "problem": problem})
    };
    let shared = host.as_ref().and_then(|host| host.as_ref().ok()?.shared_because.as_deref());
    let answer = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "hostName": host_name(),
        "lastUpdate": (api.last_update)(),
        "uptimeSeconds": api.started.elapsed().as_secs(),
        "memoryBytes": machine.server_memory_bytes,
        "machine": machine,
        "findings": findings(api),
        "router": router(&api.deployer),
        "runtime": {"ready": ready, "message": message},
        "identity": {"perApp": ready && shared.is_none(), "problem": shared},
        "firewall": fence(|fences| &fences.firewall),
        "portFence": fence(|fences| &fences.ports),
        "socketFence": fence(|fences| &fences.sockets),
        "tokenSource": if api.auth.is_pinned() { "environment" } else { "file" },
    });
    Ok(Answer::json(200, &answer))
}
