//! Node.js: package managers, builds, and what runs: a server, or the files that a build leaves.

use super::managers::Packages;
use super::repo::{Repo, is_plain};
use super::tools::Tool;
use super::versions::{node_to_get, padded, satisfies};
use super::{Candidate, Machine, Plan, Serve, versions};
use serde_json::Value;

/// Programs that show a developer his files, run several of those, or serve a directory: their
/// app is files.
const FILE_SERVERS: &str = "\
    concurrently npm-run-all run-p run-s turbo lerna \
    vite react-scripts ng vue-cli-service eleventy @11ty/eleventy browser-sync webpack \
    webpack-dev-server parcel gatsby docusaurus live-server http-server serve lite-server sirv expo \
    vitepress hexo snowpack rollup gulp quasar nx";

/// Frameworks whose build may leave a server: the package, the file, how it is started.
const SERVERS: &str = "\
next .next/BUILD_ID next start -H 127.0.0.1
nuxt .output/server/index.mjs node .output/server/index.mjs
nitropack .output/server/index.mjs node .output/server/index.mjs
vinxi .output/server/index.mjs node .output/server/index.mjs
@tanstack/react-start .output/server/index.mjs node .output/server/index.mjs
@sveltejs/kit build/handler.js node build
astro dist/server/entry.mjs node dist/server/entry.mjs
@remix-run/serve build/server/index.js remix-serve ./build/server/index.js
@react-router/serve build/server/index.js react-router-serve ./build/server/index.js
@nestjs/core dist/main.js node dist/main.js
@nestjs/core dist/src/main.js node dist/src/main.js";

/// Where builds leave their files, the surest first.
const BUILT: &str = "\
    out build/client .output/public dist/*/browser dist/spa dist/client dist build _site \
    docs/.vitepress/dist .vitepress/dist src/.vuepress/dist docs/.vuepress/dist dist/* www public";

/// Where compilers leave programs.
const COMPILED: &str = "\
    dist/main.js dist/server.js dist/index.js dist/app.js dist/src/index.js build/index.js \
    build/server.js";

/// Tools whose page shows other paths itself.
const SINGLE_PAGE: &str = "\
    vite react-scripts @angular/core @vue/cli-service preact-cli quasar expo parcel";
/// Tools that write a page for each path, though they may use one of those.
const MANY_PAGES: &str = "\
    astro vitepress @docusaurus/core gatsby @11ty/eleventy next hexo vuepress nuxt";

/// `package.json`, and what belongs to it.
struct Package<'a> {
    repo: &'a Repo<'a>,
    json: Value,
}

/// The plan for a directory with a `package.json`.
///
/// # Errors
/// The sentence for the owner.
pub fn plan(repo: &Repo<'_>, machine: &Machine<'_>) -> Result<Plan, String> {
    let package = Package { repo, json: repo.json("package.json")? };
    if !package.json.is_object() {
        return Err("package.json holds no JSON object".to_owned());
    }
    let mut plan = Plan::found("package.json, a Node.js app");
    package.node(machine, &mut plan)?;
    let packages = Packages::of(repo, &package.json, &mut plan)?;
    let start = package.script("start").map(|text| package.unwrap(&text, 0));
    let mut steps = vec![packages.install()];
    let build = package.script("build").is_some();
    if package.uses("prisma") && package.uses("@prisma/client") {
        steps.push("prisma generate".to_owned());
    }
    if build {
        steps.push(package.build_environment() + &packages.build());
    }
    if let Some(prune) = packages.prune()
        && package.json.get("devDependencies").is_some()
        && start.as_ref().is_some_and(|start| runs_one_file(start))
    {
        steps.push(prune.to_owned());
    }
    plan.build = Some(steps.join(" && "));
    plan.otherwise = package.nothing_to_start();
    // Of several apps below, none is meant more than another.
    let is_several = package.json.get("workspaces").is_some() || repo.has("pnpm-workspace.yaml");
    if start.is_some() || !is_several || super::apps_below(repo).is_empty() {
        plan.serve = package.candidates(start, build);
    }
    Ok(plan)
}

/// Node and a package manager alone, for a build command of the owner's, or another language's
/// assets.
///
/// # Errors
/// The sentence for the owner.
pub fn tools(repo: &Repo<'_>, machine: &Machine<'_>, plan: &mut Plan) -> Result<String, String> {
    let package = Package { repo, json: repo.json("package.json")? };
    package.node(machine, plan)?;
    let packages = Packages::of(repo, &package.json, plan)?;
    let mut steps = packages.install();
    if package.script("build").is_some() {
        steps += &format!(" && {}", packages.build());
    }
    Ok(steps)
}

impl Package<'_> {
    fn script(&self, name: &str) -> Option<String> {
        let text = self.json.pointer("/scripts")?.get(name)?.as_str()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn uses(&self, name: &str) -> bool {
        let in_table = |table| self.json.get(table).is_some_and(|t: &Value| t.get(name).is_some());
        in_table("dependencies") || in_table("devDependencies")
    }

    fn uses_any(&self, names: &str) -> bool {
        names.split(' ').any(|name| self.uses(name))
    }

    /// Chooses a Node: the machine's where that will do.
    fn node(&self, machine: &Machine<'_>, plan: &mut Plan) -> Result<(), String> {
        if !machine.has("npm") {
            return Err(super::missing("npm", "apt install nodejs npm"));
        }
        let wanted = versions::node(self.repo, &self.json)?;
        let own = machine.version("node").as_deref().and_then(padded);
        if own.is_some_and(|own| satisfies(&wanted.version, own)) {
            return Ok(());
        }
        let version = node_to_get(&wanted.version);
        let why = match wanted.from.as_str() {
            "" => "newer than the machine's".to_owned(),
            file => format!("from {file}"),
        };
        plan.notes.push(format!("Node {version} ({why})."));
        plan.tools.push(Tool::node(&version));
        Ok(())
    }

    /// What `npm start` would run, without npm: it would take 30 MB beside each app, and its
    /// signals.
    fn unwrap(&self, text: &str, depth: usize) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let inner = match words[..] {
            ["npm" | "yarn" | "pnpm" | "bun", "run", name] | ["yarn" | "pnpm" | "npm", name] => {
                self.script(name)
            }
            ["nodemon", file] if file.ends_with("js") => return format!("node {file}"),
            _ => None,
        };
        let before = if depth == 0 { self.script("prestart") } else { None };
        let start = match inner {
            Some(inner) if depth < 3 => self.unwrap(&inner, depth + 1),
            _ => text.to_owned(),
        };
        match before.filter(|before| !before.contains("build")) {
            Some(before) => format!("{before} && {start}"),
            None => start,
        }
    }

    /// What the release may turn out to be, the likeliest first.
    fn candidates(&self, start: Option<String>, build: bool) -> Vec<Candidate> {
        let spa = self.uses_any(SINGLE_PAGE) && !self.uses_any(MANY_PAGES);
        let files = |dir: &str| {
            let serve = Serve::Files { dir: dir.to_owned(), spa };
            Candidate::when(&join(dir, "index.html"), serve)
        };
        let mut all: Vec<_> =
            start.as_deref().and_then(served_directory).map(files).into_iter().collect();
        for row in SERVERS.lines().filter(|_| build) {
            let mut words = row.splitn(3, ' ');
            if let (Some(package), Some(file), Some(command)) =
                (words.next(), words.next(), words.next())
                && self.uses(package)
            {
                all.push(Candidate::when(file, Serve::Process(command.to_owned())));
            }
        }
        let start = start.filter(|start| !serves_files(start));
        // A framework's own start command, when its build left files, is for a server that is not there.
        let is_server = start.filter(|start| {
            !has_word(MANY_PAGES, program(start).first().copied().unwrap_or_default())
        });
        all.extend(is_server.map(|start| Candidate::always(Serve::Process(start))));
        let committed = self.repo.has("public/index.html");
        if build {
            let dirs = BUILT.split(' ').filter(|dir| *dir != "public" || !committed);
            all.extend(dirs.map(files));
        }
        let main =
            self.json.get("main").and_then(Value::as_str).map(|main| main.trim_start_matches("./"));
        let main =
            main.filter(|main| is_plain(main) && (main.ends_with("js") || main.ends_with("cjs")));
        let usual =
            "server.js app.js index.js server.mjs index.mjs src/server.js src/index.js src/app.js";
        for file in main.into_iter().chain(usual.split(' ')).filter(|file| self.repo.has(file)) {
            all.push(Candidate::always(Serve::Process(format!("node {file}"))));
        }
        if build {
            let compiled = |file| Candidate::when(file, Serve::Process(format!("node {file}")));
            all.extend(COMPILED.split(' ').map(compiled));
        } else {
            let plain = ["", "public", "dist", "docs"]
                .into_iter()
                .filter(|dir| self.repo.has(&join(dir, "index.html")));
            all.extend(plain.map(files));
        }
        all
    }

    /// What some builds go by, and nothing else tells them.
    fn build_environment(&self) -> String {
        // Its adapter-auto then makes a server for Node instead of failing.
        let kit = self.uses("@sveltejs/kit") && self.uses("@sveltejs/adapter-auto");
        if kit { "GCP_BUILDPACKS=1 ".to_owned() } else { String::new() }
    }

    fn nothing_to_start(&self) -> String {
        let apps = super::apps_below(self.repo);
        if !apps.is_empty() {
            return super::choose_a_directory(&apps);
        }
        "found package.json without a start or build script, and neither its main file, server.js, app.js, \
         index.js nor index.html: add a start script, or give a start command"
            .to_owned()
    }
}

fn join(dir: &str, file: &str) -> String {
    if dir.is_empty() { file.to_owned() } else { format!("{dir}/{file}") }
}

/// The words of a script's last command that are a program and its arguments: what comes
/// before prepares it.
fn program(script: &str) -> Vec<&str> {
    let last = script.rsplit("&&").next().unwrap_or_default();
    let last = last.rsplit(';').next().unwrap_or_default();
    let before =
        ["cross-env", "npx", "pnpm", "yarn", "bunx", "exec", "-y", "--yes", "dotenv", "--"];
    let skipped = |word: &&str| word.contains('=') || before.contains(word);
    last.split_whitespace().skip_while(skipped).collect()
}

/// The directory that a program for files is told to serve.
fn served_directory(script: &str) -> Option<&str> {
    let words = program(script);
    let servers = ["serve", "http-server", "live-server", "sirv", "lite-server"];
    let mut rest =
        words.iter().skip(1).filter(|_| words.first().is_some_and(|w| servers.contains(w)));
    let dir = rest.find(|w| is_plain(w) && !w.bytes().all(|b| b.is_ascii_digit()))?;
    Some(dir.trim_start_matches("./").trim_end_matches('/'))
}

/// Whether a start command is Node with one file, which needs nothing that is for development.
fn runs_one_file(start: &str) -> bool {
    let words = program(start);
    words.len() == 2 && words[0] == "node" && is_plain(words[1])
}

fn has_word(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

/// Whether a start script is one of a developer's, or serves a directory.
fn serves_files(script: &str) -> bool {
    let words = program(script);
    let Some(first) = words.first() else { return false };
    has_word(FILE_SERVERS, first)
        || has_word("astro next nuxt remix svelte-kit", first)
            && words.get(1).is_none_or(|word| *word == "dev" || *word == "preview")
}
