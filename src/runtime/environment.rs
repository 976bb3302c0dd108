//! The surroundings that builds and apps find: where they are, where their tools are.

use crate::model::{EnvName, Secret};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::sandbox::proxy_env;

/// The sandbox of a build or an app, but for its port and directories: where they are, where
/// their tools are. What the owner sets wins.
pub fn surroundings<'a>(
    host: &'a Host,
    purpose: Purpose,
    slot: u16,
    root: &str,
    env: Vec<(EnvName, Secret, bool)>,
) -> Sandbox<'a> {
    let dir = if root.is_empty() { "/app".to_owned() } else { format!("/app/{root}") };
    let mut own = format!("{dir}/.venv/bin:{dir}/node_modules/.bin");
    if !root.is_empty() {
        // Where workspaces put what their members share.
        own.push_str(":/app/node_modules/.bin");
    }
    let mut sandbox = Sandbox::new(host, purpose, slot)
        .env("PATH", format!("{own}:/usr/local/bin:/usr/bin:/bin"))
        .env("LANG", "C.UTF-8")
        // In the release, since an app needs its gems when it runs.
        .env("BUNDLE_PATH", format!("{dir}/vendor/bundle"));
    let of_purpose =
        if purpose == Purpose::Run { &APP_VARIABLES[..] } else { &BUILD_VARIABLES[..] };
    for (name, value) in of_purpose {
        sandbox = sandbox.env(*name, *value);
    }
    for (name, value) in proxy_env::variables() {
        sandbox = sandbox.env(name, value);
    }
    for (name, value, _) in env {
        sandbox = sandbox.secret_env(name.as_str(), value);
    }
    sandbox.dir(dir)
}

/// An app has nothing but memory to write to besides its data.
const APP_VARIABLES: [(&str, &str); 4] = [
    ("HOME", "/tmp"),
    ("HOST", "127.0.0.1"),
    ("NODE_ENV", "production"),
    // Otherwise Python keeps what an app prints until there are 8 KiB of it.
    ("PYTHONUNBUFFERED", "1"),
];

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
