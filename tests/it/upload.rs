//! Bring your own build: `server deploy APP -` takes an archive on its standard input, on the machine and behind an SSH key
//! that may do nothing else (P35).

use crate::harness::apps::{
    DEPLOY_LIMIT, PLAIN, create, deploy, deploy_live, ended, roll_back, show, visitor,
};
use crate::harness::program::read_all;
use crate::harness::server::{free_port, run};
use crate::harness::{Finished, GitServer, Http, Server, Setup, process, until, until_some};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{PipeWriter, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A repository that nobody reaches: nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:9/shop.git";

/// An app that says what a build left and what it was told.
fn files(version: &str) -> [(&'static str, String); 2] {
    let said = format!("('{version} ' + os.environ.get('GIT_COMMIT', 'none')).encode()");
    [("Procfile", PLAIN[0].1.to_owned()), ("main.py", PLAIN[1].1.replace("b'VERSION one'", &said))]
}

/// An archive of files, as `tar -C dist -c .` makes it.
fn archive(home: &Path, files: &[(&str, String)]) -> PathBuf {
    let dist = home.join("dist");
    std::fs::create_dir_all(&dist).unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(dist.join(name), text).unwrap());
    run(Command::new("tar").arg("-cf").arg(home.join("archive")).arg("-C").arg(&dist).arg("."));
    home.join("archive")
}

/// The command at work.
struct Client(Child);

impl Client {
    fn start(setup: &Setup, input: impl Into<Stdio>) -> Self {
        Self::of(setup.command(&["deploy", "shop", "-"]), input)
    }

    fn of(mut command: Command, input: impl Into<Stdio>) -> Self {
        let output = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(output.spawn().expect("the command starts"))
    }

    /// A client that waits for more, with its deploy.
    fn held(server: &Server, owner: &mut Http, app: &str) -> (Self, PipeWriter, String) {
        let before = show(owner, app)["lastDeployId"].clone();
        let (input, writer) = std::io::pipe().unwrap();
        let client = Self::start(server.setup(), input);
        let id = until_some("it is queued", DEPLOY_LIMIT, || {
            let last = show(owner, app)["lastDeployId"].clone();
            (last != before).then_some(last)
        });
        (client, writer, id.as_str().expect("an id").to_owned())
    }

    /// The same, once it is being unpacked.
    fn unpacking(server: &Server, owner: &mut Http, app: &str) -> (Self, PipeWriter, String) {
        let held = Self::held(server, owner, app);
        until("it is being unpacked", DEPLOY_LIMIT, || {
            owner.get(&format!("/api/deploys/{}", held.2)).json()["status"] == "fetching"
        });
        held
    }

    #[track_caller]
    fn end(mut self) -> Finished {
        let out = read_all(self.0.stdout.take().expect("piped"));
        let err = read_all(self.0.stderr.take().expect("piped"));
        let status = until_some("the command ends", DEPLOY_LIMIT, || self.0.try_wait().unwrap());
        let [stdout, stderr] = [out, err].map(|text| text.join().expect("output"));
        Finished { code: status.code(), stdout, stderr }
    }

    #[track_caller]
    fn succeeds(self) -> String {
        let finished = self.end();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:#?}");
        finished.stdout
    }

    /// It has to end with this sentence.
    #[track_caller]
    fn fails(self, sentence: &str) {
        let finished = self.end();
        assert_eq!(finished.code, Some(1), "{finished:#?}");
        assert!(finished.stderr.contains(sentence), "{sentence}: {finished:#?}");
    }
}

/// An app named `shop`, whose repository holds version one.
fn shop(owner: &mut Http, git: &GitServer) -> String {
    let files = files("one");
    git.commit("shop", &[("Procfile", &files[0].1), ("main.py", &files[1].1)]);
    create(owner, &json!({"name": "shop", "gitRepo": git.url("shop")}))
}

#[track_caller]
fn says(owner: &mut Http, app: &str) -> String {
    visitor(owner, app).get("/").expect(200).text()
}

fn last(owner: &mut Http, app: &str) -> Value {
    let id = show(owner, app)["lastDeployId"].as_str().expect("an id").to_owned();
    ended(owner, &id)
}

#[test]
fn p35_an_archive_is_deployed_as_a_repository_is_and_the_next_deploy_is_of_git_again() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = shop(&mut owner, &git);
    let build = json!({"buildCommand": "echo building; sed -i s/two/built/ main.py"});
    owner.patch(&format!("/api/apps/{app}"), &build).expect(200);

    // What is sealed and what is run as another user is as if Git had checked it out.
    let sent = archive(server.setup().home(), &files("two"));
    run(Command::new("chmod").args(["-R", "go-rwx"]).arg(server.setup().home().join("dist")));
    let log = Client::start(server.setup(), File::open(&sent).unwrap()).succeeds();
    for line in ["Unpacking the archive", "\nbuilding\n", "Live on port"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(says(&mut owner, &app), "built none");
    let uploaded = last(&mut owner, &app);
    let about = ["status", "trigger", "commit", "commitMessage"].map(|key| uploaded[key].clone());
    assert_eq!(about, [json!("live"), json!("upload"), Value::Null, Value::Null]);
    let whole = owner.get(&format!("/api/deploys/{}/log", uploaded["id"].as_str().unwrap()));
    assert_eq!(whole.expect(200).text(), log);

    deploy_live(&mut owner, &app);
    assert!(says(&mut owner, &app).starts_with("one "));
    roll_back(&mut owner, &app, uploaded["id"].as_str().unwrap());
    assert_eq!(says(&mut owner, &app), "built none");
}

#[test]
fn an_archive_that_no_repository_could_be_is_refused_in_a_sentence_and_the_live_release_serves_on()
{
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": NOWHERE}));
    let home = server.setup().home().to_path_buf();
    let send = |path: &Path| Client::start(server.setup(), File::open(path).unwrap());
    send(&archive(&home, &files("one"))).succeeds();
    let archives = home.join("archives");
    std::fs::create_dir(&archives).unwrap();
    let script = include_str!("fixtures/archives.py");
    run(Command::new("python3").args(["-c", script]).arg(&archives));
    // Three files of 1 GiB, and one of 3 GiB, of which nothing but their length is there.
    for (name, files, gib) in [("large", 3, 1), ("huge", 1, 3)] {
        let dir = home.join(name);
        std::fs::create_dir(&dir).unwrap();
        for n in 0..files {
            File::create(dir.join(n.to_string())).unwrap().set_len(gib << 30).unwrap();
        }
        let to = archives.join(name);
        run(Command::new("tar").arg("-cSf").arg(to).arg("-C").arg(&dir).arg("."));
    }
    let no_end = "the archive has no end";
    for (name, sentence) in [
        ("packed", "the archive is compressed; send it plain"),
        ("text", "what was sent is no archive"),
        ("empty", "what was sent is no archive"),
        ("short", no_end),
        ("cut", no_end),
        ("absolute", "the archive holds names that are absolute or lead out of it"),
        ("above", "the archive holds names that are absolute or lead out of it"),
        ("hard", "the archive holds names that are absolute or lead out of it"),
        ("device", "the archive holds a device: dev/zero"),
        ("fifo", "the archive holds a named pipe, a socket or a device: pipe"),
        ("through", "could not be unpacked: x/passwd: Cannot open: Not a directory"),
        ("link", "the archive holds a symbolic link that leads out of it: x"),
        ("chain", "the archive holds a symbolic link that leads out of it: x"),
        ("many", "the archive holds more than 250000 files"),
        ("huge", "a file of the archive is larger than 2048 MiB"),
        ("large", "the files of the archive are larger than 2048 MiB"),
    ] {
        send(&archives.join(name)).fails(sentence);
        let failed = last(&mut owner, &app);
        let error = failed["error"].as_str().unwrap();
        assert!(error.starts_with("fetching failed: ") && error.contains(sentence), "{error}");
        assert_eq!(says(&mut owner, &app), "one none", "{name}");
    }
    let releases = server.data().join("apps").join(&app).join("releases");
    let kept = || std::fs::read_dir(&releases).unwrap().flatten().map(|entry| entry.file_name());
    until("what was refused is gone", DEPLOY_LIMIT, || kept().count() == 2);
    // A site without a process is refused by its own step: there is no router here.
    send(&archives.join("whole")).fails("the router serves static sites, and there is none");
    send(&home).fails("is a directory");
}

#[test]
fn a_newer_request_replaces_an_upload_that_waits_and_a_client_that_stalls_is_cancelled() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = shop(&mut owner, &git);
    let (stalls, _more, first) = Client::unpacking(&server, &mut owner, &app);
    let (waits, mut pipe, _) = Client::held(&server, &mut owner, &app);
    let by_git = deploy(&mut owner, &app);
    waits.fails("replaced by a newer request before it began");
    until("nobody reads what is sent", DEPLOY_LIMIT, || pipe.write(b"x").is_err());
    owner.post(&format!("/api/deploys/{first}/cancel"), &json!({})).expect(202);
    stalls.fails("cancelled");
    assert_eq!(ended(&mut owner, &by_git)["status"], "live");
    assert!(says(&mut owner, &app).starts_with("one "));
}

#[test]
fn a_sender_that_goes_away_fails_its_deploy_alone_and_so_does_a_server_that_is_killed() {
    let git = GitServer::start();
    let mut server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = shop(&mut owner, &git);
    deploy_live(&mut owner, &app);
    let sent = archive(server.setup().home(), &files("two"));
    let whole = std::fs::read(&sent).unwrap();

    // The command is killed with its sender, after a part.
    let (client, mut pipe, id) = Client::held(&server, &mut owner, &app);
    pipe.write_all(&whole[..1024]).unwrap();
    process::signal(client.0.id(), Signal::KILL);
    drop((client.end(), pipe));
    let error = ended(&mut owner, &id)["error"].to_string();
    assert!(error.contains("the archive has no end"), "{error}");

    // The command alone is: what was sent whole is deployed.
    let (client, mut pipe, id) = Client::held(&server, &mut owner, &app);
    process::signal(client.0.id(), Signal::KILL);
    client.end();
    pipe.write_all(&whole).unwrap();
    drop(pipe);
    assert_eq!(ended(&mut owner, &id)["status"], "live");
    assert_eq!(says(&mut owner, &app), "two none");

    let (begun, _held, first) = Client::unpacking(&server, &mut owner, &app);
    let (waits, _held, second) = Client::held(&server, &mut owner, &app);
    drop(owner);
    server.kill9();
    begun.fails("the server has ended");
    waits.fails("the server has ended");
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    let error = ended(&mut owner, &first)["error"].to_string();
    assert!(error.contains("the server stopped while this deploy was fetching"), "{error}");
    let error = ended(&mut owner, &second)["error"].to_string();
    assert!(error.contains("started anew before the archive had its turn"), "{error}");
    until("the release before serves", DEPLOY_LIMIT, || {
        show(&mut owner, &app)["status"] == "running"
    });
    assert_eq!(says(&mut owner, &app), "two none");
}

#[test]
fn the_server_never_waits_in_a_pipe_to_which_others_write() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = shop(&mut owner, &git);
    let (client, held, _) = Client::held(&server, &mut owner, &app);
    let files = |pid: u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).collect::<Vec<_>>()
    };
    let output = std::fs::read_link(format!("/proc/{}/fd/1", client.0.id())).unwrap();
    assert!(files(client.0.id()).contains(&output));
    assert!(!files(server.pid()).contains(&output), "{output:?}");
    drop(held);
    client.fails("what was sent is no archive");
}

#[test]
fn the_command_says_what_it_wants() {
    let server = Server::start();
    let mut owner = server.owner();
    let said = |arguments: &[&str]| server.setup().run(arguments);
    for words in [&["deploy"][..], &["deploy", "shop"], &["deploy", "shop", "archive.tar"]] {
        let finished = said(words);
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        assert!(finished.stderr.contains("'deploy' wants an app and '-'"), "{finished:#?}");
    }
    let finished = said(&["deploy", "shop", "-"]);
    assert!(finished.stderr.contains("there is no app shop"), "{finished:#?}");
    assert_eq!(finished.code, Some(1));
    create(&mut owner, &json!({"name": "shop", "gitRepo": NOWHERE}));
    let setup = server.stop();
    let finished = setup.run(&["deploy", "shop", "-"]);
    assert!(finished.stderr.contains("no server runs on this data directory"), "{finished:#?}");
    assert_eq!(finished.code, Some(1));
}

/// A line of shell as a program that ends with the test.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ended = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn an_ssh_key_with_a_forced_command_deploys_its_app_and_does_nothing_else() {
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": NOWHERE}));
    let setup = server.setup();
    let home = setup.home().display().to_string();
    let program = setup.command(&[]);
    let program = program.get_args().find(|word| word.to_string_lossy().ends_with("/server"));
    let program = program.map_or(env!("CARGO_BIN_EXE_server").into(), |word| word.to_owned());
    let as_user = |line: &str| setup.clone().shell(&format!("exec {line}")).command(&[]);
    for name in ["host", "key"] {
        run(&mut as_user(&format!("ssh-keygen -q -t ed25519 -N '' -f '{home}/{name}'")));
    }
    let key = std::fs::read_to_string(format!("{home}/key.pub")).unwrap();
    let forced = format!("DATA_DIR='{home}/data' '{}' deploy shop -", program.display());
    let keys = format!("command=\"{forced}\",restrict {key}");
    std::fs::write(format!("{home}/keys"), keys).unwrap();
    let port = free_port();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/keys\n\
         PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
    );
    std::fs::write(format!("{home}/config"), config).unwrap();
    let log = File::create(format!("{home}/sshd.log")).unwrap();
    let mut sshd = as_user(&format!("/usr/sbin/sshd -D -e -f '{home}/config'"));
    let _sshd = Sshd(sshd.stderr(log).spawn().expect("sshd"));
    until("sshd listens", DEPLOY_LIMIT, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let ssh = |command: &str| {
        as_user(&format!(
            "ssh -p {port} -i '{home}/key' -o BatchMode=yes -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR 127.0.0.1 {command}"
        ))
    };
    let sent = archive(setup.home(), &files("sent"));
    // What the client asks for instead is not done.
    let log = Client::of(ssh("cat '/etc/hostname'"), File::open(&sent).unwrap()).succeeds();
    assert!(log.contains("Unpacking the archive") && log.contains("Live on port"), "{log}");
    assert_eq!(says(&mut owner, &app), "sent none");
    // A connection that breaks off in the middle.
    let before = show(&mut owner, &app)["lastDeployId"].clone();
    let (input, mut pipe) = std::io::pipe().unwrap();
    let client = Client::of(ssh(""), input);
    pipe.write_all(&std::fs::read(&sent).unwrap()[..1024]).unwrap();
    until("it is being unpacked", DEPLOY_LIMIT, || {
        show(&mut owner, &app)["lastDeployId"] != before
    });
    process::signal(client.0.id(), Signal::KILL);
    client.end();
    let failed = last(&mut owner, &app);
    assert!(failed["error"].to_string().contains("the archive has no end"), "{failed:#}");
    assert_eq!(says(&mut owner, &app), "sent none");
}
