//! Repositories that were made to do harm: nothing outside the sandbox is read, written or run.

use crate::harness::apps::{create, fails};
use crate::harness::git::{FILE, FOLDER, LINK, PROGRAM, Plumbing, SUBMODULE};
use crate::harness::{GitServer, Http, Setup, a_token};
use serde_json::{Value, json};
use std::path::Path;

/// What a build tries with what was checked out. It always ends the deploy.
const TRY: &str = "cat link link/secret up/etc/shadow out/secret git/config 2>/dev/null; \
                   echo x > out/built; echo x > link; ls -1Ab | head -40; echo TRIED; exit 9";

/// A place outside that every hostile repository aims at.
struct Outside {
    directory: String,
    secret: String,
}

impl Outside {
    fn beside(setup: &Setup) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = setup.home().join("outside");
        let secret = a_token();
        std::fs::create_dir(&path).expect("a directory");
        std::fs::write(path.join("secret"), &secret).expect("a file");
        // Anybody may: it is the sandbox that has to keep them away, not the modes.
        for (name, mode) in [("secret", 0o666), ("", 0o777)] {
            std::fs::set_permissions(path.join(name), PermissionsExt::from_mode(mode))
                .expect("a mode");
        }
        Self { directory: path.to_str().expect("UTF-8").to_owned(), secret }
    }

    /// A line of shell that leaves a trace when anybody runs it.
    fn trace(&self) -> String {
        format!("#!/bin/sh\ntouch {0}/ran; cp {0}/secret /data/ 2>/dev/null\n", self.directory)
    }

    #[track_caller]
    fn is_untouched(&self, after: &str) {
        let names: Vec<_> = std::fs::read_dir(&self.directory)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["secret"], "{after}");
        let secret = std::fs::read_to_string(Path::new(&self.directory).join("secret"));
        assert_eq!(secret.expect("a file"), self.secret, "{after}");
    }
}

fn hostile(setup: Setup) {
    let outside = Outside::beside(&setup);
    let git = GitServer::start();
    let server = setup.start();
    let mut owner = server.owner();
    let mut number = 0;
    let mut attempt = |name: &str, fields: Value, fill: &dyn Fn(&Plumbing)| {
        fill(&git.plumbing(name));
        number += 1;
        let mut body = json!({"name": format!("app-{number}"), "gitRepo": git.url(name)});
        body.as_object_mut()
            .expect("an object")
            .extend(fields.as_object().cloned().unwrap_or_default());
        let app = create(&mut owner, &body);
        let (error, log) = fails(&mut owner, &app);
        let all = format!("{error}\n{log}");
        assert!(!all.contains(&outside.secret) && !all.contains("root:"), "{name}: {all}");
        assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{name}: {log:?}");
        // Nobody but the server begins a line with its own words.
        assert!(!log.contains("\nForged") && !log.contains("Live on port"), "{name}: {log}");
        outside.is_untouched(name);
        (error, log)
    };
    paths_that_lead_out(&outside, &mut attempt);
    programs_that_git_might_run(&outside, &mut attempt);
    names_and_sizes(&mut attempt);
    addresses_are_refused_when_they_are_saved(&mut owner, &outside);
    outside.is_untouched("all of it");
}

type Attempt<'a> = dyn FnMut(&str, Value, &dyn Fn(&Plumbing)) -> (String, String) + 'a;

fn paths_that_lead_out(outside: &Outside, attempt: &mut Attempt<'_>) {
    for name in [".git", ".GIT", "..", "git~1"] {
        let (error, _) =
            attempt(&format!("inside-{}", name.len()), json!({"buildCommand": TRY}), &|repo| {
                let config = repo
                    .blob(format!("[core]\n\tfsmonitor = \"{}\"\n", outside.trace()).as_bytes());
                let hook = repo.blob(outside.trace().as_bytes());
                let hooks = repo.tree(&[(PROGRAM, b"post-checkout", &hook)]);
                let git = repo.tree(&[(FILE, b"config", &config), (FOLDER, b"hooks", &hooks)]);
                repo.commit("main", &repo.tree(&[(FOLDER, name.as_bytes(), &git)]), "a directory");
            });
        assert!(error.contains("a path that Git does not check out"), "{name}: {error}");
    }
    let links = |repo: &Plumbing| {
        let to = |target: &str| repo.blob(target.as_bytes());
        let (secret, directory) =
            (to(&format!("{}/secret", outside.directory)), to(&outside.directory));
        let (up, shadow) = (to("../../../../.."), to("/etc/shadow"));
        let pwned = repo.blob(b"pwned");
        let below = repo.tree(&[(FILE, b"pwned", &pwned)]);
        let entries = [
            (LINK, &b"Procfile"[..], secret.as_str()),
            (LINK, b"link", &secret),
            (LINK, b"out", &directory),
            (LINK, b"package.json", &shadow),
            (LINK, b"twice", &directory),
            // The same name once more, as a directory: what lies in it must not go through the link.
            (FOLDER, b"twice", &below),
            (LINK, b"up", &up),
        ];
        repo.commit("main", &repo.tree(&entries), "links");
    };
    let (_, log) = attempt("links", json!({"buildCommand": TRY, "startCommand": "./x"}), &links);
    assert!(log.contains("TRIED"), "{log}");
    let (error, _) = attempt("links", json!({}), &links);
    assert!(error.contains("found neither Procfile"), "{error}");
    for root in ["out", "up", "up/etc"] {
        let (error, _) = attempt("links", json!({"rootDir": root}), &links);
        assert!(error.contains("(or it is a link)"), "{root}: {error}");
    }
}

fn programs_that_git_might_run(outside: &Outside, attempt: &mut Attempt<'_>) {
    let (_, log) = attempt(
        "programs",
        json!({"buildCommand": format!("cat data.txt; {TRY}"), "startCommand": "./x"}),
        &|repo| {
            let run = repo.blob(outside.trace().as_bytes());
            let hooks = repo.tree(&[
                (PROGRAM, b"post-checkout", &run),
                (PROGRAM, b"post-index-change", &run),
                (PROGRAM, b"reference-transaction", &run),
            ]);
            let attributes = repo.blob(b"* filter=evil diff=evil merge=evil ident\ndata.txt filter=lfs\n*.utf working-tree-encoding=UTF-16\n");
            let config = repo.blob(format!(
            "[core]\n\tbare = true\n\thooksPath = hooks\n\tfsmonitor = hooks/post-checkout\n\
             [filter \"evil\"]\n\tsmudge = {0}/x; touch {0}/ran\n[lfs]\n\turl = ext::sh -c touch% {0}/ran\n", outside.directory
        ).as_bytes());
            let data = repo.blob(b"as it was written $Id$ \n");
            let head = repo.blob(b"ref: refs/heads/main\n");
            let empty = repo.tree(&[]);
            let entries = [
                (FILE, &b".gitattributes"[..], attributes.as_str()),
                (FILE, b".gitconfig", &config),
                (FOLDER, b".githooks", &hooks),
                (FILE, b".lfsconfig", &config),
                (FILE, b"HEAD", &head),
                (FILE, b"config", &config),
                (FILE, b"data.txt", &data),
                (FILE, b"data.utf", &data),
                (FOLDER, b"hooks", &hooks),
                (FOLDER, b"objects", &empty),
                (FOLDER, b"refs", &empty),
            ];
            repo.commit("main", &repo.tree(&entries), "hooks and filters");
        },
    );
    assert!(log.contains("as it was written") && log.contains("TRIED"), "{log}");
    for (name, url) in [
        ("ext", format!("ext::sh -c touch% {}/ran", outside.directory)),
        ("dash", format!("--upload-pack=touch {}/ran", outside.directory)),
    ] {
        let (error, _) = attempt(name, json!({"buildCommand": TRY}), &|repo| {
            let modules = format!(
                "[submodule \"x\"]\n\tpath = -x\n\turl = {url}\n\tupdate = !touch {}/ran\n",
                outside.directory
            );
            let modules = repo.blob(modules.as_bytes());
            let commit = "1234567890123456789012345678901234567890";
            let entries = [
                (SUBMODULE, &b"-x\nForged: all is well\x1b[2J"[..], commit),
                (FILE, b".gitmodules", &modules),
            ];
            repo.commit("main", &repo.tree(&entries), "a submodule");
        });
        assert!(
            error.contains("has a submodule at -x") && error.contains("not fetched"),
            "{error}"
        );
    }
}

fn names_and_sizes(attempt: &mut Attempt<'_>) {
    let (_, log) = attempt("names", json!({"buildCommand": TRY, "startCommand": "./x"}), &|repo| {
        let x = repo.blob(b"x");
        let entries: Vec<_> = [
            &b"$(touch ran)"[..],
            b"--option",
            b"-rf",
            b"; id",
            b"\x01\x02\x7f",
            b"\x1b]0;title\x07\x1b[31mred",
            b"`id`",
            b"\xff\xfe not UTF-8",
            b"a\nForged: name",
            b"a\rForged",
            b"* ? [a]",
            "\u{202e}txt".as_bytes(),
        ]
        .iter()
        .map(|name| (FILE, *name, x.as_str()))
        .collect();
        let subject = "\u{1b}[2Jsubject\rForged \u{7} end\n\nForged: in the body";
        repo.commit("main", &repo.tree(&entries), subject);
    });
    assert!(
        log.contains("TRIED") && log.contains("--option") && log.contains("a\\nForged"),
        "{log}"
    );

    let (error, _) = attempt("procfile", json!({}), &|repo| {
        repo.files(
            "main",
            &[("Procfile", &format!("web: ./app\n{}", "# comment\n".repeat(1 << 20)))],
        );
    });
    assert!(error.contains("Procfile has 10240 KiB"), "{error}");

    // A thousand million files of 30 bytes each, in eleven objects.
    let (error, _) = attempt("bomb", json!({"buildCommand": TRY}), &|repo| {
        let file = repo.blob(b"x");
        let names: Vec<_> = (0..10).map(|n| format!("d{n}")).collect();
        let mut tree = repo.tree(&[(FILE, b"file", &file)]);
        for _ in 0..9 {
            let entries: Vec<_> =
                names.iter().map(|n| (FOLDER, n.as_bytes(), tree.as_str())).collect();
            tree = repo.tree(&entries);
        }
        repo.commit("main", &tree, "a bomb");
    });
    assert!(error.contains("holds more than 250000 files"), "{error}");
    // 10 GiB of nothing, in a pack of 16 KiB.
    let (error, _) = attempt("nothing", json!({"buildCommand": TRY}), &|repo| {
        let nothing = repo.blob(&vec![0; 16 << 20]);
        let names: Vec<_> = (0..640).map(|n| format!("{n:03}")).collect();
        let entries: Vec<_> =
            names.iter().map(|n| (FILE, n.as_bytes(), nothing.as_str())).collect();
        repo.commit("main", &repo.tree(&entries), "nothing");
    });
    assert!(error.contains("the files of the commit are larger than 2048 MiB"), "{error}");
    let (error, _) = attempt("deep", json!({"buildCommand": TRY}), &|repo| {
        let mut tree = repo.tree(&[(FILE, b"file", &repo.blob(b"x"))]);
        for _ in 0..30 {
            tree = repo.tree(&[(FOLDER, &[b'd'; 200], &tree)]);
        }
        repo.commit("main", &tree, "deep");
    });
    assert!(error.contains("a path that is too long"), "{error}");
}

fn addresses_are_refused_when_they_are_saved(owner: &mut Http, outside: &Outside) {
    for url in [
        format!("ext::sh -c touch% {}/ran", outside.directory),
        format!("--upload-pack=touch {}/ran", outside.directory),
        format!("file://{}", outside.directory),
        outside.directory.clone(),
        "https://user:password@git.example/o/r".to_owned(),
        "https://git.example/o/r\n--option".to_owned(),
    ] {
        let answer = owner.post("/api/apps", &json!({"name": "bad", "gitRepo": url})).expect(400);
        assert!(answer.message().contains("gitRepo"), "{}", answer.message());
    }
    for (field, value) in [
        ("rootDir", "../x"),
        ("rootDir", "//etc"),
        ("branch", "--upload-pack=x"),
        ("branch", "a\nb"),
    ] {
        let body = json!({"name": "bad", "gitRepo": "https://git.example/o/r", field: value});
        let answer = owner.post("/api/apps", &body).expect(400);
        assert!(answer.message().contains(field), "{}", answer.message());
    }
}

#[test]
fn a_hostile_repository_reaches_nothing_under_an_ordinary_user() {
    hostile(Setup::new().as_user());
}

#[test]
fn a_hostile_repository_reaches_nothing_under_root() {
    if rustix::process::getuid().is_root() {
        hostile(Setup::new());
    } else {
        assert!(std::env::var_os("CI").is_none(), "this needs root; CI has it");
    }
}
