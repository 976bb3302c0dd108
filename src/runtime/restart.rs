//! What is said of a process that ended by itself or could not be started, and when it is tried
//! again.

use super::status_board::Backoff;
use super::tools::Tools;
use crate::model::{AnyError, ProcessId, Wanted};
use crate::proc::Exit;
use std::time::{Duration, Instant};

/// One has ended by itself after this time. Answers when it is started again: never when it shall
/// stay down, as one that was ended for taking a port of the server's.
pub fn after_end(
    tools: &Tools,
    id: &ProcessId,
    (exit, how): (Exit, &str),
    lived: Duration,
) -> Option<Instant> {
    let ended = match exit {
        Exit::Unknown if how == exit.to_string() => "Ended; how is not known".to_owned(),
        _ => format!("Ended with {how}"),
    };
    let app = tools.store.app(&id.app).ok().flatten();
    if app.is_some_and(|app| app.wanted == Wanted::Stopped) {
        tools.journal.note_app(&id.app, &format!("{}{ended}.", id.label()));
        return None;
    }
    let backoff = tools.board.ended(id.clone(), how, lived);
    Some(retry(tools, id, backoff, &format!("{ended}; starting it again in "), true))
}

/// One could not be started. Answers when that is tried again.
pub fn after_failure(tools: &Tools, id: &ProcessId, why: &AnyError) -> Instant {
    let backoff = tools.board.not_started(id.clone(), &why.to_string());
    retry(tools, id, backoff, &format!("Could not be started: {why}. Next try in "), false)
}

/// Says it in the server's log as long as that is news, and in the app's, `always` or just as long.
fn retry(tools: &Tools, id: &ProcessId, backoff: Backoff, line: &str, always: bool) -> Instant {
    let line = format!("{}{line}{} s.", id.label(), backoff.pause.as_secs());
    if always || backoff.line_ending.is_some() {
        tools.journal.note_app(&id.app, &line);
    }
    if let Some(more) = backoff.line_ending {
        let app = tools.store.app(&id.app).ok().flatten();
        let name = app.map_or_else(|| id.app.to_string(), |app| app.name.to_string());
        log::info!("app {name}: {line}{more}");
    }
    Instant::now() + backoff.pause
}
