//! Logs in the browser: of any length, while they are written, while the server is away.

use super::AWAY;
use super::page::Page;
use crate::harness::apps::create;
use crate::harness::server::free_port;
use crate::harness::{Server, Setup, until};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

/// The box with an app's log.
const BOX: &str = "document.querySelector('[data-test=app-log]')";

/// What a reader does.
type Act = fn(&mut Page);

/// A log of an app that never ran, to be written by the test: lines with their numbers.
struct Log {
    app: String,
    file: File,
    lines: usize,
}

impl Log {
    fn new(server: &Server) -> Self {
        let app = json!({"name": "shop", "gitRepo": "https://git.example.com/shop.git"});
        let app = create(&mut server.owner(), &app);
        let path = server.data().join(format!("logs/apps/{app}.log"));
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a log");
        file.write_all(b"0000000000000001\n").expect("written");
        Self { app, file, lines: 0 }
    }

    fn write(&mut self, lines: usize) {
        let numbers = self.lines..self.lines + lines;
        let text: String = numbers
            .map(|n| format!("{n:06} the quick brown fox says {} times\n", n % 97))
            .collect();
        self.file.write_all(text.as_bytes()).expect("written");
        self.lines += lines;
    }

    fn open(&self, page: &mut Page) {
        page.browser.evaluate(&format!("location.hash = '#/apps/{}/log'", self.app));
        page.see("app-log");
        self.see_last(page);
    }

    fn see_last(&self, page: &mut Page) {
        let last = self.lines - 1;
        page.browser.wait_for(&format!("({})[1] === {last}", shown()));
    }
}

/// The numbers of the first and the last line that the box holds, or nothing when one is missing
/// between them.
fn shown() -> String {
    format!(
        "((numbers) => numbers.every((n, at) => n === numbers[0] + at)
           ? [numbers[0], numbers.at(-1), numbers.length] : [])
         ({BOX}.textContent.trimEnd().split('\\n').map((text) => Number(text.slice(0, 6))))"
    )
}

fn edges(page: &mut Page) -> (u64, u64) {
    let edges = page.browser.evaluate(&shown());
    let edge = |at: usize| edges[at].as_u64().expect("no line is missing");
    (edge(0), edge(1))
}

#[test]
fn a_log_of_100_000_lines_opens_at_once_and_each_line_is_reachable() {
    let server = Server::start();
    let mut log = Log::new(&server);
    log.write(100_000);
    let mut page = Page::signed_in(&server);
    log.open(&mut page);
    let bytes = page.browser.evaluate(
        "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/log?'))
           .reduce((sum, entry) => sum + entry.transferSize, 0)",
    );
    assert!(bytes.as_u64().is_some_and(|bytes| bytes > 0 && bytes < 200_000), "{bytes}");

    // Up from the end as a reader goes, through more lines than the box keeps; and down again.
    let mut first = edges(&mut page).0;
    while first > 88_000 {
        page.browser.evaluate(&format!("{BOX}.scrollTop = 0"));
        page.browser.wait_for(&format!("({})[0] < {first}", shown()));
        let (now, last) = edges(&mut page);
        assert!(last - now < 6_000, "the box holds {now} to {last}");
        first = now;
    }
    let mut last = edges(&mut page).1;
    assert!(last < 99_999, "the end was let go");
    while last < 99_999 {
        page.browser.evaluate(&format!("{BOX}.scrollTop = {BOX}.scrollHeight"));
        page.browser.wait_for(&format!("({})[1] > {last}", shown()));
        last = edges(&mut page).1;
    }
    // At the very end it follows again.
    page.browser.evaluate(&format!("{BOX}.scrollTop = {BOX}.scrollHeight"));
    log.write(1);
    log.see_last(&mut page);

    page.browser.evaluate(&format!("{BOX}.focus()"));
    page.browser.press("Home");
    page.browser.wait_for(&format!("({})[0] === 0 && {BOX}.scrollTop === 0", shown()));
    page.browser.press("End");
    log.see_last(&mut page);
    page.nothing_went_wrong(&[]);
}

#[test]
fn a_text_is_found_by_the_server_and_shown_among_its_neighbours() {
    let server = Server::start();
    let mut log = Log::new(&server);
    log.write(20_000);
    writeln!(log.file, "<img src=x onerror=alert(1)> \u{202e}NEEDLE \u{1b}[31mred")
        .expect("written");
    log.lines = 20_001;
    log.write(40_000);
    let mut page = Page::signed_in(&server);
    log.open(&mut page);
    page.fill("log-find", "needle");
    page.browser.press("Enter");
    page.see_text("log-found", "One line found.");
    let text = format!("{BOX}.textContent");
    let hostile = "<img src=x onerror=alert(1)> \\u{202e}NEEDLE red\n";
    assert_eq!(page.browser.evaluate(&text), hostile.replace("\\\\", "\\"));
    assert_eq!(page.browser.evaluate(&format!("{BOX}.querySelector('img')")), json!(null));
    page.click("[data-test=app-log] button");
    page.see_text("[data-test=app-log] mark", "NEEDLE");
    page.see_text("app-log", "019999 the quick");
    page.see_text("app-log", "020001 the quick");

    page.fill("log-find", "no such text");
    page.browser.press("Enter");
    page.see_text("log-found", "0 lines found.");
    page.browser.evaluate("document.activeElement.select()");
    page.browser.type_text("fox says 7 times");
    page.browser.press("Enter");
    page.see_text("log-found", "lines found so far; scroll up for older ones.");
    page.nothing_went_wrong(&[]);
}

#[test]
fn wheel_selection_and_keyboard_leave_the_end_at_once_while_lines_come() {
    let server = Server::start();
    let mut log = Log::new(&server);
    log.write(1_000);
    let mut page = Page::signed_in(&server);
    log.open(&mut page);
    let newest = "document.querySelector('.newest').checkVisibility()";
    let ways: [(&str, Act); 3] = [
        ("the wheel", |page| page.browser.wheel_up("[data-test=app-log]")),
        ("a selection", |page| {
            page.browser.evaluate(&format!("getSelection().selectAllChildren({BOX}.lastChild)"));
        }),
        ("a key", |page| {
            page.browser.evaluate(&format!("getSelection().empty(); {BOX}.focus()"));
            page.browser.press("ArrowUp");
        }),
    ];
    for (how, leave) in ways {
        log.write(200);
        log.see_last(&mut page);
        assert_eq!(page.browser.evaluate(newest), false, "it follows");
        leave(&mut page);
        page.browser.wait_for(newest);
        // A wheel turns smoothly; when it rests, what is read stays where it is.
        let top = format!("{BOX}.scrollTop");
        let mut before = page.browser.evaluate(&top);
        until("the box rests", Duration::from_secs(10), || {
            page.browser.evaluate("new Promise((done) => setTimeout(done, 100))");
            let now = page.browser.evaluate(&top);
            now == std::mem::replace(&mut before, now.clone())
        });
        log.write(500);
        log.see_last(&mut page);
        assert_eq!(page.browser.evaluate(&top), before, "{how}");
        page.browser.evaluate("getSelection().empty()");
        page.click(".newest");
    }
    page.nothing_went_wrong(&[]);
}

#[test]
fn a_server_that_goes_and_comes_back_while_a_log_is_written_costs_no_line_and_shows_none_twice() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut server = Setup::new().listen(&address).start();
    let mut log = Log::new(&server);
    log.write(300);
    let mut page = Page::signed_in(&server);
    log.open(&mut page);
    log.write(300);
    // A line that is not whole yet, and one that is too long to wait for its end.
    write!(log.file, "{:06} {}", log.lines, "x".repeat(20_000)).expect("written");
    page.browser.wait_for(&format!("{BOX}.textContent.includes('xxx')"));
    server.kill9();
    page.see_text("connection-note", "Connection lost.");
    writeln!(log.file).expect("written");
    log.lines += 1;
    log.write(300);
    let server = server.restart();
    // A long line becomes several, of which only the first has a number.
    let numbers = format!(
        "{BOX}.textContent.trimEnd().split('\\n').filter((text) => !text.startsWith('x'))
           .map((text) => Number(text.slice(0, 6)))"
    );
    page.browser.wait_for(&format!("({numbers}).at(-1) === 900"));
    let numbers = page.browser.evaluate(&numbers);
    let whole: Vec<_> = (numbers[0].as_u64().expect("a number")..=900).collect();
    assert_eq!(numbers, json!(whole));
    let long = page.browser.evaluate(&format!("{BOX}.textContent.match(/x/g).length"));
    // Of the other lines "fox" has one, and those of before are as many as were shown.
    assert_eq!(long.as_u64(), Some(20_000 + whole.len() as u64 - 1));
    drop(server);
    page.nothing_went_wrong(&[AWAY, "WebSocket"]);
}
