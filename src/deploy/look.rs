//! Looks at a repository that is no app yet: whether it can be had, and what it would become.

use crate::disk::tree::Tree;
use crate::journal::Redactor;
use crate::model::{Branch, RepoUrl, RootDir, Secret, ShellCommand};
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
    if let Err(sentence) = fill(tools, at, &mut seen) {
        seen.error = Some(sentence);
    }
    drop(held);
    seen
}

fn fill(
    Tools { store, layout, host, .. }: &Tools,
    at: &Candidate,
    seen: &mut Seen,
) -> Result<(), String> {
    let host = host.wait()?;
    let token = match &at.token {
        Some(token) => Some((token.clone(), TokenOf::App)),
        None => {
            store.credential_of(&at.url).map_err(|e| e.to_string())?.map(|t| (t, TokenOf::Settings))
        }
    };
    let redactor = Redactor::new(token.iter().map(|(token, _)| token.clone()).collect());
    let look = layout.look(host.users);
    let (cache, release) =
        look.map_err(|e| format!("the directory for it could not be made: {e}"))?;
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
    let cancel = Cancel::new().map_err(|e| e.to_string())?;
    let fetched = fetch.run(&cancel, &mut |_| {});
    seen.branches = fetch.branches(&cancel).unwrap_or_default();
    seen.branches.truncate(BRANCHES);
    seen.reachable = fetched.is_ok() || !seen.branches.is_empty();
    let found = fetched.map_err(why).and_then(|commit| {
        seen.commit = Some(commit.hash);
        let open = host.users.open_up(&release);
        open.map_err(|e| format!("what was fetched could not be read: {e}"))?;
        let root = at.root.as_str();
        let tree = Tree::open(&release, root)
            .map_err(|_| format!("the repository has no directory {root} (or it is a link)"))?;
        let top = if root.is_empty() { None } else { Tree::open(&release, "").ok() };
        let (none, nothing) = (ShellCommand::default(), RootDir::default());
        let given = Given { build: &none, start: &none, publish: &nothing };
        detect(&tree, top.as_ref(), &given, &Machine::here())
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

fn why(error: FetchError) -> String {
    match error {
        FetchError::Failed(sentence)
        | FetchError::TooLarge(sentence)
        | FetchError::Strange(sentence, _) => sentence,
        FetchError::Cancelled => "it was ended".to_owned(),
    }
}
