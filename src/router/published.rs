//! How the files of a site are served.

use super::site_rules::SiteRules;
use super::static_page::page;
use crate::data_dir::named;
use crate::model::{AppId, DeployId};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The directory of a site with what the router goes by. No hidden file of a repository is
/// published, so it is ours alone.
pub const OURS: &str = ".paas";
/// The file in it which says that the page at the site's top shows the other paths too.
pub const SINGLE_PAGE: &str = "spa";
/// The one with the site's own rules.
pub const RULES: &str = "rules.json";

/// The directory in it with what is there for browsers that take gzip: files under the paths and
/// with the types of those that they stand for.
pub const GZIP: &str = "gzip";

/// Files whose names change with what is in them: where build tools put them, with eight
/// characters or more before the extension ...
const HASHED: &str = r"^/(assets|static|build|_next/static|_astro|_app/immutable|_nuxt|js|css)/.*[.-][0-9A-Za-z_-]{8,}\.[a-z0-9]+$";
/// ... which are not all lower-case letters, as a word's are.
const NO_WORD: &str = r"[.-][0-9A-Za-z_-]*[0-9A-Z][0-9A-Za-z_-]*\.[a-z0-9]+$";

/// How long browsers may keep what never changes under its name: a year.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// The handler for the files below a directory: what is asked for, else the page of that name,
/// else the page at the top of a single-page app, else the site's own page for what is not there.
pub fn files(root: &Path, rules: &SiteRules) -> Value {
    let file = |tried: &str| json!({"root": root, "try_files": [tried]});
    let served = served(root);
    // Serves a file if it is there, and leaves the request to what follows if not.
    let mut passing = served.clone();
    passing["pass_thru"] = json!(true);
    let mut missing = served.clone();
    missing["status_code"] = json!(404);
    let rewritten = |matcher: Value, to: &str, served: &Value| {
        json!({
            "match": matcher,
            "handle": [{"handler": "rewrite", "uri": to}, gzip(), served],
            "terminal": true,
        })
    };
    let single = file(&format!("/{}/{}", OURS, SINGLE_PAGE));
    // A missing picture or script is missing; what a browser opens as a page is the app's.
    let opened = json!([
        {"file": single, "path_regexp": {"pattern": r"/[^/.]*$"}},
        {"file": single, "header": {"Accept": ["*text/html*"]}},
    ]);
    let path = "{http.request.uri.path}";
    let hashed = json!([{
        "path_regexp": {"pattern": HASHED}, "vars_regexp": {path: {"pattern": NO_WORD}},
    }]);
    let mut routes = vec![
        json!({"handle": [cached("no-cache")]}),
        json!({"match": hashed, "handle": [cached(FOREVER)]}),
    ];
    routes.extend(rules.before.iter().cloned());
    routes.push(json!({"match": [{"path": [format!("/{OURS}/*")]}],
                       "handle": [{"handler": "error", "status_code": 404}]}));
    routes.push(compressed(&root.join(OURS).join(GZIP)));
    routes.push(json!({"handle": [gzip(), passing]}));
    routes.extend(rules.after.iter().cloned());
    // What a rule has rewritten may be a file now.
    if !rules.after.is_empty() {
        routes.push(json!({"handle": [gzip(), passing]}));
    }
    let clean = json!([{"file": file(&format!("{path}.html"))}]);
    routes.extend([
        rewritten(clean, "{http.matchers.file.relative}", &served),
        rewritten(opened, "/index.html", &served),
        json!({"handle": [cached("no-cache")]}),
        rewritten(json!([{"file": file("/404.html")}]), "/404.html", &missing),
        json!({"handle": [page(404, "There is nothing at this path.")]}),
    ]);
    json!({"handler": "subroute", "routes": routes})
}

/// The sites with rules of their own, by what a route to one is called.
pub fn with_rules(sites: &Path) -> Vec<(String, SiteRules)> {
    let mut all = Vec::new();
    for app in named(sites, |name| AppId::parse(name).ok()) {
        let site = sites.join(app.as_str());
        for deploy in named(&site, |name| DeployId::parse(name).ok()) {
            let file = site.join(deploy.as_str()).join(OURS).join(RULES);
            let rules = fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
            all.extend(rules.map(|rules| (format!("{app}.{deploy}"), rules)));
        }
    }
    all
}

fn gzip() -> Value {
    json!({"handler": "encode", "encodings": {"gzip": {}}})
}

/// Serves what was compressed before, which takes a twentieth of the time that [`gzip`] does.
/// Who says more about gzip than that he takes it is left to that, and so is a directory.
fn compressed(root: &Path) -> Value {
    let others = json!([{"header": {"Accept-Encoding": ["*q=0*"]}}, {"path": ["*/"]}]);
    let fields = json!({
        // Late: the file server says how long a file is unless it is known to be encoded.
        "deferred": true,
        "set": {"Content-Encoding": ["gzip"]},
        "add": {"Vary": ["Accept-Encoding"]},
    });
    json!({
        "match": [{
            "header": {"Accept-Encoding": ["*gzip*"]},
            "not": others,
            "file": {"root": root, "try_files": ["{http.request.uri.path}"]},
        }],
        "handle": [{"handler": "headers", "response": fields}, served(root)],
        "terminal": true,
    })
}

fn served(root: &Path) -> Value {
    json!({"handler": "file_server", "root": root, "index_names": ["index.html"]})
}

fn cached(how: &str) -> Value {
    json!({"handler": "headers", "response": {"set": {"Cache-Control": [how]}}})
}
