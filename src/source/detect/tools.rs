//! Tools that a repository asks for and the machine lacks: fetched into a directory that all
//! apps can read, by a sandbox of their own.

use crate::disk::layout::TOOLS_INSIDE as PLACE;
use std::env::consts::ARCH;

/// The uv that Python apps are built with, where the machine has none.
const UV: &str = "0.13.9";

/// A tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The name of its directory, which says all of its version.
    pub name: String,
    /// The shell commands that fill the working directory with it.
    pub install: String,
    /// Where its programs are in there.
    pub bin: &'static str,
}

impl Tool {
    /// Packages of npm's.
    fn npm(name: String, packages: &str, bin: &'static str) -> Self {
        let install =
            format!("npm install --ignore-scripts --no-audit --no-fund --prefix . {packages}");
        Self { name, install, bin }
    }

    /// Node, as `22` or `22.11.0`, with the npm that goes with it.
    #[must_use]
    pub fn node(version: &str) -> Self {
        let major = version.split('.').next().and_then(|m| m.parse().ok()).unwrap_or(0);
        let npm = match major {
            0..=15 => 6,
            16 | 17 => 8,
            18..=22 => 10,
            _ => 11,
        };
        let machine = if ARCH == "aarch64" { "arm64" } else { "x64" };
        let packages = format!("node-linux-{machine}@{version} npm@{npm}");
        Self::npm(format!("node-{version}"), &packages, "node_modules/.bin")
    }

    /// A package manager, or another program that is a package of npm's.
    #[must_use]
    pub fn package(package: &str, version: &str) -> Self {
        let name = package.trim_start_matches('@').replace('/', "-");
        Self::npm(format!("{name}-{version}"), &format!("{package}@{version}"), "node_modules/.bin")
    }

    /// Bun. It is packed without a link to its program.
    #[must_use]
    pub fn bun(version: &str) -> Self {
        if ARCH == "aarch64" {
            let bin = "node_modules/@oven/bun-linux-aarch64/bin";
            return Self::npm(
                format!("bun-{version}"),
                &format!("@oven/bun-linux-aarch64@{version}"),
                bin,
            );
        }
        // For processors without AVX2 too.
        let bin = "node_modules/@oven/bun-linux-x64-baseline/bin";
        Self::npm(format!("bun-{version}"), &format!("@oven/bun-linux-x64-baseline@{version}"), bin)
    }

    /// Deno.
    #[must_use]
    pub fn deno() -> Self {
        let (package, bin) = match ARCH {
            "aarch64" => ("@deno/linux-arm64-glibc@2", "node_modules/@deno/linux-arm64-glibc"),
            _ => ("@deno/linux-x64-glibc@2", "node_modules/@deno/linux-x64-glibc"),
        };
        Self::npm("deno-2".to_owned(), package, bin)
    }

    /// uv, which makes Python's environments.
    #[must_use]
    pub fn uv() -> Self {
        let install = format!("python3 -m venv . && bin/pip install --no-input uv=={UV}");
        Self { name: format!("uv-{UV}"), install, bin: "bin" }
    }

    /// A Python that the machine does not have, by uv. Where it has one, nothing is fetched.
    #[must_use]
    pub fn python(version: &str) -> Self {
        let name: String = version
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' })
            .collect();
        let install = format!(
            "uv python find --no-python-downloads '{version}' || uv python install '{version}'"
        );
        Self { name: format!("python-{name}"), install, bin: "." }
    }

    /// What mise installs.
    #[must_use]
    pub fn mise(tool: &str, version: &str) -> Self {
        let install = format!(
            "export MISE_NO_CONFIG=1 MISE_SAFE=1 MISE_YES=1 MISE_DATA_DIR=$PWD/data; \
             mise install {tool}@{version} && mv \"$(mise where {tool}@{version})\"/* ."
        );
        Self { name: format!("{tool}-{version}"), install, bin: "bin" }
    }

    /// Its directory on `PATH`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{PLACE}/{}/{}", self.name, self.bin)
    }

    /// The script that installs it: whole, or not at all.
    #[must_use]
    pub fn script(&self) -> String {
        let Self { name, install, .. } = self;
        format!(
            "set -e; umask 022; rm -rf {PLACE}/unfinished {PLACE}/{name}; mkdir {PLACE}/unfinished; cd {PLACE}/unfinished; {install}; \
             cd /; chmod -R a+rX {PLACE}/unfinished; mv {PLACE}/unfinished {PLACE}/{name}"
        )
    }
}
