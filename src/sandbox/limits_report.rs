//! The limits of an app as they are: what is really in force, and who holds it.

use super::cgroup;
use super::host::Host;
use super::limits::{BUILD_PROCESSES, Limits};
use super::memory_limit::limits_of_process;
use crate::disk::app_users::AppUsers;
use crate::proc::table;
use crate::store::App;
use serde::Serialize;

/// Who holds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Holder {
    /// The app's cgroup: for all its processes together.
    Cgroup,
    /// Each process by itself.
    Process,
    /// The app's user.
    User,
    /// Nobody.
    None,
}

/// One limit as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// MiB, percent of one core, or processes; `None` is no limit.
    pub value: Option<u64>,
    /// Who holds it.
    pub by: Holder,
    /// What there is to say about it.
    pub note: Option<String>,
}

/// The limits of an app as they are; as JSON they are what the API shows of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Memory, in MiB.
    pub memory: Held,
    /// CPU time, in percent of one core.
    pub cpu: Held,
    /// Processes and threads.
    pub processes: Held,
}

/// What is in force for an app: what the kernel says of its process, or what its next
/// start gets.
pub fn report(app: &App, host: &Host) -> Report {
    let wanted = Limits::of_app(app, host.memory);
    let running = app.process.as_ref().filter(|p| p.ended.is_none());
    // The app's first process: bubblewrap is two, the second in the sandbox.
    let inside = running.and_then(|p| table::first_child(p.pid)).and_then(table::first_child);
    let in_group = match (&host.cgroups, inside) {
        (Ok(_), Some(pid)) => cgroup::leaf_of(pid).map(|leaf| cgroup::read(&leaf)),
        (Ok(_), None) => Some(wanted.clone()),
        (Err(_), _) => None,
    };
    let Some(real) = in_group else {
        let of_process = inside.and_then(limits_of_process);
        let next = Limits { processes: wanted.of_user(host.users), ..wanted.clone() };
        return without_cgroups(&wanted, &of_process.unwrap_or(next), host);
    };
    let held = |value: Option<u64>, wanted: Option<u64>, unit| Held {
        value,
        by: if value.is_some() { Holder::Cgroup } else { Holder::None },
        note: (value != wanted).then(|| from_the_next_start(wanted, unit)),
    };
    Report {
        memory: held(Some(real.memory >> 20), Some(wanted.memory >> 20), "MiB"),
        cpu: held(real.cpu.map(u64::from), wanted.cpu.map(u64::from), "%"),
        processes: held(Some(real.processes), Some(wanted.processes), "processes"),
    }
}

fn without_cgroups(wanted: &Limits, real: &Limits, host: &Host) -> Report {
    let why = host.cgroups.as_ref().err().map_or("the kernel refused its cgroup", String::as_str);
    let together = if real.data >> 20 == wanted.data >> 20 {
        format!("each process may take this much, and nothing limits all of them together: {why}")
    } else {
        from_the_next_start(Some(wanted.data >> 20), "MiB")
    };
    let counted = match host.users {
        AppUsers::Shared => "counted in the app's sandbox".to_owned(),
        AppUsers::Subordinate(_) => "counted for the app's user".to_owned(),
        AppUsers::Root => format!(
            "the app's own limit is {0}; without a cgroup the kernel counts all processes of its \
             user, so {0} for the release before it and {BUILD_PROCESSES} for a build are added: \
             {why}",
            wanted.processes
        ),
    };
    let processes = if real.processes == wanted.of_user(host.users) {
        counted
    } else {
        from_the_next_start(Some(wanted.processes), "processes")
    };
    Report {
        memory: Held { value: Some(real.data >> 20), by: Holder::Process, note: Some(together) },
        cpu: Held {
            value: None,
            by: Holder::None,
            note: wanted.cpu.map(|percent| format!("{percent} % is not in force: {why}")),
        },
        processes: Held { value: Some(real.processes), by: Holder::User, note: Some(processes) },
    }
}

fn from_the_next_start(wanted: Option<u64>, unit: &str) -> String {
    let wanted = wanted.map_or("no limit".to_owned(), |wanted| format!("{wanted} {unit}"));
    format!("{wanted} from the app's next start on")
}
