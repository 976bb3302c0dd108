//! Gets the source: Git in a sandbox, one commit, without history and hooks.

use super::cache::{has_grown_large, has_leftovers, packs};
use super::commit_size::{Survey, is_pointer, overlap, shown};
use super::error::{FetchError, TokenOf, USUAL_FORMAT, shortened};
use super::git_config::{CONFIG, authorization};
use super::git_errors::{Case, no_branch};
use super::limits::FetchLimits;
use crate::disk::removal::remove_tree;
use crate::disk::space::Space;
use crate::disk::tree::Tree;
use crate::journal::Redactor;
use crate::model::{Branch, RepoUrl, Secret, failed};
use crate::proc::{Cancel, Exec, Exit, Output};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::sandbox::proxy_env;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long a command that only works on the disk may take.
const LOCAL_DEADLINE: Duration = Duration::from_secs(120);

/// How long a look at a repository's branches may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

/// Hexadecimal digits of a commit's hash at least: SHA-1 has these, SHA-256 has 64.
const HASH: usize = 40;

/// Lines of what Git says that go into the log; a host can make it say a lot.
const SAID: usize = 50;

/// The ref in the cache that the fetched commit gets, so that the next fetch
/// need not bring what is there already.
const FETCHED: &str = "refs/better-paas/fetched";

/// Where the cache is inside.
const REPO: &str = "--git-dir=/repo";

/// Fetches from the address that is its first argument what the second one says, then prints
/// hash, author and subject of the ref that is its name: one sandbox for both, since to make one
/// takes longer than what most Gits do in it.
const FETCH: &str = r#"git --git-dir=/repo fetch --quiet --depth=1 --no-tags \
    --no-recurse-submodules --force -- "$1" "$2" &&
    exec git --git-dir=/repo log -1 --format=%H%n%an%n%s "$0""#;

/// The index from the ref, the files from the index.
const CHECK_OUT: &str = r#"git --git-dir=/repo read-tree "$0" &&
    exec git --git-dir=/repo --work-tree=/app checkout-index --all --quiet"#;

/// The commit that was checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its hash in hex.
    pub hash: String,
    /// Whom it names as its author.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
}

/// What to fetch and where to.
pub struct Fetch<'a> {
    /// What runs Git.
    pub host: &'a Host,
    /// The app's own number.
    pub slot: u16,
    /// The repository.
    pub url: &'a RepoUrl,
    /// The branch.
    pub branch: &'a Branch,
    /// The token for the repository's host.
    pub token: Option<(Secret, TokenOf)>,
    /// The directory of the repository that holds the app; empty: all of it.
    pub root: &'a str,
    /// The app's bare cache; made when it is not there.
    pub cache: &'a Path,
    /// The new, empty release directory.
    pub release: &'a Path,
    /// What must not be told of what Git and the host say.
    pub redactor: &'a Redactor,
    /// What it may take.
    pub limits: FetchLimits,
    /// What the disk has to give now: the pack takes of it, and so do other apps.
    pub space: &'a dyn Fn() -> Space,
}

impl Fetch<'_> {
    /// Fetches and checks out, line by line told to `log`.
    ///
    /// # Errors
    /// [`FetchError`]; its sentence never holds the token.
    pub fn run(&self, cancel: &Cancel, log: &mut dyn FnMut(&str)) -> Result<Commit, FetchError> {
        // One deploy of an app runs at a time, so no lock in its cache is anybody's.
        if has_leftovers(self.cache) {
            log("Git was ended while it used its cache; fetching everything anew.");
            self.empty(self.cache)?;
        } else if has_grown_large(&packs(self.cache)) {
            log("The Git cache has become large; fetching everything anew.");
            self.empty(self.cache)?;
        }
        let used = self.cache.join("HEAD").exists();
        match self.attempt(USUAL_FORMAT, cancel, log) {
            Err(FetchError::Strange(_, Some(format))) => {
                log(&format!(
                    "The repository names its objects by {format}; its cache does now, too."
                ));
                self.empty(self.cache)?;
                self.attempt(format, cancel, log)
            }
            // No reason that we know: a new cache is worth a try.
            Err(FetchError::Strange(..)) if used => {
                log("Git cannot use its cache; fetching everything anew.");
                self.empty(self.cache)?;
                self.empty(self.release)?;
                self.attempt(USUAL_FORMAT, cancel, log)
            }
            other => other,
        }
    }

    /// `format` is for a cache that is not there yet.
    fn attempt(
        &self,
        format: &str,
        cancel: &Cancel,
        log: &mut dyn FnMut(&str),
    ) -> Result<Commit, FetchError> {
        if !self.cache.join("HEAD").exists() {
            let format = format!("--object-format={format}");
            let init = ["git", "init", "--quiet", "--bare", "--template=", &format, "--", "/repo"];
            self.local("init", &init, cancel)?;
        }
        let about = self.fetch(cancel, log)?;
        let commit = self.commit(&about)?;
        let survey = self.survey(cancel)?;
        self.refuse_submodules(&survey, log)?;
        // Plumbing, for it runs no hooks: the index from the commit, the files from the index.
        self.local("checkout", &["/bin/sh", "-c", CHECK_OUT, FETCHED], cancel)?;
        self.notice_pointers(&survey, log);
        Ok(commit)
    }

    fn empty(&self, directory: &Path) -> Result<(), FetchError> {
        let gone = remove_tree(directory, &|| true).and_then(|()| fs::create_dir(directory));
        let given = gone.and_then(|()| self.host.users.give(self.slot, &[directory]));
        Ok(given.map_err(failed("the Git cache could not be emptied"))?)
    }

    /// Fetches, and answers what Git says of the commit.
    fn fetch(&self, cancel: &Cancel, log: &mut dyn FnMut(&str)) -> Result<Output, FetchError> {
        let refspec = format!("+{}:{FETCHED}", self.branch.to_ref());
        let command = ["/bin/sh", "-c", FETCH, FETCHED, self.url.as_str(), &refspec];
        let exec = self.sandbox(true).prepare(&command).deadline(self.limits.time);
        let output = run(exec, cancel)?;
        let text = self.said(&output);
        for line in text.lines().filter(|line| !line.trim().is_empty()).take(SAID) {
            log(line);
        }
        match output.exit {
            Exit::Code(0) => Ok(output),
            Exit::TimedOut => Err(FetchError::from(format!(
                "fetching took longer than {} s; the repository's host is slow, or the \
                 repository is very large",
                self.limits.time.as_secs()
            ))),
            Exit::OutputCapped => {
                Err("the repository's host sent messages without end while fetching".into())
            }
            _ if text.contains("couldn't find remote ref") => {
                Err(no_branch(self.branch, &self.branches(cancel)?).into())
            }
            _ => Err(self.explain(None, &output)),
        }
    }

    /// The branches that the repository has, in a cache that is there.
    ///
    /// # Errors
    /// When it could not be asked.
    pub fn branches(&self, cancel: &Cancel) -> Result<Vec<String>, FetchError> {
        let command = ["git", REPO, "ls-remote", "--heads", "--", self.url.as_str()];
        let output = run(self.sandbox(true).prepare(&command).deadline(LOOK_DEADLINE), cancel)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // A line that was cut off at the cap has no end.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let names = lines.filter_map(|line| line.trim_end().split_once("\trefs/heads/"));
        Ok(names.map(|(_, name)| shortened(name)).collect())
    }

    /// What was fetched.
    fn commit(&self, about: &Output) -> Result<Commit, FetchError> {
        let text = String::from_utf8_lossy(&about.stdout).into_owned();
        let mut lines = text.lines();
        let mut line = || lines.next().unwrap_or_default();
        let (hash, author, subject) = (line(), line(), line());
        if hash.len() < HASH || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(FetchError::Strange("Git did not name the commit".into(), None));
        }
        let [author, subject] = [author, subject].map(|s| shortened(&self.redactor.clean(s)));
        Ok(Commit { hash: hash.to_owned(), author, subject })
    }

    /// Counts the commit's files before any of them is written.
    fn survey(&self, cancel: &Cancel) -> Result<Survey, FetchError> {
        let command = ["git", REPO, "ls-tree", "-r", "-l", "-z", "--full-tree", FETCHED];
        let exec = self.sandbox(false).prepare(&command).deadline(LOCAL_DEADLINE);
        let mut survey = Survey::default();
        let limits = self.limits.within((self.space)());
        let mut take = |piece: &[u8]| survey.take(piece, &limits);
        let output = exec.pieces(&mut take, cancel)?;
        match (output.exit, survey.refused.take()) {
            (Exit::Cancelled, _) => Err(FetchError::Cancelled),
            (_, Some(sentence)) => Err(FetchError::TooLarge(sentence.into())),
            (Exit::Code(0), None) => Ok(survey),
            _ => Err(self.explain(Some("ls-tree"), &output)),
        }
    }

    /// An app would be built with empty directories in their place; better it hears
    /// why. What lies beside the app's own directory is none of its business.
    fn refuse_submodules(
        &self,
        survey: &Survey,
        log: &mut dyn FnMut(&str),
    ) -> Result<(), FetchError> {
        for path in &survey.submodules {
            if overlap(path, self.root) {
                return Err(FetchError::from(format!(
                    "the repository has a submodule at {}, and submodules are not fetched; put \
                     its files into the repository itself, for example with `git subtree add`",
                    shown(path)
                )));
            }
            log(&format!(
                "The submodule at {} lies outside the root directory; it is not fetched.",
                shown(path)
            ));
        }
        Ok(())
    }

    /// Files whose content is elsewhere.
    fn notice_pointers(&self, survey: &Survey, log: &mut dyn FnMut(&str)) {
        let Ok(tree) = Tree::open(self.release, "") else { return };
        let read = |path: &&Vec<u8>| tree.read(path, 1023).is_some_and(|t| is_pointer(&t));
        let pointers: Vec<_> = survey.maybe_pointers.iter().filter(read).collect();
        if let [first, ..] = pointers[..] {
            log(&format!(
                "Git LFS keeps the content of {} files elsewhere ({}, for example); the release \
                 holds their pointers only, since Git LFS is not supported. Keep such files in \
                 the repository itself, or let the build command get them.",
                pointers.len(),
                shown(first)
            ));
        }
    }

    fn local(&self, verb: &str, command: &[&str], cancel: &Cancel) -> Result<(), FetchError> {
        let exec = self.sandbox(false).prepare(command).deadline(LOCAL_DEADLINE);
        let output = run(exec, cancel)?;
        if output.exit.is_success() { Ok(()) } else { Err(self.explain(Some(verb), &output)) }
    }

    /// Why a command failed. `local` is what it did if it only worked on the disk.
    fn explain(&self, local: Option<&str>, output: &Output) -> FetchError {
        let (text, exit) = (&self.said(output), output.exit);
        if let (Some(verb), Exit::TimedOut) = (local, exit) {
            let seconds = LOCAL_DEADLINE.as_secs();
            return format!("git {verb} took longer than {seconds} s").into();
        }
        let (url, limits, token) = (self.url, self.limits, self.token.as_ref().map(|(_, of)| *of));
        // What is refused leaves no pack: one that is there is of an earlier deploy.
        let known = !packs(self.cache).is_empty();
        Case { url, token, known, limits, local, text, exit }.explain()
    }

    /// What Git and the host wrote, clean and without secrets: sentences quote it, cut.
    fn said(&self, output: &Output) -> String {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<String> = text.lines().map(|line| self.redactor.clean(line)).collect();
        lines.join("\n")
    }

    /// Git's surroundings: nobody's configuration, no prompt, no program but Git.
    fn sandbox(&self, with_network: bool) -> Sandbox<'_> {
        let mut sandbox = Sandbox::new(self.host, Purpose::Fetch, self.slot)
            .bind(self.cache, "/repo")
            .dir("/repo")
            .file_size(self.limits.bytes)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", "/tmp")
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "http:https")
            .env("GIT_INDEX_FILE", "/repo/index");
        let plain =
            |(key, value): &(&str, &str)| ((*key).to_owned(), Secret::new((*value).to_owned()));
        let mut config: Vec<_> = CONFIG.iter().map(plain).collect();
        if with_network {
            for (name, value) in proxy_env::variables() {
                sandbox = sandbox.env(name, value);
            }
            // For this origin alone: Git sends it to no other host.
            config.extend(self.token.as_ref().map(|(token, _)| {
                (format!("http.{}/.extraHeader", self.url.origin()), authorization(token))
            }));
        } else {
            sandbox = sandbox.bind(self.release, "/app");
        }
        sandbox = sandbox.env("GIT_CONFIG_COUNT", config.len().to_string());
        for (n, (key, value)) in config.into_iter().enumerate() {
            sandbox = sandbox
                .env(format!("GIT_CONFIG_KEY_{n}"), key)
                .secret_env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        sandbox
    }
}

fn run(exec: Exec, cancel: &Cancel) -> Result<Output, FetchError> {
    let output = exec.run_until(cancel)?;
    if output.exit == Exit::Cancelled { Err(FetchError::Cancelled) } else { Ok(output) }
}

#[cfg(test)]
mod tests;
