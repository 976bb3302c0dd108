//! The surroundings that builds and apps find: where they are, where their tools are.

use crate::disk::layout::{PYTHONS, StartSpec, TOOLS_INSIDE};
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
    spec: &StartSpec,
    env: Vec<(EnvName, Secret, bool)>,
) -> Sandbox<'a> {
    let root = &spec.root;
    let dir = if root.is_empty() { "/app".to_owned() } else { format!("/app/{root}") };
    let mut own = format!("{dir}/.venv/bin:{dir}/node_modules/.bin:{dir}/.better-paas/bin");
    if !root.is_empty() {
        // Where workspaces put what their members share.
        own.push_str(":/app/node_modules/.bin");
    }
    for tool in spec.tools.iter().rev() {
        own = format!("{own}:{tool}");
    }
    let mut names = spec.tools.iter().filter_map(|tool| tool.split('/').nth(2));
    let python = names.find(|name| name.starts_with("cpython-")).unwrap_or("none");
    let mut sandbox = Sandbox::new(host, purpose, slot)
        .env("PATH", format!("{own}:/usr/local/bin:/usr/bin:/bin"))
        .env("LANG", "C.UTF-8")
        .env("DATA_DIR", "/data")
        // In the release, since an app needs its gems and modules when it runs.
        .env("BUNDLE_PATH", format!("{dir}/vendor/bundle"))
        .env("DENO_DIR", format!("{dir}/.better-paas/deno"))
        .env("UV_PYTHON_INSTALL_DIR", format!("{TOOLS_INSIDE}/{PYTHONS}/{python}"));
    let of_purpose = if purpose == Purpose::Build { BUILD_VARIABLES } else { APP_VARIABLES };
    for (name, value) in of_purpose.split(' ').filter_map(|one| one.split_once('=')) {
        sandbox = sandbox.env(name, value);
    }
    let of_machine = proxy_env::variables().into_iter();
    for (name, value) in of_machine.chain(spec.about.iter().cloned()) {
        sandbox = sandbox.env(name, value);
    }
    for (name, value, _) in env {
        sandbox = sandbox.secret_env(name.as_str(), value);
    }
    sandbox.dir(dir)
}

/// Gives an app its port, by all the names that frameworks ask for it.
pub fn with_port(mut sandbox: Sandbox<'_>, port: u16) -> Sandbox<'_> {
    for name in PORT_VARIABLES {
        sandbox = sandbox.env(name, port.to_string());
    }
    sandbox.port(port)
}

/// What frameworks read when an app runs. It has nothing but memory to write to besides its
/// data. `PYTHONUNBUFFERED`: otherwise Python keeps what an app prints until there are 8 KiB of
/// it. The two headers: a form's answer comes back to the address at which it was shown.
const APP_VARIABLES: &str = "\
    HOME=/tmp PYTHONUNBUFFERED=1 GIN_MODE=release NODE_ENV=production \
    RAILS_ENV=production RACK_ENV=production RAILS_LOG_TO_STDOUT=1 RAILS_SERVE_STATIC_FILES=1 \
    HOST=127.0.0.1 NITRO_HOST=127.0.0.1 ROCKET_ADDRESS=127.0.0.1 SERVER_ADDRESS=127.0.0.1 \
    GRADIO_SERVER_NAME=127.0.0.1 \
    PROTOCOL_HEADER=x-forwarded-proto HOST_HEADER=x-forwarded-host";

/// Other names by which frameworks ask for `PORT`.
const PORT_VARIABLES: [&str; 4] =
    ["NITRO_PORT", "ROCKET_PORT", "SERVER_PORT", "GRADIO_SERVER_PORT"];

/// Where tools keep what the next build can use again, and how they talk to a log instead of a
/// terminal. `/tmp` is memory, builds need more. No package manager fetches another one in its
/// own place, or refuses to work for another's name.
const BUILD_VARIABLES: &str = "\
    HOME=/cache TMPDIR=/var/tmp XDG_CACHE_HOME=/cache/xdg \
    PYTHONUNBUFFERED=1 PIP_CACHE_DIR=/cache/pip PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_CACHE_DIR=/cache/uv UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_SYSTEM_CERTS=1 \
    UV_PYTHON_DOWNLOADS=manual \
    npm_config_cache=/cache/npm npm_config_update_notifier=false \
    npm_config_manage_package_manager_versions=false \
    SKIP_YARN_COREPACK_CHECK=1 YARN_NODE_LINKER=node-modules HUSKY=0 DENO_NO_UPDATE_CHECK=1 \
    CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/cargo-target \
    GOCACHE=/cache/go-build GOMODCACHE=/cache/go-mod BUNDLE_USER_CACHE=/cache/bundle \
    COMPOSER_HOME=/cache/composer GRADLE_USER_HOME=/cache/gradle";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::host::Host;

    #[test]
    fn a_build_finds_its_python_where_the_tool_has_it_installed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::here(dir.path());
        let place = |tools: &[&str]| {
            let tools = tools.iter().map(|tool| (*tool).to_owned()).collect();
            let spec = StartSpec { tools, ..StartSpec::default() };
            let sandbox = surroundings(&host, Purpose::Build, 7, &spec, Vec::new()).dir("/");
            let words = ["/bin/sh", "-c", "printf %s \"$UV_PYTHON_INSTALL_DIR\""];
            String::from_utf8(sandbox.prepare(&words).run().unwrap().stdout).unwrap()
        };
        let tools = ["/tools/uv-1/bin", "/tools/cpython-3.12/."];
        assert_eq!(place(&tools), "/tools/pythons/cpython-3.12");
        assert_eq!(place(&tools[..1]), "/tools/pythons/none");
    }
}
