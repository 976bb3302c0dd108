//! Gets the tools that a repository asks for and this machine lacks.
//!
//! They are fetched by a sandbox of their own, under the user who has no app, into a directory
//! that all apps can read and none can write: one copy does for all of them.

use super::error::DeployFailure;
use crate::data_dir::named;
use crate::disk::layout::{Layout, PYTHONS, StartSpec, TOOLS_INSIDE};
use crate::model::{AppId, EnvName, Secret, failed};
use crate::runtime::environment::surroundings;
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::source::detect::tools::Tool;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
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
        needed.iter().any(|path| path.starts_with(&place))
    };
    for name in named(&layout.tools(), |name| Some(name.to_owned())) {
        let used = fs::metadata(layout.tool_use(&name)).and_then(|meta| meta.modified());
        let is_old = used.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UNUSED));
        let gone = |path: &Path| layout.discard(path).is_ok();
        let tools = layout.tools();
        if is_old
            && !is_needed(&name)
            && gone(&tools.join(PYTHONS).join(&name))
            && gone(&tools.join(&name))
        {
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
    let no_place = "the directory of tools could not be made";
    let place = layout.prepare_tools(host.users).map_err(failed(no_place))?;
    let mut spec = StartSpec::default();
    for tool in tools {
        spec.tools.push(tool.path());
        // Noted by us: the directory itself is another user's.
        let noted = fs::write(layout.tool_use(&tool.name), "");
        noted.map_err(failed(format!("the use of {} could not be noted", tool.name)))?;
        if !place.join(&tool.name).is_dir() {
            say(&format!("Getting {}", tool.name));
            let from_where = |name: &str| FROM_WHERE.iter().any(|begin| name.starts_with(begin));
            let env = env.iter().filter(|(name, ..)| from_where(name.as_str())).cloned().collect();
            let scratch = layout.prepare_installer(host.users).map_err(failed(no_place))?;
            let sandbox = surroundings(host, Purpose::Build, 0, &spec, env)
                .bind(&place, TOOLS_INSIDE)
                .bind(&scratch, "/cache")
                .bind(&scratch, "/var/tmp")
                .dir("/");
            let installed = run(&sandbox, &tool.script());
            // What was fetched is of use once: the tool is there for all apps.
            layout.discard(&scratch).map_err(failed(no_place))?;
            installed.map_err(|failure| match failure {
                DeployFailure::Failed(why) => {
                    failed(format!("{} could not be had{}", tool.name, cure(&tool.name)))(why)
                        .into()
                }
                DeployFailure::Cancelled => DeployFailure::Cancelled,
            })?;
        }
    }
    Ok(())
}

/// How an app asks for another version of a tool than its repository does.
fn cure(tool: &str) -> &'static str {
    match tool.split('-').next() {
        Some("cpython") => {
            " (the app's variable PYTHON_VERSION asks for another, where its packages take that)"
        }
        Some("node") => " (the app's variable NODE_VERSION asks for another)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;
    use crate::model::DeployId;
    use std::time::SystemTime;

    #[test]
    fn tools_and_pythons_go_a_week_after_the_last_build_or_release_that_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        let layout = Layout::new(data.clone());
        data.make_dir("tools-used").unwrap();
        let week = SystemTime::now() - UNUSED - Duration::from_secs(60);
        for (name, used) in [
            ("cpython-3.11", week),
            ("cpython-3.12", week),
            ("cpython-3.13", SystemTime::now()),
            ("node-20", week),
        ] {
            data.make_dir(&format!("tools/{name}")).unwrap();
            data.make_dir(&format!("tools/{PYTHONS}/{name}/bin")).unwrap();
            fs::File::create(layout.tool_use(name)).unwrap().set_modified(used).unwrap();
        }
        let app = AppId::parse("aaaaaaaaaa").unwrap();
        let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
        data.make_dir(&format!("apps/{app}/releases/{deploy}")).unwrap();
        let tools = vec![format!("{TOOLS_INSIDE}/cpython-3.12/.")];
        let spec = StartSpec { tools, ..StartSpec::default() };
        layout.keep_start_spec(&app, &deploy, &spec).unwrap();
        tidy(&layout);
        layout.empty_trash(&|| true);
        let names = |dir: &Path| {
            let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        let kept = ["cpython-3.12", "cpython-3.13"];
        assert_eq!(names(&layout.tools().join(PYTHONS)), kept);
        assert_eq!(names(&layout.tools()), [kept[0], kept[1], PYTHONS]);
        layout.discard_release(&app, &deploy).unwrap();
        tidy(&layout);
        assert!(
            !layout.tools().join("cpython-3.12").exists()
                && !layout.tool_use("cpython-3.12").exists()
        );
    }
}
