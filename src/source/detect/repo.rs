//! What detection reads of a repository: small files and names, never more than a bound of them.

use crate::disk::tree::Tree;
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes that a manifest such as `package.json` may have.
const MANIFEST_CAP: u64 = 1024 * 1024;
/// Names of one directory that are looked at, and directories of one search.
const MOST_NAMES: usize = 1000;
/// How deep below the app's directory programs are looked for.
const DEPTH: usize = 3;
/// Directories that hold the code of others, or what a build has made.
const NOT_OURS: &str = "\
    node_modules vendor venv env target dist build tests test docs migrations examples \
    site-packages __pycache__";

/// The directory of an app in its repository.
pub struct Repo<'a> {
    /// The app's directory.
    pub tree: &'a Tree,
    /// The repository's top, where that is another one.
    pub top: Option<&'a Tree>,
}

impl Repo<'_> {
    /// Whether a regular file is there.
    pub fn has(&self, path: &str) -> bool {
        self.tree.has_file(path)
    }

    /// The first of these words that is a file there.
    pub fn first_of<'b>(&self, paths: &'b str) -> Option<&'b str> {
        paths.split_whitespace().find(|path| self.has(path))
    }

    /// Whether one of these words is a name at the top, of whatever.
    pub fn lists(&self, names: &str) -> bool {
        let all = self.tree.names("", MOST_NAMES);
        all.iter().any(|name| has_word(names, name))
    }

    /// A small file's text; empty when it is not there.
    pub fn text(&self, path: &str) -> String {
        self.manifest(path).ok().flatten().unwrap_or_default()
    }

    /// A manifest's text.
    ///
    /// # Errors
    /// When it is too large to be one, which must not look like one that says nothing.
    pub fn manifest(&self, path: &str) -> Result<Option<String>, String> {
        let size = self.tree.size(path).unwrap_or(0);
        if size > MANIFEST_CAP {
            let (size, most) = (size / 1024, MANIFEST_CAP / 1024);
            return Err(format!(
                "{path} has {size} KiB, and no more than {most} KiB of it are read; is it the \
                 right file?"
            ));
        }
        // Some editors begin a file with a mark of its encoding.
        let text = self.tree.read(path, MANIFEST_CAP);
        Ok(text.map(|text| text.trim_start_matches('\u{feff}').to_owned()))
    }

    /// A JSON manifest; `null` when it is not there.
    ///
    /// # Errors
    /// When it is too large or no JSON.
    pub fn json(&self, path: &str) -> Result<Value, String> {
        let Some(text) = self.manifest(path)? else { return Ok(Value::Null) };
        serde_json::from_str(&text).map_err(|e| format!("{path} is not valid JSON: {e}"))
    }

    /// The files that a pattern names in which one `*` may stand for a directory, or for a
    /// file's name before its extension.
    pub fn find(&self, pattern: &str) -> Vec<String> {
        let Some((dir, after)) = pattern.split_once('*') else {
            return if self.has(pattern) { vec![pattern.to_owned()] } else { Vec::new() };
        };
        let (end, below) = after.split_at(after.find('/').unwrap_or(after.len()));
        let mut names = self.tree.names(dir, MOST_NAMES);
        names.retain(|name| name.ends_with(end) && !name.starts_with('.'));
        let paths = names.into_iter().map(|name| format!("{dir}{name}{below}"));
        paths.filter(|path| self.has(path)).collect()
    }

    /// Files of these names, or with these extensions (`.py`), the nearest first: code of the
    /// repository's own, at most some directories deep.
    pub fn own(&self, names: &[&str]) -> Vec<String> {
        let is_meant = |name: &str| {
            names.iter().any(|one| name == *one || one.starts_with('.') && name.ends_with(one))
        };
        let mut found = Vec::new();
        let mut level: BTreeSet<String> = [String::new()].into();
        for _ in 0..=DEPTH {
            let mut below = BTreeSet::new();
            for dir in level.into_iter().take(MOST_NAMES) {
                for name in self.tree.names(&dir, MOST_NAMES) {
                    let path = join(&dir, &name);
                    if is_meant(&name) && self.has(&path) {
                        found.push(path);
                    } else if !name.starts_with('.')
                        && !has_word(NOT_OURS, &name)
                        && is_plain(&path)
                    {
                        below.insert(path);
                    }
                }
            }
            level = below;
        }
        found
    }
}

/// A file's path in a directory; the empty one is the top.
pub fn join(dir: &str, file: &str) -> String {
    if dir.is_empty() { file.to_owned() } else { format!("{dir}/{file}") }
}

/// The directory of a file.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The last part of a path.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether a word is one of these.
pub fn has_word(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|one| one == word)
}

/// A path that means nothing to a shell and is no option.
pub fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/@+".contains(&b);
    !path.is_empty()
        && !path.starts_with(['-', '/'])
        && !path.split('/').any(|part| part == "..")
        && path.bytes().all(plain)
}

/// The value of `key = "value"` in a TOML or INI file's `[section]`, as text: enough for the
/// plain entries that manifests have. An empty section is the top of the file.
pub fn entry(text: &str, section: &str, key: &str) -> Option<String> {
    let mut at = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            at = name.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
        } else if at == section
            && let Some((name, value)) = line.split_once('=')
            && name.trim().trim_matches('"') == key
        {
            let value = value.trim();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            let bare = match quote {
                Some(quote) => value[1..].split(quote).next().unwrap_or_default(),
                None => value.split('#').next().unwrap_or_default().trim(),
            };
            return Some(bare.to_owned());
        }
    }
    None
}
