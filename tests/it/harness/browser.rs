//! A real headless Chromium, driven through its `DevTools` protocol.

use super::wait::until_some;
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::io;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tungstenite::{Error, Message, WebSocket};

/// Chromium may need a while on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A browser with one page.
pub struct Browser {
    child: Child,
    _profile: TempDir,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    last_id: u64,
    complaints: Vec<String>,
    requests: Vec<String>,
    /// How many WebSockets were opened so far.
    sockets: usize,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("bpaas-web-").tempdir().expect("a place");
        let mut child = launch(profile.path());
        let file = profile.path().join("DevToolsActivePort");
        let (port, path) = until_some("Chromium answers", LIMIT, || {
            assert!(child.try_wait().expect("a status").is_none(), "Chromium has ended");
            let text = std::fs::read_to_string(&file).ok()?;
            let (port, path) = text.split_once('\n')?;
            Some((port.parse::<u16>().ok()?, path.trim().to_owned()))
        });
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("Chromium's port");
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tungstenite::client(url, stream).expect("Chromium's socket");
        let mut browser = Self {
            child,
            _profile: profile,
            socket,
            session: None,
            last_id: 0,
            complaints: Vec::new(),
            requests: Vec::new(),
            sockets: 0,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", &json!({"url": url}));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of a JavaScript expression (awaited when it is a promise).
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.try_evaluate(expression);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    fn try_evaluate(&mut self, expression: &str) -> Value {
        let command =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        self.call("Runtime.evaluate", &command)
    }

    /// Waits until an expression is true; shows the page's text when it never is.
    #[track_caller]
    pub fn wait_for(&mut self, condition: &str) {
        self.wait_at_most(LIMIT, condition);
    }

    #[track_caller]
    pub fn wait_at_most(&mut self, limit: Duration, condition: &str) {
        let deadline = Instant::now() + limit;
        // An evaluation during a navigation fails; the next one tells.
        while self.try_evaluate(&format!("!!({condition})"))["result"]["value"] != true {
            if Instant::now() > deadline {
                let text = self.evaluate("document.body.innerText");
                panic!("never true: {condition}\n{text}\n{:?}", self.complaints);
            }
            super::wait::let_pass(Duration::from_millis(30));
        }
    }

    /// Types text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, `Space`, `Home`, `End`, an arrow.
    pub fn press(&mut self, key: &str) {
        self.press_with(key, 0);
    }

    /// Presses a key with modifiers (8 is shift).
    pub fn press_with(&mut self, key: &str, modifiers: u32) {
        let (key, code, number, text) = match key {
            "Enter" => ("Enter", "Enter", 13, "\r"),
            "Space" => (" ", "Space", 32, " "),
            "Tab" => ("Tab", "Tab", 9, ""),
            "Escape" => ("Escape", "Escape", 27, ""),
            "ArrowUp" => ("ArrowUp", "ArrowUp", 38, ""),
            "ArrowDown" => ("ArrowDown", "ArrowDown", 40, ""),
            "End" => ("End", "End", 35, ""),
            "Home" => ("Home", "Home", 36, ""),
            other => panic!("a key that the harness does not know: {other}"),
        };
        let mut down = json!({"type": "keyDown", "key": key, "code": code, "modifiers": modifiers,
            "windowsVirtualKeyCode": number});
        if text.is_empty() {
            down["type"] = "rawKeyDown".into();
        } else {
            down["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", &down);
        down["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", &down);
    }

    /// Clicks the middle of the first element that a selector finds.
    pub fn click(&mut self, selector: &str) {
        let quoted = json!(selector);
        self.wait_for(&format!("document.querySelector({quoted})"));
        let place = self.evaluate(&format!(
            "(() => {{ const e = document.querySelector({quoted}); e.scrollIntoView({{block: 'center'}});
               const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Turns the wheel up over the middle of the first element that a selector finds.
    pub fn wheel_up(&mut self, selector: &str) {
        let place = self.evaluate(&format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}});
               const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        ));
        let event = json!({"type": "mouseWheel", "x": place[0], "y": place[1], "deltaX": 0, "deltaY": -100});
        self.call("Input.dispatchMouseEvent", &event);
    }

    /// The size of the page in CSS pixels.
    pub fn viewport(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// `light` or `dark`.
    pub fn colour_scheme(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// Saves what the page shows.
    pub fn screenshot(&mut self, file: &Path) {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        let data = answer["data"].as_str().expect("a picture");
        std::fs::write(file, BASE64.decode(data.as_bytes()).expect("base64")).expect("a file");
    }

    /// Errors on the console, uncaught exceptions and violations of the Content-Security-Policy, so far.
    pub fn complaints(&mut self) -> Vec<String> {
        // A round trip: what happened before it has been reported by then.
        self.evaluate("1");
        self.complaints.clone()
    }

    /// The addresses of all requests and WebSockets so far, as they were asked for.
    pub fn requests(&mut self) -> Vec<String> {
        self.evaluate("1");
        self.requests.clone()
    }

    /// How many WebSockets have been opened so far.
    pub fn sockets(&mut self) -> usize {
        self.evaluate("1");
        self.sockets
    }

    /// Calls a method of the protocol; events that come meanwhile are noted.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(command.to_string())).expect("Chromium listens");
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "Chromium does not answer {method}");
            self.socket.get_ref().set_read_timeout(Some(left)).expect("a limit");
            let text = match self.socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                Err(Error::Io(e))
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(e) => panic!("{method}: {e}"),
            };
            let message: Value = serde_json::from_str(text.as_str()).expect("JSON");
            if message["id"] == id {
                // A page that goes away under an evaluation has no value for it.
                if message["error"]["message"] == "Inspected target navigated or closed" {
                    return Value::Null;
                }
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let method = event["method"].as_str().unwrap_or_default();
        let address = match method {
            "Network.requestWillBeSent" => &parameters["request"]["url"],
            "Network.webSocketCreated" => &parameters["url"],
            _ => &Value::Null,
        };
        self.sockets += usize::from(method == "Network.webSocketHandshakeResponseReceived");
        self.requests.extend(address.as_str().map(str::to_owned));
        let complaint = match method {
            "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if parameters["type"] == "error" => {
                Some(parameters["args"].to_string())
            }
            "Log.entryAdded" if parameters["entry"]["level"] == "error" => {
                Some(parameters["entry"]["text"].to_string())
            }
            _ => None,
        };
        self.complaints.extend(complaint);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium is a family of processes in a group of its own.
        let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _gone = self.child.wait();
    }
}

fn launch(profile: &Path) -> Child {
    let mut command = Command::new(program());
    command.args(["--headless=new", "--remote-debugging-port=0", "--no-first-run"]);
    command.args(["--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]);
    // Names that are this machine's, and look to a page like any other machine's.
    command.arg("--host-resolver-rules=MAP *.test 127.0.0.1");
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    if rustix::process::getuid().is_root() {
        command.arg("--no-sandbox");
    }
    command.arg("about:blank").env("HOME", profile).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("Chromium starts")
}

fn program() -> &'static str {
    let path = std::env::var("PATH").unwrap_or_default();
    let there = |name: &str| path.split(':').any(|d| Path::new(d).join(name).exists());
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|p| there(p))
        .expect("Chromium is installed: scripts/test does it")
}
