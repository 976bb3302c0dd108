//! Apps of Node.js that were not as usual.

use super::*;

#[test]
fn a_start_script_that_builds_and_shows_it_to_a_developer_is_a_site() {
    let of = |tool: &str| {
        let package = format!(
            r#"{{"scripts":{{"build":"node b","start":"npm run build && node scripts/start.js"}},
                "devDependencies":{{"{tool}":"2"}}}}"#
        );
        becomes(&package, &["dist/index.html"]).unwrap()
    };
    assert_eq!(of("browser-sync"), ("dist".to_owned(), Some(false)));
    assert_eq!(of("express"), ("npm run build && node scripts/start.js".to_owned(), None));
}

#[test]
fn build_tools_of_some_years_ago_get_a_node_of_their_time() {
    let of = |version: &str, more: &[(&str, &str)]| {
        let json = format!(
            r#"{{"devDependencies":{{"react-scripts":"{version}"}},"scripts":{{"build":"react-scripts build"}}}}"#
        );
        let all: Vec<_> =
            [("package.json", json.as_str())].into_iter().chain(more.iter().copied()).collect();
        tools(&look(&all).unwrap()).join(" ")
    };
    assert_eq!(of("^4.0.3", &[]), "node-16");
    assert_eq!(of("5.0.1", &[]), "");
    assert_eq!(of("next", &[]), "");
    assert_eq!(of("^4.0.3", &[(".nvmrc", "18")]), "node-18", "it was asked for");
}

#[test]
fn scripts_that_set_up_hooks_find_a_repository_of_git_and_it_does_not_stay() {
    let (build, _) = commands(&[(
        "package.json",
        r#"{"scripts":{"prepare":"lefthook install","build":"tsc","start":"node x"}}"#,
    )]);
    let steps: Vec<&str> = build.split(" && ").collect();
    let at = |step: &str| steps.iter().position(|one| one.starts_with(step)).unwrap();
    assert!(at("git init") < at("CI=true npm") && at("CI=true npm") < at("rm -rf /app/.git"));
    assert!(at("rm -rf /app/.git") < at("npm run build"), "{build}");
}

#[test]
fn an_adapter_of_another_platform_is_named_when_the_build_left_nothing() {
    let package = r#"{"devDependencies":{"@sveltejs/kit":"2","@sveltejs/adapter-vercel":"5"},
                      "scripts":{"build":"vite build"}}"#;
    let sentence = becomes(package, &[".vercel/output/config.json"]).unwrap_err();
    assert!(
        sentence.contains("by @sveltejs/adapter-vercel: use @sveltejs/adapter-node"),
        "{sentence}"
    );
}
