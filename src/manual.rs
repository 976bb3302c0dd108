//! The owner's manual, as it is for the version that runs: for `server help TOPIC`, and for the
//! dashboard.

/// Every page: the name by which `server help` knows it, and its text as Markdown.
pub const PAGES: [(&str, &str); 22] = [
    ("index", include_str!("../assets/manual/index.md")),
    ("install", include_str!("../assets/manual/install.md")),
    ("configuration", include_str!("../assets/manual/configuration.md")),
    ("domains-and-https", include_str!("../assets/manual/domains-and-https.md")),
    ("deploys", include_str!("../assets/manual/deploys.md")),
    ("what-runs", include_str!("../assets/manual/what-runs.md")),
    ("processes", include_str!("../assets/manual/processes.md")),
    ("commands", include_str!("../assets/manual/commands.md")),
    ("jobs", include_str!("../assets/manual/jobs.md")),
    ("limits", include_str!("../assets/manual/limits.md")),
    ("service", include_str!("../assets/manual/service.md")),
    ("backup", include_str!("../assets/manual/backup.md")),
    ("audit-and-keys", include_str!("../assets/manual/audit-and-keys.md")),
    ("recovery", include_str!("../assets/manual/recovery.md")),
    ("checks", include_str!("../assets/manual/checks.md")),
    ("update", include_str!("../assets/manual/update.md")),
    ("import", include_str!("../assets/manual/import.md")),
    ("troubleshooting", include_str!("../assets/manual/troubleshooting.md")),
    ("benchmarks", include_str!("../assets/manual/benchmarks.md")),
    ("README", include_str!("../README.md")),
    ("SECURITY", include_str!("../SECURITY.md")),
    ("CHANGELOG", include_str!("../CHANGELOG.md")),
];

/// The page that is called so.
#[must_use]
pub fn page(name: &str) -> Option<&'static str> {
    PAGES.iter().find(|(topic, _)| *topic == name).map(|(_, text)| *text)
}
