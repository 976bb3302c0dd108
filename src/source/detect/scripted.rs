//! Ruby, PHP and Deno, whose programs run as they are.

use super::compiled::BIN;
use super::repo::Repo;
use super::tools::Tool;
use super::{Machine, Plan, need, node};

/// Serves PHP: its process manager behind a router of the app's own, both in its sandbox.
const PHP: &str = include_str!("serve-php.sh");

/// Ruby: Rails, or what Rack starts.
///
/// # Errors
/// The sentence for the owner.
pub fn ruby(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    need(machine, "bundle", "apt install ruby-bundler ruby-dev build-essential")?;
    let mut plan = Plan::found("Gemfile, a Ruby app");
    let mut build =
        "bundle config set --local without development:test && bundle install".to_owned();
    if repo.has("_config.yml") && repo.holds("Gemfile", "jekyll") {
        let mut plan = super::sites::built(plan, "_site");
        plan.build = Some(format!("{build} && JEKYLL_ENV=production bundle exec jekyll build"));
        return Ok(plan);
    }
    if repo.has("package.json") {
        build = format!("{} && {build}", node::tools(repo, machine, &mut plan)?);
    }
    if repo.has("bin/rails") {
        if ["sprockets", "propshaft"].iter().any(|gem| repo.holds("Gemfile.lock", gem)) {
            build += " && SECRET_KEY_BASE_DUMMY=1 RAILS_ENV=production bundle exec rails assets:precompile";
        }
        plan = plan.starts("bundle exec rails server -b 127.0.0.1 -p $PORT");
    } else if repo.has("config.ru") {
        let puma = repo.holds("Gemfile", "puma");
        plan = plan.starts(if puma {
            "bundle exec puma -b tcp://127.0.0.1:$PORT"
        } else {
            "bundle exec rackup --host 127.0.0.1 --port $PORT"
        });
    } else if let Some(file) = repo.first_of("app.rb server.rb main.rb") {
        plan = plan.starts(format!("bundle exec ruby {file} -o 127.0.0.1 -p $PORT"));
    }
    plan.build = Some(build);
    plan.otherwise = "found a Ruby app but neither config.ru, bin/rails nor app.rb: give a start command such as \
         `bundle exec ruby app.rb -p $PORT`"
        .to_owned();
    Ok(plan)
}

/// PHP: Laravel, Symfony, or plain files.
///
/// # Errors
/// The sentence for the owner.
pub fn php(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let mut plan = Plan::found(if repo.has("composer.json") {
        "composer.json, a PHP app"
    } else {
        "index.php, a PHP app"
    });
    if !["php-fpm", "php-fpm8.2", "php-fpm8.3", "php-fpm8.4"].iter().any(|fpm| machine.has(fpm)) {
        return Err(super::missing("PHP's process manager", "apt install php-fpm php-cli"));
    }
    let mut steps = Vec::new();
    if repo.has("composer.json") {
        need(machine, "composer", "apt install composer")?;
        steps.push(
            "composer install --no-dev --optimize-autoloader --no-interaction --no-progress"
                .to_owned(),
        );
    }
    if repo.has("package.json") {
        steps.push(node::tools(repo, machine, &mut plan)?);
    }
    let root =
        ["public/index.php", "web/index.php", "index.php"].into_iter().find(|file| repo.has(file));
    let root = root.map(|file| file.trim_end_matches("index.php").trim_end_matches('/'));
    steps.push(format!(
        "mkdir -p {BIN} && cat >{BIN}/serve-php <<'END'\n{PHP}END\nchmod +x {BIN}/serve-php"
    ));
    plan.build = Some(steps.join(" && "));
    plan.otherwise = "found a PHP app without an index.php at its top, in public or in web: give a start command".to_owned();
    Ok(match root {
        Some(root) => plan.starts(format!("serve-php {root}")),
        None => plan,
    })
}

/// What a Procfile's line of another platform's becomes.
#[must_use]
pub fn procfile_command(command: String) -> String {
    let mut words = command.split_whitespace();
    match words.next() {
        Some(word)
            if word.ends_with("heroku-php-apache2") || word.ends_with("heroku-php-nginx") =>
        {
            let root = words.next_back().unwrap_or_default().trim_end_matches('/');
            format!("serve-php {root}")
        }
        _ => command,
    }
}

/// Deno.
///
/// # Errors
/// The sentence for the owner.
pub fn deno(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let mut plan = Plan::found("deno.json, a Deno app");
    if !machine.has("deno") {
        need(machine, "npm", "apt install nodejs npm")?;
        plan.tools.push(Tool::deno());
    }
    let file = repo.first_of("deno.json deno.jsonc").unwrap_or("deno.json");
    let text = repo.text(file);
    let has_task = |name: &str| text.contains(&format!("\"{name}\":"));
    let main =
        repo.first_of("main.ts server.ts mod.ts index.ts app.ts src/main.ts main.js server.js");
    let cache = main.map_or_else(|| "deno install".to_owned(), |main| format!("deno cache {main}"));
    plan.build =
        Some(if has_task("build") { format!("{cache} && deno task build") } else { cache });
    plan.otherwise = "found deno.json without a start task, and neither main.ts nor server.ts: add the task `start`".to_owned();
    Ok(match main {
        _ if has_task("start") => plan.starts("deno task start"),
        Some(main) => plan.starts(format!("deno run -A {main}")),
        None => plan,
    })
}
