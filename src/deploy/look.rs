//! Looks at a repository that is no app yet: whether it can be had, and what it would become.

use crate::disk::tree::Tree;
use crate::journal::Redactor;
use crate::model::{AnyError, Branch, RepoUrl, RootDir, Secret, ShellCommand, failed};
use crate::proc::Cancel;
use crate::runtime::tools::Tools;
use crate::source::detect::{Given, Machine, Plan, Serve, detect};
use crate::source::error::{FetchError, TokenOf};
use crate::source::fetch::Fetch;
use crate::source::limits::FetchLimits;
use serde::Serialize;
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

/// How long the fetch may take: somebody waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Branches that are listed.
const BRANCHES: usize = 100;

/// The one look at a time: each takes a checkout's disk and Git's memory.
static LOOKING: Mutex<()> = Mutex::new(());

/// What to look at.
pub struct Candidate {
    /// Where it is.
    pub url: RepoUrl,
    /// The branch; empty is the default one.
    pub branch: Branch,
    /// The directory of the app in it.
    pub root: RootDir,
    /// The token that was given for it.
    pub token: Option<Secret>,
}

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

/// Looks, in the sandbox of the user who has no app; nothing of it stays.
#[must_use]
pub fn look(tools: &Tools, at: &Candidate) -> Seen {
    let held = match LOOKING.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let busy = "another repository is being looked at; try again in a moment";
            return Seen { error: Some(busy.to_owned()), ..Seen::default() };
        }
        held => held,
    };
    let mut seen = Seen::default();
    if let Err(error) = fill(tools, at, &mut seen) {
        seen.error = Some(error.to_string());
    }
    drop(held);
    seen
}

fn fill(
    Tools { store, layout, host, .. }: &Tools,
    at: &Candidate,
    seen: &mut Seen,
) -> Result<(), AnyError> {
    let host = host.wait()?;
    let token = match &at.token {
        Some(token) => Some((token.clone(), TokenOf::App)),
        None => store.credential_of(&at.url)?.map(|token| (token, TokenOf::Settings)),
    };
    let redactor = Redactor::new(token.iter().map(|(token, _)| token.clone()).collect());
    let look = layout.look(host.users);
    let (cache, release) = look.map_err(failed("the directory for it could not be made"))?;
    let space = || layout.space().unwrap_or_default();
    let fetch = Fetch {
        host: &host,
        slot: 0,
        url: &at.url,
        branch: &at.branch,
        token,
        root: at.root.as_str(),
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
        host.users.open_up(&release).map_err(failed("what was fetched could not be read"))?;
        let root = at.root.as_str();
        let tree = Tree::open(&release, root)
            .map_err(|_| format!("the repository has no directory {root} (or it is a link)"))?;
        let top = if root.is_empty() { None } else { Tree::open(&release, "").ok() };
        let (none, nothing) = (ShellCommand::default(), RootDir::default());
        let given = Given { build: &none, start: &none, publish: &nothing };
        Ok(detect(&tree, top.as_ref(), &given, &Machine::here())?)
    });
    layout.forget_look();
    seen.take(found?);
    Ok(())
}

impl Seen {
    fn take(&mut self, plan: Plan) {
        self.notes = plan.notes;
        self.tools = plan.tools.into_iter().map(|tool| tool.name).collect();
        self.build =
            plan.build.map(|build| build.split("<<").next().unwrap_or_default().to_owned());
        match plan.serve.into_iter().next().map(|candidate| candidate.serve) {
            Some(Serve::Process(command)) => self.start = Some(command),
            Some(Serve::Files { dir, .. }) => {
                self.publish = Some(if dir.is_empty() { ".".to_owned() } else { dir })
            }
            None => {}
        }
    }
}

fn why(error: FetchError) -> AnyError {
    match error {
        FetchError::Failed(why) | FetchError::TooLarge(why) | FetchError::Strange(why, _) => why,
        FetchError::Cancelled => "it was ended".into(),
    }
}
