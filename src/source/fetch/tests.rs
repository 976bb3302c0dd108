//! Fetching from a real Git over HTTP, and from hosts that misbehave.

use super::*;
use crate::sandbox::host::Host;
use crate::source::cache::PACKS;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A Git host on a loopback port: `git http-backend` behind a few lines of HTTP.
struct GitHost {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What the host does before it asks Git.
type Rule = fn(path: &str, head: &str) -> Option<&'static str>;

impl GitHost {
    fn start(root: PathBuf, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, seen) = (root.clone(), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &root, rule, &seen));
            }
        });
        Self { port, requests }
    }

    fn url(&self, path: &str) -> RepoUrl {
        RepoUrl::parse(&format!("http://127.0.0.1:{}/{path}", self.port)).unwrap()
    }
}

fn serve(mut stream: TcpStream, root: &Path, rule: Rule, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while reader.read_line(&mut head).ok()? > 2 {}
    seen.lock().unwrap().push(head.clone());
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if let Some(answer) = rule(path, &head) {
        let end = "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        write!(stream, "HTTP/1.1 {answer}{end}").ok()?;
        return Some(());
    }
    let field = |name: &str| {
        let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let length: usize = field("content-length:").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let backend = Exec::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", field("content-type:").unwrap_or_default())
        .env("GIT_PROTOCOL", field("git-protocol:").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", field("content-encoding:").unwrap_or_default());
    let mut output = Vec::new();
    let mut take = |piece: &[u8]| output.write_all(piece).is_ok();
    backend.stdin_bytes(body).pieces(&mut take, &Cancel::new().ok()?).ok()?;
    let text = String::from_utf8_lossy(&output);
    let status = text.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK");
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n").ok()?;
    stream.write_all(&output).ok()
}

fn git(dir: &Path, words: &[&str]) {
    let who = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
    let output = Exec::new("git").arg("-C").arg(dir).args(who).args(words).run().unwrap();
    assert!(output.exit.is_success(), "{words:?}");
}

/// A directory with a repository `shop` that holds odd things.
fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("shop");
    fs::create_dir(&shop).unwrap();
    git(&shop, &["init", "-q", "-b", "main"]);
    fs::write(shop.join("app.py"), "print(1)").unwrap();
    fs::write(shop.join(".gitattributes"), "*.py filter=evil diff=evil\n").unwrap();
    fs::create_dir(shop.join("sub")).unwrap();
    fs::write(shop.join("sub/--option"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", shop.join("link")).unwrap();
    git(&shop, &["add", "."]);
    git(&shop, &["commit", "-q", "-m", "first\u{1b}[31m commit\n\nbody"]);
    dir
}

/// A disk without an end.
const ENDLESS: Space = Space { free: u64::MAX, all: 0, free_files: 0, files: 0 };

/// Directories of an app.
struct Fixture {
    host: crate::sandbox::host::Host,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sandbox")).unwrap();
        let host = Host::here(&dir.path().join("sandbox"));
        let fixture = Self { host, dir };
        for name in ["repo", "release"] {
            fixture.fresh(name);
        }
        fixture
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        remove_tree(&path, &|| true).unwrap();
        fs::create_dir(&path).unwrap();
        self.host.users.give(3, &[&path]).unwrap();
        path
    }

    fn fetch(&self, url: &RepoUrl, branch: &str, token: Option<&str>) -> Result<Commit, String> {
        self.fetch_within(url, branch, token, FetchLimits::default())
    }

    fn fetch_within(
        &self,
        url: &RepoUrl,
        branch: &str,
        token: Option<&str>,
        limits: FetchLimits,
    ) -> Result<Commit, String> {
        let mut log = Vec::new();
        let result = Fetch {
            host: &self.host,
            slot: 3,
            url,
            branch: &Branch::parse(branch).unwrap(),
            token: token.map(|t| (Secret::new(t.to_owned()), TokenOf::App)),
            root: "",
            cache: &self.dir.path().join("repo"),
            release: &self.fresh("release"),
            redactor: &Redactor::default(),
            limits,
            space: &|| ENDLESS,
        }
        .run(&Cancel::new().unwrap(), &mut |line| log.push(line.to_owned()));
        if let Some(token) = token {
            assert!(!log.join("\n").contains(token), "{log:?}");
        }
        result.map_err(|error| match error {
            FetchError::Failed(why) | FetchError::TooLarge(why) | FetchError::Strange(why, _) => {
                let sentence = why.to_string();
                assert!(token.is_none_or(|t| !sentence.contains(t)), "{sentence}");
                sentence
            }
            FetchError::Cancelled => "cancelled".to_owned(),
        })
    }

    /// Runs a script in Git's own surroundings; what it printed, and whether it went well.
    fn beside_git(&self, script: &str) -> (bool, String) {
        let url = RepoUrl::parse("http://127.0.0.1:1/a/b").unwrap();
        let fetch = Fetch {
            host: &self.host,
            slot: 3,
            url: &url,
            branch: &Branch::parse("").unwrap(),
            token: None,
            root: "",
            cache: &self.dir.path().join("repo"),
            release: &self.dir.path().join("release"),
            redactor: &Redactor::default(),
            limits: FetchLimits::default(),
            space: &|| ENDLESS,
        };
        let output = fetch.sandbox(true).prepare(&["/bin/sh", "-c", script]).run().unwrap();
        let all = [output.stdout, output.stderr].concat();
        (output.exit.is_success(), String::from_utf8_lossy(&all).trim_end().to_owned())
    }

    fn release(&self, name: &str) -> PathBuf {
        self.dir.path().join("release").join(name)
    }
}

const OPEN: Rule = |_, _| None;

#[test]
fn a_branch_is_checked_out_without_git_and_updates_arrive() {
    let (origin, fixture) = (repository(), Fixture::new());
    let host = GitHost::start(origin.path().to_owned(), OPEN);
    let url = host.url("shop/.git");
    let first = fixture.fetch(&url, "main", None).unwrap();
    assert_eq!((first.hash.len(), first.subject.as_str()), (40, "first commit"));
    assert_eq!(fs::read_to_string(fixture.release("app.py")).unwrap(), "print(1)");
    assert!(fixture.release("sub/--option").exists() && !fixture.release(".git").exists());
    assert!(fs::symlink_metadata(fixture.release("link")).unwrap().is_symlink());
    let shop = origin.path().join("shop");
    fs::write(shop.join("new"), "x").unwrap();
    fs::remove_file(shop.join("app.py")).unwrap();
    git(&shop, &["add", "-A"]);
    git(&shop, &["commit", "-q", "--amend", "-m", "rewritten"]);
    // The remote's default branch, over a history that was rewritten.
    let second = fixture.fetch(&url, "", None).unwrap();
    assert_ne!(first.hash, second.hash);
    assert!(fixture.release("new").exists() && !fixture.release("app.py").exists());
    assert_eq!(fixture.fetch(&url, "main", None).unwrap(), second, "nothing new is fine");
}

#[test]
fn git_obeys_nobody_elses_configuration_and_runs_no_hook() {
    let (origin, fixture) = (repository(), Fixture::new());
    let host = GitHost::start(origin.path().to_owned(), OPEN);
    let url = host.url("shop/.git");
    fixture.fetch(&url, "main", None).unwrap();
    let repo = fixture.dir.path().join("repo");
    let plant = "printf '[user]\\n\\tname = x\\n' | tee system >.gitconfig; mkdir -p hooks; \
                 printf '#!/bin/sh\\ntouch /repo/ran\\n' >hooks/reference-transaction; \
                 chmod +x hooks/*";
    fixture.host.as_app(3, &repo, plant);
    let scopes = "git config --list --show-scope | cut -f1 | sort -u";
    let found = format!("export HOME=/repo GIT_CONFIG_SYSTEM=/repo/system; {scopes}");
    assert_eq!(fixture.beside_git(&found).1, "command\nlocal");
    let open = format!("unset GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL; {found}");
    assert_eq!(fixture.beside_git(&open).1, "command\nglobal\nlocal\nsystem", "they are there");

    let shop = origin.path().join("shop");
    git(&shop, &["commit", "-q", "--allow-empty", "-m", "second"]);
    assert_eq!(fixture.fetch(&url, "main", None).unwrap().subject, "second");
    assert!(!repo.join("ran").exists(), "a hook ran");
    let write = "commit=$(git for-each-ref --count=1 --format='%(objectname)') && \
                 GIT_CONFIG_COUNT=0 git update-ref refs/x \"$commit\"";
    assert_eq!(fixture.beside_git(write), (true, String::new()));
    assert!(repo.join("ran").exists(), "it is a hook that runs where hooks do");
}

/// Two locks on one door: the list of protocols, and the configuration. Each holds alone.
#[test]
fn git_speaks_http_alone() {
    let (origin, fixture) = (repository(), Fixture::new());
    let host = GitHost::start(origin.path().to_owned(), OPEN);
    fixture.fetch(&host.url("shop/.git"), "main", None).unwrap();
    let list = "git -c protocol.allow=always ls-remote";
    for unlocked in ["", "GIT_CONFIG_COUNT=0", "-u GIT_ALLOW_PROTOCOL"] {
        for url in ["file:///repo", "/repo", "ext::sh -c touch% /repo/ran"] {
            let (well, said) = fixture.beside_git(&format!("env {unlocked} {list} '{url}'"));
            assert!(!well && said.contains("not allowed"), "{unlocked} {url}: {said}");
        }
    }
    let both = format!("env -u GIT_ALLOW_PROTOCOL GIT_CONFIG_COUNT=0 {list} file:///repo");
    assert!(fixture.beside_git(&both).0, "without either it would");
    assert!(!fixture.dir.path().join("repo/ran").exists());
}

#[test]
fn a_broken_cache_is_made_anew_and_a_large_one_too() {
    let (origin, fixture) = (repository(), Fixture::new());
    let host = GitHost::start(origin.path().to_owned(), OPEN);
    let url = host.url("shop/.git");
    let first = fixture.fetch(&url, "main", None).unwrap();
    let repo = fixture.dir.path().join("repo");
    // What a Git that was killed while it fetched, or while it checked out, leaves behind.
    for broken in ["shallow.lock", "config", "index.lock"] {
        fixture.host.as_app(3, &repo, &format!("echo '[broken' >{broken}"));
        assert_eq!(fixture.fetch(&url, "main", None).unwrap(), first, "{broken}");
    }
    let packs_in = format!("for n in $(seq {PACKS}); do : >objects/pack/pack-$n.pack; done");
    fixture.host.as_app(3, &repo, &packs_in);
    assert_eq!(fixture.fetch(&url, "main", None).unwrap(), first);
    assert!(packs(&repo).len() <= 1);
    let large = "for n in 1 2 3 4; do truncate -s 200M objects/pack/pack-$n.pack; done";
    fixture.host.as_app(3, &repo, large);
    assert_eq!(fixture.fetch(&url, "main", None).unwrap(), first);
    assert!(packs(&repo).len() <= 1);
}

#[test]
fn what_is_missing_is_said_in_one_sentence() {
    let (origin, fixture) = (repository(), Fixture::new());
    let host = GitHost::start(origin.path().to_owned(), OPEN);
    let branch = fixture.fetch(&host.url("shop/.git"), "nope", None).unwrap_err();
    assert_eq!(branch, "the repository has no branch named nope; it has only main");
    let repo = fixture.fetch(&host.url("other.git"), "main", None).unwrap_err();
    assert!(repo.contains("was not found on http://127.0.0.1"), "{repo}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = RepoUrl::parse(&format!("http://127.0.0.1:{nobody}/a/b")).unwrap();
    let closed = fixture.fetch(&url, "main", None).unwrap_err();
    assert!(closed.contains("nothing answers there"), "{closed}");
    let url = RepoUrl::parse("http://no-such-host.invalid/a/b").unwrap();
    let unknown = fixture.fetch(&url, "main", None).unwrap_err();
    assert!(unknown.contains("could not be resolved"), "{unknown}");
}

#[test]
fn a_repository_that_is_too_large_is_refused_before_it_fills_the_disk() {
    let (origin, fixture) = (repository(), Fixture::new());
    let noise: Vec<u8> =
        (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(origin.path().join("shop/noise"), noise).unwrap();
    git(&origin.path().join("shop"), &["add", "."]);
    git(&origin.path().join("shop"), &["commit", "-q", "-m", "noise"]);
    let host = GitHost::start(origin.path().to_owned(), OPEN);
    let url = host.url("shop/.git");
    let within = |limits| fixture.fetch_within(&url, "main", None, limits).unwrap_err();
    let small = FetchLimits { bytes: 100_000, ..FetchLimits::default() };
    let pack = within(small);
    assert!(pack.contains("repository is larger than 0 MiB, for which the disk"), "{pack}");
    let few = within(FetchLimits { files: 3, ..FetchLimits::default() });
    assert!(few.contains("more than 3 files"), "{few}");
    assert_eq!(fs::read_dir(fixture.release("")).unwrap().count(), 0, "nothing was checked out");
    assert!(fixture.fetch(&url, "main", None).is_ok());
    // The pack is there already, so now it is the files that are too large.
    let files = within(small);
    assert!(files.contains("files of the commit are larger than"), "{files}");
}

#[test]
fn a_host_that_never_answers_has_its_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = RepoUrl::parse(&format!("http://127.0.0.1:{port}/a/b")).unwrap();
    let limits = FetchLimits { time: Duration::from_millis(1500), ..FetchLimits::default() };
    let late = Fixture::new().fetch_within(&url, "main", None, limits).unwrap_err();
    assert!(late.contains("took longer than 1 s"), "{late}");
}

#[test]
fn who_refused_what_is_said_with_the_remedy() {
    let said = |text: &str, token: Option<TokenOf>, known: bool| {
        let url = RepoUrl::parse("https://git.example/o/r").unwrap();
        let (limits, local, exit) = (FetchLimits::default(), None, Exit::Code(128));
        match (Case { url: &url, token, known, limits, local, text, exit }).explain() {
            FetchError::Failed(error) => error.to_string(),
            FetchError::TooLarge(sentence) => format!("too large: {sentence}"),
            FetchError::Strange(sentence, _) => format!("strange: {sentence}"),
            FetchError::Cancelled => "cancelled".to_owned(),
        }
    };
    let (app, settings) = (Some(TokenOf::App), Some(TokenOf::Settings));
    let login = "fatal: Authentication failed for 'https://git.example/o/r/'";
    let missing =
        "remote: Repository not found.\nfatal: repository 'https://git.example/o/r/' not found";
    let forbidden = "fatal: unable to access 'x': The requested URL returned error: 403";
    for (text, token, known, parts) in [
        (login, app, false, ["refused the token", "revoked", "app's settings"]),
        (login, app, false, ["GitLab", "Bitbucket", "user:token"]),
        (login, settings, true, ["refused the token", "revoked", "GitHub token in the server's"]),
        (login, None, false, ["asks for a login", "private", "has no token"]),
        (login, None, true, ["asks for a login", "earlier deploy", "made private"]),
        (forbidden, app, false, ["refused the token", "not allowed", "app's settings"]),
        (forbidden, None, false, ["asks for a login", "private", "has no token"]),
        (missing, app, false, ["not found", "the token may not see it", "app's settings"]),
        (missing, None, false, ["not found", "check the address", "token if the repository"]),
        (missing, None, true, ["not found", "it was there at an earlier", "removed"]),
        ("fatal: the remote end hung up", None, false, ["strange", "remote end", "hung up"]),
        (
            "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output",
            None,
            false,
            ["broke off", "again", "early EOF"],
        ),
        (
            "error: No space left on device",
            None,
            false,
            ["too large", "disk became full", "free some"],
        ),
    ] {
        let sentence = said(text, token, known);
        assert!(parts.iter().all(|part| sentence.contains(part)), "{text}: {sentence}");
    }
}

#[test]
fn a_token_goes_to_its_host_and_decides() {
    let origin = repository();
    let rule: Rule = |_, head| {
        // x-access-token:s3cret-token-value and user:s3cret-token-value
        let right =
            ["eC1hY2Nlc3MtdG9rZW46czNjcmV0LXRva2VuLXZhbHVl", "dXNlcjpzM2NyZXQtdG9rZW4tdmFsdWU="];
        let has = right.iter().any(|r| head.contains(&format!("Authorization: Basic {r}\r\n")));
        (!has).then_some("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"")
    };
    let host = GitHost::start(origin.path().to_owned(), rule);
    let (fixture, url) = (Fixture::new(), host.url("shop/.git"));
    assert!(fixture.fetch(&url, "main", Some("s3cret-token-value")).is_ok());
    assert!(fixture.fetch(&url, "main", Some("user:s3cret-token-value")).is_ok());
    let wrong = fixture.fetch(&url, "main", Some("wr0ng-token-value")).unwrap_err();
    assert!(wrong.contains("refused the token"), "{wrong}");
    let none = fixture.fetch(&url, "main", None).unwrap_err();
    assert!(none.contains("has no token"), "{none}");
    let config = fs::read_to_string(fixture.dir.path().join("repo/config")).unwrap();
    assert!(!config.contains("s3cret") && !config.to_lowercase().contains("header"), "{config}");
}

#[test]
fn a_redirect_is_not_followed_with_the_token_in_hand() {
    let origin = repository();
    let other = GitHost::start(origin.path().to_owned(), OPEN);
    static TARGET: std::sync::OnceLock<&'static str> = std::sync::OnceLock::new();
    let location = format!(
        "302 Found\r\nLocation: http://127.0.0.1:{}/shop/.git/info/refs?service=git-upload-pack",
        other.port
    );
    TARGET.set(location.leak()).unwrap();
    let host = GitHost::start(origin.path().to_owned(), |_, _| TARGET.get().copied());
    let fixture = Fixture::new();
    let moved = fixture.fetch(&host.url("shop"), "main", Some("s3cret-token-value")).unwrap_err();
    assert!(moved.contains("has moved"), "{moved}");
    assert!(other.requests.lock().unwrap().is_empty(), "the other host heard nothing");
}

#[test]
fn a_host_that_never_answers_can_be_cancelled() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/a/b", silent.local_addr().unwrap().port());
    let fixture = Fixture::new();
    let cancel = Cancel::new().unwrap();
    let pull = cancel.clone();
    std::thread::spawn(move || {
        let _held = silent.accept();
        pull.cancel();
        std::thread::park_timeout(Duration::from_secs(20));
    });
    let fetch = Fetch {
        host: &fixture.host,
        slot: 3,
        url: &RepoUrl::parse(&url).unwrap(),
        branch: &Branch::parse("main").unwrap(),
        token: None,
        root: "",
        cache: &fixture.dir.path().join("repo"),
        release: &fixture.dir.path().join("release"),
        redactor: &Redactor::default(),
        limits: FetchLimits::default(),
        space: &|| ENDLESS,
    };
    assert!(matches!(fetch.run(&cancel, &mut |_| {}), Err(FetchError::Cancelled)));
}
