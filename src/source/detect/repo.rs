//! What detection reads of a repository: small files and names, never more than a bound of them.

use crate::disk::tree::Tree;
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes that a manifest such as `package.json` may have.
pub const MANIFEST_CAP: u64 = 1024 * 1024;
/// Bytes of a file that are searched for a word.
const SEARCHED: u64 = 8 * 1024 * 1024;
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
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.tree.has_file(path)
    }

    /// The first of these words that is a file there.
    #[must_use]
    pub fn first_of<'b>(&self, paths: &'b str) -> Option<&'b str> {
        paths.split(' ').find(|path| self.has(path))
    }

    /// A small file's text; empty when it is not there.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        self.tree.read(path, MANIFEST_CAP).unwrap_or_default()
    }

    /// A manifest's text.
    ///
    /// # Errors
    /// When it is too large to be one, which must not look like one that says nothing.
    pub fn manifest(&self, path: &str) -> Result<Option<String>, String> {
        match self.tree.size(path) {
            Some(size) if size > MANIFEST_CAP => Err(format!(
                "{path} has {} KiB, and no more than {} KiB of it are read; is it the right file?",
                size / 1024,
                MANIFEST_CAP / 1024
            )),
            _ => Ok(self.tree.read(path, MANIFEST_CAP)),
        }
    }

    /// A JSON manifest; `null` when it is not there.
    ///
    /// # Errors
    /// When it is too large or no JSON.
    pub fn json(&self, path: &str) -> Result<Value, String> {
        let Some(text) = self.manifest(path)? else { return Ok(Value::Null) };
        let text = text.trim_start_matches('\u{feff}');
        serde_json::from_str(text).map_err(|e| format!("{path} is not valid JSON: {e}"))
    }

    /// Whether a file, however large, holds a word.
    #[must_use]
    pub fn holds(&self, path: &str, word: &str) -> bool {
        self.tree.read(path, SEARCHED).is_some_and(|text| text.contains(word))
    }

    /// The files that a pattern names in which `*` stands for one directory or file.
    #[must_use]
    pub fn find(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in pattern.split('/') {
            let join = |above: &String, name: &str| {
                if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
            };
            found = match part.split_once('*') {
                None => found.iter().map(|above| join(above, part)).collect(),
                Some((before, after)) => found
                    .iter()
                    .flat_map(|above| {
                        self.tree.names(above, MOST_NAMES).into_iter().map(move |n| (above, n))
                    })
                    .filter(|(_, n)| {
                        n.starts_with(before) && n.ends_with(after) && !n.starts_with('.')
                    })
                    .map(|(above, name)| join(above, &name))
                    .take(MOST_NAMES)
                    .collect(),
            };
        }
        found.retain(|path| self.has(path));
        found.sort();
        found
    }

    /// Files whose name is, or ends with, one of these, the nearest first: code of the
    /// repository's own, at most some directories deep.
    #[must_use]
    pub fn own(&self, ends: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut level: BTreeSet<String> = [String::new()].into();
        for _ in 0..=DEPTH {
            let mut below = BTreeSet::new();
            for dir in level.into_iter().take(MOST_NAMES) {
                for name in self.tree.names(&dir, MOST_NAMES) {
                    let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
                    if ends.iter().any(|end| name.ends_with(end)) && self.has(&path) {
                        found.push(path);
                    } else if !name.starts_with('.')
                        && !NOT_OURS.split(' ').any(|not| not == name)
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

/// A path that means nothing to a shell and is no option.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/@+".contains(&b);
    !path.is_empty()
        && !path.starts_with(['-', '/'])
        && !path.split('/').any(|part| part == "..")
        && path.bytes().all(plain)
}

/// The value of `key = "value"` in a TOML or INI file's `[section]`, as text: enough for the
/// plain entries that manifests have. An empty section is the top of the file.
#[must_use]
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
