//! The thread that deploys: it takes what is asked for out of the queue.

use super::gc;
use super::outcome::note_failure;
use super::pipeline::Pipeline;
use crate::model::{AnyError, failed};
use crate::proc::Cancel;
use crate::runtime::tools::Message;
use crate::store::Deploy;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, Builder, Scope};
use std::time::Duration;

/// How long to wait when the database does not answer, or the system has no thread left.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Deploys what is asked for until the server stops, each deploy on a thread of its own:
/// there are never more of them than apps.
pub fn run(pipeline: &Pipeline) {
    thread::scope(|scope| {
        while !pipeline.queue.is_closed() {
            if let Err(why) = begin(pipeline, scope) {
                log::error!("the next deploy could not be taken: {why}");
                pipeline.queue.pause(TRY_AGAIN);
            }
        }
    });
}

/// Begins the next deploy that may begin.
fn begin<'a>(pipeline: &'a Pipeline, scope: &'a Scope<'a, '_>) -> Result<(), AnyError> {
    let Pipeline { tools, queue } = pipeline;
    let cancel = Cancel::new().map_err(failed("could not prepare a deploy"))?;
    let Some(queued) = queue.next(&cancel, || tools.store.queued())? else { return Ok(()) };
    let id = queued.id.clone();
    let run = move || deploy(pipeline, &queued, &cancel);
    if let Err(error) = Builder::new().name("deploy".to_owned()).spawn_scoped(scope, run) {
        // It is still asked for.
        queue.end(&id);
        return Err(failed("could not start a thread")(error));
    }
    Ok(())
}

/// Runs a deploy to its end. A panic in it is a bug that ends this deploy alone.
fn deploy(pipeline: &Pipeline, Deploy { app, id: deploy, .. }: &Deploy, cancel: &Cancel) {
    let Pipeline { tools, queue } = pipeline;
    let ran = catch_unwind(AssertUnwindSafe(|| pipeline.run(app, deploy, cancel)));
    if ran.is_err() {
        // Had its process been ended for this one, nobody else would start it.
        tools.mailbox.send(Message::Resume(app.clone(), None));
    }
    let pruned = catch_unwind(AssertUnwindSafe(|| gc::prune(tools, app, deploy)));
    if ran.and(pruned).is_err() {
        let sentence = "the server failed inside; its log says where";
        note_failure(&tools.store, queue, deploy, sentence);
    }
    queue.end(deploy);
}
