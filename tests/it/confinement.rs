//! What an app can do to the others, to the server and to its own log, tried from inside.

use crate::harness::apps::{PLAIN, create, deploy_live, show, visitor};
use crate::harness::obedient::{OBEDIENT, ask};
use crate::harness::{
    GitServer, Http, Netns, Server, Setup, hex, process, random, until, until_some,
};
use serde_json::json;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// More than any step takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Everything of an app's log on the disk: two files of 5 MiB, and not a byte more.
const LOG_LIMIT: u64 = 10 << 20;

/// Tries to bind each address of a list at each port of another; says which it got.
const BIND: &str = "python3 - <<'END'
import errno, os, socket
def bind(address, port):
    with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET) as s:
        try: s.bind((address, port)); return 'bound'
        except OSError as e: return errno.errorcode[e.errno]
for address in ADDRESSES:
    print(address, sorted({bind(address, port) for port in PORTS}))
END
";

/// The kernel refuses with this what Landlock does not allow.
const REFUSED: &str = "['EACCES']";

struct App {
    id: String,
    uid: Option<u32>,
}

fn obedient(server: &Server, owner: &mut Http, git: &GitServer, name: &str) -> App {
    let id =
        create(owner, &json!({"name": name, "gitRepo": git.url("obedient"), "healthPath": "/"}));
    deploy_live(owner, &id);
    let [its, servers] = [format!("apps/{id}/data"), String::new()].map(|path| {
        let meta = fs::metadata(server.data().join(path)).expect("a directory");
        std::os::unix::fs::MetadataExt::uid(&meta)
    });
    App { id, uid: (its != servers).then_some(its) }
}

fn python(script: &str) -> String {
    format!("python3 - 2>&1 <<'END'\n{script}\nEND\n")
}

fn logs(server: &Server, app: &str) -> Vec<PathBuf> {
    ["log", "log.1"].map(|end| server.data().join(format!("logs/apps/{app}.{end}"))).to_vec()
}

fn size(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The first process of an app's sandbox.
fn init_of(app: &str) -> u32 {
    let is_ours = |pid: &u32| {
        let words = process::arguments(*pid);
        words.starts_with("/init") && words.contains(app)
    };
    process::all().into_iter().find(is_ours).expect("its first process")
}

fn an_app_cannot_harm_others(setup: Setup) {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = setup.start();
    let mut owner = server.owner();
    let one = obedient(&server, &mut owner, &git, "one");
    let two = obedient(&server, &mut owner, &git, "two");
    listens_at_no_port_of_others(&server, &mut owner, &one);
    reaches_no_abstract_socket_of_others(&mut owner, &one, &two);
    touches_neither_limits_nor_its_first_process(&mut owner, &one);
    for app in [&one, &two] {
        assert_eq!(show(&mut owner, &app.id)["status"], "running");
    }
    let fences = until_some("the fences were tried", LONG, || {
        let system = owner.get("/api/system").expect(200).json();
        system["portFence"]["inForce"].as_bool().filter(|fenced| *fenced).map(|_| system)
    });
    assert_eq!(fences["socketFence"]["inForce"], true, "{fences:#}");
    assert_eq!(one.uid == two.uid, one.uid.is_none(), "a user of its own for each, or none");
}

fn listens_at_no_port_of_others(server: &Server, owner: &mut Http, one: &App) {
    let mut does = |script: &str| ask(owner, &one.id, "/shell", script);
    // No port but its own, at no address.
    let bind =
        |addresses: &str, ports: &str| BIND.replace("ADDRESSES", addresses).replace("PORTS", ports);
    let port = server.address().port();
    let said =
        does(&bind("('0.0.0.0', '127.0.0.1', '127.0.0.2', '::', '::1')", &format!("[{port}]")));
    assert_eq!(said.lines().filter(|line| line.ends_with(REFUSED)).count(), 5, "{said}");
    let own = "int(os.environ['PORT'])";
    let others = format!("set(range(20000, 30000)) - {{{own}}}");
    let said = does(&bind("('127.0.0.1',)", &others));
    assert_eq!(said.trim(), format!("127.0.0.1 {REFUSED}"));
    let said = does(&bind("('127.0.0.2',)", &format!("[0, {own}]")));
    assert!(said.contains("'bound'") && !said.contains("EACCES"), "{said}");
}

fn reaches_no_abstract_socket_of_others(owner: &mut Http, one: &App, two: &App) {
    let mut does = |app: &App, script: &str| ask(owner, &app.id, "/shell", script);
    // No abstract socket of the machine's, nor of another app's; its own it has.
    let name = format!("bpaas-{}", hex(&random::<8>()));
    let address = UnixAddress::from_abstract_name(&name).expect("a name");
    let _machines = UnixListener::bind_addr(&address).expect("an abstract socket");
    let hold = format!(
        "import os, socket\ns = socket.socket(socket.AF_UNIX); s.bind('\\0{name}-two'); s.listen()\n\
         if os.fork() == 0: os.setsid(); os.close(1); os.close(2); s.accept()"
    );
    does(two, &python(&hold));
    let knock = |name: &str| {
        python(&format!(
            "import errno, socket\ns = socket.socket(socket.AF_UNIX)\n\
             try: s.connect('\\0{name}'); print('open')\n\
             except OSError as e: print(errno.errorcode[e.errno])"
        ))
    };
    assert_eq!(does(one, &knock(&name)).trim(), "EPERM");
    assert_eq!(does(one, &knock(&format!("{name}-two"))).trim(), "EPERM");
    assert_eq!(does(two, &knock(&format!("{name}-two"))).trim(), "open");
}

fn touches_neither_limits_nor_its_first_process(owner: &mut Http, one: &App) {
    let mut does = |script: &str| ask(owner, &one.id, "/shell", script);
    // Whom the kernel takes first is not the app's to say.
    let said = does("echo 0 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj");
    assert!(said.contains("Read-only") && said.starts_with("200\n"), "{said}");

    // It has no files but its three, and no signal blocked; the first process is not its to touch.
    let said = does("ls /proc/self/fd | xargs; grep SigBlk /proc/self/status");
    assert_eq!(said, "0 1 2 3\nSigBlk:\t0000000000000000\n");
    let said =
        does("kill -TERM 1; kill -KILL 1; ls /proc/1/fd; ls -l /proc/1/exe; cat /proc/1/mem");
    assert_eq!(said.matches("Permission denied").count(), 3, "{said}");
    let forge = "import ctypes, os, struct\n\
        number = 138 if os.uname().machine == 'aarch64' else 129\n\
        info = struct.pack('iiiii', 15, 0, -1, 0, 0) + bytes(108)\n\
        print(ctypes.CDLL(None).syscall(number, 1, 15, info))";
    assert_eq!(does(&python(forge)), "0\n");
    assert_eq!(does("echo goes on"), "goes on\n");

    // Its log is what it has written, and nothing else.
    let rewrite = "import os\nfor fd in (1, 2):\n\
                   \x20   try: os.ftruncate(int(f'{fd}'), 0); print('truncated')\n\
                   \x20   except OSError as e: print('no', e.errno)";
    let main = "ls -l /proc/2/fd/1 /proc/2/fd/2; for f in /proc/2/fd/1 /proc/2/fd/2; do truncate -s 0 $f; done";
    let said = does(&format!("{main}; {}", python(rewrite)));
    assert!(said.contains("pipe:") && !said.contains("truncated"), "{said}");
    does("printf 'x\\n[better-paas] Stopped.\\n' >/proc/2/fd/1");
    let mut log = String::new();
    until("it has written", LONG, || {
        log = owner.get(&format!("/api/apps/{}/log", one.id)).expect(200).text();
        log.contains("Stopped.")
    });
    assert!(log.contains("Starting release") && log.contains("obedient app starting"), "{log}");
    assert!(!log.contains("\n[better-paas] Stopped."), "it speaks in the platform's name: {log}");
}

#[test]
fn p32_an_app_with_a_user_of_its_own_cannot_harm_others() {
    an_app_cannot_harm_others(Setup::new().as_user());
}

#[test]
fn p32_an_app_that_shares_the_servers_user_cannot_harm_others() {
    if rustix::process::getuid().is_root() {
        an_app_cannot_harm_others(Setup::new().as_user().without_subordinate_uids());
    }
}

#[test]
fn p32_an_app_of_roots_server_cannot_harm_others() {
    if rustix::process::getuid().is_root() {
        an_app_cannot_harm_others(Setup::new());
    }
}

/// Serves, and writes numbered lines as fast as it can.
const CHATTY: &str = "\
import sys, threading
def chat():
    n = 0
    while True:
        sys.stdout.write(''.join(f'{n + i:012} ' + 'x' * 50 + '\\n' for i in range(1000))); n += 1000
threading.Thread(target=chat, daemon=True).start()
";

#[test]
fn p32_a_log_has_its_bound_at_any_rate_also_while_no_server_runs() {
    let git = GitServer::start();
    let main = format!("{CHATTY}{}", PLAIN[1].1);
    git.commit("chatty", &[PLAIN[0], ("main.py", &main)]);
    let mut server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "chatty", "gitRepo": git.url("chatty")}));
    deploy_live(&mut owner, &app);
    let files = logs(&server, &app);
    let last = |owner: &mut Http| -> u64 {
        let log = owner.get(&format!("/api/apps/{app}/log?lines=5")).expect(200).text();
        let mut lines = log.lines().rev().filter_map(|line| line.split(' ').next()?.parse().ok());
        lines.next().unwrap_or_else(|| panic!("no lines: {log}"))
    };
    let bounded_until = |what: &str, mut done: Box<dyn FnMut() -> bool + '_>| {
        let (until, mut most) = (Instant::now() + LONG, 0);
        while !done() {
            most = most.max(size(&files));
            assert!(Instant::now() < until, "{what}");
        }
        assert!(most <= LOG_LIMIT, "{what}: {most}");
    };
    // Some times over the bound; each line is 64 bytes.
    let first = last(&mut owner);
    bounded_until("it writes", Box::new(|| last(&mut owner) > first + 1_000_000));
    // A page that follows is told what it misses, and goes on.
    let before = last(&mut owner);
    drop(owner);
    server.kill9();
    let inode = |file: &PathBuf| {
        file.metadata().map(|meta| std::os::unix::fs::MetadataExt::mtime_nsec(&meta))
    };
    let then = files.iter().map(inode).map(Result::ok).collect::<Vec<_>>();
    let mut looks = 0;
    bounded_until(
        "it writes alone",
        Box::new(|| {
            looks += 1;
            std::thread::yield_now();
            looks > 20_000 && files.iter().map(inode).map(Result::ok).collect::<Vec<_>>() != then
        }),
    );
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    assert!(last(&mut owner) > before, "it went on while no server ran");
    let mut visitor = visitor(&mut owner, &app);
    assert_eq!(visitor.get("/").expect(200).text(), "VERSION one");

    // What that costs each app; the program itself is there once for all of them.
    let rollup =
        fs::read_to_string(format!("/proc/{}/smaps_rollup", init_of(&app))).expect("smaps");
    let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let anonymous = anonymous.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    assert!(anonymous.is_some_and(|kib| kib <= 1024), "{rollup}");
}

#[test]
fn a_line_without_an_end_hides_nothing_that_comes_after_it() {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = obedient(&server, &mut owner, &git, "app");
    let secret = format!("s3cret-{}", hex(&random::<8>()));
    let env = json!({"env": [{"name": "KEY", "value": secret, "secret": true}]});
    owner.put(&format!("/api/apps/{}/env", app.id), &env).expect(200);
    let long = format!(
        "head -c 3000000 /dev/zero | tr '\\0' y >/proc/2/fd/1; printf {secret} >/proc/2/fd/1"
    );
    ask(&mut owner, &app.id, "/shell", &long);
    // What an app has written is there as soon as it was taken out of the pipe.
    let mut shows = |lines: u32, text: &str| {
        let log = owner.get(&format!("/api/apps/{}/log?lines={lines}", app.id)).expect(200).text();
        assert!(!log.contains(&secret), "{} bytes", log.len());
        log.contains(text)
    };
    until("most of the line is shown", LONG, || shows(200, "yyyy"));
    ask(&mut server.owner(), &app.id, "/shell", "printf '\\nafter\\n' >/proc/2/fd/1");
    until("what comes after it is shown too", LONG, || shows(20, "\nafter\n"));
    assert!(shows(20, "y[redacted]"));
}

#[test]
fn p32_on_a_kernel_without_landlock_an_app_with_one_of_our_ports_is_ended_at_any_address() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = Setup::new().as_user().without_landlock().start();
    let mut owner = server.owner();
    let [greedy, modest] =
        ["greedy", "modest"].map(|name| obedient(&server, &mut owner, &git, name));
    let problem = until_some("the fences were tried", LONG, || {
        let system = owner.get("/api/system").expect(200).json();
        let problem = system["portFence"]["problem"].as_str()?.to_owned();
        (!problem.contains("being looked at")).then_some(problem)
    });
    assert!(problem.contains("Linux 6.7"), "{problem}");
    let port = server.address().port();
    // Not where the dashboard is: that address is taken.
    let script = format!(
        "import socket, os\ns = socket.create_server(('127.0.0.2', {port}))\n\
         if os.fork() == 0: os.setsid(); os.close(1); os.close(2); s.accept()"
    );
    ask(&mut owner, &greedy.id, "/shell", &python(&script));
    until("the app is stopped", LONG, || show(&mut owner, &greedy.id)["status"] == "stopped");
    let log = owner.get(&format!("/api/apps/{}/log", greedy.id)).text();
    assert!(log.contains(&format!("it had taken port {port}, which is this server's")), "{log}");
    assert_eq!(show(&mut owner, &modest.id)["status"], "running");
}

#[test]
fn p32_who_takes_all_ports_of_apps_is_named_where_the_kernel_allows_it() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    // In a network of its own: other tests need ports too.
    let net = Netns::new();
    Netns::within(&net.machine, takes_all_ports);
}

fn takes_all_ports() {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = Setup::new().as_user().without_landlock().start();
    let mut owner = server.owner();
    let greedy = obedient(&server, &mut owner, &git, "greedy");
    let take = "import os, resource, socket, time\n\
        held = []\n\
        for port in range(20000, 30000):\n\
        \x20   try: held.append(socket.create_server(('127.0.0.1', port)))\n\
        \x20   except OSError: pass\n\
        if os.fork() == 0: os.setsid(); os.close(1); os.close(2); time.sleep(600)\n";
    ask(&mut owner, &greedy.id, "/shell", &python(take));
    let other = create(&mut owner, &json!({"name": "other", "gitRepo": git.url("obedient")}));
    let id = crate::harness::apps::deploy(&mut owner, &other);
    let error = crate::harness::apps::ended(&mut owner, &id)["error"].to_string();
    assert!(error.contains("the app greedy listens at") && error.contains("stop it"), "{error}");
}

#[test]
fn p32_secrets_that_nobody_looks_at_take_no_memory() {
    let server = Setup::new().start();
    let mut owner = server.owner();
    let resident = |server: &Server| process::resident_kib(server.pid()).expect("its memory");
    let server = {
        for n in 0..60 {
            let app = json!({"name": format!("app{n}"), "gitRepo": "https://git.example/o/r"});
            let app = create(&mut owner, &app);
            let secret =
                |n| json!({"name": format!("S{n}"), "value": hex(&random::<32>()), "secret": true});
            let env: Vec<_> = (0..20).map(secret).collect();
            owner.put(&format!("/api/apps/{app}/env"), &json!({"env": env})).expect(200);
        }
        drop(owner);
        server.restart()
    };
    server.owner().get("/api/apps").expect(200);
    let empty = Setup::new().start();
    empty.owner().get("/api/apps").expect(200);
    // A redactor for each of these apps was 90 KiB.
    let (with, without) = (resident(&server), resident(&empty));
    assert!(
        with < without + 60 * 45,
        "{with} KiB with 60 apps of 20 secrets, {without} without any"
    );
}

/// Serves, and writes lines with a secret in blocks, as programs do whose output is a file or a pipe.
const IN_BLOCKS: &str = "\
import itertools, os, threading, time
def chat():
    line = f'connecting with token={os.environ[\"KEY\"]} ok\\n'.encode()
    blocks = itertools.cycle(line)
    while True:
        os.write(1, bytes(itertools.islice(blocks, 4096))); time.sleep(0.01)
threading.Thread(target=chat, daemon=True).start()
";

#[test]
fn half_of_a_secret_is_never_shown_whoever_else_writes_into_the_log() {
    let git = GitServer::start();
    // It writes nothing else, which would come into the middle of its own lines.
    let silent = "Handler):\n    def log_message(self, *_): pass\n";
    let main =
        PLAIN[1].1.replace("Handler):\n", silent).replace("print('plain app starting')\n", "");
    let main = format!("{IN_BLOCKS}{main}");
    git.commit("blocks", &[PLAIN[0], ("main.py", &main)]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "blocks", "gitRepo": git.url("blocks")}));
    let secret = format!("hunter2-{}", hex(&random::<8>()));
    let env = json!({"env": [{"name": "KEY", "value": secret, "secret": true}]});
    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    // The platform notes each start between what two releases write.
    for _ in 0..3 {
        deploy_live(&mut owner, &app);
    }
    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    until("it has stopped", LONG, || show(&mut owner, &app)["status"] == "stopped");
    let log = owner.get(&format!("/api/apps/{app}/log?lines=1000")).expect(200).text();
    assert!(log.contains("token=[redacted] ok") && log.contains("Stopping"), "{log}");
    // Of a line that ends with its process a third of a secret may be seen.
    let begins = &secret[..secret.len() / 3 + 1];
    let halves: Vec<_> =
        log.lines().filter(|line| line.contains(begins) || line.contains(&secret[12..])).collect();
    assert!(halves.is_empty(), "{halves:?}");
}
