//! Backups: which there are and what is known of them, one more, a download, a removal.

use super::{Answer, Answered, ApiError, Call};
use crate::backup::keeper::Kept;
use crate::gate::answer::Body;
use serde_json::json;

pub(super) fn list(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let (is_busy, error) = api.keeper.state();
    let known = json!({"backups": api.keeper.list(), "isBeingMade": is_busy, "lastError": error});
    Ok(Answer::json(200, &known))
}

/// It is made by the thread for that, and is in the list when it is done.
pub(super) fn make(call: &Call<'_>, _: &str) -> Answered {
    call.api.keeper.ask();
    let mut answer = list(call, "")?;
    answer.status = 202;
    Ok(answer)
}

/// `GET /api/backups/{name}`.
pub(super) fn download(call: &Call<'_>, name: &str) -> Answered {
    let Kept { name, path, .. } = find(call, name)?;
    let mut answer = Answer::new(200, "application/gzip", Body::File(path));
    answer.header("Content-Disposition", format!("attachment; filename=\"{name}\""));
    Ok(answer)
}

pub(super) fn remove(call: &Call<'_>, name: &str) -> Answered {
    find(call, name)?.remove().map_err(|error| {
        ApiError::new(500, "not_removed", format!("the backup could not be removed: {error}"))
    })?;
    Ok(Answer::no_content())
}

fn find(Call { api, .. }: &Call<'_>, name: &str) -> Result<Kept, ApiError> {
    let text = "there is no backup of this name; GET /api/backups lists them";
    let found = api.keeper.list().into_iter().find(|kept| kept.name == name);
    found.ok_or_else(|| ApiError::new(404, "backup_not_found", text))
}
