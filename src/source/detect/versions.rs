//! Which version of a language a repository asks for, read from its files as text: no tool
//! reads a repository's configuration, which may run programs.

use super::repo::{Repo, entry};
use serde_json::Value;

/// Characters of a version that are read.
const MOST: usize = 100;

/// A version that something asks for, and what does.
pub struct Wanted {
    /// As npm or uv take it: `22`, `>=3.10,<3.13`.
    pub version: String,
    /// The file.
    pub from: String,
}

/// Node's versions with long-time support, the best first, and their names.
const NODES: [(u32, &str); 6] = [
    (24, "krypton"),
    (22, "jod"),
    (20, "iron"),
    (18, "hydrogen"),
    (16, "gallium"),
    (14, "fermium"),
];

/// The oldest Node that current frameworks start with, when nothing asks for one.
const USUAL_NODE: &str = ">=22.12";

/// What of a version file counts: its first line that is no comment.
fn line(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.find(|line| !line.is_empty())
}

/// The version that `.tool-versions` or `mise.toml` names for a tool.
fn tool_files(repo: &Repo<'_>, names: &[&str]) -> Option<Wanted> {
    let listed = repo.text(".tool-versions");
    let mut words = listed.lines().map(|line| line.split_whitespace());
    let listed = words.find_map(|mut words| {
        words.next().filter(|name| names.contains(name)).and(words.next()).map(str::to_owned)
    });
    let wanted = |version, from: &str| Wanted { version, from: from.to_owned() };
    listed.map(|version| wanted(version, ".tool-versions")).or_else(|| {
        ["mise.toml", ".mise.toml"].iter().find_map(|file| {
            let text = repo.text(file);
            names.iter().find_map(|name| Some(wanted(entry(&text, "tools", name)?, file)))
        })
    })
}

/// The version in a file that holds nothing else.
fn file(repo: &Repo<'_>, names: &[&str]) -> Option<Wanted> {
    names.iter().find_map(|name| {
        let version = line(&repo.text(name))?.to_owned();
        Some(Wanted { version, from: (*name).to_owned() })
    })
}

/// The Node that a repository asks for, as a range of npm's.
///
/// # Errors
/// The sentence for what is no version.
pub fn node(repo: &Repo<'_>, package: &Value) -> Result<Wanted, String> {
    let stated = |path: &str| {
        let version = package.pointer(path)?.as_str()?.trim().to_owned();
        Some(Wanted { version, from: "package.json".to_owned() })
    };
    let wanted = file(repo, &[".node-version", ".nvmrc"])
        .or_else(|| tool_files(repo, &["node", "nodejs"]))
        .or_else(|| stated("/volta/node"))
        .or_else(|| stated("/engines/node"))
        .or_else(|| stated("/devEngines/runtime/version"));
    let usual = || Wanted { version: USUAL_NODE.to_owned(), from: String::new() };
    let mut wanted = wanted.unwrap_or_else(usual);
    let word = wanted.version.to_ascii_lowercase();
    if ["node", "latest", "current", "stable", "lts", "lts/*", "*", ""].contains(&word.as_str()) {
        wanted.version = USUAL_NODE.to_owned();
    } else if let Some(name) = word.strip_prefix("lts/") {
        let known = NODES.iter().find(|(_, known)| *known == name);
        wanted.version = known.map_or(name.to_owned(), |(major, _)| major.to_string());
    }
    let is_known = |major: u32| satisfies(&wanted.version, [major, 999, 999]);
    if wanted.version.len() > MOST || !(0..100).any(is_known) && exact(&wanted.version).is_none() {
        return Err(none(&wanted));
    }
    Ok(wanted)
}

fn none(wanted: &Wanted) -> String {
    let shown: String = wanted.version.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("{} asks for the version `{shown}`, which is none; write one such as 22", wanted.from)
}

/// What npm is asked for to have a Node that satisfies a range: itself when it is exact, else
/// the best major version with long-time support.
#[must_use]
pub fn node_to_get(range: &str) -> String {
    if let Some([major, minor, patch]) = exact(range) {
        return format!("{major}.{minor}.{patch}");
    }
    let fits = |major: &u32| satisfies(range, [*major, 999, 999]);
    let best = NODES.iter().map(|(major, _)| *major).find(fits);
    best.or_else(|| (0..100).rev().find(fits)).unwrap_or(NODES[0].0).to_string()
}

/// `v22.11.0` and nothing less.
fn exact(text: &str) -> Option<[u32; 3]> {
    let parts = numbers(text.trim().trim_start_matches(['v', '=']))?;
    <[u32; 3]>::try_from(parts).ok()
}

/// Whether a version is in one of npm's ranges: `^20.9 || >=22`, `18.x`, `>=18 <23`, `18 - 20`.
#[must_use]
pub fn satisfies(range: &str, version: [u32; 3]) -> bool {
    range.split("||").any(|all| {
        if let Some((least, most)) = all.split_once(" - ") {
            return meets(">=", least, version) && meets("<=", most, version);
        }
        // An operator may stand apart from its version.
        let joined = all.replace("> ", ">").replace("< ", "<").replace("= ", "=").replace(',', " ");
        let mut comparators = joined.split_whitespace().peekable();
        comparators.peek().is_some()
            && comparators.all(|one| {
                let at = one.find(|c: char| !"<>=^~".contains(c)).unwrap_or(one.len());
                meets(&one[..at], &one[at..], version)
            })
    })
}

fn meets(operator: &str, operand: &str, version: [u32; 3]) -> bool {
    let Some(parts) = numbers(operand.trim().trim_start_matches('v')) else { return false };
    let low = |at: usize| parts.get(at).copied().unwrap_or(0);
    let low = [low(0), low(1), low(2)];
    // Of what is not written, every number will do.
    let same = |count: usize| version[..count] == low[..count];
    let written = parts.len();
    match operator {
        ">=" => version >= low,
        ">" => version > low && !same(written),
        "<" => version < low,
        "<=" => version <= low || same(written),
        "^" if low[0] > 0 || written < 2 => version >= low && same(1.min(written)),
        "^" => version >= low && same(2.min(written)),
        "~" => version >= low && same(2.min(written)),
        "" | "=" => same(written),
        _ => false,
    }
}

/// The numbers of `22.11`, `22.x`, `*`: those before the first that is none.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let text = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = Vec::new();
    for part in text.split('.').take(3) {
        match part.parse() {
            Ok(number) => parts.push(number),
            Err(_) if matches!(part, "x" | "X" | "*") => return Some(parts),
            Err(_) => return None,
        }
    }
    Some(parts)
}

/// The Python that a repository asks for, as uv takes it: without the last number, which is
/// the machine's own where that has the same version.
///
/// # Errors
/// The sentence for what is no version.
pub fn python(repo: &Repo<'_>) -> Result<Option<Wanted>, String> {
    let stated = |file: &str, section: &str, key: &str| {
        let version = entry(&repo.text(file), section, key)?;
        Some(Wanted { version, from: file.to_owned() })
    };
    let wanted = file(repo, &[".python-version", "runtime.txt"])
        .or_else(|| tool_files(repo, &["python"]))
        .or_else(|| stated("Pipfile", "requires", "python_version"))
        .or_else(|| stated("Pipfile", "requires", "python_full_version"))
        .or_else(|| stated("pyproject.toml", "project", "requires-python"));
    let Some(mut wanted) = wanted else { return Ok(None) };
    wanted.version = wanted.version.trim_start_matches("python-").replace(' ', "");
    if let Some([major, minor, _]) = exact(&wanted.version) {
        wanted.version = format!("{major}.{minor}");
    }
    let plain = |b: u8| b.is_ascii_digit() || b".,<>=!~*".contains(&b);
    let digits = wanted.version.bytes().any(|b| b.is_ascii_digit());
    if wanted.version.len() > MOST || !digits || !wanted.version.bytes().all(plain) {
        return Err(none(&wanted).replace("22", "3.12"));
    }
    Ok(Some(wanted))
}

/// The Go that `go.mod` asks for.
#[must_use]
pub fn go(repo: &Repo<'_>) -> Option<[u32; 3]> {
    let text = repo.text("go.mod");
    let of =
        |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let version = of("toolchain go").or_else(|| of("go "))?;
    padded(version)
}

/// `1.21` as three numbers.
#[must_use]
pub fn padded(text: &str) -> Option<[u32; 3]> {
    let parts = numbers(text.trim().trim_start_matches(['v', 'g', 'o']))?;
    let part = |at: usize| parts.get(at).copied().unwrap_or(0);
    Some([part(0), part(1), part(2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_npm_means_by_them() {
        for (range, within, without) in [
            ("22", [22, 1, 0], [23, 0, 0]),
            ("v22.11.0", [22, 11, 0], [22, 12, 0]),
            ("20.x", [20, 99, 1], [21, 0, 0]),
            (">=18", [26, 0, 0], [17, 9, 9]),
            ("> 18", [19, 0, 0], [18, 9, 9]),
            (">=18.17 <21", [20, 9, 0], [21, 0, 0]),
            ("^20.9.0 || >=22", [20, 10, 0], [21, 9, 0]),
            ("~20.9", [20, 9, 5], [20, 10, 0]),
            ("18 - 20", [20, 5, 0], [21, 0, 0]),
            ("<=20", [20, 19, 0], [21, 0, 0]),
            (">=18,<23", [22, 0, 0], [23, 0, 0]),
        ] {
            assert!(satisfies(range, within), "{range} {within:?}");
            assert!(!satisfies(range, without), "{range} {without:?}");
        }
        for bad in ["", "../../x", "hello", "22; rm", "$(id)"] {
            assert!(!(0..100).any(|major| satisfies(bad, [major, 999, 999])), "{bad}");
        }
    }

    #[test]
    fn of_a_range_the_best_version_with_long_support_is_had() {
        for (range, got) in [
            (">=18", "24"),
            ("^20.5", "20"),
            ("18.17.1", "18.17.1"),
            (">=16 <19", "18"),
            ("21.x", "21"),
            ("v22.11.0", "22.11.0"),
        ] {
            assert_eq!(node_to_get(range), got, "{range}");
        }
    }
}
