//! Which version of a language a repository asks for, read from its files as text: no tool
//! reads a repository's configuration, which may run programs.

use super::Machine;
use super::repo::{Repo, entry, has_word};
use serde_json::Value;

/// Characters of a version that are read.
const MOST: usize = 100;

/// A version that something asks for, and what does.
pub struct Wanted {
    /// As npm or uv take it: `22`, `>=3.10,<3.13`.
    pub version: String,
    /// The file; empty when none does.
    pub from: &'static str,
}

/// Node's versions with long-time support, the best first, and their names.
const NODES: [u32; 6] = [24, 22, 20, 18, 16, 14];
const NODES_NAMES: [&str; 6] = ["krypton", "jod", "iron", "hydrogen", "gallium", "fermium"];

/// The oldest Node that current frameworks start with, when nothing asks for one.
const USUAL_NODE: &str = ">=22.12";
/// Build tools, and their first version that works with OpenSSL 3, which Node 17 brought.
const OLD_TOOLS: [(&str, u32); 6] = [
    ("react-scripts", 5),
    ("@vue/cli-service", 5),
    ("webpack", 5),
    ("gatsby", 4),
    ("nuxt", 3),
    ("next", 11),
];
/// What those before it need.
const OLD_NODE: &str = "16";
/// What is written where any Node will do, alone or after `lts/`.
const NO_VERSION: &str = "node latest current stable lts *";

/// The version in the first of these files, which hold nothing else.
fn file(repo: &Repo<'_>, files: &[&'static str]) -> Option<Wanted> {
    files.iter().find_map(|from| {
        let text = repo.text(from);
        let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let version = lines.find(|line| !line.is_empty())?.to_owned();
        Some(Wanted { version, from })
    })
}

/// The version that an entry of a file holds.
fn stated(repo: &Repo<'_>, from: &'static str, section: &str, key: &str) -> Option<Wanted> {
    Some(Wanted { version: entry(&repo.text(from), section, key)?, from })
}

/// The version that `.tool-versions` or `mise.toml` names for a tool.
fn tool_files(repo: &Repo<'_>, names: &[&str]) -> Option<Wanted> {
    let listed = repo.text(".tool-versions").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|name| names.contains(name))?;
        Some(Wanted { version: words.next()?.to_owned(), from: ".tool-versions" })
    });
    let of_mise = |file| names.iter().find_map(|name| stated(repo, file, "tools", name));
    listed.or_else(|| of_mise("mise.toml")).or_else(|| of_mise(".mise.toml"))
}

/// The Node to get for what a repository asks for; nothing where the machine's will do.
///
/// # Errors
/// The sentence for what is no version.
pub fn node(
    repo: &Repo<'_>,
    package: &Value,
    machine: &Machine<'_>,
) -> Result<Option<Wanted>, String> {
    let stated = |path: &str| {
        let version = package.pointer(path)?.as_str()?.trim().to_owned();
        Some(Wanted { version, from: "package.json" })
    };
    let wanted = machine
        .asked("NODE_VERSION")
        .or_else(|| file(repo, &[".node-version", ".nvmrc"]))
        .or_else(|| tool_files(repo, &["node", "nodejs"]))
        .or_else(|| stated("/volta/node"))
        .or_else(|| stated("/engines/node"))
        .or_else(|| stated("/devEngines/runtime/version"))
        .or_else(|| of_old_tools(package));
    let wanted = wanted.unwrap_or(Wanted { version: String::new(), from: "" });
    let word = wanted.version.to_ascii_lowercase();
    let named = word.strip_prefix("lts/").unwrap_or(&word);
    let range = match NODES_NAMES.iter().position(|name| *name == named) {
        Some(at) => NODES[at].to_string(),
        None if has_word(NO_VERSION, named) || named.is_empty() => USUAL_NODE.to_owned(),
        None => wanted.version.clone(),
    };
    if machine.version("node").is_some_and(|own| satisfies(&range, own)) {
        return Ok(None);
    }
    match node_to_get(&range) {
        Some(version) => Ok(Some(Wanted { version, ..wanted })),
        None => Err(no_version(wanted.from, &wanted.version, "22")),
    }
}

/// The last Node with which build tools of the time before webpack 5 work, for what has them.
fn of_old_tools(package: &Value) -> Option<Wanted> {
    let is_old = |(name, first_new): &(&str, u32)| {
        let lists = ["devDependencies", "dependencies"].into_iter();
        let version = lists.filter_map(|list| package.get(list)?.get(name)?.as_str()).next();
        let version = version.map(|version| version.trim_start_matches(['^', '~', '>', '=', ' ']));
        version.and_then(numbers).is_some_and(|([major, ..], _)| major < *first_new)
    };
    let wanted = || Wanted { version: OLD_NODE.to_owned(), from: "old build tools" };
    OLD_TOOLS.iter().any(is_old).then(wanted)
}

/// What to say of something that is no version, and what is one.
pub fn no_version(from: &str, version: &str, example: &str) -> String {
    let shown: String = version.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("{from} asks for the version `{shown}`, which is none; write one such as {example}")
}

/// What npm is asked for to have a Node that satisfies a range: itself when it is exact, else
/// the best major version with long-time support.
fn node_to_get(range: &str) -> Option<String> {
    if let Some([major, minor, patch]) = exact(range) {
        return Some(format!("{major}.{minor}.{patch}"));
    }
    let mut best = NODES.into_iter().chain((0..100).rev());
    Some(best.find(|major| satisfies(range, [*major, 999, 999]))?.to_string())
}

/// Whether a version is in one of npm's ranges: `^20.9 || >=22`, `18.x`, `>=18 <23`, `18 - 20`.
fn satisfies(range: &str, version: [u32; 3]) -> bool {
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
    let Some((low, written)) = numbers(operand) else { return false };
    // Of what is not written, every number will do.
    let same = |count: usize| version[..count] == low[..count];
    match operator {
        ">=" => version >= low,
        ">" => version > low && !same(written),
        "<" => version < low,
        "<=" => version <= low || same(written),
        "^" if low[0] > 0 || written < 2 => version >= low && same(1.min(written)),
        "^" | "~" => version >= low && same(2.min(written)),
        "" | "=" => same(written),
        _ => false,
    }
}

/// The numbers of `v22.11`, `22.x`, `*`, and how many are written: those before the first that
/// is none.
fn numbers(text: &str) -> Option<([u32; 3], usize)> {
    let text = text.trim().trim_start_matches(['v', '=']).split(['-', '+']).next()?;
    let (mut numbers, mut written) = ([0; 3], 0);
    for part in text.split('.').take(3) {
        match part.parse() {
            Ok(number) => numbers[written] = number,
            Err(_) if matches!(part, "x" | "X" | "*") => break,
            Err(_) => return None,
        }
        written += 1;
    }
    Some((numbers, written))
}

/// `v22.11.0` and nothing less.
fn exact(text: &str) -> Option<[u32; 3]> {
    numbers(text).filter(|(_, written)| *written == 3).map(|(numbers, _)| numbers)
}

/// `1.21` or `go1.21` as three numbers.
pub fn padded(text: &str) -> Option<[u32; 3]> {
    numbers(text.trim().trim_start_matches("go")).map(|(numbers, _)| numbers)
}

/// The Python that a repository asks for, as uv takes it: without the last number, which is
/// the machine's own where that has the same version.
///
/// # Errors
/// The sentence for what is no version.
pub fn python(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Option<Wanted>, String> {
    let wanted = machine
        .asked("PYTHON_VERSION")
        .or_else(|| file(repo, &[".python-version", "runtime.txt"]))
        .or_else(|| tool_files(repo, &["python"]))
        .or_else(|| stated(repo, "Pipfile", "requires", "python_version"))
        .or_else(|| stated(repo, "Pipfile", "requires", "python_full_version"))
        .or_else(|| stated(repo, "pyproject.toml", "project", "requires-python"));
    let Some(mut wanted) = wanted else { return Ok(None) };
    wanted.version = wanted.version.trim_start_matches("python-").replace(' ', "");
    if let Some([major, minor, _]) = exact(&wanted.version) {
        wanted.version = format!("{major}.{minor}");
    }
    let plain = |b: u8| b.is_ascii_digit() || b".,<>=!~*".contains(&b);
    let digits = wanted.version.bytes().any(|b| b.is_ascii_digit());
    if wanted.version.len() > MOST || !digits || !wanted.version.bytes().all(plain) {
        return Err(no_version(wanted.from, &wanted.version, "3.12"));
    }
    Ok(Some(wanted))
}

/// The Go that a `go.mod` asks for.
pub fn go(text: &str) -> Option<[u32; 3]> {
    let of = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    padded(of("toolchain go").or_else(|| of("go "))?)
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
            assert_eq!(node_to_get(range).as_deref(), Some(got), "{range}");
        }
    }
}
