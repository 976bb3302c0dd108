//! What a server finds of the one before it: the apps that kept running.

use super::draining::Draining;
use super::instance::{Instance, noted_exit, sweep};
use super::launch::Launcher;
use crate::disk::layout::Layout;
use crate::journal::Journal;
use crate::model::AppId;
use crate::router::{Router, Target};
use crate::store::{DrainingProcess, Store, StoreError};
use std::collections::HashSet;

/// What was found.
pub struct Found {
    /// Live apps, where they listen, and their processes.
    pub live: Vec<(AppId, u16, Instance)>,
    /// Those that were replaced and may finish their answers.
    pub draining: Draining,
}

/// Finds the apps that kept running, notes the ends of the others, and ends what
/// belongs to nobody: a release that was being checked when the server was killed.
///
/// # Errors
/// When the database does not answer.
pub fn recover(
    store: &Store,
    journal: &Journal,
    layout: &Layout,
    router: &Router,
    launcher: &Launcher,
) -> Result<Found, StoreError> {
    let draining = recover_draining(store, layout, launcher)?;
    let mut found = Found { live: Vec::new(), draining };
    for app in store.apps()? {
        app.process.iter().for_each(|process| launcher.port_is_taken(process.port));
        let process = app.process.filter(|p| p.ended.is_none());
        layout.discard_exits(&app.id, process.as_ref().map(|p| p.port));
        let Some(process) = process else { continue };
        let exit_file = layout.exit_file(&app.id, process.port);
        if let Some(instance) = Instance::adopt(
            (process.pid, process.start_ticks),
            &app.id,
            &layout.apps(),
            exit_file.clone(),
        ) {
            log::info!("app {} is still running (pid {})", app.name.as_str(), process.pid);
            found.live.push((app.id, process.port, instance));
        } else {
            // Before anything is started, which could get the port.
            router.point(&app.id, &Target::Down);
            let exit = noted_exit(&exit_file);
            store.process_ended(&app.id, process.pid, &exit.to_string())?;
            journal.note_app(&app.id, &format!("Ended while no server ran: {exit}."));
            layout.discard_exits(&app.id, None);
        }
    }
    let live = found.live.iter().map(|(_, _, instance)| instance.pid());
    let known: HashSet<u32> = live.chain(found.draining.pids()).collect();
    let strays = sweep(&layout.apps(), &known);
    if strays > 0 {
        log::warn!("ended {strays} processes that the last server had not finished starting");
    }
    Ok(found)
}

/// Finds the processes that were replaced and still answer a client.
fn recover_draining(
    store: &Store,
    layout: &Layout,
    launcher: &Launcher,
) -> Result<Draining, StoreError> {
    let mut draining = Draining::default();
    for DrainingProcess { app, pid, start_ticks, port } in store.draining()? {
        launcher.port_is_taken(port);
        let exit_file = layout.exit_file(&app, port);
        match Instance::adopt((pid, start_ticks), &app, &layout.apps(), exit_file) {
            Some(instance) => draining.replace(app, instance, port),
            None => store.drained(pid, start_ticks)?,
        }
    }
    Ok(draining)
}
