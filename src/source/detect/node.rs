//! Node.js: package managers, builds, and what runs: a server, or the files that a build leaves.

use super::managers::Packages;
use super::repo::{Repo, has_word, is_plain, join};
use super::tools::Tool;
use super::{Machine, Plan, Serve, apps_below, versions};
use serde_json::Value;

/// Programs that show a developer his files, run several of those, or serve a directory: their
/// app is files. Or a framework's own, whose server is known by what its build leaves.
const FILE_SERVERS: &str = "\
    concurrently npm-run-all run-p run-s turbo lerna vite react-scripts ng vue-cli-service \
    eleventy @11ty/eleventy browser-sync webpack webpack-dev-server parcel gatsby docusaurus \
    live-server http-server serve lite-server sirv expo vitepress vuepress hexo snowpack rollup \
    gulp quasar nx astro next nuxt";

/// Of those, packages that scripts of a developer's own use too.
const SHOWN_BY: &str = "browser-sync live-server webpack-dev-server";

/// Frameworks that build their servers alike.
const NITRO: &str = "nuxt nitropack vinxi @tanstack/react-start";
/// Frameworks whose build may leave a server: the package, the file, how it is started.
const SERVERS: [(&str, &str, &str); 8] = [
    ("next", ".next/BUILD_ID", "next start -H 127.0.0.1"),
    (NITRO, ".output/server/index.mjs", "node .output/server/index.mjs"),
    ("@sveltejs/kit", "build/handler.js", "node build"),
    ("astro", "dist/server/entry.mjs", "node dist/server/entry.mjs"),
    ("@remix-run/serve", "build/server/index.js", "remix-serve ./build/server/index.js"),
    ("@react-router/serve", "build/server/index.js", "react-router-serve ./build/server/index.js"),
    ("@nestjs/core", "dist/main.js", "node dist/main.js"),
    ("@nestjs/core", "dist/src/main.js", "node dist/src/main.js"),
];

/// Where builds leave their files, the surest first.
const BUILT: &str = "\
    out build/client .output/public dist/*/browser dist/spa dist/client dist build _site \
    docs/.vitepress/dist .vitepress/dist src/.vuepress/dist docs/.vuepress/dist dist/* www public";

/// Where compilers leave programs.
const COMPILED: &str = "\
    dist/main.js dist/server.js dist/index.js dist/app.js dist/src/index.js build/index.js \
    build/server.js";

/// What builds for other platforms, and what does for ours.
const ELSEWHERE: [(&str, &str); 3] = [
    (
        "@sveltejs/adapter-vercel @sveltejs/adapter-netlify @sveltejs/adapter-cloudflare",
        "@sveltejs/adapter-node",
    ),
    ("@astrojs/vercel @astrojs/netlify @astrojs/cloudflare", "@astrojs/node"),
    ("@vercel/remix @netlify/remix-adapter @remix-run/cloudflare-pages", "@remix-run/serve"),
];

/// Files that are programs by their name.
const PROGRAMS: &str =
    "server.js app.js index.js server.mjs index.mjs src/server.js src/index.js src/app.js";

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
    let mut plan = Plan::found("package.json, a Node.js app");
    let package = Package::read(repo)?;
    let prune = package.build(machine, &mut plan)?;
    let start = package.start();
    let for_building = package.json.get("devDependencies").is_some();
    if for_building && !prune.is_empty() && start.as_deref().is_some_and(runs_one_file) {
        plan.build.push(prune.to_owned());
    }
    let named = |names: &&str| package.uses(names);
    for (others, ours) in ELSEWHERE {
        if let Some(other) = others.split(' ').find(named).filter(|_| !package.uses(ours)) {
            plan.elsewhere = format!(". It builds for another platform by {other}: use {ours}");
        }
    }
    plan.spa = package.uses_any(SINGLE_PAGE) && !package.uses_any(MANY_PAGES);
    // Of several apps below, none is meant more than another.
    let is_several = package.json.get("workspaces").is_some() || repo.has("pnpm-workspace.yaml");
    if start.is_some() || !is_several || apps_below(repo).is_none() {
        plan.serve = package.candidates(start);
    }
    let otherwise = "found package.json without a start or build script, and neither its main \
                     file, server.js, app.js, index.js nor index.html: add a start script, or give \
                     a start command";
    let otherwise = apps_below(repo).unwrap_or_else(|| otherwise.to_owned());
    Ok(plan.otherwise(otherwise))
}

/// Installs and builds another language's assets, if it has any.
///
/// # Errors
/// The sentence for the owner.
pub fn assets(repo: &Repo<'_>, machine: &Machine<'_>, plan: &mut Plan) -> Result<(), String> {
    if repo.has("package.json") {
        Package::read(repo)?.build(machine, plan)?;
    }
    Ok(())
}

impl<'a> Package<'a> {
    fn read(repo: &'a Repo<'a>) -> Result<Self, String> {
        let json = repo.json("package.json")?;
        if !json.is_object() {
            return Err("package.json holds no JSON object".to_owned());
        }
        Ok(Self { repo, json })
    }

    fn script(&self, name: &str) -> Option<String> {
        let text = self.json.get("scripts")?.get(name)?.as_str()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn uses(&self, name: &str) -> bool {
        let lists = [self.json.get("dependencies"), self.json.get("devDependencies")];
        lists.into_iter().flatten().any(|list| list.get(name).is_some())
    }

    fn uses_any(&self, names: &str) -> bool {
        names.split(' ').any(|name| self.uses(name))
    }

    /// Plans the build, and what it needs: a package manager, and a Node, which is the machine's
    /// where that will do. Answers the command that removes what was for the build alone.
    fn build(&self, machine: &Machine<'_>, plan: &mut Plan) -> Result<&'static str, String> {
        machine.need("npm", "apt install nodejs npm")?;
        if let Some(node) = versions::node(self.repo, &self.json, machine)? {
            let why = match node.from {
                "" => "newer than the machine's".to_owned(),
                file => format!("from {file}"),
            };
            plan.notes.push(format!("Node {} ({why}).", node.version));
            plan.tools.push(Tool::node(&node.version));
        }
        let packages = Packages::of(self.repo, &self.json, plan)?;
        // Hooks of Git's are set up by scripts of that time, which fail where there is no Git.
        let scripts = ["prepare", "postinstall"].into_iter().filter_map(|name| self.script(name));
        let hooks = scripts.into_iter().any(|text| !text.starts_with("husky"));
        plan.build.extend(hooks.then(|| "git init -q -b main /app".to_owned()));
        plan.build.push(packages.install);
        plan.build.extend(hooks.then(|| "rm -rf /app/.git".to_owned()));
        if self.uses("prisma") && self.uses("@prisma/client") {
            plan.build.push("prisma generate".to_owned());
        }
        if self.script("build").is_some() {
            // Its adapter-auto then makes a server for Node instead of failing.
            let kit = self.uses("@sveltejs/kit") && self.uses("@sveltejs/adapter-auto");
            let environment = if kit { "GCP_BUILDPACKS=1 " } else { "" };
            plan.build.push(format!("{environment}{}", packages.build));
        }
        Ok(packages.prune)
    }

    /// What `npm start` would run, without npm: it would take 30 MB beside each app, and its
    /// signals.
    fn start(&self) -> Option<String> {
        let mut start = self.script("start")?;
        for _ in 0..4 {
            let inner = match start.split_whitespace().collect::<Vec<_>>()[..] {
                ["npm" | "yarn" | "pnpm" | "bun", "run", name]
                | ["yarn" | "pnpm" | "npm", name] => self.script(name),
                ["nodemon", file] if file.ends_with("js") => Some(format!("node {file}")),
                _ => None,
            };
            let Some(inner) = inner else { break };
            start = inner;
        }
        let before = self.script("prestart").filter(|before| !before.contains("build"));
        Some(before.map_or(start.clone(), |before| format!("{before} && {start}")))
    }

    /// What the release may turn out to be, the likeliest first.
    fn candidates(&self, start: Option<String>) -> Vec<Serve> {
        let files = |dir: &str| Serve::Files(dir.to_owned());
        let process = |command, needs| Serve::Process { command, needs };
        let builds = self.script("build").is_some();
        let told = start.as_deref().and_then(served_directory);
        let mut all: Vec<Serve> = told.map(files).into_iter().collect();
        if builds {
            let rows = SERVERS.iter().filter(|(packages, ..)| self.uses_any(packages));
            all.extend(rows.map(|(_, file, command)| process((*command).to_owned(), file)));
        }
        // One that builds first, and then shows a developer what was built.
        let shows = |start: &str| start.contains("run build") && self.uses_any(SHOWN_BY);
        let serves = |start: &String| !serves_files(start) && !shows(start);
        all.extend(start.filter(serves).map(Serve::run));
        if builds {
            let committed = self.repo.has("public/index.html");
            let dirs = BUILT.split(' ').filter(|dir| *dir != "public" || !committed);
            all.extend(dirs.map(files));
        }
        let main = self.json.get("main").and_then(Value::as_str).unwrap_or_default();
        let main = Some(main.trim_start_matches("./"));
        let main = main.filter(|main| is_plain(main) && main.ends_with("js"));
        let programs = main.into_iter().chain(PROGRAMS.split(' '));
        let programs = programs.filter(|file| self.repo.has(file));
        all.extend(programs.map(|file| Serve::run(format!("node {file}"))));
        if builds {
            all.extend(COMPILED.split(' ').map(|file| process(format!("node {file}"), file)));
        } else {
            let mut plain = vec!["", "public", "dist", "docs"];
            plain.retain(|dir| self.repo.has(&join(dir, "index.html")));
            all.extend(plain.into_iter().map(files));
        }
        all
    }
}

/// The words of a script's last command that are a program and its arguments: what comes
/// before prepares it.
fn program(script: &str) -> Vec<&str> {
    let last = script.rsplit("&&").next().unwrap_or_default();
    let last = last.rsplit(';').next().unwrap_or_default();
    let before = "cross-env npx pnpm yarn bunx exec -y --yes dotenv --";
    let skipped = |word: &&str| word.contains('=') || has_word(before, word);
    last.split_whitespace().skip_while(skipped).collect()
}

/// The directory that a program for files is told to serve.
fn served_directory(script: &str) -> Option<&str> {
    let words = program(script);
    let (program, arguments) = words.split_first()?;
    let is_dir = |word: &&&str| is_plain(word) && !word.bytes().all(|b| b.is_ascii_digit());
    let dir = arguments.iter().find(is_dir)?;
    let serves = has_word("serve http-server live-server sirv lite-server", program);
    serves.then(|| dir.trim_start_matches("./").trim_end_matches('/'))
}

/// Whether a start command is Node with one file, which needs nothing that is for development.
fn runs_one_file(start: &str) -> bool {
    !start.contains(['&', ';', '|'])
        && matches!(program(start)[..], ["node", file] if is_plain(file))
}

/// Whether a start script is one of a developer's, or serves a directory.
fn serves_files(script: &str) -> bool {
    match program(script)[..] {
        ["remix" | "svelte-kit"] | ["remix" | "svelte-kit", "dev" | "preview", ..] => true,
        [program, ..] => has_word(FILE_SERVERS, program),
        [] => false,
    }
}
