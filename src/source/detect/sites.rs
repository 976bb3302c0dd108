//! Sites that are files: written as such, or made by a generator.

use super::repo::{Repo, entry, is_plain, join};
use super::{Machine, Plan, Serve};

/// Hugo or Zola.
///
/// # Errors
/// The sentence for the owner.
pub fn generated(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let is_zola = entry(&repo.text("config.toml"), "", "base_url").is_some();
    if is_zola && !repo.find("templates/*").is_empty() {
        machine.need("zola", "snap install zola")?;
        let plan = Plan::found("config.toml, a site of Zola's").publishes("public");
        return Ok(plan.builds("zola build --base-url /"));
    }
    let configures = |file: &&str| repo.text(file).to_ascii_lowercase().contains("baseurl");
    let is_hugo = repo.first_of("hugo.toml hugo.yaml hugo.yml hugo.json").is_some()
        || repo.lists("archetypes themes")
        || ["config.toml", "config.yaml", "config.yml"].iter().any(configures);
    if !is_hugo {
        return Ok(Plan::default());
    }
    machine.need("hugo", "apt install hugo")?;
    let plan = Plan::found("a site of Hugo's").publishes("public");
    Ok(plan.builds("hugo --minify --cacheDir /cache/hugo --baseURL \"${APP_URL:-/}\""))
}

/// Jekyll, without a Gemfile.
///
/// # Errors
/// The sentence for the owner.
pub fn jekyll(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    if !repo.lists("_posts _layouts _includes") {
        return Ok(Plan::default());
    }
    machine.need("jekyll", "apt install jekyll")?;
    let plan = Plan::found("_config.yml, a site of Jekyll's").publishes("_site");
    Ok(plan.builds("JEKYLL_ENV=production jekyll build"))
}

/// Files as they are.
///
/// # Errors
/// None.
pub fn plain(repo: &Repo<'_>, _: &Machine<'_>) -> Result<Plan, String> {
    let root = entry(&repo.text("Staticfile").replace(':', "="), "", "root");
    let root = root.map(|dir| dir.trim_matches('/').to_owned()).filter(|dir| is_plain(dir));
    let dirs = root.into_iter().chain(["", "public", "docs"].map(str::to_owned));
    let mut plan = Plan::found("index.html and nothing to run: a static site");
    plan.serve = dirs.filter(|dir| repo.has(&join(dir, "index.html"))).map(Serve::Files).collect();
    Ok(plan.otherwise("found no index.html"))
}
