//! Looks at a repository that is no app yet: whether it can be had, and what it would become.

use crate::journal::Redactor;
use crate::model::{AnyError, RepoUrl, Secret, failed};
use crate::proc::Cancel;
use crate::runtime::tools::Tools;
use crate::source::detect::{Machine, Plan, Serve, detect};
use crate::source::error::{FetchError, TokenOf};
use crate::source::fetch::Fetch;
use crate::source::limits::FetchLimits;
use crate::store::AppSettings;
use serde::Serialize;
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

/// How long the fetch may take: somebody waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Branches that are listed.
const BRANCHES: usize = 100;

/// The one look at a time: each takes a checkout's disk and Git's memory.
static LOOKING: Mutex<()> = Mutex::new(());

/// What was seen.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    reachable: bool,
    /// Why it cannot be had, or what it lacks to become an app.
    error: Option<String>,
    branches: Vec<String>,
    commit: Option<String>,
    /// What was found, a sentence each.
    notes: Vec<String>,
    /// What the machine lacks and would get.
    tools: Vec<String>,
    build: Option<String>,
    start: Option<String>,
    publish: Option<String>,
}

/// Looks at what such an app's deploy would find, in the sandbox of the user who has no app;
/// nothing of it stays.
pub fn look(tools: &Tools, url: &RepoUrl, settings: &AppSettings, token: Option<Secret>) -> Seen {
    let mut seen = Seen::default();
    let held = LOOKING.try_lock();
    let filled = match &held {
        Err(TryLockError::WouldBlock) => {
            Err("another repository is being looked at; try again in a moment".into())
        }
        _ => fill(tools, url, settings, token, &mut seen),
    };
    seen.error = filled.err().map(|error| error.to_string());
    seen
}

fn fill(
    Tools { store, layout, host, .. }: &Tools,
    url: &RepoUrl,
    settings: &AppSettings,
    token: Option<Secret>,
    seen: &mut Seen,
) -> Result<(), AnyError> {
    let host = host.wait()?;
    let token = match token {
        Some(token) => Some((token, TokenOf::App)),
        None => store.credential_of(url)?.map(|token| (token, TokenOf::Settings)),
    };
    let redactor = Redactor::new(token.iter().map(|(token, _)| token.clone()).collect());
    let look = layout.look(host.users);
    let (cache, release) = look.map_err(failed("the directory for it could not be made"))?;
    let space = || layout.space().unwrap_or_default();
    let fetch = Fetch {
        host: &host,
        slot: 0,
        url,
        branch: &settings.branch,
        token,
        root: settings.root_dir.as_str(),
        cache: &cache,
        release: &release,
        redactor: &redactor,
        limits: FetchLimits { time: PATIENCE, ..FetchLimits::default().within(space()) },
        space: &space,
    };
    let cancel = Cancel::new()?;
    let fetched = fetch.run(&cancel, &mut |_| {});
    seen.branches = fetch.branches(&cancel).unwrap_or_default();
    seen.branches.truncate(BRANCHES);
    seen.reachable = fetched.is_ok() || !seen.branches.is_empty();
    let found = fetched.map_err(why).and_then(|commit| {
        seen.commit = Some(commit.hash);
        Ok(detect(&release, settings, &Machine::here(&[]))?)
    });
    layout.forget_look();
    seen.take(found?);
    Ok(())
}

impl Seen {
    fn take(&mut self, plan: Plan) {
        let build = plan.build();
        self.notes = plan.notes;
        self.tools = plan.tools.into_iter().map(|tool| tool.name).collect();
        self.build = build.map(|build| build.split("<<").next().unwrap_or_default().to_owned());
        match plan.serve.into_iter().next() {
            Some(Serve::Process { command, .. }) => self.start = Some(command),
            Some(Serve::Files(dir)) if dir.is_empty() => self.publish = Some(".".to_owned()),
            Some(Serve::Files(dir)) => self.publish = Some(dir),
            Some(Serve::Workers) | None => {}
        }
    }
}

fn why(error: FetchError) -> AnyError {
    match error {
        FetchError::Failed(why) | FetchError::TooLarge(why) | FetchError::Strange(why, _) => why,
        FetchError::Cancelled => "it was ended".into(),
    }
}
