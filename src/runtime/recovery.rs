//! What a server finds of the one before it: the apps that kept running.

use super::draining::Why;
use super::instance::{Instance, noted_exit, sweep};
use super::launched::Launched;
use super::supervisor::Supervisor;
use super::tools::{Message, Tools};
use crate::model::{AppId, ProcessId};
use crate::router::Target;
use crate::store::StoreError;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Finds the apps that kept running, notes the ends of the others, and ends what
/// belongs to nobody: a release that was being checked when the server was killed.
/// The supervisor is then to look at all of them.
///
/// # Errors
/// When the database does not answer.
pub fn recover(tools: &Arc<Tools>) -> Result<Supervisor, StoreError> {
    let Tools { store, journal, layout, router, board, mailbox, .. } = &**tools;
    let mut supervisor = Supervisor::new(Arc::clone(tools));
    let mut known = HashSet::new();
    let mut adopt = |process: (u32, u64), app: &AppId, exit_file: PathBuf| {
        let found = Instance::adopt(process, app, exit_file);
        known.extend(found.as_ref().map(Instance::pid));
        found
    };
    for process in store.draining()? {
        let (pid, start_ticks) = (process.pid, process.start_ticks);
        let exit_file = layout.exit_file(&process.app, process.port);
        match adopt((pid, start_ticks), &process.app, exit_file) {
            Some(instance) => {
                supervisor.draining.replace(&process.app, instance, process.port, Why::Replaced);
            }
            None => store.drained(pid, start_ticks)?,
        }
    }
    for worker in store.workers()? {
        let (id, exit_file) = (&worker.id, layout.exit_file(&worker.id.app, &worker.id));
        match adopt((worker.pid, worker.start_ticks), &id.app, exit_file.clone()) {
            // If it was on its way out, it is asked once more.
            Some(instance) => {
                let (id, deploy) = (worker.id, worker.deploy);
                let launched = Launched { id, deploy, port: None, instance };
                supervisor.processes.runs(launched, None);
            }
            None => {
                let exit = noted_exit(&exit_file);
                let line = format!("{}Ended while no server ran: {exit}.", id.label());
                journal.note_app(&id.app, &line);
                store.worker_gone(id, worker.pid)?;
            }
        }
    }
    for app in store.apps()? {
        let process = app.process.filter(|p| p.ended.is_none());
        layout.discard_exits(&app.id, process.as_ref().map(|p| p.port));
        let exit_file = |port: u16| layout.exit_file(&app.id, port);
        let found = process
            .as_ref()
            .and_then(|p| adopt((p.pid, p.start_ticks), &app.id, exit_file(p.port)));
        match (process, found) {
            (Some(process), Some(instance)) => {
                log::info!("app {} is still running (pid {})", app.name.as_str(), process.pid);
                let (id, port) = (ProcessId::from(&app.id), Some(process.port));
                let launched = Launched { id, deploy: process.deploy, port, instance };
                supervisor.processes.runs(launched, None);
            }
            (Some(process), None) => {
                // Before anything is started, which could get the port.
                router.point(&app.id, &Target::Down);
                let exit = noted_exit(&exit_file(process.port));
                store.process_ended(&app.id, process.pid, &exit.to_string())?;
                journal.note_app(&app.id, &format!("Ended while no server ran: {exit}."));
                layout.discard_exits(&app.id, None);
                board.to_start(&app.id);
            }
            (None, _) => board.to_start(&app.id),
        }
        mailbox.send(Message::Look(app.id));
    }
    let strays = sweep(&layout.apps(), &known);
    if strays > 0 {
        log::warn!("ended {strays} processes that the last server had not finished starting");
    }
    Ok(supervisor)
}
