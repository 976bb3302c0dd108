//! Pages of logs, whatever they are of: `?before=`, `?after=`, `?limit=`, `?find=`.

use super::fields::Fields;
use super::query::parameters;
use super::{Answer, Answered, Api, ApiError, Request};
use crate::gate::answer::Body;
use crate::journal::{Edge, LogOf, Page, Position, Wanted};
use crate::model::Invalid;
use serde_json::json;
use std::io;
use std::sync::Arc;

/// Lines of a page when nothing else is asked for, and the most that may be.
const PAGE: u32 = 500;
const MAX_PAGE: u32 = 1000;

/// Characters of a text that is looked for.
const MAX_FIND: usize = 200;

/// Which page is asked for; `None`: no page but the text.
pub(super) fn wanted(query: &mut Fields) -> Result<Option<Wanted>, ApiError> {
    let limit = query.count("limit", 0, MAX_PAGE)?;
    let (before, after) =
        (query.text("before", Position::parse)?, query.text("after", Position::parse)?);
    let find = query.text("find", |text| match text.chars().count() {
        1..=MAX_FIND => Ok(text.to_owned()),
        _ => Err(Invalid("must have 1 to 200 characters")),
    })?;
    if after.is_some() && (before.is_some() || find.is_some()) {
        return Err(ApiError::field("after", Invalid("excludes before and find")));
    }
    let is_asked = limit > 0 || before.is_some() || after.is_some() || find.is_some();
    let edge = after.map_or(Edge::Before(before), Edge::After);
    let lines = if limit > 0 { limit } else { PAGE };
    Ok(is_asked.then_some(Wanted { edge, lines: lines as usize, find }))
}

/// The answer with a page, which is read by a worker.
pub(super) fn answer(page: impl FnOnce() -> io::Result<Page> + Send + 'static) -> Answer {
    let make = || {
        let Page { lines, from, at } = page()?;
        let (places, lines): (Vec<_>, Vec<_>) =
            lines.into_iter().map(|(place, line)| (place.to_string(), line)).unzip();
        let from = from.map(|place| place.to_string());
        let page = json!({"lines": lines, "places": places, "from": from, "at": at.to_string()});
        Ok(page.to_string().into_bytes())
    };
    Answer::json_bytes(200, Body::Made(Box::new(make)))
}

/// The log of a deploy or a run: all of it as text, or a page.
pub(super) fn of_one(api: &Api, request: &Request<'_>, of: LogOf) -> Answered {
    let mut query = parameters(request.query)?;
    let wanted = wanted(&mut query)?;
    query.finish()?;
    if let Some(wanted) = wanted {
        let journal = Arc::clone(&api.journal);
        return Ok(answer(move || journal.page(&of, &wanted)));
    }
    let path = api.journal.file(&of);
    // Before it has begun there is none, and a run at a terminal never has one.
    Ok(Answer::text(if path.exists() { Body::File(path) } else { Vec::new().into() }))
}
