//! What the inside of a sandbox sees of us, tried in a real one.

use super::*;
use crate::model::{MAX_ENV_TOTAL, MAX_ENV_VARS};
use crate::proc::{Exit, Output};
use crate::sandbox::host::Host;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// A machine, and a directory that stands for the data directory.
fn host() -> (Host, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("sandbox");
    fs::create_dir(&etc).unwrap();
    (Host::here(&etc), dir)
}

fn run(sandbox: &Sandbox<'_>, script: &str) -> Output {
    sandbox.prepare(&["/bin/sh", "-c", script]).run().unwrap()
}

fn out(sandbox: &Sandbox<'_>, script: &str) -> String {
    let output = run(sandbox, script);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(output.exit.is_success(), "{} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn it_has_no_capability_no_more_privileges_and_no_user_namespace() {
    let (host, _dir) = host();
    for purpose in [Purpose::Fetch, Purpose::Build, Purpose::Run] {
        let sandbox = Sandbox::new(&host, purpose, 7);
        let status = out(&sandbox, "grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status");
        for line in status.lines() {
            let (name, value) = line.split_once(':').unwrap();
            let value = value.trim();
            match name {
                "NoNewPrivs" => assert_eq!(value, "1"),
                "Groups" => assert!(value.split_whitespace().all(|g| g != "0"), "{value}"),
                _ => assert_eq!(value.trim_matches('0'), "", "{line}"),
            }
        }
        let uid = host.users.inside_uid(7).to_string();
        assert_eq!(out(&sandbox, "id -u; id -g; id -un"), format!("{uid}\n{uid}\napp"));
        assert!(!run(&sandbox, "unshare --user true").exit.is_success());
        assert!(!run(&sandbox, "unshare --fork --pid true").exit.is_success());
        assert!(!run(&sandbox, "unshare --mount true").exit.is_success());
        assert!(!run(&sandbox, "chroot /tmp true").exit.is_success());
        assert!(!run(&sandbox, "mount -t tmpfs none /tmp").exit.is_success());
    }
}

#[test]
fn calls_that_no_app_needs_are_refused_and_threads_and_processes_are_not() {
    let (host, _dir) = host();
    let sandbox = Sandbox::new(&host, Purpose::Run, 7).env("PATH", "/usr/bin:/bin");
    // Python's ctypes makes the call itself: io_uring_setup, keyctl (where x86-64 and
    // others differ, the number is asked of the architecture), unshare by name.
    let script = "python3 - <<'END'\n\
        import ctypes, errno, os, threading, subprocess\n\
        c = ctypes.CDLL(None, use_errno=True)\n\
        def call(*a):\n\
        \x20   return 'allowed' if c.syscall(*a) >= 0 else errno.errorcode[ctypes.get_errno()]\n\
        arm = os.uname().machine == 'aarch64'\n\
        print(call(425, 4, ctypes.create_string_buffer(200)), call(219 if arm else 250, 0, -3, 0))\n\
        print(call(280 if arm else 321, 0, 0, 0), call(97 if arm else 272, 0x10000000))\n\
        print(call(220 if arm else 56, 0x10000000 | 17, 0, 0, 0, 0), call(435, 0, 0))\n\
        import socket, struct; s = socket.socket()\n\
        try: s.setsockopt(0, 51, struct.pack('I', 30000 << 16 | 30000)); print('chosen')\n\
        except OSError as e: print(errno.errorcode[e.errno])\n\
        s.setsockopt(0, 1, 16); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
        t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()\n\
        print(subprocess.run(['echo', 'process'], capture_output=True, text=True).stdout.strip())\n\
        END\n";
    let seen = out(&sandbox, script);
    assert_eq!(seen, "ENOSYS ENOSYS\nENOSYS EPERM\nEPERM ENOSYS\nENOPROTOOPT\nthread\nprocess");
}

#[test]
fn p32_of_sockets_there_are_unix_netlink_tcp_udp_and_pings_and_no_other() {
    let (host, _dir) = host();
    let sandbox = Sandbox::new(&host, Purpose::Run, 7).env("PATH", "/usr/bin:/bin");
    // All that is not refused, whether this kernel has it or not: an error of the kernel's own
    // counts as allowed. Twice: with the flags that a type may have, and as a pair.
    let script = "python3 - <<'END'\n\
        import ctypes, errno, os\n\
        c = ctypes.CDLL(None, use_errno=True)\n\
        arm = os.uname().machine == 'aarch64'\n\
        pair = (ctypes.c_int * 2)()\n\
        refusals = (errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT)\n\
        def allowed(family, kind, protocol):\n\
        \x20   fd = c.syscall(198 if arm else 41, family, kind | 0o2004000, protocol)\n\
        \x20   if fd >= 0: os.close(fd); return True\n\
        \x20   if ctypes.get_errno() == errno.EACCES: return True\n\
        \x20   return family not in (1, 2, 10, 16) and ctypes.get_errno() not in refusals\n\
        def paired(family):\n\
        \x20   return c.syscall(199 if arm else 53, family, 1, 0, pair) >= 0 or ctypes.get_errno() != errno.EAFNOSUPPORT\n\
        print([f for f in range(256) if any(allowed(f, k, p) for k in range(1, 11) for p in (0, 1))])\n\
        print([f for f in range(256) if paired(f)])\n\
        for f in (1, 2, 10, 16):\n\
        \x20   print(f, [(k, p) for k in range(16) for p in range(512) if allowed(f, k, p)])\n\
        END\n";
    let seen = out(&sandbox, script);
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some("[1, 2, 10, 16]"));
    assert_eq!(lines.next(), Some("[1, 2, 10, 16]"));
    for line in lines {
        let (family, pairs) = line.split_once(' ').unwrap();
        let allowed = match family {
            // Streams, datagrams and packets; 3 is an old name for datagrams.
            "1" => "(1, 0) (2, 0) (3, 0) (5, 0)",
            "16" => "(2, 0) (3, 0)",
            "2" => "(1, 0) (1, 6) (2, 0) (2, 1) (2, 17)",
            _ => "(1, 0) (1, 6) (2, 0) (2, 17) (2, 58)",
        };
        let words = pairs.trim_matches(['[', ']']).replace("), (", ") (");
        assert_eq!(words, allowed, "family {family}");
    }
}

#[test]
fn the_host_cannot_be_reached_through_open_files() {
    crate::proc::close_inherited();
    let (host, _dir) = host();
    let sandbox = Sandbox::new(&host, Purpose::Run, 7);
    let script = "for fd in 0 1 2 3 4 5 6 7 8 9; do ls -d /proc/1/fd/$fd/../etc/.. ; done; \
                  ls /proc/1/root/root /proc/1/cwd/root; ls /proc/1/root/.. /proc/self/fd; true";
    let output = run(&sandbox, script);
    let seen = String::from_utf8_lossy(&output.stdout);
    for line in seen.lines() {
        let known =
            ["bin", "sbin", "init", "lib", "lib32", "lib64", "libx32", "usr", "etc", "proc"];
        let more =
            ["dev", "tmp", "var", "0", "1", "2", "3", "", "/proc/self/fd:", "/proc/1/root/..:"];
        assert!(known.contains(&line) || more.contains(&line), "{line} in {seen}");
    }
}

#[test]
fn it_sees_the_system_and_what_was_bound_and_nothing_else() {
    let (host, dir) = host();
    let secret = dir.path().join("admin_token.txt");
    fs::write(&secret, "bpaas_secret").unwrap();
    let data = dir.path().join("app");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let sandbox = Sandbox::new(&host, Purpose::Run, 7).bind(&data, "/data").dir("/data");
    let top = out(&sandbox, "ls /");
    for name in top.lines() {
        let allowed =
            ["bin", "data", "dev", "etc", "init", "lib", "proc", "sbin", "tmp", "usr", "var"];
        assert!(allowed.contains(&name) || name.starts_with("lib"), "{name}");
    }
    let path = secret.display().to_string();
    assert!(!run(&sandbox, &format!("cat {path}")).exit.is_success());
    assert!(!run(&sandbox, "cat /etc/shadow || ls /root || ls /home").exit.is_success());
    assert_eq!(out(&sandbox, "pwd; echo x >file; cat file; hostname"), "/data\nx\nlocalhost");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "x\n");
    for place in ["/", "/usr", "/etc", "/proc", "/proc/sys/kernel", "/bin", "/dev"] {
        assert!(!run(&sandbox, &format!("echo x >{place}/x")).exit.is_success(), "{place}");
    }
    assert_eq!(
        out(&sandbox, "echo x >/tmp/x && echo y >/dev/shm/y && cat /tmp/x /dev/shm/y"),
        "x\ny"
    );
    let processes = out(&sandbox, "ls -d /proc/[0-9]* | wc -l");
    assert!(processes.parse::<u32>().unwrap() < 8, "it sees its own processes only: {processes}");
}

#[test]
fn values_arrive_exactly_and_only_in_the_environment() {
    let (host, _dir) = host();
    let odd = "a  b\n\\n\\\\ 'x' \"$HOME\" `id` $(id) %s %d * \t\r ä\n\n";
    let sandbox = Sandbox::new(&host, Purpose::Run, 7)
        .env("PATH", "/usr/bin:/bin")
        .env("ODD", odd)
        .env("EMPTY", "")
        .env("IFS", "b")
        .env("TWICE", "one")
        .env("TWICE", "two")
        .env("LD_PRELOAD", "/nowhere.so")
        .env("UID", "7");
    let output = run(&sandbox, "env -0; cat");
    let text = String::from_utf8(output.stdout).unwrap();
    let has = |pair: &str| text.split('\0').any(|p| p == pair);
    assert!(has(&format!("ODD={odd}")), "{text:?}");
    assert!(
        has("EMPTY=") && has("TWICE=two") && !has("TWICE=one") && has("LD_PRELOAD=/nowhere.so")
    );
    assert_eq!(output.exit, Exit::Code(0), "standard input is at its end");
    let visible = format!("{:?}", sandbox.prepare(&["true"]).args_for_test());
    assert!(!visible.contains("nowhere") && !visible.contains("ODD"), "{visible}");
}

#[test]
fn nothing_runs_with_half_of_its_environment() {
    let (host, _dir) = host();
    let sandbox = Sandbox::new(&host, Purpose::Run, 7);
    let whole = Inside { command: vec!["/bin/echo".into(), "it runs".into()], ..Inside::default() };
    let whole = serde_json::to_vec(&whole).unwrap();
    for half in 0..whole.len() {
        // Each takes a sandbox: some of them.
        if half % 40 != 0 && half + 1 != whole.len() {
            continue;
        }
        let exec = sandbox.prepare(&["/bin/echo", "it runs"]).stdin_bytes(whole[..half].to_vec());
        let output = exec.run().unwrap();
        assert_eq!((output.exit, output.stdout), (Exit::Code(125), Vec::new()), "{half:?}");
    }
}

#[test]
fn as_much_environment_as_is_allowed_arrives_in_time_that_grows_no_faster_than_it() {
    let (host, _dir) = host();
    let arrives = |total: usize| {
        let mut sandbox = Sandbox::new(&host, Purpose::Run, 7).env("PATH", "/usr/bin:/bin");
        for n in 0..MAX_ENV_VARS {
            sandbox = sandbox.env(format!("V{n}"), "\\x\n".repeat(total / MAX_ENV_VARS / 3));
        }
        let begun = std::time::Instant::now();
        let bytes: usize = out(&sandbox, "env -0 | wc -c").parse().unwrap();
        assert!(bytes > total * 9 / 10, "{bytes}");
        begun.elapsed()
    };
    // The quickest of some, since others use this machine too. What grows with the
    // square would take sixteen times as long.
    let quickest = |total| (0..3).map(|_| arrives(total)).min().unwrap();
    let (quarter, whole) = (quickest(MAX_ENV_TOTAL / 4), quickest(MAX_ENV_TOTAL));
    assert!(whole < quarter * 8, "{quarter:?}, {whole:?}");
}

#[test]
fn a_library_of_the_owners_is_never_loaded_before_the_privileges_are_gone() {
    let (host, dir) = host();
    let app = dir.path().join("app");
    fs::create_dir(&app).unwrap();
    fs::set_permissions(&app, fs::Permissions::from_mode(0o777)).unwrap();
    // Not a library: the loader complains once for each program that it starts.
    fs::write(app.join("evil.so"), "x").unwrap();
    let sandbox =
        Sandbox::new(&host, Purpose::Run, 7).bind(&app, "/app").env("LD_PRELOAD", "/app/evil.so");
    let output = run(&sandbox, "exit 0");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(complaints.contains("evil.so"), "the variable does reach the app: {complaints}");
    // Our own program that becomes the shell of the command, and that one; bwrap, chroot,
    // setpriv and what was our own before them stay silent.
    assert!(complaints.lines().count() <= 2, "{complaints}");
}

#[test]
fn an_app_can_read_what_it_needs_of_the_system() {
    let (host, _dir) = host();
    let sandbox = Sandbox::new(&host, Purpose::Run, 7).env("PATH", "/usr/bin:/bin");
    for path in ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/usr/bin/env"] {
        assert_ne!(out(&sandbox, &format!("wc -c <{path}")), "0", "{path}");
    }
    let unreadable =
        "find /etc /usr/bin /usr/lib/os-release -xdev -type d ! -readable -o -type f ! -readable";
    let seen = out(&sandbox, unreadable);
    assert!(
        seen.lines().all(|path| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 4 == 0)),
        "{seen}"
    );
    assert!(out(&sandbox, "cat /etc/ssl/certs/* | wc -c").parse::<u64>().unwrap() > 1000);
    assert!(!out(&sandbox, "cat /etc/passwd").contains("/home"), "nobody else's names");
    let own_name = "getent ahostsv4 $(hostname) | head -n 1 | cut -d' ' -f1; umask";
    assert_eq!(out(&sandbox, own_name), "127.0.0.1\n0022");
}

#[test]
fn limits_are_in_force_inside() {
    let (host, _dir) = host();
    let limits =
        "ulimit -c; ulimit -n; cut -d' ' -f19 /proc/self/stat; cat /proc/self/oom_score_adj";
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let open = most.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    assert!(host.memory > 64 << 20);
    let app = Sandbox::new(&host, Purpose::Run, 7);
    assert_eq!(out(&app, limits), format!("0\n{open}\n0\n200"));
    assert!(!run(&app, "echo 0 >/proc/self/oom_score_adj").exit.is_success());
    let build = Sandbox::new(&host, Purpose::Build, 7);
    assert_eq!(out(&build, limits), format!("0\n{open}\n19\n800"));
    if host.bwrap >= (0, 7) && host.cgroups.is_err() {
        let mut small = Sandbox::new(&host, Purpose::Run, 7);
        small.limits.memory = 64 << 20;
        let sizes = out(&small, "df --output=size -m /tmp /dev/shm | tail -n 2 | xargs");
        assert_eq!(sizes, "32 32", "MiB, together as much as it may take");
    }
    let hungry = "python3 -c 'x = bytearray(1 << 50)' 2>&1 | tail -n 1";
    assert_eq!(out(&build, hungry), "MemoryError");
}

#[test]
fn an_apps_releases_and_its_build_do_not_take_each_others_processes() {
    let (host, dir) = host();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let app = || {
        let mut app = Sandbox::new(&host, Purpose::Run, 7).bind(&shared, "/data");
        app.limits.processes = 10;
        app
    };
    let build = Sandbox::new(&host, Purpose::Build, 7).bind(&shared, "/data");
    // Each has its processes until the file `end` is there.
    let script = |mine: &str, processes: u32| {
        format!(
            "for n in $(seq {processes}); do sleep 60 & done; touch /data/{mine}; \
             until [ -e /data/end ]; do sleep 0.1; done; echo {mine}"
        )
    };
    std::thread::scope(|scope| {
        let begin = |name: &'static str, sandbox: Sandbox<'_>, processes: u32| {
            let exec = sandbox.prepare(&["/bin/sh", "-c", &script(name, processes)]);
            let running = scope.spawn(move || exec.deadline(Duration::from_secs(30)).run());
            let until = std::time::Instant::now() + Duration::from_secs(20);
            while !shared.join(name).exists() && !running.is_finished() {
                assert!(std::time::Instant::now() < until, "{name} did not start");
                std::thread::yield_now();
            }
            running
        };
        let running = [begin("live", app(), 6), begin("build", build, 12), begin("next", app(), 6)];
        fs::write(shared.join("end"), "").unwrap();
        for (name, one) in ["live", "build", "next"].iter().zip(running) {
            let output = one.join().unwrap().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said.trim(), *name, "{}", String::from_utf8_lossy(&output.stderr));
        }
    });
    let app = app();
    let held = |in_cgroup| app.inside(&[], in_cgroup);
    assert_eq!((held(true).processes, held(true).data), (None, None));
    assert_eq!(held(false).processes, Some(app.limits.of_user(host.users)));
}

#[test]
fn a_build_dies_with_its_bubblewrap_and_reports_its_code() {
    let (host, _dir) = host();
    let build = Sandbox::new(&host, Purpose::Build, 7);
    assert_eq!(run(&build, "exit 7").exit, Exit::Code(7));
    assert_eq!(run(&build, "kill -9 $$").exit, Exit::Code(128 + 9));
    let marker = format!("{}.25", std::process::id());
    let exec = build.prepare(&["/bin/sh", "-c", &format!("sleep {marker} & sleep {marker}")]);
    assert_eq!(exec.deadline(Duration::from_secs(1)).run().unwrap().exit, Exit::TimedOut);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let alive = || {
        let table = crate::proc::table::all();
        table.iter().any(|e| crate::proc::table::arguments(e.pid).contains(&marker))
    };
    while alive() {
        assert!(std::time::Instant::now() < until, "the sandbox outlived its bubblewrap");
        std::thread::yield_now();
    }
}

#[test]
fn an_app_has_no_signal_blocked_though_its_first_process_has() {
    let (host, _dir) = host();
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let mut sandbox = Sandbox::new(&host, Purpose::Run, 7);
    sandbox.log = Some(1 << 20);
    // Not through a shell, which may let all signals through by itself.
    let exec = sandbox.prepare(&["/usr/bin/grep", "SigBlk", "/proc/self/status"]);
    let mut app = exec.spawn_detached(&files[0], &files[1]).unwrap();
    assert_eq!(app.wait(Duration::from_secs(30)), Some(Exit::Code(0)));
    let tail = crate::journal::Rotating::new(files, 1 << 20).unwrap().text();
    assert_eq!(tail, "SigBlk:\t0000000000000000\n");
}
