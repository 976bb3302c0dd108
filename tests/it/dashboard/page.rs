//! The dashboard in a browser, as a person has it: sign in, see, click, type, press keys.

use crate::harness::browser::Browser;
use crate::harness::{Server, until};
use serde_json::{Value, json};
use std::time::Duration;

/// The dashboard in a browser. Elements are named by their `data-test` hooks or by selectors.
pub struct Page {
    pub browser: Browser,
    /// `http://ADDRESS` of the server.
    base: String,
    /// Every token that was typed.
    pub tokens: Vec<String>,
}

impl Page {
    pub fn open(server: &Server) -> Self {
        Self::open_at(&server.address().ip().to_string(), server)
    }

    /// The same under another host name, such as one below `.test`.
    pub fn open_at(host: &str, server: &Server) -> Self {
        let mut browser = Browser::start();
        let base = format!("http://{host}:{}", server.address().port());
        browser.open(&format!("{base}/"));
        let mut page = Self { browser, base, tokens: Vec::new() };
        page.see("sign-in-form");
        page
    }

    pub fn signed_in(server: &Server) -> Self {
        let mut page = Self::open(server);
        page.sign_in(&server.token());
        page
    }

    pub fn sign_in(&mut self, token: &str) {
        self.tokens.push(token.to_owned());
        let sockets = self.browser.sockets();
        self.fill("token-input", token);
        self.browser.press("Enter");
        self.see("sign-out");
        self.live_after(sockets);
    }

    /// Waits for one more open WebSocket than there were. Whoever ends the session earlier has Chromium complain of a
    /// socket that never opened.
    fn live_after(&mut self, sockets: usize) {
        let what = "the page has its live connection";
        until(what, Duration::from_secs(30), || self.browser.sockets() > sockets);
    }

    /// Waits until an element is on the screen.
    #[track_caller]
    pub fn see(&mut self, element: &str) {
        let element = selector(element);
        self.browser.wait_for(&format!("document.querySelector({element})?.checkVisibility()"));
    }

    /// Waits until an element's text holds a text.
    #[track_caller]
    pub fn see_text(&mut self, element: &str, text: &str) {
        let (element, text) = (selector(element), json!(text));
        self.browser
            .wait_for(&format!("document.querySelector({element})?.innerText.includes({text})"));
    }

    /// Waits until an element's `data-status` is a word.
    #[track_caller]
    pub fn see_status(&mut self, element: &str, status: &str) {
        let element = selector(element);
        self.browser
            .wait_for(&format!("document.querySelector({element})?.dataset.status === '{status}'"));
    }

    #[track_caller]
    pub fn text(&mut self, element: &str) -> String {
        let element = selector(element);
        let text = self.browser.evaluate(&format!("document.querySelector({element}).innerText"));
        text.as_str().expect("a text").to_owned()
    }

    #[track_caller]
    pub fn click(&mut self, element: &str) {
        self.see(element);
        let found = selector(element);
        self.browser.click(found.as_str().expect("a selector"));
    }

    /// Types a text into a field, in place of what is there.
    #[track_caller]
    pub fn fill(&mut self, field: &str, text: &str) {
        self.click(field);
        self.browser.evaluate("document.activeElement.select()");
        self.browser.type_text(text);
    }

    /// Loads the page anew.
    pub fn reload(&mut self) {
        self.browser.evaluate("window.old = true");
        self.browser.call("Page.reload", &json!({}));
        self.browser.wait_for("!window.old && document.readyState === 'complete'");
    }

    /// Loads the page of a session anew, which goes on.
    pub fn reload_signed_in(&mut self) {
        let sockets = self.browser.sockets();
        self.reload();
        self.live_after(sockets);
    }

    /// Presses Tab until an element has the focus, and checks that one sees where the focus is.
    #[track_caller]
    pub fn tab_to(&mut self, element: &str) {
        self.see(element);
        let selector = selector(element);
        for _ in 0..40 {
            self.browser.press("Tab");
            if self.browser.evaluate(&format!("document.activeElement.matches({selector})")) == true
            {
                let style = "getComputedStyle(document.activeElement)";
                let outline = self.browser.evaluate(&format!("{style}.outlineStyle"));
                assert_ne!(outline, "none", "the focus on {element} is not seen");
                return;
            }
        }
        panic!("Tab never comes to {element}");
    }

    /// Waits for an element, then checks that the page is no wider than the screen, in light and in dark, and that the two differ.
    #[track_caller]
    pub fn fits_in_both(&mut self, element: &str) {
        self.see(element);
        let mut colours = Vec::new();
        for scheme in ["light", "dark"] {
            self.browser.colour_scheme(scheme);
            let over = "document.documentElement.scrollWidth - innerWidth";
            assert_eq!(self.browser.evaluate(over), 0, "{element} is too wide");
            let colour = "getComputedStyle(document.documentElement).backgroundColor";
            colours.push(self.browser.evaluate(colour));
        }
        assert_ne!(colours[0], colours[1], "{element} looks the same in both");
    }

    /// The server alone was asked, no token was in an address, and the console is empty but for what is expected.
    #[track_caller]
    pub fn nothing_went_wrong(&mut self, expected: &[&str]) {
        let mut complaints = self.browser.complaints();
        complaints.retain(|c| !expected.iter().any(|e| c.contains(e)));
        assert!(complaints.is_empty(), "{complaints:#?}");
        let socket = self.base.replace("http", "ws");
        let requests = self.browser.requests();
        assert!(requests.iter().any(|r| r.starts_with(&format!("{socket}/ws/stats"))));
        let own = |r: &str| [&self.base, &socket].iter().any(|b| r.starts_with(&format!("{b}/")));
        // The picture in the page itself is no request.
        for request in requests.iter().filter(|request| !request.starts_with("data:image/svg+xml"))
        {
            assert!(own(request), "{request} is another origin");
            assert!(!self.tokens.iter().any(|t| request.contains(t)), "{request} holds a token");
        }
    }
}

/// The selector of a hook, quoted for JavaScript; other selectors hold a character that no hook has.
fn selector(element: &str) -> Value {
    if element.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
        json!(format!("[data-test={element}]"))
    } else {
        json!(element)
    }
}
