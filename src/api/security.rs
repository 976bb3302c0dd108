//! Tickets, lockouts, the token's rotation and the checklist.

use super::query::parameters;
use super::{Answer, Answered, ApiError, Call, Peer};
use crate::auth::{Lockout, TICKET_LIFETIME};
use crate::checks::Board;
use crate::gate::answer::Body;
use crate::model::{Client, Invalid, UnixMillis, unix_millis};
use serde_json::json;
use std::io;
use std::sync::Arc;

/// Puts down how a request came that had the right token; of others anybody may send any.
pub(super) fn note_way(board: &Board, peer: Peer) {
    let Peer::Remote { client, plain, unheeded } = peer else { return };
    board.note_way(|way| {
        way.is_known = true;
        // A browser may use a proxy of its own, which is nothing to trust.
        way.proxy = (unheeded && !client.is_public()).then(|| client.to_string());
        if client.is_public() && !unheeded {
            way.plain_from = plain.then(|| client.to_string());
        }
    });
}

/// The checklist, judged now: in a worker, since some of it is read from the disk.
pub(super) fn check(Call { api, request, .. }: &Call<'_>, _: &str) -> Answered {
    let mut query = parameters(request.query)?;
    let time = |text: &str| {
        text.parse::<UnixMillis>().map_err(|_| Invalid("is not a time in milliseconds"))
    };
    if let Some(its) = query.text("now", time)? {
        api.board.note_browser(its);
    }
    query.finish()?;
    let check = Arc::clone(&api.check);
    let make = move || {
        let answer = json!({"checkedAt": unix_millis(), "findings": check()});
        serde_json::to_vec(&answer).map_err(io::Error::other)
    };
    Ok(Answer::json_bytes(200, Body::Made(Box::new(make))))
}

pub(super) fn ws_ticket(Call { api, session, .. }: &Call<'_>, _: &str) -> Answered {
    let ticket = api.auth.open_ticket(session)?;
    let seconds = TICKET_LIFETIME / 1000;
    Ok(Answer::json(200, &json!({"ticket": ticket.expose(), "expiresInSeconds": seconds})))
}

pub(super) fn lockouts(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let view = |l: &Lockout| json!({"client": l.client.to_string(), "failures": l.failures, "lockedUntilAt": l.until});
    let listed: Vec<_> = api.auth.lockouts().iter().map(view).collect();
    Ok(Answer::json(200, &json!({"lockouts": listed})))
}

pub(super) fn clear_lockout(Call { api, .. }: &Call<'_>, client: &str) -> Answered {
    let client = Client::parse(client).map_err(|e| ApiError::field("client", e))?;
    if !api.auth.clear(client) {
        let text =
            "nothing is counted against this client; 'server lockouts' lists who is locked out";
        return Err(ApiError::new(404, "lockout_not_found", text));
    }
    log::info!("the lockout of {client} was cleared by the owner");
    Ok(Answer::no_content())
}

pub(super) fn rotate_token(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let token = api.auth.rotate()?;
    Ok(Answer::json(200, &json!({"token": token.expose()})))
}
