//! Apps as their owner has them: made, deployed, shown, asked.

use super::{Http, until_some};
use serde_json::{Value, json};
use std::time::Duration;

/// A build installs from a package registry; a shared machine may take its time.
pub const DEPLOY_LIMIT: Duration = Duration::from_secs(150);

pub const PYTHON: [(&str, &str); 3] = [
    ("requirements.txt", include_str!("../fixtures/python/requirements.txt")),
    ("Procfile", include_str!("../fixtures/python/Procfile")),
    ("app.py", include_str!("../fixtures/python/app.py")),
];

pub const NODE: [(&str, &str); 2] = [
    ("package.json", include_str!("../fixtures/node/package.json")),
    ("server.js", include_str!("../fixtures/node/server.js")),
];

/// An app without dependencies, for what is not about building.
pub const PLAIN: [(&str, &str); 2] = [
    ("Procfile", "web: python3 -u main.py\n"),
    (
        "main.py",
        "import http.server, os\n\
         class H(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200); self.end_headers(); self.wfile.write(b'VERSION one')\n\
         print('plain app starting')\n\
         http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n",
    ),
];

/// Makes an app and returns its id.
#[track_caller]
pub fn create(owner: &mut Http, body: &Value) -> String {
    owner.post("/api/apps", body).expect(201).json()["id"].as_str().expect("an id").to_owned()
}

/// Asks for a deploy and returns its id.
#[track_caller]
pub fn deploy(owner: &mut Http, app: &str) -> String {
    let answer = owner.post(&format!("/api/apps/{app}/deploys"), &json!({})).expect(202);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// Waits until a deploy has ended and returns it.
#[track_caller]
pub fn ended(owner: &mut Http, deploy: &str) -> Value {
    until_some("the deploy ends", DEPLOY_LIMIT, || {
        let now = owner.get(&format!("/api/deploys/{deploy}")).expect(200).json();
        matches!(now["status"].as_str(), Some("live" | "failed")).then_some(now)
    })
}

/// Deploys and expects it to become live.
#[track_caller]
pub fn deploy_live(owner: &mut Http, app: &str) -> String {
    let id = deploy(owner, app);
    let result = ended(owner, &id);
    let log = owner.get(&format!("/api/deploys/{id}/log")).text();
    assert_eq!(result["status"], "live", "{result:#}\n{log}");
    id
}

/// Restarts an app that is not stopped, and waits until that deploy has ended.
#[track_caller]
pub fn restart(owner: &mut Http, app: &str) -> Value {
    let now = owner.post(&format!("/api/apps/{app}/restart"), &json!({})).expect(202).json();
    assert_eq!(now["status"], "restarting", "{now:#}");
    let end = ended(owner, now["lastDeployId"].as_str().expect("an id"));
    assert_eq!(end["trigger"], "restart", "{end:#}");
    end
}

#[track_caller]
pub fn show(owner: &mut Http, app: &str) -> Value {
    owner.get(&format!("/api/apps/{app}")).expect(200).json()
}

/// A client of the app itself, through its loopback port.
#[track_caller]
pub fn visitor(owner: &mut Http, app: &str) -> Http {
    let url = show(owner, app)["url"].as_str().expect("a url").to_owned();
    Http::new(url.trim_start_matches("http://").parse().expect("an address"))
}

/// Goes back to a deploy and waits until that is done.
#[track_caller]
pub fn roll_back(owner: &mut Http, app: &str, to: &str) -> String {
    let body = json!({"deployId": to});
    let answer = owner.post(&format!("/api/apps/{app}/rollback"), &body).expect(202).json();
    assert_eq!(answer["trigger"], "rollback");
    let id = answer["id"].as_str().expect("an id").to_owned();
    let end = ended(owner, &id);
    assert_eq!(end["status"], "live", "{end:#}");
    id
}

/// A build that shows what was checked out and then ends the deploy: nothing needs to be started to see that.
pub const SHOW: &str = "echo \"VERSION $(cat VERSION)\"; exit 9";

/// Deploys; the deploy has to fail. Returns its error and its log.
#[track_caller]
pub fn fails(owner: &mut Http, app: &str) -> (String, String) {
    let id = deploy(owner, app);
    let result = ended(owner, &id);
    let log = owner.get(&format!("/api/deploys/{id}/log")).expect(200).text();
    assert_eq!(result["status"], "failed", "{result:#}\n{log}");
    let error = result["error"].as_str().expect("a sentence").to_owned();
    // What goes wrong is one line, whatever a repository puts into it.
    assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
    (error, log)
}
