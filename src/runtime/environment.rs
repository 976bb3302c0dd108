//! The surroundings that builds and apps find: where they are, where their tools are.

use crate::disk::layout::StartSpec;
use crate::model::{EnvName, Secret};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::sandbox::proxy_env;

/// The sandbox of an app, but for its port and directories. What the owner sets wins.
pub fn for_app<'a>(
    host: &'a Host,
    slot: u16,
    spec: &StartSpec,
    env: Vec<(EnvName, Secret, bool)>,
) -> Sandbox<'a> {
    let mut sandbox = surroundings(Sandbox::new(host, Purpose::Run, slot), &spec.root)
        .env("HOME", "/tmp")
        .env("HOST", "127.0.0.1")
        .env("NODE_ENV", "production")
        // Otherwise Python keeps what an app prints until there are 8 KiB of it.
        .env("PYTHONUNBUFFERED", "1");
    for (name, value, _) in env {
        sandbox = sandbox.secret_env(name.as_str(), value);
    }
    sandbox
}

/// The sandbox of a build, but for its directories. What the owner sets wins.
pub fn for_build<'a>(
    host: &'a Host,
    slot: u16,
    root: &str,
    env: Vec<(EnvName, Secret, bool)>,
) -> Sandbox<'a> {
    let mut sandbox = surroundings(Sandbox::new(host, Purpose::Build, slot), root);
    for (name, value) in BUILD_VARIABLES {
        sandbox = sandbox.env(name, value);
    }
    for (name, value, _) in env {
        sandbox = sandbox.secret_env(name.as_str(), value);
    }
    sandbox
}

/// Where tools keep what the next build can use again, and how they talk to a log
/// instead of a terminal. `/tmp` is memory, builds need more.
const BUILD_VARIABLES: [(&str, &str); 15] = [
    ("HOME", "/cache"),
    ("TMPDIR", "/var/tmp"),
    ("XDG_CACHE_HOME", "/cache/xdg"),
    ("PIP_CACHE_DIR", "/cache/pip"),
    ("PIP_NO_INPUT", "1"),
    ("PIP_PROGRESS_BAR", "off"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("npm_config_cache", "/cache/npm"),
    ("npm_config_update_notifier", "false"),
    ("CARGO_HOME", "/cache/cargo"),
    ("CARGO_TARGET_DIR", "/cache/cargo-target"),
    ("GOCACHE", "/cache/go-build"),
    ("GOMODCACHE", "/cache/go-mod"),
    ("BUNDLE_USER_CACHE", "/cache/bundle"),
    ("PYTHONUNBUFFERED", "1"),
];

/// What builds and apps have in common: where they are, where their tools are.
fn surroundings<'a>(sandbox: Sandbox<'a>, root: &str) -> Sandbox<'a> {
    let dir = if root.is_empty() { "/app".to_owned() } else { format!("/app/{root}") };
    let mut own = format!("{dir}/.venv/bin:{dir}/node_modules/.bin");
    if !root.is_empty() {
        // Where workspaces put what their members share.
        own.push_str(":/app/node_modules/.bin");
    }
    let mut sandbox = sandbox
        .env("PATH", format!("{own}:/usr/local/bin:/usr/bin:/bin"))
        .env("LANG", "C.UTF-8")
        // In the release, since an app needs its gems when it runs.
        .env("BUNDLE_PATH", format!("{dir}/vendor/bundle"));
    for (name, value) in proxy_env::variables() {
        sandbox = sandbox.env(name, value);
    }
    sandbox.dir(dir)
}
