//! What a server finds of the one before it: the apps that kept running.

use super::draining::Why;
use super::instance::{Instance, noted_exit, sweep};
use super::launched::Launched;
use super::processes::Processes;
use super::supervisor::Supervisor;
use super::tools::{Message, Tools};
use crate::model::ProcessId;
use crate::router::Target;
use crate::store::{Process, StoreError, Worker};
use std::collections::HashSet;
use std::sync::Arc;

/// Finds the apps that kept running, notes the ends of the others, and ends what
/// belongs to nobody: a release that was being checked when the server was killed.
/// The supervisor is then to look at all of them.
///
/// # Errors
/// When the database does not answer.
pub fn recover(tools: &Arc<Tools>) -> Result<Supervisor, StoreError> {
    let Tools { store, journal, layout, router, board, mailbox, .. } = &**tools;
    let mut processes = Processes::new(Arc::clone(tools));
    let mut known = HashSet::new();
    for process in store.draining()? {
        let (app, pid, start_ticks) = (&process.app, process.pid, process.start_ticks);
        let exit_file = layout.exit_file(&app.into(), Some(process.port));
        let Some(instance) = Instance::adopt((pid, start_ticks), app, exit_file) else {
            store.drained(pid, start_ticks)?;
            continue;
        };
        known.insert(pid);
        processes.draining.replace(app, instance, process.port, Why::Replaced);
    }
    // Takes a process that still runs, or answers how it has ended.
    let mut adopt = |id: ProcessId, deploy, process, port| {
        let exit_file = layout.exit_file(&id, port);
        let Some(instance) = Instance::adopt(process, &id.app, exit_file.clone()) else {
            return Some(noted_exit(&exit_file));
        };
        known.insert(instance.pid());
        processes.runs(Launched { id, deploy, port, env: None, instance }, None);
        None
    };
    for Worker { id, deploy, pid, start_ticks } in store.workers()? {
        // If it was on its way out, it is asked once more.
        if let Some(exit) = adopt(id.clone(), deploy, (pid, start_ticks), None) {
            let line = format!("{}Ended while no server ran: {exit}.", id.label());
            journal.note_app(&id.app, &line);
            store.worker_gone(&id, pid)?;
        }
    }
    for app in store.apps()? {
        mailbox.send(Message::Look(app.id.clone()));
        let process = app.process.filter(|process| process.ended.is_none());
        layout.discard_exits(&app.id, process.as_ref().map(|process| process.port));
        let Some(Process { deploy, pid, start_ticks, port, .. }) = process else {
            board.to_start(&app.id);
            continue;
        };
        match adopt((&app.id).into(), deploy, (pid, start_ticks), Some(port)) {
            None => log::info!("app {} is still running (pid {pid})", app.name.as_str()),
            Some(exit) => {
                // Before anything is started, which could get the port.
                router.point(&app.id, &Target::Down);
                store.process_ended(&app.id, pid, &exit.to_string())?;
                journal.note_app(&app.id, &format!("Ended while no server ran: {exit}."));
                layout.discard_exits(&app.id, None);
                board.to_start(&app.id);
            }
        }
    }
    let strays = sweep(&layout.apps(), &known);
    if strays > 0 {
        log::warn!("ended {strays} processes that the last server had not finished starting");
    }
    Ok(Supervisor::new(Arc::clone(tools), processes))
}
