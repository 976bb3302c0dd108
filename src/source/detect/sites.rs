//! Sites that are files: written as such, or made by a generator.

use super::repo::{Repo, entry};
use super::{Candidate, Machine, Plan, Serve, missing, need};

/// Publishes a directory that the build has made.
#[must_use]
pub fn built(mut plan: Plan, dir: &str) -> Plan {
    let files = Serve::Files { dir: dir.to_owned(), spa: false };
    plan.serve = vec![Candidate::when(&format!("{dir}/index.html"), files)];
    plan
}

/// Hugo or Zola.
///
/// # Errors
/// The sentence for the owner.
pub fn generated(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let text = repo.text("config.toml");
    let is_zola = entry(&text, "", "base_url").is_some() && !repo.find("templates/*").is_empty();
    let names = repo.tree.names("", 1000);
    let is_hugo = !repo.find("hugo.*").is_empty()
        || names.iter().any(|name| name == "archetypes" || name == "themes")
        || ["config.toml", "config.yaml", "config.yml"]
            .iter()
            .any(|file| repo.text(file).to_ascii_lowercase().contains("baseurl"));
    if is_zola {
        need(machine, "zola", "snap install zola")?;
        let mut plan = built(Plan::found("config.toml, a site of Zola's"), "public");
        plan.build = Some("zola build --base-url /".to_owned());
        return Ok(plan);
    }
    if !is_hugo {
        return Ok(Plan::default());
    }
    if !machine.has("hugo") {
        return Err(missing("hugo", "apt install hugo"));
    }
    let mut plan = built(Plan::found("a site of Hugo's"), "public");
    plan.build =
        Some("hugo --minify --cacheDir /cache/hugo --baseURL \"${APP_URL:-/}\"".to_owned());
    Ok(plan)
}

/// Jekyll, without a Gemfile.
///
/// # Errors
/// The sentence for the owner.
pub fn jekyll(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    if !repo
        .tree
        .names("", 1000)
        .iter()
        .any(|name| name == "_posts" || name == "_layouts" || name == "_includes")
    {
        return Ok(Plan::default());
    }
    need(machine, "jekyll", "apt install jekyll")?;
    let mut plan = built(Plan::found("_config.yml, a site of Jekyll's"), "_site");
    plan.build = Some("JEKYLL_ENV=production jekyll build".to_owned());
    Ok(plan)
}

/// Files as they are.
///
/// # Errors
/// None.
pub fn plain(repo: &Repo<'_>, _: &Machine<'_>) -> Result<Plan, String> {
    let root = entry(&repo.text("Staticfile").replace(':', "="), "", "root");
    let root =
        root.map(|dir| dir.trim_matches('/').to_owned()).filter(|dir| super::repo::is_plain(dir));
    let dirs = root.into_iter().chain(["", "public", "docs"].map(str::to_owned));
    let at = |dir: &String| {
        if dir.is_empty() { "index.html".to_owned() } else { format!("{dir}/index.html") }
    };
    let mut plan = Plan::found("index.html and nothing to run: a static site");
    plan.serve = dirs
        .map(|dir| Candidate::when(&at(&dir), Serve::Files { dir: dir.clone(), spa: false }))
        .collect();
    plan.serve.retain(|candidate| repo.has(&candidate.needs));
    plan.otherwise = "found no index.html".to_owned();
    Ok(plan)
}
