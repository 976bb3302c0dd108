//! The owner's manual, as it is for the version that runs: for `server help TOPIC`, and for the
//! dashboard.

/// Every page, and the text of it as Markdown.
macro_rules! pages {
    ($($name:literal => $file:literal,)+) => {
        /// The names of the pages, by which `server help` knows them.
        pub const TOPICS: &[&str] = &[$($name),+];

        /// The page that is called so.
        #[must_use]
        pub fn page(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../", $file))),)+
                _ => None,
            }
        }
    };
}

pages! {
    "index" => "assets/manual/index.md",
    "install" => "assets/manual/install.md",
    "configuration" => "assets/manual/configuration.md",
    "domains-and-https" => "assets/manual/domains-and-https.md",
    "deploys" => "assets/manual/deploys.md",
    "what-runs" => "assets/manual/what-runs.md",
    "processes" => "assets/manual/processes.md",
    "commands" => "assets/manual/commands.md",
    "jobs" => "assets/manual/jobs.md",
    "limits" => "assets/manual/limits.md",
    "service" => "assets/manual/service.md",
    "backup" => "assets/manual/backup.md",
    "audit-and-keys" => "assets/manual/audit-and-keys.md",
    "recovery" => "assets/manual/recovery.md",
    "checks" => "assets/manual/checks.md",
    "update" => "assets/manual/update.md",
    "import" => "assets/manual/import.md",
    "troubleshooting" => "assets/manual/troubleshooting.md",
    "benchmarks" => "assets/manual/benchmarks.md",
    "README" => "README.md",
    "SECURITY" => "SECURITY.md",
    "CHANGELOG" => "CHANGELOG.md",
}
