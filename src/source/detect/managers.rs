//! Node's package managers: which one a repository uses, in which version, and its commands.

use super::Plan;
use super::repo::{Repo, is_plain};
use super::tools::Tool;
use super::versions::padded;
use serde_json::Value;

/// A package manager.
#[derive(PartialEq, Eq)]
struct Manager {
    name: &'static str,
    /// What has it, and in which version when nothing says; npm comes with Node.
    package: &'static str,
    usual: &'static str,
    /// Installs what the lock file says, and what `package.json` says.
    strict: &'static str,
    loose: &'static str,
    /// Removes what was for the build alone.
    prune: &'static str,
}

const NPM: Manager = Manager {
    name: "npm",
    package: "",
    usual: "",
    strict: "npm ci --include=dev --no-audit --no-fund",
    loose: "npm install --include=dev --no-audit --no-fund",
    prune: "npm prune --omit=dev --ignore-scripts --no-audit --no-fund",
};
const PNPM: Manager = Manager {
    name: "pnpm",
    package: "pnpm",
    usual: "9",
    strict: "pnpm install --frozen-lockfile --prod=false",
    loose: "pnpm install --no-frozen-lockfile --prod=false",
    prune: "CI=true pnpm prune --prod --ignore-scripts",
};
const YARN: Manager = Manager {
    name: "yarn",
    package: "yarn",
    usual: "1.22.22",
    strict: "yarn install --frozen-lockfile --production=false",
    loose: "yarn install --production=false",
    prune: "yarn install --frozen-lockfile --production=true --ignore-scripts",
};
const BERRY: Manager = Manager {
    name: "yarn",
    package: "@yarnpkg/cli-dist",
    usual: "4",
    strict: "yarn install --immutable",
    loose: "yarn install --no-immutable",
    prune: "",
};
const BUN: Manager = Manager {
    name: "bun",
    package: "bun",
    usual: "1",
    strict: "bun install --frozen-lockfile",
    loose: "bun install",
    prune: "",
};

/// A lock file: whose, which, and the manager's version that can read it.
type Lock = (&'static Manager, &'static str, Option<&'static str>);

/// The manager of a repository.
pub struct Packages {
    manager: &'static Manager,
    locked: bool,
    /// Whether it works at the repository's top, above the app.
    pub at_top: bool,
}

impl Packages {
    /// Chooses: `packageManager` first, then the lock file, of the app or the repository.
    ///
    /// # Errors
    /// The sentence for what is no version.
    pub fn of(repo: &Repo<'_>, package: &Value, plan: &mut Plan) -> Result<Self, String> {
        let here = lock(repo);
        let top = repo.top.filter(|_| here.is_none()).map(|tree| Repo { tree, top: None });
        let above = top.as_ref().and_then(lock);
        let at_top = above.is_some();
        let lock = here.or(above);
        let declared = |json: &Value| Some(json.get("packageManager")?.as_str()?.to_owned());
        let of_top = || declared(&top.as_ref()?.json("package.json").ok()?);
        let declared = declared(package).or_else(of_top).unwrap_or_default();
        let (name, version) = declared.split_once('@').unwrap_or_default();
        let version = version.split('+').next().filter(|version| !version.is_empty());
        if version.is_some_and(|version| padded(version).is_none() || !is_plain(version)) {
            let shown: String = declared.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(format!(
                "packageManager in package.json asks for `{shown}`, which is no version"
            ));
        }
        let manager = match (name, &lock) {
            ("pnpm", _) => &PNPM,
            ("bun", _) => &BUN,
            ("yarn", _) if version.is_some_and(|version| version.starts_with('1')) => &YARN,
            ("yarn", _) => &BERRY,
            ("npm", _) | (_, None) => &NPM,
            (_, Some((manager, ..))) => *manager,
        };
        let (own, others): (Vec<Lock>, Vec<_>) =
            lock.into_iter().partition(|(of, ..)| *of == manager);
        for (_, file, _) in others {
            let name = manager.name;
            plan.notes.push(format!("{file} is not used: package.json asks for {name}."));
        }
        let fits = own.first().and_then(|(.., version)| *version);
        let version = version.or(fits).unwrap_or(manager.usual);
        let tool = match manager.package {
            "" => None,
            "bun" => Some(Tool::bun(version)),
            "yarn" => Some(Tool::package("yarn", YARN.usual)),
            package => Some(Tool::package(package, version)),
        };
        if let Some(tool) = tool {
            plan.notes.push(format!("Packages are installed by {}.", tool.name));
            plan.tools.push(tool);
        }
        Ok(Self { manager, locked: !own.is_empty(), at_top })
    }

    /// Installs what the lock file says; a lock out of step with `package.json` is said, and
    /// no reason to fail. Builds need what is for development. `CI`: no manager asks then.
    #[must_use]
    pub fn install(&self) -> String {
        let Manager { strict, loose, .. } = self.manager;
        let install = if self.locked {
            let say = "echo 'The lock file did not do; once more without it.'";
            format!("{{ CI=true {strict} || {{ {say}; CI=true {loose}; }}; }}")
        } else {
            format!("CI=true {loose}")
        };
        if self.at_top { format!("(cd /app && {install})") } else { install }
    }

    /// Runs the script `build`.
    #[must_use]
    pub fn build(&self) -> String {
        format!("{} run build", self.manager.name)
    }

    /// Removes what was for the build alone, where that can be done.
    #[must_use]
    pub fn prune(&self) -> Option<&'static str> {
        Some(self.manager.prune).filter(|prune| !prune.is_empty() && !self.at_top)
    }
}

/// The lock file of a directory.
fn lock(repo: &Repo<'_>) -> Option<Lock> {
    let line = |file: &str, key: &str| {
        let head = repo.tree.read_start(file, 4096).unwrap_or_default();
        let found = head.lines().find_map(|line| line.trim().strip_prefix(key).map(str::to_owned));
        found.map(|value| value.trim().trim_matches(['\'', '"']).to_owned())
    };
    if repo.has("pnpm-lock.yaml") {
        let version = match line("pnpm-lock.yaml", "lockfileVersion:").as_deref() {
            Some("5.3") => "6",
            Some(v) if v.starts_with("5.") => "7",
            Some(v) if v.starts_with('6') => "8",
            _ => "9",
        };
        return Some((&PNPM, "pnpm-lock.yaml", Some(version)));
    }
    if let Some(file) = repo.first_of("bun.lock bun.lockb") {
        return Some((&BUN, file, None));
    }
    if repo.has("yarn.lock") {
        // Yarn 1 and its successors tell each other's lock files apart by this section.
        if line("yarn.lock", "__metadata:").is_none() {
            return Some((&YARN, "yarn.lock", None));
        }
        let version = match line("yarn.lock", "version:").as_deref() {
            Some("4" | "5") => "2",
            Some("6") => "3",
            _ => "4",
        };
        return Some((&BERRY, "yarn.lock", Some(version)));
    }
    let file = repo.first_of("package-lock.json npm-shrinkwrap.json")?;
    Some((&NPM, file, None))
}
