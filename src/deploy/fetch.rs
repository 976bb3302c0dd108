//! Gets the source: Git in a sandbox, one commit, without history and hooks.

use super::files;
use super::machine::Machine;
use super::network;
use super::sandbox::{Purpose, Sandbox};
use crate::model::{Branch, RepoUrl, Secret};
use crate::proc::{Cancel, Exec, Exit, Output};
use data_encoding::BASE64;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long one fetch may take. A shallow fetch of a large repository over a slow
/// line takes a minute or two.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);

/// How long a command that only works on the disk may take.
const LOCAL_DEADLINE: Duration = Duration::from_secs(120);

/// Fetches into one cache before it is made anew: each leaves a pack, and Git's
/// own tidying is off because it would run at a moment of its choice.
const PACKS: usize = 20;

/// Bytes of a commit's subject that are kept.
const SUBJECT_CAP: usize = 200;

/// The ref in the cache that the fetched commit gets, so that the next fetch
/// need not bring what is there already.
const FETCHED: &str = "refs/better-paas/fetched";

/// Where the cache is inside.
const REPO: &str = "--git-dir=/repo";

/// The commit that was checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its hash in hex.
    pub hash: String,
    /// The first line of its message.
    pub subject: String,
}

/// Why there is no source.
#[derive(Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The sentence for the owner.
    Failed(String),
    /// Somebody changed his mind.
    Cancelled,
}

/// What to fetch and where to.
pub struct Fetch<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The app's own number.
    pub slot: u16,
    /// The repository.
    pub url: &'a RepoUrl,
    /// The branch.
    pub branch: &'a Branch,
    /// The token for the repository's host.
    pub token: Option<Secret>,
    /// The app's bare cache; made when it is not there.
    pub cache: &'a Path,
    /// The new, empty release directory.
    pub release: &'a Path,
}

impl Fetch<'_> {
    /// Fetches and checks out, line by line told to `log`.
    ///
    /// # Errors
    /// [`FetchError`]; its sentence never holds the token.
    pub fn run(&self, cancel: &Cancel, log: &mut dyn FnMut(&str)) -> Result<Commit, FetchError> {
        if packs(self.cache) >= PACKS {
            log("The cache has become large; it is made anew.");
            self.empty_cache()?;
        }
        match self.fetch(cancel, log) {
            // A killed Git leaves locks and half of a pack behind. No reason that we
            // know: a new cache is worth a try.
            Err(Failure::Strange(_)) if self.cache.join("HEAD").exists() => {
                log("Git does not get on with the cache; it is made anew.");
                self.empty_cache()?;
                self.fetch(cancel, log)
            }
            other => other,
        }
        .map_err(Failure::into_error)?;
        self.check_out(cancel, log).map_err(Failure::into_error)
    }

    fn empty_cache(&self) -> Result<(), FetchError> {
        let gone = files::remove_tree(self.cache).and_then(|()| fs::create_dir(self.cache));
        let given = gone.and_then(|()| match self.machine.outside_uid(self.slot) {
            Some(uid) => files::give(self.cache, uid),
            None => Ok(()),
        });
        given.map_err(|e| FetchError::Failed(format!("the Git cache could not be emptied: {e}")))
    }

    fn fetch(&self, cancel: &Cancel, log: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        if !self.cache.join("HEAD").exists() {
            self.local(&["init", "--quiet", "--bare", "--template=", "--", "/repo"], cancel)?;
        }
        let refspec = format!("+{}:{FETCHED}", self.branch.to_ref());
        let command = [
            "git",
            REPO,
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--force",
            "--",
            self.url.as_str(),
            &refspec,
        ];
        let exec = self.sandbox(true).exec(&command).deadline(FETCH_DEADLINE);
        let output = run(exec, cancel)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            log(line);
        }
        match output.exit {
            Exit::Code(0) => Ok(()),
            Exit::TimedOut => Err(Failure::Known(format!(
                "fetching took longer than {} minutes; the repository's host is slow, or the \
                 repository is very large",
                FETCH_DEADLINE.as_secs() / 60
            ))),
            exit => Err(self.explain(&text, exit)),
        }
    }

    /// Plumbing, for it runs no hooks: the index from the commit, the files from the index.
    fn check_out(&self, cancel: &Cancel, log: &mut dyn FnMut(&str)) -> Result<Commit, Failure> {
        let about = self.local(&["log", "-1", "--format=%H%n%s", FETCHED], cancel)?;
        let text = String::from_utf8_lossy(&about.stdout).into_owned();
        let (hash, subject) = text.trim_end().split_once('\n').unwrap_or((text.trim(), ""));
        if hash.len() < 40 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Failure::Strange("Git did not name the commit".to_owned()));
        }
        self.local(&["read-tree", FETCHED], cancel)?;
        self.local(&["--work-tree=/app", "checkout-index", "--all", "--quiet"], cancel)?;
        let tree = files::Tree::open(self.release, "");
        if tree.is_ok_and(|tree| tree.has_file(".gitmodules")) {
            log("The repository has submodules; they are not fetched.");
        }
        Ok(Commit { hash: hash.to_owned(), subject: shortened(subject) })
    }

    fn local(&self, words: &[&str], cancel: &Cancel) -> Result<Output, Failure> {
        let mut command = vec!["git"];
        if words[0] != "init" {
            command.push(REPO);
        }
        command.extend(words);
        let verb = words.iter().find(|word| !word.starts_with('-')).unwrap_or(&"");
        let exec = self.sandbox(false).exec(&command).deadline(LOCAL_DEADLINE);
        let output = run(exec, cancel)?;
        if output.exit.is_success() {
            return Ok(output);
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Failure::Strange(format!("git {verb} failed: {}", last_line(&text, output.exit))))
    }

    /// Git's surroundings: nobody's configuration, no prompt, no program but Git.
    fn sandbox(&self, with_network: bool) -> Sandbox<'_> {
        let mut sandbox = Sandbox::new(self.machine, Purpose::Fetch, self.slot)
            .bind(self.cache, "/repo")
            .bind(self.release, "/app")
            .dir("/app")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", "/tmp")
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "http:https")
            .env("GIT_INDEX_FILE", "/repo/index");
        let mut config: Vec<(String, Secret)> = CONFIG
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Secret::new((*value).to_owned())))
            .collect();
        if with_network {
            for (name, value) in network::variables() {
                sandbox = sandbox.env(name, value);
            }
            if let Some(token) = &self.token {
                // For this origin alone: Git sends it to no other host.
                let key = format!("http.{}/.extraHeader", self.url.origin());
                config.push((key, authorization(token)));
            }
        }
        sandbox = sandbox.env("GIT_CONFIG_COUNT", config.len().to_string());
        for (n, (key, value)) in config.into_iter().enumerate() {
            sandbox = sandbox.env(format!("GIT_CONFIG_KEY_{n}"), key);
            sandbox = sandbox.secret_env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        sandbox
    }

    /// Makes one sentence of what Git said.
    fn explain(&self, text: &str, exit: Exit) -> Failure {
        let host = self.url.origin();
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let refused = has(&[
            "could not read Username",
            "could not read Password",
            "Authentication failed",
            "returned error: 401",
            "returned error: 403",
        ]);
        let sentence = if refused && self.token.is_some() {
            format!(
                "{host} refused the token: it is wrong, expired, or not allowed to read this \
                 repository; save a new one"
            )
        } else if refused {
            format!(
                "{host} asks for a login: the repository does not exist, or it is private and \
                 the app has no token"
            )
        } else if has(&["couldn't find remote ref", "Could not find remote branch"]) {
            match self.branch.as_str() {
                "" => "the repository is empty: it has no default branch".to_owned(),
                branch => format!("the repository has no branch named {branch}"),
            }
        } else if has(&["returned error: 30"]) {
            "the repository has moved, and a token is not sent after it; write the address to \
             which its host redirects, often the same with .git at its end"
                .to_owned()
        } else if has(&["Repository not found", "' not found", "returned error: 404"]) {
            format!("the repository was not found on {host}; is the address right?")
        } else if has(&["Could not resolve host"]) {
            format!("the name of {host} could not be resolved; is the address right?")
        } else if has(&["Failed to connect", "Couldn't connect", "Connection refused"]) {
            format!("{host} could not be reached: nothing answers there")
        } else if has(&["SSL certificate", "certificate verif", "SSL_ERROR", "TLS connect error"]) {
            format!("{host} could not prove who it is: {}", last_line(text, exit))
        } else if has(&["timed out", "Operation too slow", "returned error: 5"]) {
            format!("{host} did not answer as it should; try again: {}", last_line(text, exit))
        } else {
            return Failure::Strange(format!("Git could not fetch: {}", last_line(text, exit)));
        };
        Failure::Known(sentence)
    }
}

/// Configuration for every call. Nothing else is read.
const CONFIG: [(&str, &str); 12] = [
    ("core.hooksPath", "/dev/null"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    // Git repeats extraHeader after a redirect, to whatever host it leads.
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
    ("protocol.ext.allow", "never"),
    ("protocol.file.allow", "never"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // Always packs, so that counting packs is counting fetches.
    ("fetch.unpackLimit", "1"),
];

/// The header that carries a token. One with a colon is a user name and a password.
fn authorization(token: &Secret) -> Secret {
    let token = token.expose();
    let pair = if token.contains(':') {
        Secret::new(token.to_owned())
    } else {
        Secret::new(format!("x-access-token:{token}"))
    };
    let coded = Secret::new(BASE64.encode(pair.expose().as_bytes()));
    Secret::new(format!("Authorization: Basic {}", coded.expose()))
}

/// A failure inside this file.
enum Failure {
    /// A reason that we know; trying again would not help.
    Known(String),
    /// Something else; the cache may be to blame.
    Strange(String),
    Cancelled,
}

impl Failure {
    fn into_error(self) -> FetchError {
        match self {
            Self::Known(sentence) | Self::Strange(sentence) => FetchError::Failed(sentence),
            Self::Cancelled => FetchError::Cancelled,
        }
    }
}

fn run(exec: Exec, cancel: &Cancel) -> Result<Output, Failure> {
    let output = exec.run_until(cancel).map_err(|e| Failure::Known(e.to_string()))?;
    if output.exit == Exit::Cancelled { Err(Failure::Cancelled) } else { Ok(output) }
}

fn packs(cache: &Path) -> usize {
    let Ok(dir) = fs::read_dir(cache.join("objects/pack")) else { return 0 };
    dir.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|x| x == "pack")).count()
}

fn last_line(text: &str, exit: Exit) -> String {
    let line = text.lines().rfind(|line| line.starts_with("fatal:"));
    let line = line.or_else(|| text.lines().rfind(|line| !line.trim().is_empty()));
    line.map_or_else(|| exit.to_string(), |line| shortened(line.trim_start_matches("fatal: ")))
}

/// The text without control characters, cut at [`SUBJECT_CAP`].
fn shortened(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if short.len() + c.len_utf8() > SUBJECT_CAP {
            short.push('…');
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
mod tests;
