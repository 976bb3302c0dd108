//! How an app ends: every process of it is asked, has its time, and is not there afterwards.

use crate::harness::apps::{create, deploy_live, show, visitor};
use crate::harness::site::{LIMIT, Site, sandboxes};
use crate::harness::{GitServer, process, until};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// What an app does before it ends, as often as it is told: a connection closed, a job put back.
const STEPS: usize = 8;

/// Serves, and takes its steps when it is asked to end, once. With `STUBBORN` it never ends, and says when it was asked
/// and when it still ran.
const INDEX: &str = "\
const fs = require('fs');
let asked = false;
process.on('SIGTERM', () => {
    if (asked) return;
    asked = true;
    const begun = Date.now();
    let step = 0;
    setInterval(() => {
        if (process.env.STUBBORN) {
            // Whole at any moment: it is killed in the middle.
            fs.writeFileSync('/data/runs', `${Date.now() - begun}`);
            return fs.renameSync('/data/runs', '/data/ran');
        }
        fs.appendFileSync('/data/steps', `step ${++step}\\n`);
        if (step === 8) process.exit(0);
    }, 100);
});
require('http').createServer((_, answer) => answer.end('VERSION one'))
    .listen(process.env.PORT, '127.0.0.1');
";

/// Starts the app and ends at once when it is asked to, without a word to its child: so does Yarn 1.
const HASTY: &str = "\
require('child_process').spawn('node', ['index.js'], {stdio: 'inherit'});
process.on('SIGTERM', () => process.exit(1));
";

const FILES: [(&str, &str); 4] = [
    (
        "package.json",
        "{\"name\": \"app\", \"private\": true, \"scripts\": {\"start\": \"node index.js\"}}",
    ),
    ("index.js", INDEX),
    ("hasty.js", HASTY),
    ("start.sh", "node index.js\necho \"it has ended\"\n"),
];

/// How people start one and the same program; the last one puts it into the background.
const STARTS: [&str; 5] =
    ["node index.js", "npm start", "node hasty.js", "sh start.sh", "node index.js & true"];

fn site() -> (Site, GitServer) {
    let git = GitServer::start();
    git.commit("node", &FILES);
    (Site::new(), git)
}

/// An app that is started like this, and its `/data`.
#[track_caller]
fn started(site: &mut Site, git: &GitServer, name: &str, start: &str) -> (String, PathBuf) {
    let app = json!({
        "name": name, "gitRepo": git.url("node"), "buildCommand": "true", "startCommand": start,
        "healthPath": "/",
    });
    let app = create(&mut site.owner, &app);
    let data = site.place(&app).join("data");
    (app, data)
}

fn steps(data: &Path) -> usize {
    fs::read_to_string(data.join("steps")).unwrap_or_default().lines().count()
}

#[track_caller]
fn stop(site: &mut Site, app: &str) {
    site.owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    let place = site.place(app);
    until("nothing of it runs", LIMIT, || sandboxes(&place).is_empty());
    until("it has stopped", LIMIT, || show(&mut site.owner, app)["status"] == "stopped");
}

#[test]
fn however_an_app_is_started_it_takes_its_last_steps_at_a_stop_and_at_a_redeploy() {
    let (mut site, git) = site();
    for (number, start) in STARTS.iter().enumerate() {
        let (app, data) = started(&mut site, &git, &format!("app{number}"), start);
        let first = deploy_live(&mut site.owner, &app);
        assert_eq!(visitor(&mut site.owner, &app).get("/").text(), "VERSION one", "{start}");
        deploy_live(&mut site.owner, &app);
        let place = site.place(&app);
        until("the first has ended", LIMIT, || {
            !sandboxes(&place).iter().any(|words| words.contains(&first))
        });
        assert_eq!(steps(&data), STEPS, "{start}: at a redeploy");
        assert_eq!(show(&mut site.owner, &app)["status"], "running", "{start}");
        stop(&mut site, &app);
        assert_eq!(steps(&data), 2 * STEPS, "{start}: at a stop");
    }
}

#[test]
fn an_app_that_does_not_end_has_thirty_seconds_though_what_started_it_is_gone() {
    let (mut site, git) = site();
    let (app, data) = started(&mut site, &git, "stubborn", "STUBBORN=1 node hasty.js");
    deploy_live(&mut site.owner, &app);
    stop(&mut site, &app);
    let ran = fs::read_to_string(data.join("ran")).expect("it was asked");
    // Looks at it are a moment apart, and a busy machine keeps the app waiting.
    assert!(ran.parse::<u64>().expect("milliseconds") > 20_000, "{ran} ms");
}

#[test]
fn a_command_that_fails_takes_what_it_started_along() {
    let (mut site, git) = site();
    let start = "STUBBORN=1 node index.js & until [ -e /data/fail ]; do sleep 0.1; done; exit 3";
    let (app, data) = started(&mut site, &git, "leader", start);
    deploy_live(&mut site.owner, &app);
    let place = site.place(&app);
    let before = sandboxes(&place);
    fs::write(data.join("fail"), "").expect("a word to the command");
    until("all of it is gone", LIMIT, || {
        sandboxes(&place).iter().all(|words| !before.contains(words))
    });
    until("it is told", LIMIT, || site.log(&app).contains("Ended with exit code 3"));
    assert!(data.join("ran").exists(), "its child was not asked to end");
}

/// Its answer takes steps too.
const SLOW: &str = "\
import os, time
def app(environ, start):
    if environ['PATH_INFO'] == '/slow':
        for step in range(8):
            time.sleep(0.1)
            with open('/data/steps', 'a') as file: file.write(f'step of {os.getpid()}\\n')
    start('200 OK', [('Content-Length', '11')])
    return [b'VERSION one']
";

#[test]
fn the_workers_of_gunicorn_finish_their_answers_at_a_stop() {
    let (mut site, git) = site();
    let requirements = include_str!("fixtures/python/requirements.txt");
    git.commit("python", &[("requirements.txt", requirements), ("app.py", SLOW)]);
    let app = json!({
        "name": "workers", "gitRepo": git.url("python"), "healthPath": "/",
        "startCommand": "gunicorn --workers 3 --bind 127.0.0.1:$PORT app:app",
    });
    let app = create(&mut site.owner, &app);
    deploy_live(&mut site.owner, &app);
    let data = site.place(&app).join("data");
    let visitors: Vec<_> = (0..3)
        .map(|_| {
            let mut visitor = visitor(&mut site.owner, &app);
            std::thread::spawn(move || visitor.get("/slow").expect(200).text())
        })
        .collect();
    let workers = || {
        let text = fs::read_to_string(data.join("steps")).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>().len()
    };
    until("all three answer", LIMIT, || workers() == 3);
    stop(&mut site, &app);
    for visitor in visitors {
        assert_eq!(visitor.join().expect("an answer"), "VERSION one");
    }
    assert_eq!(steps(&data), 3 * STEPS);
    assert!(process::of_apps(&site.server.data()).is_empty());
}

#[test]
fn a_process_that_was_told_to_end_is_never_taken_for_live_by_the_next_server() {
    let (mut site, git) = site();
    let (app, data) = started(&mut site, &git, "stubborn", "STUBBORN=1 node hasty.js");
    deploy_live(&mut site.owner, &app);
    let before = process::of_apps(&site.server.data());
    site.owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    until("it was asked to end", LIMIT, || data.join("ran").exists());
    site.owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    site.server = site.server.restart();
    site.owner = site.server.owner();
    until("another process runs", LIMIT, || {
        let now = process::of_apps(&site.server.data());
        !now.is_empty() && !now.iter().any(|pid| before.contains(pid))
    });
    until("it serves", LIMIT, || show(&mut site.owner, &app)["status"] == "running");
}
