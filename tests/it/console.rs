//! `server run APP -- COMMAND`: a command in an app's place, at the operator's terminal (P35).

use crate::harness::apps::{DEPLOY_LIMIT, PLAIN, create, deploy_live};
use crate::harness::server::mode;
use crate::harness::{GitServer, Server, Setup, process, random, until, until_some};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A server with a live app that is called `shop`.
fn live(setup: Setup) -> (Server, GitServer, String) {
    let git = GitServer::start();
    git.commit("shop", &PLAIN);
    let server = setup.start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    (server, git, app)
}

/// The program with these words behind `run shop --`.
fn command(server: &Server, words: &[&str]) -> Command {
    server.setup().command(&[&["run", "shop", "--"], words].concat())
}

/// A terminal at which that runs.
struct Terminal {
    ours: File,
    /// What the program has on its side; it stays open, so that it can be asked.
    theirs: File,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Terminal {
    fn new(server: &Server, words: &[&str]) -> Self {
        Self::with(server, words, None, None)
    }

    /// The same with files as standard input and standard error.
    fn with(server: &Server, words: &[&str], input: Option<File>, err: Option<File>) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        unlockpt(&ours).expect("unlocked");
        let theirs = File::from(ioctl_tiocgptpeer(&ours, flags).expect("its other side"));
        let stdio = || Stdio::from(theirs.try_clone().expect("a copy"));
        let command = command(server, words);
        // In a session of its own, whose terminal it is: then it hears of a new size.
        let mut outer = Command::new("setsid");
        outer
            .args(input.is_none().then_some("--ctty"))
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer.current_dir(server.setup().home()).env("TERM", "vt52");
        let child = outer
            .stdin(input.map_or_else(stdio, Stdio::from))
            .stdout(stdio())
            .stderr(err.map_or_else(stdio, Stdio::from))
            .spawn()
            .expect("started");
        let ours = File::from(ours);
        let (reader, said) = (ours.try_clone().expect("a copy"), Arc::default());
        crate::harness::program::follow_pieces(reader, Arc::clone(&said));
        Self { ours, theirs, child, said }
    }

    fn size(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.ours, size).expect("a size");
    }

    fn types(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).expect("typed");
    }

    #[track_caller]
    fn says(&self, text: &str) {
        until(&format!("it says {text:?}: {}", self.said.lock().unwrap()), LIMIT, || {
            self.said.lock().unwrap().contains(text)
        });
    }

    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let status = until_some("it ends", LIMIT, || self.child.try_wait().expect("a status"));
        status.code()
    }

    /// Whether what is typed comes line by line and is shown, as a shell wants it.
    fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.theirs).expect("its modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

/// How the run that began last has ended.
#[track_caller]
fn last_result(server: &Server, app: &str) -> String {
    until_some("the run ends", DEPLOY_LIMIT, || {
        let runs = server.owner().get(&format!("/api/apps/{app}/runs")).expect(200).json();
        runs["runs"][0]["result"].as_str().map(str::to_owned)
    })
}

fn is_there(number: &str) -> bool {
    process::all().into_iter().any(|pid| process::arguments(pid).contains(number))
}

fn long() -> String {
    format!("1{:05}", u16::from_be_bytes(random()))
}

#[test]
fn p35_a_console_has_a_terminal_of_its_own_with_the_size_and_the_keys_of_ours() {
    for setup in [Setup::new().as_user(), Setup::new()] {
        let (server, _git, app) = live(setup);
        let mut terminal = Terminal::new(&server, &["/bin/sh"]);
        terminal.size(33, 101);
        // A shell that has a terminal says that it waits.
        terminal.says("$ ");
        assert!(!terminal.is_as_before(), "keys pass through");
        terminal.types("test -t 0 && test -t 1 && test -t 2 && echo at-$TERM-$PORT-end; pwd\n");
        terminal.says("at-vt52--end");
        terminal.says("/app");
        terminal.types("stty size\n");
        terminal.says("33 101");
        terminal.size(40, 120);
        until("it has the new size", LIMIT, || {
            terminal.types("stty size\n");
            terminal.said.lock().unwrap().contains("40 120")
        });
        // The key ends the command, and neither its shell nor the program at our terminal.
        terminal.types("echo be''gun; sleep 1000; echo in''terrupted $?\n");
        terminal.says("begun");
        terminal.types("\x03");
        terminal.types("echo go''es on\n");
        terminal.says("goes on");
        terminal.types("echo kept >/data/kept; echo $(id -u)=$(stat -c %u /data)=; exit 7\n");
        assert_eq!(terminal.ends(), Some(7));
        assert!(terminal.is_as_before());
        let said = terminal.said.lock().unwrap().clone();
        let ids = said.lines().find(|line| line.ends_with('=')).expect("ids");
        let ids: Vec<&str> = ids.split('=').collect();
        assert_eq!(ids[0], ids[1], "{said}");
        assert_eq!(last_result(&server, &app), "exit code 7");
    }
}

fn output(mut command: Command, stdin: impl Into<Stdio>) -> Output {
    command.stdin(stdin).output().expect("a program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_a_terminal_a_command_has_the_streams_that_it_is_given_and_nothing_else() {
    let (server, _git, app) = live(Setup::new().as_user());
    let given = server.setup().home().join("given");
    std::fs::write(&given, "in\n").unwrap();
    let file = || File::open(&given).unwrap();
    let script = "cat; echo err >&2; test -t 0 || echo none; ls /proc/self/fd; exit 4";
    let ended = output(command(&server, &["sh", "-c", script]), file());
    assert_eq!(text(&ended.stdout), "in\nnone\n0\n1\n2\n3\n", "the last is the directory itself");
    assert_eq!((text(&ended.stderr), ended.status.code()), ("err\n".into(), Some(4)));
    assert_eq!(last_result(&server, &app), "exit code 4");
    let words = ["printf", "%s|", "two words", "*", "--help"];
    assert_eq!(text(&output(command(&server, &words), file()).stdout), "two words|*|--help|");
    let ended = output(command(&server, &["sh", "-c", "kill -TERM $$"]), file());
    assert_eq!(ended.status.code(), Some(143));
    // A terminal among them stays ours: what is behind it is passed on.
    let script = "cat; test -t 1 || test -t 2 || echo none; exit 5";
    let mut terminal = Terminal::with(&server, &["sh", "-c", script], Some(file()), None);
    assert_eq!(terminal.ends(), Some(5));
    terminal.says("in\r\nnone\r\n");
    assert!(terminal.is_as_before());
    // Errors alone may go elsewhere: the rest is a terminal all the same.
    let errors = server.setup().home().join("errors");
    let script = "test -t 0 && test -t 1 && echo both; echo err >&2; exit 6";
    let err = Some(File::create(&errors).unwrap());
    let mut terminal = Terminal::with(&server, &["sh", "-c", script], None, err);
    assert_eq!(terminal.ends(), Some(6));
    terminal.says("both\r\n");
    assert_eq!(std::fs::read_to_string(&errors).unwrap(), "err\n");

    let refused = |words: &[&str], stdin: File| {
        let ended = output(server.setup().command(words), stdin);
        assert_eq!((ended.status.code(), text(&ended.stdout)), (Some(125), String::new()));
        text(&ended.stderr)
    };
    assert_eq!(
        refused(&["run", "nobody", "--", "true"], file()),
        "server: there is no app nobody\n"
    );
    let many = vec!["12345678"; 30_000];
    let long = refused(&[&["run", "shop", "--", "echo"], &many[..]].concat(), file());
    assert!(long.contains("longer than the server takes (256 KiB); put it into a file"), "{long}");
    let directory = refused(&["run", "shop", "--", "ls"], File::open("/").unwrap());
    assert!(directory.contains("a stream is a directory"), "{directory}");
    let absent = output(command(&server, &["no-such-program"]), file());
    assert_eq!(absent.status.code(), Some(125));
    assert!(text(&absent.stderr).contains("no-such-program"), "{absent:?}");
    let mut owner = server.owner();
    let repo = json!({"name": "new", "gitRepo": "https://git.invalid/o/r"});
    let new: Value = owner.post("/api/apps", &repo).expect(201).json();
    let id = new["id"].as_str().unwrap();
    assert!(refused(&["run", id, "--", "true"], file()).contains("no live release"));
    let setup = server.stop();
    let ended = output(setup.command(&["run", "shop", "--", "true"]), file());
    assert_eq!(ended.status.code(), Some(125));
    assert!(text(&ended.stderr).contains("no server runs"), "{ended:?}");
}

#[test]
fn what_is_no_request_gets_a_sentence_and_whoever_says_nothing_holds_nobody_up() {
    let (mut server, _git, app) = live(Setup::new().as_user());
    let socket = server.data().join("ops.sock");
    assert_eq!(mode(&socket) & 0o077, 0, "nobody but the server's user and root");
    let ask = |line: &str| {
        let mut socket = UnixStream::connect(&socket).unwrap();
        let mut answer = String::new();
        // It may end before it has read all.
        let _gone = socket.write_all(format!("{line}\n").as_bytes());
        let _gone = socket.read_to_string(&mut answer);
        answer
    };
    for line in ["", "x", "[]", r#"{"run":{}}"#, r#"{"run":{"app":"shop","command":"true"}}"#] {
        assert!(ask(line).contains("of another version"), "{line}");
    }
    let request = r#"{"run":{"app":"shop","command":["true"],"term":null}}"#;
    assert_eq!(ask(request), "{\"Err\":\"three streams are needed\"}\n");
    assert_eq!(ask(&"x".repeat(300 << 10)), "", "it does not listen for ever");
    let _silent: Vec<_> = (0..4).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let ended = output(command(&server, &["echo", "one"]), Stdio::null());
    assert_eq!((text(&ended.stdout), ended.status.code()), ("one\n".to_owned(), Some(0)));
    let mut slow = UnixStream::connect(&socket).unwrap();
    until("it listens to nobody who takes too long", LIMIT, || slow.write_all(b"x").is_err());
    let runs = server.owner().get(&format!("/api/apps/{app}/runs")).expect(200).json();
    assert_eq!(runs["runs"].as_array().expect("runs").len(), 1, "{runs}");
    assert!(server.terminate().1 < Duration::from_secs(10));
}

#[test]
fn a_command_ends_with_its_terminal_and_with_its_server_and_both_say_so() {
    let (mut server, _git, app) = live(Setup::new().as_user());
    let begin = |server: &Server| {
        let long = long();
        let script = format!("trap '' HUP; echo be''gun; sleep {long}");
        let terminal = Terminal::new(server, &["sh", "-c", &script]);
        terminal.says("begun");
        (terminal, long)
    };
    let (mut terminal, long) = begin(&server);
    terminal.child.kill().unwrap();
    until("it has ended with its terminal", LIMIT, || !is_there(&long));
    terminal.child.wait().unwrap();
    assert_eq!(last_result(&server, &app), "the command was ended: who had started it is gone");

    let (mut terminal, long) = begin(&server);
    process::signal(terminal.child.id(), rustix::process::Signal::TERM);
    assert_eq!(terminal.ends(), Some(143));
    assert!(terminal.is_as_before());
    until("it has ended with its terminal", LIMIT, || !is_there(&long));

    let (mut terminal, long) = begin(&server);
    server.kill9();
    assert_eq!(terminal.ends(), Some(125));
    terminal.says("the server has ended");
    assert!(terminal.is_as_before());
    until("it has ended with its server", LIMIT, || !is_there(&long));

    let mut server = server.setup().clone().start();
    let (mut terminal, _) = begin(&server);
    server.terminate();
    assert_eq!(terminal.ends(), Some(125));
    terminal.says("ended with the server");
    let server = server.setup().clone().start();
    assert_eq!(last_result(&server, &app), "ended with the server");
}
