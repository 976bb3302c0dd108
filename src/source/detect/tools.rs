//! Tools that a repository asks for and the machine lacks: fetched into a directory that all
//! apps can read, by a sandbox of their own.

use crate::disk::layout::TOOLS_INSIDE as PLACE;

/// The uv that Python apps are built with, where the machine has none.
const UV: &str = "0.13.9";

/// Which of the packages for two kinds of processors.
const IS_ARM: bool = cfg!(target_arch = "aarch64");

/// A tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The name of its directory, which says all of its version.
    pub name: String,
    /// The shell commands that fill the working directory with it.
    pub install: String,
    /// Where its programs are in there.
    pub bin: String,
}

impl Tool {
    /// Packages of npm's.
    fn npm(name: String, packages: &str) -> Self {
        let install =
            format!("npm install --ignore-scripts --no-audit --no-fund --prefix . {packages}");
        Self { name, install, bin: "node_modules/.bin".to_owned() }
    }

    /// A package of npm's without a link to its program.
    fn unlinked(name: &str, package: &str, version: &str, below: &str) -> Self {
        let bin = format!("node_modules/{package}{below}");
        Self { bin, ..Self::npm(format!("{name}-{version}"), &format!("{package}@{version}")) }
    }

    /// Node, as `22` or `22.11.0`, with the npm that goes with it.
    pub fn node(version: &str) -> Self {
        let major = version.split('.').next().and_then(|m| m.parse().ok()).unwrap_or(0);
        let npm = match major {
            0..=15 => 6,
            16 | 17 => 8,
            18..=22 => 10,
            _ => 11,
        };
        let machine = if IS_ARM { "arm64" } else { "x64" };
        let packages = format!("node-linux-{machine}@{version} npm@{npm}");
        Self::npm(format!("node-{version}"), &packages)
    }

    /// A package manager, or another program that is a package of npm's.
    pub fn package(package: &str, version: &str) -> Self {
        let name = package.trim_start_matches('@').replace('/', "-");
        Self::npm(format!("{name}-{version}"), &format!("{package}@{version}"))
    }

    /// Bun, for processors without AVX2 too.
    pub fn bun(version: &str) -> Self {
        let machine = if IS_ARM { "aarch64" } else { "x64-baseline" };
        Self::unlinked("bun", &format!("@oven/bun-linux-{machine}"), version, "/bin")
    }

    /// Deno.
    pub fn deno() -> Self {
        let machine = if IS_ARM { "arm64" } else { "x64" };
        Self::unlinked("deno", &format!("@deno/linux-{machine}-glibc"), "2", "")
    }

    /// uv, which makes Python's environments.
    pub fn uv() -> Self {
        let install = format!("python3 -m venv . && bin/pip install --no-input uv=={UV}");
        Self { name: format!("uv-{UV}"), install, bin: "bin".to_owned() }
    }

    /// A Python that the machine does not have, by uv. Where it has one, nothing is fetched.
    pub fn python(version: &str) -> Self {
        let letter = |c| match c {
            '<' => 'l',
            '>' => 'g',
            '=' => 'e',
            '!' => 'n',
            '~' => 'a',
            '.' | '0'..='9' => c,
            _ => '_',
        };
        let name: String = version.chars().map(letter).collect();
        let install = format!(
            "uv python find --no-python-downloads '{version}' || uv python install '{version}'"
        );
        Self { name: format!("cpython-{name}"), install, bin: ".".to_owned() }
    }

    /// What mise installs.
    pub fn mise(tool: &str, version: &str) -> Self {
        let install = format!(
            "export MISE_NO_CONFIG=1 MISE_SAFE=1 MISE_YES=1 MISE_DATA_DIR=$PWD/data; \
             mise install {tool}@{version} && mv \"$(mise where {tool}@{version})\"/* ."
        );
        Self { name: format!("{tool}-{version}"), install, bin: "bin".to_owned() }
    }

    /// Its directory on `PATH`.
    pub fn path(&self) -> String {
        format!("{PLACE}/{}/{}", self.name, self.bin)
    }

    /// The script that installs it: whole, or not at all.
    pub fn script(&self) -> String {
        let Self { name, install, .. } = self;
        let unfinished = format!("{PLACE}/unfinished");
        format!(
            "set -e; umask 022; rm -rf {unfinished} {PLACE}/{name}; mkdir {unfinished}; \
             cd {unfinished}; {install}; \
             cd /; chmod -R a+rX {unfinished}; mv {unfinished} {PLACE}/{name}"
        )
    }
}
