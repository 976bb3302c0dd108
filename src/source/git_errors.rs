//! Makes one sentence of what Git said, which tells the owner what to do.

use super::error::{FetchError, TokenOf, last_line, needed_memory, other_format, shortened};
use super::limits::FetchLimits;
use crate::model::{Branch, RepoUrl};
use crate::proc::Exit;

/// Branches that a sentence names.
const NAMED: usize = 5;

/// What is known about a Git that failed.
pub(super) struct Case<'a> {
    pub url: &'a RepoUrl,
    /// Whose token was sent.
    pub token: Option<TokenOf>,
    /// The repository was fetched before.
    pub known: bool,
    pub limits: FetchLimits,
    /// What it did on the disk alone; otherwise it fetched.
    pub local: Option<&'a str>,
    /// What Git wrote.
    pub text: &'a str,
    pub exit: Exit,
}

impl Case<'_> {
    /// The sentence; [`FetchError::Strange`] when the reason is not one that we know.
    pub(super) fn explain(&self) -> FetchError {
        let host = self.url.origin();
        let last = || last_line(self.text, self.exit);
        let sentence = if let Some(sentence) = self.refused() {
            sentence
        } else if let Some(sentence) = needed_memory(self.text, self.exit) {
            sentence
        } else if let Some(line) = self.text.lines().find(|line| line.contains("invalid path")) {
            format!(
                "the commit holds a path that Git does not check out, such as a .git directory or \
                 one that leads out of the repository ({})",
                shortened(line.trim_start_matches("error: "))
            )
        } else if self.has("returned error: 30") {
            "the repository has moved, and a token is not sent after it; write the address to \
             which its host redirects, often the same with .git at its end"
                .to_owned()
        } else if self.has("Could not resolve host") {
            format!("the name of {host} could not be resolved; is the address right?")
        } else if self.has("Failed to connect|Couldn't connect|Connection refused") {
            format!("{host} could not be reached: nothing answers there")
        } else if self.has("SSL certificate|certificate verif|SSL_ERROR|TLS connect error") {
            format!("{host} could not prove who it is: {}", last())
        } else if self.has("timed out|too slow|returned error: 5|returned error: 429") {
            format!("{host} did not answer as it should; try again: {}", last())
        } else if self.has("No space left on device") {
            let doing = if self.local.is_some() { "checking out" } else { "fetching" };
            let sentence = format!("the disk became full while {doing}; free some space");
            return FetchError::TooLarge(sentence.into());
        } else if self.has("does not support shallow|dumb http") {
            format!(
                "{host} serves the repository as plain files, without Git's own protocol; \
                 use a Git host"
            )
        } else if self.has("early EOF|RPC failed|unexpected disconnect") {
            let first =
                self.text.lines().find(|l| l.starts_with("error:") || l.starts_with("fatal:"));
            format!(
                "the transfer from {host} broke off; try again: {}",
                shortened(first.unwrap_or(""))
            )
        } else if self.has("invalid index-pack output|File too large") {
            // index-pack, ended by the kernel at its limit, says nothing itself.
            let largest = self.limits.largest();
            let sentence = format!("the repository is larger than {largest}");
            return FetchError::TooLarge(sentence.into());
        } else {
            let what = self.local.map(|verb| format!("git {verb} failed"));
            let what = what.as_deref().unwrap_or("Git could not fetch");
            let format = other_format(self.text);
            return FetchError::Strange(format!("{what}: {}", last()).into(), format);
        };
        sentence.into()
    }

    /// Whether Git says one of these, which a bar parts.
    fn has(&self, parts: &str) -> bool {
        parts.split('|').any(|part| self.text.contains(part))
    }

    /// A host that knows the repository or the token and does not want us.
    fn refused(&self) -> Option<String> {
        let host = self.url.origin();
        let login = "could not read Username|could not read Password|Authentication failed|\
                     returned error: 401";
        let login = self.has(login);
        let forbidden = self.has("returned error: 403");
        let missing = self.has("Repository not found|' not found|returned error: 404");
        let gone = if self.known {
            "; it was there at an earlier deploy, so it was removed, renamed or made private"
        } else {
            ""
        };
        Some(match self.token.map(TokenOf::advice) {
            Some((meaning, remedy)) if login => format!(
                "{host} refused the token: it is wrong, has expired or was revoked{meaning}; \
                 {remedy}"
            ),
            Some((_, remedy)) if forbidden => format!(
                "{host} refused the token: it is not allowed to read this repository; give it \
                 the right to, or {remedy}"
            ),
            None if login || forbidden => format!(
                "{host} asks for a login: the repository does not exist, or it is private and \
                 the app has no token{gone}"
            ),
            Some((_, remedy)) if missing => format!(
                "the repository was not found on {host}{gone}; many hosts also answer so when \
                 the token may not see it: check the address, and the token's rights, or {remedy}"
            ),
            None if missing => format!(
                "the repository was not found on {host}{gone}; check the address, and give the \
                 app a token if the repository is private"
            ),
            _ => return None,
        })
    }
}

/// Why a branch could not be fetched, with those that the repository has.
pub(super) fn no_branch(branch: &Branch, there: &[String]) -> String {
    let named = match there {
        [] => return "the repository is empty: push a commit, then deploy again".to_owned(),
        [only] => format!("it has only {only}"),
        _ => {
            let first: Vec<&str> = there.iter().take(NAMED).map(String::as_str).collect();
            let more = if there.len() > NAMED { " and others" } else { "" };
            format!("it has {}{more}", first.join(", "))
        }
    };
    match branch.as_str() {
        "" => format!(
            "the repository's default branch does not exist; {named}: choose a branch in the \
             app's settings, or change the default at its host"
        ),
        name => format!("the repository has no branch named {name}; {named}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_that_came_to_the_end_of_its_memory_is_told_from_one_that_broke_off() {
        let url = RepoUrl::parse("https://git.example/o/r").unwrap();
        let explain = |text, exit| {
            let limits = FetchLimits::default();
            let (known, local) = (false, None);
            match (Case { url: &url, token: None, known, limits, local, text, exit }).explain() {
                FetchError::Failed(error) | FetchError::TooLarge(error) => error.to_string(),
                _ => String::new(),
            }
        };
        let own = "fatal: Out of memory, malloc failed (tried to allocate 14680065 bytes)\n\
                   fatal: early EOF\nfatal: fetch-pack: invalid index-pack output";
        for (text, exit) in [(own, Exit::Code(128)), ("", Exit::Signal(9)), ("", Exit::Code(137))] {
            let sentence = explain(text, exit);
            assert!(sentence.contains("more memory than it may have"), "{text} {sentence}");
        }
        let theirs = "remote: fatal: Out of memory, malloc failed\nfatal: early EOF";
        assert!(explain(theirs, Exit::Code(128)).contains("broke off"));
    }
}
