//! What a repository can make grow has a bound: the memory of the server, and of Git.

use crate::harness::apps::{create, deploy, deploy_live, ended};
use crate::harness::git::{FILE, LINK};
use crate::harness::process::{all, arguments, status_kib};
use crate::harness::{GitServer, Setup, until};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

/// KiB that the server's memory may grow by while it publishes a site and removes a
/// directory: some buffers, and not the names in there, of which there are 20 MB.
const GROWTH: u64 = 8 << 10;

/// Links in the hostile site, each with a name of 200 bytes.
const LINKS: usize = 50_000;

#[test]
fn a_site_with_many_links_costs_the_server_no_memory_neither_to_publish_nor_to_remove() {
    if !rustix::process::getuid().is_root() {
        // An ordinary user's server has another program remove what an app owns.
        assert!(std::env::var_os("CI").is_none(), "this needs root; CI has it");
        return;
    }
    let git = GitServer::start();
    let repository = git.plumbing("links");
    let (target, page) = (repository.blob(b"/"), repository.blob(b"hello"));
    let names: Vec<_> = (0..LINKS).map(|n| format!("{n:0200}")).collect();
    let mut entries: Vec<_> =
        names.iter().map(|name| (LINK, name.as_bytes(), target.as_str())).collect();
    entries.push((FILE, b"index.html", &page));
    repository.commit("main", &repository.tree(&entries), "links");
    let server = Setup::routed().start();
    let mut owner = server.owner();
    // What a deploy takes at any rate.
    git.commit("plain", &[("index.html", "hello")]);
    let plain = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    deploy_live(&mut owner, &plain);
    owner.delete(&format!("/api/apps/{plain}")).expect(204);
    let peak = || status_kib(server.pid(), "VmHWM:").expect("the server");
    let before = peak();
    let app = create(&mut owner, &json!({"name": "links", "gitRepo": git.url("links")}));
    let id = deploy_live(&mut owner, &app);
    let log = owner.get(&format!("/api/deploys/{id}/log")).expect(200).text();
    assert!(log.contains("and 49995 more. Links"), "{}", &log[log.len() - 400..]);
    let published = peak();
    owner.delete(&format!("/api/apps/{app}")).expect(204);
    let apps = server.data().join("apps");
    until("its files are removed", Duration::from_secs(120), || {
        std::fs::read_dir(&apps).is_ok_and(|mut entries| entries.next().is_none())
    });
    let removed = peak();
    println!("KiB at most: {before} before, {published} published, {removed} removed");
    assert!(published < before + GROWTH, "{before} KiB before, {published} KiB published");
    assert!(removed < published + GROWTH, "{published} KiB published, {removed} KiB removed");
}

/// The most that Git may have, in KiB.
const GIT: u64 = 512 << 10;

/// Bytes after which the hostile host ends after all, so that a Git without a limit does not
/// take the machine with it.
const ENOUGH: usize = 768 << 20;

/// A Git host that names branches without end, to each who asks: the listener's address, and
/// the thread that answers `clients` of them.
fn endless(clients: usize) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let thread = std::thread::spawn(move || {
        for _ in 0..clients {
            let (mut stream, _) = listener.accept().expect("a client");
            let _asked = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\
                        Content-Type: application/x-git-upload-pack-advertisement\r\n\r\n\
                        001e# service=git-upload-pack\n0000";
            let mut sent = stream.write(head.as_bytes()).expect("a client");
            let mut number = 0;
            while sent < ENOUGH {
                let mut lines = String::new();
                for _ in 0..10_000 {
                    number += 1;
                    let line = format!("{number:040x} refs/heads/branch-{number}\n");
                    let _fits = write!(lines, "{:04x}{line}", line.len() + 4);
                }
                match stream.write_all(lines.as_bytes()) {
                    Ok(()) => sent += lines.len(),
                    Err(_) => break,
                }
            }
        }
    });
    (address, thread)
}

#[test]
fn a_host_that_names_branches_without_end_is_given_up_before_git_takes_the_machines_memory() {
    let (address, host) = endless(1);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let url = format!("http://{address}/endless.git");
    let app = create(&mut owner, &json!({"name": "endless", "gitRepo": url}));
    let id = deploy(&mut owner, &app);
    let (mut most, mut running) = (0, true);
    while running {
        let gits = all().into_iter().filter(|pid| arguments(*pid).contains(&url));
        // What it has asked for and may write to (proc_pid_status(5)).
        most = gits.filter_map(|pid| status_kib(pid, "VmData:")).max().unwrap_or(0).max(most);
        let status = owner.get(&format!("/api/deploys/{id}")).expect(200).json();
        running = status["finishedAt"].is_null();
    }
    let error = ended(&mut owner, &id)["error"].as_str().expect("an error").to_owned();
    println!("KiB of Git at most: {most}");
    assert!(most > 0 && most <= GIT, "{most} KiB; {error}");
    assert!(error.contains("Git needed more memory than it may have, which is 512 MiB"), "{error}");
    assert!(error.contains("lists branches and tags without end"), "{error}");
    host.join().expect("the host");
}
