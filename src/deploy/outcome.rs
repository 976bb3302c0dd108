//! How a deploy has ended: noted in the database, and told in the server's log.

use super::queue::Queue;
use crate::model::DeployId;
use crate::runtime::exit_reason::without_last_lines;
use crate::store::Store;
use std::time::Duration;

/// Why a deploy of an app that is gone has ended.
pub const REMOVED: &str = "cancelled, because the app was removed";

/// Characters of a commit's hash that name it to people.
const SHORT_COMMIT: usize = 10;

/// Characters of a failed deploy's reason in the server's log, which keeps everybody's.
const REASON: usize = 300;

/// How long to wait when the database does not answer.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Notes that a deploy has failed, with a sentence that holds no secret. As long as that cannot be written, it is tried again:
/// otherwise the deploy would seem to go on for ever.
pub fn note_failure(store: &Store, queue: &Queue, deploy: &DeployId, sentence: &str) {
    let mut said = false;
    queue.insist(TRY_AGAIN, || {
        let noted = store.fail_deploy(deploy, sentence);
        if let (Err(error), false) = (&noted, said) {
            log::error!("deploy {deploy} failed ({sentence}), not noted yet: {error}");
            said = true;
        }
        noted.is_ok()
    });
}

/// Who cancels a deploy notes why in the database; a server that stops does not.
pub fn why_cancelled(store: &Store, queue: &Queue, deploy: &DeployId) -> String {
    let noted = match store.deploy(deploy) {
        Ok(Some(deploy)) => deploy.error,
        Ok(None) => Some(REMOVED.to_owned()),
        Err(_) => None,
    };
    let stopped = "the server was stopped; deploy again";
    noted.unwrap_or_else(|| if queue.is_closed() { stopped } else { "cancelled" }.to_owned())
}

/// One line for the operator, who may not look into the dashboard.
pub fn tell_the_server(app: &str, id: &DeployId, commit: Option<&str>, error: Option<&str>) {
    let short = commit.and_then(|commit| commit.get(..SHORT_COMMIT));
    let commit = short.map(|short| format!(" (commit {short})")).unwrap_or_default();
    match error {
        None => log::info!("app {app}: deploy {id}{commit} is live"),
        Some(sentence) => {
            // The first line, not too long. The logger writes control characters out.
            let first = without_last_lines(sentence).lines().next().unwrap_or_default();
            let why: String = first.chars().take(REASON).collect();
            log::info!("app {app}: deploy {id}{commit} failed: {why}");
        }
    }
}
