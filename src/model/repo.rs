//! Where source comes from: a repository's address and a branch.

use super::{Invalid, is_host, number};

/// The longest address taken; Git hosts stay far below.
const MAX_URL: usize = 1024;

/// Bytes of a branch's name: Git keeps it as a file, whose name may have 255, behind its own endings.
const MAX_BRANCH: usize = 200;

text_value! {
    /// A repository's address over HTTP or HTTPS, without credentials, safe to give to Git; host
    /// and scheme in lower case.
    ///
    /// Only these two schemes: `ext::`, `file://` and friends make Git run commands
    /// or read local files, and a user name or password in an address ends up in
    /// process lists and logs.
    RepoUrl, |text| {
        if text.is_empty() {
            return Err(Invalid("is empty: write https://host/owner/repository.git"));
        }
        if text.len() > MAX_URL {
            return Err(Invalid("is too long: at most 1024 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid(
                "holds a space, a control character or a letter outside ASCII; percent-encode it",
            ));
        }
        let (scheme, rest) = split_scheme(text)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(Invalid(
                "holds a user name or password: leave it out and give the token as gitToken",
            ));
        }
        check_authority(authority)?;
        check_path(path)?;
        Ok(format!("{scheme}://{}/{path}", authority.to_ascii_lowercase()))
    }
}

impl RepoUrl {
    /// As [`RepoUrl::parse`], for what a person has written: an address for SSH, which Git
    /// hosts offer first, is answered with the same one for HTTPS.
    ///
    /// # Errors
    /// The sentence that says what to write instead.
    pub fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|invalid| match Self::instead_of_ssh(text) {
            Some(url) => format!("is an SSH address: write {url}, and give a token as gitToken"),
            None => invalid.to_string(),
        })
    }

    /// What `ssh://user@host:port/path` and `user@host:path` are over HTTPS, without the user,
    /// which may have a password, and the port, which is SSH's.
    fn instead_of_ssh(text: &str) -> Option<Self> {
        let is_url = text.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("ssh://"));
        let (host, path) = if is_url {
            let (authority, path) = text[6..].split_once('/')?;
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            (host.split_once(':').map_or(host, |(host, _)| host), path)
        } else {
            let (_, rest) = text.split_once(':')?.0.split_once('@')?;
            (rest, text.split_once(':')?.1.trim_start_matches('/'))
        };
        Self::parse(&format!("https://{host}/{path}")).ok()
    }

    /// Scheme, host and port: what a token is given for (P16). A token never
    /// moves to another origin, so it is not sent over `http` either when it
    /// was given for `https`.
    pub fn origin(&self) -> &str {
        let end = self.0.match_indices('/').nth(2).map_or(self.0.len(), |(at, _)| at);
        &self.0[..end]
    }

    /// The last part of the path without `.git`: a proposal for an app's name.
    pub fn repository(&self) -> &str {
        let last = self.0.trim_end_matches('/').rsplit('/').next().unwrap_or("");
        last.strip_suffix(".git").unwrap_or(last)
    }
}

fn split_scheme(text: &str) -> Result<(&'static str, &str), Invalid> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if lower.starts_with("https://") {
        Ok(("https", &text[8..]))
    } else if lower.starts_with("http://") {
        Ok(("http", &text[7..]))
    } else if lower.starts_with("ssh://") || text.starts_with("git@") {
        Err(Invalid("is an SSH address: write the https:// one and give a token as gitToken"))
    } else {
        Err(Invalid("must begin with https:// or http://"))
    }
}

fn check_authority(authority: &str) -> Result<(), Invalid> {
    let colon = authority.rfind(':').filter(|&at| !authority[at..].contains(']'));
    let (host, port) = authority.split_at(colon.unwrap_or(authority.len()));
    if !is_host(host) {
        return Err(Invalid("has no valid host name after the scheme"));
    }
    match port.strip_prefix(':') {
        Some(digits) if number::<u16>(digits).unwrap_or(0) == 0 => {
            Err(Invalid("has a port that is not a number from 1 to 65535"))
        }
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), Invalid> {
    if path.trim_matches('/').is_empty() {
        return Err(Invalid("names no repository after the host"));
    }
    if path.contains(['?', '#']) {
        return Err(Invalid("must not hold a query or a fragment (? or #)"));
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%+@:,=!$&'()*;".contains(&b)) {
        return Err(Invalid("holds a character that does not belong in a URL; percent-encode it"));
    }
    if path.split('/').any(|part| part == ".." || part == ".") {
        return Err(Invalid("must not hold . or .. as a part of its path"));
    }
    Ok(())
}

text_value! {
    /// A branch's name by Git's own rules (git-check-ref-format), never an option; empty means
    /// the remote's default branch.
    #[derive(Default)]
    Branch, |text| {
        if text.len() > MAX_BRANCH {
            return Err(Invalid("is too long: at most 200 bytes"));
        }
        if text.starts_with('-') {
            return Err(Invalid("must not begin with a dash"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Invalid("must not hold spaces or control characters"));
        }
        let bad_part = |p: &str| p.is_empty() || p.starts_with('.') || p.ends_with(".lock");
        let forbidden = text.contains(['~', '^', ':', '?', '*', '[', '\\'])
            || ["..", "@{"].iter().any(|bad| text.contains(bad))
            || text == "@"
            || text.ends_with('.')
            || text.split('/').any(bad_part);
        if forbidden && !text.is_empty() {
            return Err(Invalid("is not a name that Git allows for a branch"));
        }
        Ok(text.to_owned())
    }
}

impl Branch {
    /// The ref to fetch.
    pub fn to_ref(&self) -> String {
        if self.0.is_empty() { "HEAD".to_owned() } else { format!("refs/heads/{}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_addresses_are_taken_and_their_origin_is_known() {
        for (text, url, origin) in [
            ("https://github.com/o/r.git", "https://github.com/o/r.git", "https://github.com"),
            ("HTTPS://GitHub.com/O/R", "https://github.com/O/R", "https://github.com"),
            ("http://127.0.0.1:3000/a/b", "http://127.0.0.1:3000/a/b", "http://127.0.0.1:3000"),
            ("http://[::1]:3000/a", "http://[::1]:3000/a", "http://[::1]:3000"),
        ] {
            let parsed = RepoUrl::parse(text).unwrap();
            assert_eq!((parsed.as_str(), parsed.origin()), (url, origin));
        }
        assert_eq!(RepoUrl::parse("https://h/o/shop.git").unwrap().repository(), "shop");
    }

    #[test]
    fn forbidden_addresses_are_refused() {
        for bad in [
            "",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "ext::sh -c id",
            "ext::sh",
            "file:///etc",
            "/srv/repo",
            "git@github.com:o/r",
            "ssh://git@h/r",
            "git://h/r",
            "https://",
            "https://h",
            "https://h/",
            "https://u:p@h/r",
            "https://u@h/r",
            "https://h/r?x",
            "https://h/r#x",
            "https://h/a b",
            "https://h/a\nb",
            "https://-h/r",
            "https://h:0/r",
            "https://h:99999/r",
            "https://h:+1/r",
            "https://[::1/r",
            "https://[::1]x/r",
            "https://h/../r",
            "https://h\\x/r",
            "https://h/r\u{202e}",
            "http:/h/r",
            "https:///r",
            "https://a..b/r",
        ] {
            assert!(RepoUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(RepoUrl::parse(&format!("https://h/{}", "a".repeat(2000))).is_err());
    }

    #[test]
    fn an_address_for_ssh_is_answered_with_the_same_one_for_https() {
        for (ssh, https) in [
            ("git@github.com:o/r.git", "https://github.com/o/r.git"),
            ("deploy@gitlab.example:/group/sub/r", "https://gitlab.example/group/sub/r"),
            ("ssh://git@codeberg.org/o/r.git", "https://codeberg.org/o/r.git"),
            ("SSH://git:hunter2@Git.example:2222/o/r.git", "https://git.example/o/r.git"),
        ] {
            let sentence = RepoUrl::read(ssh).unwrap_err();
            assert!(sentence.contains(&format!(" {https},")), "{sentence}");
            assert!(!sentence.contains("hunter2"), "{sentence}");
        }
        for other in ["git@github.com", "ssh://git@h", "git@h:../r", "ext::sh", "file:///etc", ""] {
            assert_eq!(RepoUrl::read(other), Err(RepoUrl::parse(other).unwrap_err().to_string()));
        }
    }

    #[test]
    fn branches_follow_gits_rules() {
        for good in ["", "main", "feature/x-1", "release/1.2", "bücher"] {
            assert!(Branch::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "-x",
            "--upload-pack=id",
            "a b",
            "a\nb",
            "a..b",
            "a/",
            "/a",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "@",
            "a@{1}",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "a.",
        ] {
            assert!(Branch::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_harmless(text in "\\PC{0,60}") {
            if let Ok(url) = RepoUrl::parse(&text) {
                prop_assert!(url.as_str().starts_with("http://") || url.as_str().starts_with("https://"));
                prop_assert!(!url.origin().contains('@'));
                prop_assert!(url.as_str().starts_with(url.origin()));
                prop_assert_eq!(RepoUrl::parse(url.as_str()), Ok(url));
            }
            if let Ok(branch) = Branch::parse(&text) {
                prop_assert!(!branch.as_str().starts_with('-') && !branch.as_str().contains(".."));
            }
        }
    }
}
