//! A site's own `_redirects` and `_headers`, in the common part of Netlify's form.
//!
//! The router replaces what stands in braces in such values, by files of this machine too, so
//! a rule with a brace is refused. A target is a path of the site or, for a redirect, an
//! address of the web; nothing is ever fetched from elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Rules that a site may have.
const MOST_RULES: usize = 200;
/// Bytes of a rule.
const LONGEST: usize = 2000;
/// Fields that are between the router and the browser.
const NOT_THEIRS: &str = "\
    connection content-length content-encoding date keep-alive server trailer transfer-encoding \
    upgrade";

/// The rules of a site, as routes of the router's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRules {
    /// Looked at before the files: fields of answers, redirects that hold in any case.
    pub before: Vec<Value>,
    /// Looked at when there is no such file.
    pub after: Vec<Value>,
    /// Whether the page at the top shows every other path.
    pub single_page: bool,
}

impl SiteRules {
    /// Whether there is nothing for the router in them.
    pub const fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// Reads both files. The second answer names the lines that are not done, and why.
    ///
    /// # Errors
    /// The sentence for a rule that is refused, or too many of them.
    pub fn read(redirects: &str, headers: &str) -> Result<(Self, Vec<String>), String> {
        let (mut rules, mut notes) = (Self::default(), Vec::new());
        rules.read_headers(headers, &mut notes)?;
        rules.read_redirects(redirects, &mut notes)?;
        if rules.before.len() + rules.after.len() > MOST_RULES {
            return Err(format!("_redirects and _headers may have {MOST_RULES} rules together"));
        }
        Ok((rules, notes))
    }

    fn read_redirects(&mut self, text: &str, notes: &mut Vec<String>) -> Result<(), String> {
        for (at, line) in lines(text, "_redirects")? {
            let mut words = line.split_whitespace();
            let (from, to) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let code = words.next().unwrap_or("301");
            let (code, forced) = (code.trim_end_matches('!'), code.ends_with('!'));
            let status = code.parse::<u16>().ok();
            let local = to.starts_with('/') && !to.starts_with("//") && !to.contains('\\');
            if matches!(status, Some(200 | 404)) && !local {
                return Err(format!(
                    "line {at} of _redirects: `{to}` with {code} would fetch from elsewhere, \
                     which is not done here; make it a redirect (301 or 302)"
                ));
            }
            let web = to.starts_with("https://") || to.starts_with("http://");
            let known = from.starts_with('/') && (local || web) && words.next().is_none();
            let done = [200, 301, 302, 303, 307, 308, 404];
            let Some(status) = status.filter(|status| known && done.contains(status)) else {
                notes.push(format!(
                    "Line {at} of _redirects is not done: only a path, a target and a status are \
                     (200, 301, 302, 303, 307, 308, 404), without conditions."
                ));
                continue;
            };
            if (from, to, status) == ("/*", "/index.html", 200) {
                self.single_page = true;
                continue;
            }
            let (pattern, names) = pattern(from);
            let name = format!("rule{at}");
            let target = filled(to, &name, &names);
            let handler = match status {
                200 => json!({"handler": "rewrite", "uri": target}),
                404 => json!({"handler": "error", "status_code": 404}),
                _ => json!({
                    "handler": "static_response",
                    "status_code": status,
                    "headers": {"Location": [target]},
                }),
            };
            let mut route = route(&name, &pattern, &handler);
            route["terminal"] = json!(status != 200);
            if forced { self.before.push(route) } else { self.after.push(route) }
        }
        Ok(())
    }

    fn read_headers(&mut self, text: &str, notes: &mut Vec<String>) -> Result<(), String> {
        let mut path = None;
        for (at, line) in lines(text, "_headers")? {
            if !line.starts_with(char::is_whitespace) {
                path = Some(line.trim()).filter(|path| path.starts_with('/'));
                if path.is_none() {
                    notes.push(format!("Line {at} of _headers is not done: it is no path."));
                }
                continue;
            }
            let Some(path) = path else { continue };
            let (name, value) = line.split_once(':').unwrap_or_default();
            let (name, value) = (name.trim(), value.trim());
            let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let is_theirs = !NOT_THEIRS.split(' ').any(|one| name.eq_ignore_ascii_case(one));
            if !name.is_empty() && is_name && is_theirs {
                let handler = json!({"handler": "headers", "response": {"set": {name: [value]}}});
                self.before.push(route(&format!("field{at}"), &pattern(path).0, &handler));
            } else {
                notes.push(format!(
                    "Line {at} of _headers is not done: it is no field that a site may set."
                ));
            }
        }
        Ok(())
    }
}

/// What is done to a path that fits a pattern.
fn route(name: &str, pattern: &str, handler: &Value) -> Value {
    json!({
        "match": [{"path_regexp": {"name": name, "pattern": pattern}}],
        "handle": [handler],
    })
}

/// The lines that say something, with their numbers.
fn lines<'a>(text: &'a str, file: &str) -> Result<Vec<(usize, &'a str)>, String> {
    let all = text.trim_start_matches('\u{feff}').lines().enumerate();
    let said = all.map(|(at, line)| (at + 1, line.trim_end()));
    let said: Vec<_> =
        said.filter(|(_, l)| !l.is_empty() && !l.trim_start().starts_with('#')).collect();
    for (at, line) in &said {
        if line.len() > LONGEST
            || line.contains(['{', '}'])
            || line.trim().chars().any(char::is_control)
        {
            return Err(format!(
                "line {at} of {file} is refused: it has a brace or a control character, or is \
                 longer than {LONGEST} bytes"
            ));
        }
    }
    if said.len() > 2 * MOST_RULES {
        return Err(format!("{file} has more than {MOST_RULES} rules"));
    }
    Ok(said)
}

/// The regular expression for a path with `*` at its end and `:names`, and these names in order.
fn pattern(path: &str) -> (String, Vec<String>) {
    let (mut pattern, mut names) = ("^".to_owned(), Vec::new());
    for part in path.trim_start_matches('/').split('/') {
        if part == "*" {
            // Never a slash first: `//elsewhere` would be an address of the web.
            pattern.push_str(r"(?:/+([^/\\].*)?)?");
            names.push("splat".to_owned());
            break;
        }
        pattern.push('/');
        match part.strip_prefix(':') {
            Some(name) if !name.is_empty() => {
                pattern.push_str(r"([^/\\]+)");
                names.push(name.to_owned());
            }
            _ => part.chars().for_each(|c| match c {
                '*' => pattern.push_str("[^/]*"),
                c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => pattern.push(c),
                c if c.is_ascii() => pattern.extend(['\\', c]),
                c => pattern.push(c),
            }),
        }
    }
    pattern.push_str("/?$");
    (pattern, names)
}

/// A target with what the path had in its names' places.
fn filled(to: &str, rule: &str, names: &[String]) -> String {
    let fill = |part: &str| {
        let named = part.strip_prefix(':')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, rest) = named.split_at(named.find(|c| !is_name(c)).unwrap_or(named.len()));
        let number = names.iter().position(|one| one == name)? + 1;
        Some(format!("{{http.regexp.{rule}.{number}}}{rest}"))
    };
    let parts = to.split('/').map(|part| fill(part).unwrap_or_else(|| part.to_owned()));
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirects(text: &str) -> (SiteRules, Vec<String>) {
        SiteRules::read(text, "").unwrap()
    }

    #[test]
    fn common_redirects_become_routes() {
        let (rules, notes) = redirects(
            "# old\n/a /b\n/blog/* /news/:splat 302\n/x/:id /y/:id 301!\n/* /index.html 200\n",
        );
        assert!(notes.is_empty() && rules.single_page, "{notes:?}");
        let location = |route: &Value| {
            route["handle"][0]["headers"]["Location"][0].as_str().unwrap().to_owned()
        };
        assert_eq!(location(&rules.after[0]), "/b");
        assert_eq!(location(&rules.after[1]), "/news/{http.regexp.rule3.1}");
        assert_eq!(location(&rules.before[0]), "/y/{http.regexp.rule4.1}");
        assert_eq!(rules.after[1]["handle"][0]["status_code"], 302);
    }

    #[test]
    fn what_would_fetch_or_expand_is_refused() {
        for bad in [
            "/x http://127.0.0.1 200",
            "/x //evil 200",
            "/x https://evil.example +200!",
            "/x {env.HOME}",
            "/{file./etc/passwd} /y",
            "/x /a\u{1}b",
        ] {
            assert!(SiteRules::read(bad, "").is_err(), "{bad}");
        }
        for bad in ["/*\n  X-A: {file.secret.key}", "/{env.X}\n  A: b", "/*\n  A: b\rSet-Cookie: x"]
        {
            assert!(SiteRules::read("", bad).is_err(), "{bad}");
        }
        let many = "/a /b\n".repeat(MOST_RULES + 1);
        assert!(SiteRules::read(&many, "").unwrap_err().contains("200 rules"));
    }

    #[test]
    fn what_is_not_done_is_named() {
        let (rules, notes) =
            redirects("/a\n/a /b 301 Country=us\nhttps://x/* /y 301\n/a //evil 301\n/a /b 418\n");
        assert!(rules.is_empty() && notes.len() == 5, "{notes:?}");
        let (rules, notes) = SiteRules::read(
            "",
            "/*\n  X-Frame-Options: DENY\n  Transfer-Encoding: x\nrel\n  A: b\n",
        )
        .unwrap();
        assert_eq!((rules.before.len(), notes.len()), (1, 2), "{notes:?}");
    }

    #[test]
    fn a_splat_never_begins_with_a_slash() {
        let (pattern, names) = pattern("/x/*");
        assert_eq!(
            (pattern.as_str(), names),
            (r"^/x(?:/+([^/\\].*)?)?/?$", vec!["splat".to_owned()])
        );
        assert_eq!(super::pattern("/a.b/:id").0, r"^/a\.b/([^/\\]+)/?$");
    }
}
