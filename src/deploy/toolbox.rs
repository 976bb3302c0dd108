//! Gets the tools that a repository asks for and this machine lacks.
//!
//! They are fetched by a sandbox of their own, under the user who has no app, into a directory
//! that all apps can read and none can write: one copy does for all of them.

use super::error::DeployFailure;
use crate::disk::layout::{Layout, StartSpec, TOOLS_INSIDE};
use crate::model::{AppId, EnvName, Secret, failed};
use crate::runtime::environment::surroundings;
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::source::detect::tools::Tool;
use std::collections::HashSet;
use std::fs;
use std::time::Duration;

/// What the owner's environment may say about where tools come from.
const FROM_WHERE: [&str; 5] = ["npm_config_", "NPM_CONFIG_", "PIP_", "UV_", "MISE_"];

/// How long a tool is kept that no release needs.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Removes the tools that no release which is kept needs, and no build has for a week.
pub fn tidy(layout: &Layout) {
    let needs = |app: &AppId| {
        let specs = layout.releases(app).into_iter().filter_map(|id| layout.start_spec(app, &id));
        specs.flat_map(|spec| spec.tools).collect::<Vec<_>>()
    };
    let needed: HashSet<String> = layout.all_apps().iter().flat_map(needs).collect();
    let is_needed = |name: &str| {
        let place = format!("{TOOLS_INSIDE}/{name}/");
        // All Pythons are in one place.
        needed.iter().any(|path| path.starts_with(&place)) || name == "pythons"
    };
    let names = fs::read_dir(layout.tools()).into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let used = fs::metadata(layout.tool_use(&name)).and_then(|meta| meta.modified());
        let is_old = used.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UNUSED));
        if is_old && !is_needed(&name) && layout.discard(&layout.tools().join(&name)).is_ok() {
            let _ = fs::remove_file(layout.tool_use(&name));
        }
    }
}

/// Installs those of the tools that are not there yet, in the turn of a build.
///
/// # Errors
/// When one cannot be had, with what its installer said.
pub fn fill(
    host: &Host,
    layout: &Layout,
    tools: &[Tool],
    env: &[(EnvName, Secret, bool)],
    say: &dyn Fn(&str),
    run: &dyn Fn(&Sandbox<'_>, &str) -> Result<(), DeployFailure>,
) -> Result<(), DeployFailure> {
    let made = layout.prepare_tools(host.users);
    let [place, cache, temporary] =
        made.map_err(failed("the directory of tools could not be made"))?;
    let mut spec = StartSpec::default();
    for tool in tools {
        // Noted by us: the directory itself is another user's.
        let noted = fs::write(layout.tool_use(&tool.name), "");
        noted.map_err(failed(format!("the use of {} could not be noted", tool.name)))?;
        if !place.join(&tool.name).is_dir() {
            say(&format!("Getting {}", tool.name));
            let from_where = |name: &str| FROM_WHERE.iter().any(|begin| name.starts_with(begin));
            let env = env.iter().filter(|(name, ..)| from_where(name.as_str())).cloned().collect();
            let sandbox = surroundings(host, Purpose::Build, 0, &spec, env)
                .bind(&place, TOOLS_INSIDE)
                .bind(&cache, "/cache")
                .bind(&temporary, "/var/tmp")
                .dir("/");
            run(&sandbox, &tool.script()).map_err(|failure| match failure {
                DeployFailure::Failed(why) => {
                    failed(format!("{} could not be had", tool.name))(why).into()
                }
                DeployFailure::Cancelled => DeployFailure::Cancelled,
            })?;
        }
        spec.tools.push(tool.path());
    }
    Ok(())
}
