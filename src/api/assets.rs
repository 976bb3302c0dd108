//! The dashboard's files, embedded in the binary, and `/healthz`.
//!
//! These are the doors without a token (P3). Browsers are told to be strict (P23).

use super::{Answer, Answered, ApiError, Call};
use crate::manual;
use std::borrow::Cow;

/// What the dashboard may do in a browser: its own scripts, styles and
/// connections, nothing inline, nothing from elsewhere, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; object-src 'none'";

macro_rules! embedded {
    ($($path:literal => $file:literal, $kind:literal;)+) => {
        /// The file at a path, with its media type.
        fn find(path: &str) -> Option<(&'static [u8], &'static str)> {
            match path {
                $($path => Some((include_bytes!(concat!("../../assets/", $file)), $kind)),)+
                _ => None,
            }
        }
    };
}

embedded! {
    "" => "index.html", "text/html; charset=utf-8";
    "assets/style.css" => "style.css", "text/css; charset=utf-8";
    "assets/api.js" => "api.js", "text/javascript; charset=utf-8";
    "assets/app.js" => "app.js", "text/javascript; charset=utf-8";
    "assets/app-fields.js" => "app-fields.js", "text/javascript; charset=utf-8";
    "assets/app-page.js" => "app-page.js", "text/javascript; charset=utf-8";
    "assets/apps.js" => "apps.js", "text/javascript; charset=utf-8";
    "assets/deploys.js" => "deploys.js", "text/javascript; charset=utf-8";
    "assets/help.js" => "help.js", "text/javascript; charset=utf-8";
    "assets/env.js" => "env.js", "text/javascript; charset=utf-8";
    "assets/processes.js" => "processes.js", "text/javascript; charset=utf-8";
    "assets/security.js" => "security.js", "text/javascript; charset=utf-8";
    "assets/settings.js" => "settings.js", "text/javascript; charset=utf-8";
    "assets/sign-in.js" => "sign-in.js", "text/javascript; charset=utf-8";
    "assets/stats.js" => "stats.js", "text/javascript; charset=utf-8";
    "assets/ui.js" => "ui.js", "text/javascript; charset=utf-8";
    "assets/webhook.js" => "webhook.js", "text/javascript; charset=utf-8";
    "assets/favicon.svg" => "favicon.svg", "image/svg+xml";
}

fn manual_page(path: &str) -> Option<(&'static [u8], &'static str)> {
    let page = path.strip_prefix("assets/manual/")?.strip_suffix(".md").and_then(manual::page)?;
    Some((page.as_bytes(), "text/markdown; charset=utf-8"))
}

/// Answers what needs no token.
pub(super) fn answer(method: &str, path: &str) -> Answer {
    let file = match path {
        "healthz" => Some((&b"ok"[..], "text/plain; charset=utf-8")),
        _ => find(path).or_else(|| manual_page(path)),
    };
    let Some((bytes, kind)) = file else { return ApiError::no_route().into() };
    if method != "GET" && method != "HEAD" {
        return ApiError::method(&["GET"]).into();
    }
    let fields = [
        ("Content-Security-Policy", POLICY),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
        // An update of the program must reach the browser with the next load.
        ("Cache-Control", "no-cache"),
    ];
    let fields = fields.map(|(name, value)| (name, Cow::Borrowed(value)));
    Answer::page(200, kind, fields.to_vec(), bytes)
}

pub(super) fn openapi(_: &Call<'_>, _: &str) -> Answered {
    Ok(Answer::json_bytes(200, &include_bytes!("../../assets/openapi.json")[..]))
}
