//! Why there is no source, told apart by what Git said, in words that an owner can use.

use crate::model::AnyError;
use crate::proc::Exit;
use crate::sandbox::limits::FETCH_MEMORY;

/// Characters of a commit's subject that are kept.
const SUBJECT_CAP: usize = 200;

/// By what nearly all repositories name their objects, and by what some of Forgejo's do.
pub(super) const USUAL_FORMAT: &str = "sha1";
const FORMATS: [&str; 2] = [USUAL_FORMAT, "sha256"];

/// Why there is no source.
#[derive(Debug)]
pub enum FetchError {
    /// What the owner is told. The reason is known; trying again would not help.
    Failed(AnyError),
    /// The same, where it is the repository that is too large, or the disk too small.
    TooLarge(AnyError),
    /// Something else: the cache may be to blame, most of all when the repository has this
    /// format and the cache another one.
    Strange(AnyError, Option<&'static str>),
    /// It was cancelled from outside.
    Cancelled,
}

impl<E: Into<AnyError>> From<E> for FetchError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The repository's object format, where Git says that it is not the cache's.
pub(super) fn other_format(text: &str) -> Option<&'static str> {
    let line = text.lines().find(|line| line.contains("mismatched algorithms: client "))?;
    FORMATS.into_iter().find(|format| line.ends_with(&format!("; server {format}")))
}

/// What Git says last: where it says so, why it gave up.
pub(super) fn last_line(text: &str, exit: Exit) -> String {
    let line = text.lines().rfind(|line| line.starts_with("fatal:"));
    let line = line.or_else(|| text.lines().rfind(|line| !line.trim().is_empty()));
    line.map_or_else(|| exit.to_string(), |line| shortened(line.trim_start_matches("fatal: ")))
}

/// The sentence for a Git that came to the end of its memory: it says so itself, or was killed
/// by the kernel when a cgroup held it.
pub(super) fn needed_memory(text: &str, exit: Exit) -> Option<String> {
    // The host may say it too, of itself.
    let mut ours = text.lines().filter(|line| !line.starts_with("remote:"));
    let said = ours.any(|line| line.contains("out of memory") || line.contains("Out of memory"));
    (said || matches!(exit, Exit::Signal(9) | Exit::Code(137))).then(|| {
        format!(
            "Git needed more memory than it may have, which is {} MiB at most: the repository's \
             host lists branches and tags without end, or the repository holds too many objects",
            FETCH_MEMORY >> 20
        )
    })
}

/// The text without control characters, cut at [`SUBJECT_CAP`].
pub fn shortened(text: &str) -> String {
    let mut rest = text.chars().filter(|c| !c.is_control());
    let mut short: String = rest.by_ref().take(SUBJECT_CAP).collect();
    if rest.next().is_some() {
        short.push('…');
    }
    short
}

/// Whose token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOf {
    /// The app's own.
    App,
    /// The GitHub token of the server's settings.
    Settings,
}

impl TokenOf {
    /// What else a refusal may mean, in the middle of a sentence, and what to do, at its end.
    pub(super) const fn advice(self) -> (&'static str, &'static str) {
        match self {
            Self::App => (
                ", or its host wants a user name with it: a deploy token of GitLab and a password \
                 of Bitbucket are written user:token",
                "save a new token in the app's settings",
            ),
            Self::Settings => ("", "save a new GitHub token in the server's settings"),
        }
    }
}
