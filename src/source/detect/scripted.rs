//! Ruby, PHP and Deno, whose programs run as they are.

use super::compiled::BIN;
use super::repo::{Repo, parent};
use super::tools::Tool;
use super::{Machine, Plan, Serve, missing, node};

/// Serves PHP: its process manager behind a router of the app's own, both in its sandbox.
const PHP: &str = include_str!("serve-php.sh");

/// Ruby: Rails, or what Rack starts.
///
/// # Errors
/// The sentence for the owner.
pub fn ruby(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    machine.need("bundle", "apt install ruby-bundler ruby-dev build-essential")?;
    let mut plan = Plan::found("Gemfile, a Ruby app");
    let (gems, locked) = (repo.text("Gemfile"), repo.text("Gemfile.lock"));
    let is_jekyll = repo.has("_config.yml") && gems.contains("jekyll");
    if !is_jekyll {
        node::assets(repo, machine, &mut plan)?;
    }
    plan = plan.builds("bundle config set --local without development:test && bundle install");
    if is_jekyll {
        plan = plan.builds("JEKYLL_ENV=production bundle exec jekyll build").publishes("_site");
    } else if repo.has("bin/rails") {
        if locked.contains("sprockets") || locked.contains("propshaft") {
            let environment = "SECRET_KEY_BASE_DUMMY=1 RAILS_ENV=production";
            plan = plan.builds(format!("{environment} bundle exec rails assets:precompile"));
        }
        plan = plan.starts("bundle exec rails server -b 127.0.0.1 -p $PORT");
    } else if repo.has("config.ru") && gems.contains("puma") {
        plan = plan.starts("bundle exec puma -b tcp://127.0.0.1:$PORT");
    } else if repo.has("config.ru") {
        plan = plan.starts("bundle exec rackup --host 127.0.0.1 --port $PORT");
    } else if let Some(file) = repo.first_of("app.rb server.rb main.rb") {
        plan = plan.starts(format!("bundle exec ruby {file} -o 127.0.0.1 -p $PORT"));
    }
    Ok(plan.otherwise(
        "found a Ruby app but neither config.ru, bin/rails nor app.rb: give a start command such \
         as `bundle exec ruby app.rb -p $PORT`",
    ))
}

/// PHP: Laravel, Symfony, or plain files.
///
/// # Errors
/// The sentence for the owner.
pub fn php(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let sign = repo.first_of("composer.json index.php").unwrap_or("index.php");
    let mut plan = Plan::found(&format!("{sign}, a PHP app"));
    if !["php-fpm", "php-fpm8.2", "php-fpm8.3", "php-fpm8.4"].iter().any(|fpm| machine.has(fpm)) {
        return Err(missing("PHP's process manager", "apt install php-fpm php-cli"));
    }
    if repo.has("composer.json") {
        machine.need("composer", "apt install composer")?;
        let options = "--no-dev --optimize-autoloader --no-interaction --no-progress";
        plan = plan.builds(format!("composer install {options}"));
    }
    node::assets(repo, machine, &mut plan)?;
    let page = repo.first_of("public/index.php web/index.php index.php");
    plan.serve.extend(page.map(|page| Serve::run(format!("serve-php {}", parent(page)))));
    let server = format!(
        "mkdir -p {BIN} && cat >{BIN}/serve-php <<'END'\n{PHP}END\nchmod +x {BIN}/serve-php"
    );
    Ok(plan.builds(server).otherwise(
        "found a PHP app without an index.php at its top, in public or in web: give a start \
         command",
    ))
}

/// What a Procfile's line for the web starts, also where it is another platform's.
pub fn procfile_command(command: String) -> Serve {
    let (program, rest) = command.split_once(' ').unwrap_or((&command, ""));
    if !program.ends_with("heroku-php-apache2") && !program.ends_with("heroku-php-nginx") {
        return Serve::run(command);
    }
    let root = rest.split_whitespace().next_back().unwrap_or_default();
    Serve::run(format!("serve-php {}", root.trim_end_matches('/')))
}

/// Deno.
///
/// # Errors
/// The sentence for the owner.
pub fn deno(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let mut plan = Plan::found("deno.json, a Deno app");
    if !machine.has("deno") {
        machine.need("npm", "apt install nodejs npm")?;
        plan.tools.push(Tool::deno());
    }
    let text = repo.text(repo.first_of("deno.json deno.jsonc").unwrap_or_default());
    let has_task = |name: &str| text.contains(&format!("\"{name}\":"));
    let main =
        repo.first_of("main.ts server.ts mod.ts index.ts app.ts src/main.ts main.js server.js");
    plan = plan.builds(match main {
        Some(main) => format!("deno cache {main}"),
        None => "deno install".to_owned(),
    });
    if has_task("build") {
        plan = plan.builds("deno task build");
    }
    if has_task("start") {
        plan = plan.starts("deno task start");
    } else if let Some(main) = main {
        plan = plan.starts(format!("deno run -A {main}"));
    }
    Ok(plan.otherwise(
        "found deno.json without a start task, and neither main.ts nor server.ts: add the task \
         `start`",
    ))
}
