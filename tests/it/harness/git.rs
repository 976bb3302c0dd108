//! A Git host in miniature: `git http-backend` behind a small HTTP server that asks for a token and remembers requests.

use super::server::run;
use data_encoding::BASE64;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

/// How the host behaves; changed while it runs.
#[derive(Debug, Default)]
struct Behaviour {
    token: Option<String>,
    redirect_to: Option<String>,
    held: bool,
    seen: Vec<Seen>,
}

#[derive(Default)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    released: Condvar,
    stopping: AtomicBool,
}

/// The host. Repositories are reached at `http://127.0.0.1:PORT/NAME.git`.
pub struct GitServer {
    address: SocketAddr,
    directory: TempDir,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl GitServer {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// On an address of this thread's network.
    pub fn start_at(address: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("bpaas-git-").tempdir().expect("a place");
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let root = directory.path().to_path_buf();
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &root, &shared))
        };
        Self { address, directory, shared, acceptor: Some(acceptor) }
    }

    /// Makes (or changes) a repository: these files are its next commit on `main`. Returns the commit.
    pub fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        self.commit_with_links(name, files, &[])
    }

    /// The same with symbolic links: where each is, and what it leads to.
    pub fn commit_with_links(
        &self,
        name: &str,
        files: &[(&str, &str)],
        links: &[(&str, &str)],
    ) -> String {
        let repository = self.directory.path().join(format!("{name}.git"));
        let tree = tempfile::tempdir().expect("a place");
        if !repository.exists() {
            run(git().args(["init", "-q", "--bare", "-b", "main"]).arg(&repository));
        }
        for (path, content) in files {
            let file = tree.path().join(path);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            std::fs::write(&file, content).expect("a file");
        }
        for (path, target) in links {
            std::os::unix::fs::symlink(target, tree.path().join(path)).expect("a link");
        }
        let here = |arguments: &[&str]| {
            let mut command = git();
            command.arg("--git-dir").arg(&repository).arg("--work-tree").arg(tree.path());
            run(command.args(arguments))
        };
        here(&["add", "--all", "--force", "."]);
        here(&["commit", "-q", "--allow-empty", "-m", "A change"]);
        here(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// A repository to be filled with Git's plumbing, which asks no questions; made when it is not there.
    pub fn plumbing(&self, name: &str) -> Plumbing {
        let repository = self.directory.path().join(format!("{name}.git"));
        if !repository.exists() {
            run(git().args(["init", "-q", "--bare", "-b", "main"]).arg(&repository));
        }
        Plumbing { repository }
    }

    /// Removes a repository.
    pub fn remove(&self, name: &str) {
        std::fs::remove_dir_all(self.directory.path().join(format!("{name}.git")))
            .expect("removed");
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.address)
    }

    /// From now on only requests with this token (as the password of Basic authentication) are served.
    pub fn require_token(&self, token: &str) {
        self.change(|b| b.token = Some(token.to_owned()));
    }

    /// From now on each request is sent to the same path of another host.
    pub fn redirect_to(&self, base: &str) {
        self.change(|b| b.redirect_to = Some(base.to_owned()));
    }

    /// From now on requests wait, until [`Self::release`].
    pub fn hold(&self) {
        self.change(|b| b.held = true);
    }

    pub fn release(&self) {
        self.change(|b| b.held = false);
        self.shared.released.notify_all();
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.behaviour.lock().expect("state").seen.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.behaviour.lock().expect("state"));
    }
}

/// Makes objects that `git add` would refuse.
pub struct Plumbing {
    repository: PathBuf,
}

/// Modes of the entries of a tree.
pub const FILE: &str = "100644";
pub const PROGRAM: &str = "100755";
pub const LINK: &str = "120000";
pub const FOLDER: &str = "40000";
pub const SUBMODULE: &str = "160000";

impl Plumbing {
    /// A blob; returns its name.
    pub fn blob(&self, content: &[u8]) -> String {
        self.object("blob", content)
    }

    /// A tree with these entries in this order, whatever they are called.
    pub fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, object) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend(data_encoding::HEXLOWER.decode(object.as_bytes()).expect("a name"));
        }
        self.object("tree", &bytes)
    }

    /// A commit of the tree without a parent; it becomes the branch.
    pub fn commit(&self, branch: &str, tree: &str, message: &str) -> String {
        let commit = run(self.git().args(["commit-tree", "-m", message, tree]));
        let commit = commit.trim().to_owned();
        run(self.git().args(["update-ref", &format!("refs/heads/{branch}"), &commit]));
        commit
    }

    /// A commit whose tree holds these files, at its top.
    pub fn files(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let blobs: Vec<_> = files.iter().map(|(_, text)| self.blob(text.as_bytes())).collect();
        let mut entries: Vec<_> =
            files.iter().zip(&blobs).map(|((n, _), b)| (FILE, n.as_bytes(), b.as_str())).collect();
        entries.sort_by_key(|entry| entry.1);
        self.commit(branch, &self.tree(&entries), "files")
    }

    /// Any other command in the repository.
    pub fn run(&self, arguments: &[&str]) {
        run(self.git().args(arguments));
    }

    fn git(&self) -> Command {
        let mut command = git();
        command.arg("--git-dir").arg(&self.repository);
        command
    }

    fn object(&self, kind: &str, content: &[u8]) -> String {
        let mut command = self.git();
        command.args(["hash-object", "-w", "--literally", "--stdin", "-t", kind]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git runs");
        child.stdin.take().expect("piped").write_all(content).expect("taken");
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "git hash-object -t {kind}");
        String::from_utf8(output.stdout).expect("a name").trim().to_owned()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.release();
        // The acceptor waits in `accept`; a connection wakes it.
        let _woken = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _panicked = acceptor.join();
        }
    }
}

/// Git without anybody's configuration.
fn git() -> Command {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Test");
        command.env(format!("GIT_{who}_EMAIL"), "test@example.com");
    }
    command
}

fn accept(listener: &TcpListener, root: &Path, shared: &Arc<Shared>) {
    let mut workers = Vec::new();
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let (root, shared) = (root.to_path_buf(), Arc::clone(shared));
        workers.push(std::thread::spawn(move || {
            // A client that goes away is its own affair.
            let _gone = serve(stream, &root, &shared);
        }));
    }
    workers.into_iter().for_each(|w| w.join().expect("a worker"));
}

fn serve(stream: TcpStream, root: &Path, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    let Some((seen, body)) = read_request(&mut from, &mut to)? else { return Ok(()) };
    let (allowed, redirect) = {
        let mut behaviour = shared.behaviour.lock().expect("state");
        behaviour.seen.push(seen.clone());
        while behaviour.held {
            behaviour = shared.released.wait(behaviour).expect("state");
        }
        let allowed = behaviour.token.as_ref().is_none_or(|t| password(&seen).as_ref() == Some(t));
        (allowed, behaviour.redirect_to.clone())
    };
    if let Some(base) = redirect {
        let location = format!("Location: {base}{}\r\n", seen.target);
        answer(&mut to, "302 Found", &location, b"")
    } else if allowed {
        backend(&mut to, root, &seen, &body)
    } else {
        let challenge = "WWW-Authenticate: Basic realm=\"git\"\r\n";
        answer(&mut to, "401 Unauthorized", challenge, b"no\n")
    }
}

/// The password of Basic authentication.
fn password(seen: &Seen) -> Option<String> {
    let encoded = seen.headers.get("authorization")?.strip_prefix("Basic ")?;
    let clear = String::from_utf8(BASE64.decode(encoded.as_bytes()).ok()?).ok()?;
    Some(clear.split_once(':')?.1.to_owned())
}

fn answer(to: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    to.write_all(head.as_bytes())?;
    to.write_all(body)
}

fn read_request(
    from: &mut BufReader<TcpStream>,
    to: &mut TcpStream,
) -> io::Result<Option<(Seen, Vec<u8>)>> {
    let line = text_line(from)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = HashMap::new();
    loop {
        let line = text_line(from)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let seen = Seen { method: method.to_owned(), target: target.to_owned(), headers };
    if seen.headers.contains_key("expect") {
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    if seen.headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        loop {
            let length = u64::from_str_radix(text_line(from)?.trim(), 16)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            from.by_ref().take(length).read_to_end(&mut body)?;
            text_line(from)?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = seen.headers.get("content-length").and_then(|l| l.parse().ok()) {
        from.take(length).read_to_end(&mut body)?;
    }
    Ok(Some((seen, body)))
}

fn text_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Runs `git http-backend` as a CGI program (RFC 3875) and passes its answer on.
fn backend(to: &mut TcpStream, root: &Path, seen: &Seen, body: &[u8]) -> io::Result<()> {
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let mut command = git();
    command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("PATH_INFO", path).env("QUERY_STRING", query);
    command.env("REQUEST_METHOD", &seen.method).env("CONTENT_LENGTH", body.len().to_string());
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "HTTP_GIT_PROTOCOL"),
    ] {
        if let Some(value) = seen.headers.get(header) {
            command.env(variable, value);
        }
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let body = body.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&body));
    let mut output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
    let mut status = "200 OK".to_owned();
    let mut headers = String::new();
    loop {
        let line = text_line(&mut output)?;
        match line.strip_prefix("Status: ") {
            _ if line.is_empty() => break,
            Some(other) => other.clone_into(&mut status),
            None => headers.extend([line.as_str(), "\r\n"]),
        }
    }
    // Its end is the end of the connection, so that a large pack passes through in pieces.
    to.write_all(format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n").as_bytes())?;
    let passed = io::copy(&mut output, to);
    drop(output);
    let _gone = writer.join();
    child.wait()?;
    passed.map(drop)
}

/// A path under the host's directory, for a test that looks at it.
impl AsRef<Path> for GitServer {
    fn as_ref(&self) -> &Path {
        self.directory.path()
    }
}

/// Clones with plain Git, to prove the host itself.
pub fn clone(url: &str, into: &Path) -> bool {
    let into: PathBuf = into.to_path_buf();
    let status = git()
        .args(["-c", "credential.helper=", "clone", "-q", "--depth", "1", "--", url])
        .arg(into)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|s| s.success())
}
