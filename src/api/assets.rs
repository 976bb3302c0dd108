//! The dashboard's files, embedded in the binary, and `/healthz`.
//!
//! These are the doors without a token (P3). Browsers are told to be strict (P23). The page itself
//! is asked for each time it is loaded; all else lies in a directory that is named after what the
//! files hold, so that a browser keeps it, and a page never gets files of another version.

use super::{Answer, Answered, ApiError, Call, Request};
use crate::manual;
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

/// What the dashboard may do in a browser: its own scripts, styles and
/// connections, nothing inline, nothing from elsewhere, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// For what lies at an address of its own for each version.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// An update of the program must reach the browser with the next load.
const ASK_AGAIN: &str = "no-cache";

/// The one file that has the same address in each version.
const PAGE: &str = "index.html";

/// Characters of the hash that names the directory.
const HASH_LENGTH: usize = 16;

macro_rules! embedded {
    ($($name:literal,)+) => {
        &[$(($name, include_str!(concat!("../../assets/", $name)))),+]
    };
}

/// The files of the dashboard.
const FILES: &[(&str, &str)] = embedded! {
    "index.html",
    "style.css",
    "core.js",
    "app-fields.js",
    "app-page.js",
    "app-settings.js",
    "apps.js",
    "deploys.js",
    "env.js",
    "help.js",
    "log.js",
    "new-app.js",
    "processes.js",
    "security.js",
    "settings.js",
    "variables.js",
    "webhook.js",
};

/// The modules that `core.js` is made of.
const CORE: &[(&str, &str)] = embedded! {
    "api.js",
    "app.js",
    "sign-in.js",
    "stats.js",
    "ui.js",
};

/// The picture, which is in the page itself: it is not worth a request.
const PICTURE: &[u8] = include_bytes!("../../assets/favicon.svg");

/// What is served, made when it is asked for first.
static SITE: LazyLock<Site> = LazyLock::new(Site::new);

struct Site {
    /// Of everything in it.
    hash: String,
    files: Vec<File>,
}

struct File {
    name: &'static str,
    text: String,
    /// The same for browsers that take it so.
    gzip: OnceLock<Vec<u8>>,
}

impl Site {
    fn new() -> Self {
        let mut all = Sha256::new();
        FILES.iter().chain(CORE).for_each(|(_, text)| all.update(text));
        all.update(PICTURE);
        let mut hash = HEXLOWER.encode(&all.finalize());
        hash.truncate(HASH_LENGTH);
        let picture = format!("data:image/svg+xml;base64,{}", BASE64.encode(PICTURE));
        let file = |(name, text): &(&'static str, &str)| {
            let text = match *name {
                PAGE => text.replace("{hash}", &hash).replace("{picture}", &picture),
                "core.js" => joined(text),
                _ => (*text).to_owned(),
            };
            File { name, text, gzip: OnceLock::new() }
        };
        Self { files: FILES.iter().map(file).collect(), hash }
    }

    fn find(&self, path: &str) -> Option<&File> {
        let name = match path {
            "" => PAGE,
            _ => path.strip_prefix("a/")?.strip_prefix(&*self.hash)?.strip_prefix('/')?,
        };
        self.files.iter().find(|file| file.name == name)
    }
}

/// `core.js` with the modules that it names in place of their names: a first visit waits for one
/// answer, not for six. They are modules of their own when they are read; what they import from
/// one another is declared beside it here, so those lines go. No two may declare the same name.
fn joined(core: &str) -> String {
    let module = |line: &str| {
        let name = line.strip_prefix("export * from \"./")?.strip_suffix("\";")?;
        CORE.iter().find(|(known, _)| *known == name)
    };
    let lines = core.lines().filter_map(module).flat_map(|(_, text)| text.lines());
    lines.filter(|line| !line.starts_with("import ")).flat_map(|line| [line, "\n"]).collect()
}

/// Compresses the files, which takes a moment: until then, and where `gzip` gives nothing, they
/// are sent as they are.
pub fn compress_assets(gzip: impl Fn(&str) -> Option<Vec<u8>>) {
    for file in &SITE.files {
        if let Some(gzip) = gzip(&file.text) {
            let _ = file.gzip.set(gzip);
        }
    }
}

fn manual_page(path: &str) -> Option<&'static str> {
    path.strip_prefix("assets/manual/")?.strip_suffix(".md").and_then(manual::page)
}

/// Answers what needs no token.
pub(super) fn answer(request: &Request<'_>, path: &str) -> Answer {
    let text = |kind, text: &'static str| page(200, kind, ASK_AGAIN, text.as_bytes());
    let found = match path {
        "healthz" => Some(text("text/plain; charset=utf-8", "ok")),
        _ => match manual_page(path) {
            Some(manual) => Some(text("text/markdown; charset=utf-8", manual)),
            None => SITE.find(path).map(|file| of_file(file, request)),
        },
    };
    let Some(answer) = found else { return ApiError::no_route().into() };
    if request.method != "GET" && request.method != "HEAD" {
        return ApiError::method(&["GET"]).into();
    }
    answer
}

fn page(status: u16, kind: &'static str, kept: &'static str, bytes: &'static [u8]) -> Answer {
    let fields = [
        ("Content-Security-Policy", POLICY),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
        ("Cache-Control", kept),
    ];
    let fields = fields.map(|(name, value)| (name, Cow::Borrowed(value)));
    Answer::page(status, kind, fields.to_vec(), bytes)
}

/// A file as this browser takes it, or that it has it already.
fn of_file(file: &'static File, request: &Request<'_>) -> Answer {
    let kind = match file.name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "text/javascript; charset=utf-8",
    };
    // Weak (RFC 9110, 8.8.1): compressed or not, it is the same.
    let tag = format!("W/\"{}\"", SITE.hash);
    let named = request.text("if-none-match").unwrap_or_default();
    if file.name == PAGE && named.split(',').any(|one| one.trim() == tag) {
        return labelled(page(304, kind, ASK_AGAIN, b""), tag);
    }
    let gzip = file.gzip.get().filter(|_| request.text("accept-encoding").is_some_and(takes_gzip));
    let bytes = gzip.map_or(file.text.as_bytes(), Vec::as_slice);
    let kept = if file.name == PAGE { ASK_AGAIN } else { FOR_EVER };
    let mut answer = page(200, kind, kept, bytes);
    if gzip.is_some() {
        answer.header("Content-Encoding", "gzip");
    }
    labelled(answer, tag)
}

fn labelled(mut answer: Answer, tag: String) -> Answer {
    answer.header("ETag", tag);
    answer.header("Vary", "Accept-Encoding");
    answer
}

/// Whether an `Accept-Encoding` names gzip and does not refuse it (RFC 9110, 12.5.3).
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let (coding, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::parse);
        coding.trim().eq_ignore_ascii_case("gzip") && weight != Some(Ok(0.0))
    })
}

pub(super) fn openapi(_: &Call<'_>, _: &str) -> Answered {
    Ok(Answer::json_bytes(200, &include_bytes!("../../assets/openapi.json")[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_goes_to_those_alone_who_take_it() {
        for yes in ["gzip", "br, GZIP", "deflate, gzip;q=0.5", "gzip ; q=1"] {
            assert!(takes_gzip(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.000", "x-gzip2", "*;q=0"] {
            assert!(!takes_gzip(no), "{no}");
        }
    }

    #[test]
    fn the_core_holds_each_of_its_modules_and_imports_nothing() {
        let core = SITE.files.iter().find(|file| file.name == "core.js").unwrap();
        for (name, text) in CORE {
            let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
            assert!(core.text.contains(last), "{name}");
        }
        let modules = CORE.iter().map(|(_, text)| text.lines().count()).sum::<usize>();
        assert!(core.text.lines().count() > modules - 20 && !core.text.contains("\nimport "));
    }

    #[test]
    fn every_module_that_is_imported_is_served() {
        for file in SITE.files.iter().filter(|file| file.name.ends_with(".js")) {
            for (at, import) in file.text.match_indices("\"./") {
                let name = file.text[at + import.len()..].split('"').next().unwrap();
                let is_served = SITE.files.iter().any(|file| file.name == name);
                assert!(is_served, "{name}, which {} imports", file.name);
            }
        }
    }
}
