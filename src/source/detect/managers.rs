//! Node's package managers: which one a repository uses, in which version, and its commands.

use super::Plan;
use super::repo::{Repo, is_plain};
use super::tools::Tool;
use super::versions::{no_version, padded};
use serde_json::Value;

/// A package manager.
#[derive(PartialEq, Eq)]
struct Manager {
    name: &'static str,
    /// The package of npm's that it is; npm itself comes with Node.
    package: &'static str,
    /// Installs what the lock file says, and what `package.json` says.
    strict: &'static str,
    loose: &'static str,
    /// Removes what was for the build alone.
    prune: &'static str,
}

const NPM: Manager = Manager {
    name: "npm",
    package: "",
    strict: "npm ci --include=dev --no-audit --no-fund",
    loose: "npm install --include=dev --no-audit --no-fund",
    prune: "npm prune --omit=dev --ignore-scripts --no-audit --no-fund",
};
const PNPM: Manager = Manager {
    name: "pnpm",
    package: "pnpm",
    strict: "pnpm install --frozen-lockfile --prod=false",
    loose: "pnpm install --no-frozen-lockfile --prod=false",
    prune: "CI=true pnpm prune --prod --ignore-scripts",
};
const YARN: Manager = Manager {
    name: "yarn",
    package: "yarn",
    // As the others, it only says so where a package wants another Node.
    strict: "yarn install --frozen-lockfile --production=false --ignore-engines",
    loose: "yarn install --production=false --ignore-engines",
    prune: "yarn install --frozen-lockfile --production=true --ignore-engines --ignore-scripts",
};
const BERRY: Manager = Manager {
    name: "yarn",
    package: "@yarnpkg/cli-dist",
    strict: "yarn install --immutable",
    loose: "yarn install --no-immutable",
    prune: "",
};
const BUN: Manager = Manager {
    name: "bun",
    package: "bun",
    strict: "bun install --frozen-lockfile",
    loose: "bun install",
    prune: "",
};

/// The last Yarn of the first kind.
const YARN_1: &str = "1.22.22";

/// A lock file, and its manager in the version that can read it.
struct Lock {
    file: &'static str,
    manager: &'static Manager,
    version: &'static str,
}

/// How the packages of a repository are managed, as commands.
pub struct Packages {
    /// Installs all, for builds need what is for development.
    pub install: String,
    /// Runs the script `build`.
    pub build: String,
    /// Removes what was for the build alone; empty where that cannot be done.
    pub prune: &'static str,
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
        let version = version.split('+').next().unwrap_or_default();
        if !name.is_empty() && (padded(version).is_none() || !is_plain(version)) {
            let from = "packageManager in package.json";
            return Err(no_version(from, &declared, "pnpm@9.15.9"));
        }
        let manager = match (name, &lock) {
            ("pnpm", _) => &PNPM,
            ("bun", _) => &BUN,
            ("yarn", _) if version.starts_with('1') => &YARN,
            ("yarn", _) => &BERRY,
            ("npm", _) | (_, None) => &NPM,
            (_, Some(lock)) => lock.manager,
        };
        let own = lock.as_ref().filter(|lock| lock.manager == manager);
        if let (Some(Lock { file, .. }), None) = (&lock, own) {
            let name = manager.name;
            plan.notes.push(format!("{file} is not used: package.json asks for {name}."));
        }
        let version = match own {
            Some(lock) if name != manager.name => lock.version,
            _ => version,
        };
        let tool = match manager.package {
            "" => None,
            "bun" => Some(Tool::bun(version)),
            "yarn" => Some(Tool::package("yarn", YARN_1)),
            package => Some(Tool::package(package, version)),
        };
        if let Some(tool) = tool {
            plan.notes.push(format!("Packages are installed by {}.", tool.name));
            plan.tools.push(tool);
        }
        let mut install = manager.install(own.is_some());
        if at_top {
            install = format!("(cd /app && {install})");
        }
        let prune = if at_top { "" } else { manager.prune };
        Ok(Self { install, build: format!("{} run build", manager.name), prune })
    }
}

impl Manager {
    /// Installs what the lock file says; a lock out of step with `package.json` is said, and
    /// no reason to fail. `CI`: no manager asks then.
    fn install(&self, locked: bool) -> String {
        let Self { strict, loose, .. } = self;
        if !locked {
            return format!("CI=true {loose}");
        }
        let say = "echo 'The lock file did not do; once more without it.'";
        format!("{{ CI=true {strict} || {{ {say}; CI=true {loose}; }}; }}")
    }
}

/// The lock file of a directory.
fn lock(repo: &Repo<'_>) -> Option<Lock> {
    let known = "pnpm-lock.yaml bun.lock bun.lockb yarn.lock package-lock.json npm-shrinkwrap.json";
    let file = repo.first_of(known)?;
    let head = repo.tree.read_start(file, 4096).unwrap_or_default();
    let line = |key: &str| {
        let value = head.lines().find_map(|line| line.trim().strip_prefix(key));
        value.map(|value| value.trim().trim_matches(['\'', '"']))
    };
    let (manager, version) = match file {
        "pnpm-lock.yaml" => match line("lockfileVersion:") {
            Some("5.3") => (&PNPM, "6"),
            Some(v) if v.starts_with("5.") => (&PNPM, "7"),
            Some(v) if v.starts_with('6') => (&PNPM, "8"),
            // A file for its settings alone, which the one before refuses.
            _ if settings_alone(repo) => (&PNPM, "10"),
            _ => (&PNPM, "9"),
        },
        // Yarn 1 and its successors tell each other's lock files apart by this section.
        "yarn.lock" if line("__metadata:").is_none() => (&YARN, YARN_1),
        "yarn.lock" => match line("version:") {
            Some("4" | "5") => (&BERRY, "2"),
            Some("6") => (&BERRY, "3"),
            _ => (&BERRY, "4"),
        },
        "bun.lock" | "bun.lockb" => (&BUN, "1"),
        _ => (&NPM, ""),
    };
    Some(Lock { file, manager, version })
}

/// Whether what was the list of a workspace's packages for pnpm lists none.
fn settings_alone(repo: &Repo<'_>) -> bool {
    let settings = repo.tree.read_start("pnpm-workspace.yaml", 64 << 10);
    settings.is_some_and(|text| !text.lines().any(|line| line.starts_with("packages:")))
}
