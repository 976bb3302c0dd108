//! The manual in the dashboard.

use super::page::Page;
use crate::harness::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What the page shows once it shows this address: its title, the headings' identifiers, where
/// its links lead, and its words outside of code.
const SHOWN: &str = "(() => {
    const page = document.querySelector('[data-test=help-page]').cloneNode(true);
    const all = (what, name) => [...page.querySelectorAll(what)].map((e) => e.getAttribute(name));
    const shown = { title: page.querySelector('h1').textContent, ids: all('[id]', 'id'), links: all('a', 'href') };
    page.querySelectorAll('code').forEach((e) => e.remove());
    return JSON.stringify({ ...shown, words: page.textContent });
})()";

fn shown(page: &mut Page, topic: &str) -> Value {
    page.browser.evaluate(&format!("location.hash = '#/help/{topic}'"));
    // The crumb's link is there from the start; the title says which page it is.
    let path = match topic {
        "README" | "SECURITY" | "CHANGELOG" => format!("{topic}.md"),
        _ => format!("assets/manual/{topic}.md"),
    };
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let title = text.lines().next().unwrap().trim_start_matches("# ").replace('`', "");
    page.browser
        .wait_for(&format!("document.title === {}", json!(title + " · Help · Better-PaaS")));
    let shown = page.browser.evaluate(SHOWN);
    serde_json::from_str(shown.as_str().unwrap()).unwrap()
}

#[test]
fn help_shows_every_page_of_the_manual_and_every_link_leads_to_a_heading() {
    let server = Server::start();
    let mut page = Page::signed_in(&server);
    page.click("help-link");
    page.see_text("help-page", "The manual");
    let pages: Vec<(&str, Value)> =
        better_paas::manual::PAGES.map(|(topic, _)| (topic, shown(&mut page, topic))).to_vec();
    let strings = |value: &Value| -> BTreeSet<String> {
        let all = value.as_array().unwrap().iter();
        all.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut followed = 0;
    for (topic, shown) in &pages {
        let words = shown["words"].as_str().unwrap();
        for sign in ["](", "**", "```", "| --", "\n#"] {
            assert!(!words.contains(sign), "{topic} shows {sign}: {words}");
        }
        for link in strings(&shown["links"]) {
            let Some(to) = link.strip_prefix("#/help/") else {
                assert!(link.starts_with("https://"), "{topic}: {link}");
                continue;
            };
            let (to, heading) = to.split_once('/').unwrap_or((to, ""));
            let there = pages.iter().find(|(topic, _)| *topic == to);
            let (_, there) = there.unwrap_or_else(|| panic!("{topic} leads to {to}"));
            let id = format!("help-{heading}");
            assert!(heading.is_empty() || strings(&there["ids"]).contains(&id), "{topic}: {link}");
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed} links");
    page.browser.evaluate("location.hash = '#/help/domains-and-https/without-a-domain'");
    page.browser.wait_for("document.activeElement.id === 'help-without-a-domain'");
    page.nothing_went_wrong(&[]);
}
