//! The editor of an app's environment: two who write, and files that are pasted.

use super::REFUSED;
use super::page::Page;
use crate::harness::Server;
use crate::harness::apps::create;
use serde_json::{Value, json};

/// A field of the variable that stands at this place of the list.
fn field(place: usize, name: &str) -> String {
    format!("[data-test=env-row]:nth-child({place}) [name={name}]")
}

/// The variables as the server has them, without what the reader may not see.
fn stored(server: &Server, app: &str) -> Vec<String> {
    let env = server.owner().get(&format!("/api/apps/{app}/env")).expect(200).json();
    let shown = |one: &Value| match one["value"].as_str() {
        Some(value) => format!("{}={value}", one["name"].as_str().unwrap()),
        None => one["name"].as_str().unwrap().to_owned(),
    };
    env["env"].as_array().unwrap().iter().map(shown).collect()
}

fn opened(server: &Server, app: &str) -> Page {
    let mut page = Page::signed_in(server);
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}/env'"));
    page.see("env-editor");
    page
}

#[test]
fn two_tabs_that_save_an_environment_lose_nothing_of_each_other_and_a_contradiction_asks() {
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": "https://git.example/shop"}));
    let variable = |name: &str| json!({"name": name, "value": "old", "secret": name == "KEY"});
    let env: Vec<Value> = ["BOTH", "MINE", "GOES", "KEY"].map(variable).to_vec();
    owner.put(&format!("/api/apps/{app}/env"), &json!({"env": env})).expect(200);
    let (mut here, mut elsewhere) = (opened(&server, &app), opened(&server, &app));

    elsewhere.fill(&field(1, "value"), "theirs");
    elsewhere.click("[data-test=env-row]:nth-child(3) [data-test=env-remove]");
    elsewhere.click("env-add");
    elsewhere.fill(&field(4, "name"), "THEIRS");
    elsewhere.click("env-save");
    elsewhere.see_text("env-saved", "Saved.");

    here.fill(&field(1, "value"), "<b>mine</b>");
    here.fill(&field(2, "value"), "mine");
    here.click("env-save");
    here.see_text("env-review", "changed elsewhere");
    let said = here.text("env-review").replace('\n', " ");
    for part in ["Changed in both: BOTH", "Added THEIRS", "Removed GOES", "Elsewhere: theirs"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(said.contains("Here: <b>mine</b>"), "{said}");
    assert!(!said.contains("MINE"), "nobody else has touched it: {said}");
    // Called off, nothing is lost here or there.
    here.browser.press("Escape");
    here.see_text("env-error", "Not saved");
    assert!(stored(&server, &app).contains(&"BOTH=theirs".to_owned()));
    here.click("env-save");
    // What contradicts wants an answer.
    here.click("env-take");
    here.see("env-review");
    here.click("[data-test=env-change] [value=mine]");
    here.click("env-take");
    here.see_text("env-saved", "Saved.");
    let kept = ["BOTH=<b>mine</b>", "MINE=mine", "KEY", "THEIRS"];
    assert_eq!(stored(&server, &app), kept);
    here.nothing_went_wrong(&[REFUSED]);
    elsewhere.nothing_went_wrong(&[]);
}

/// What the module of the lists answers.
fn of_lists(page: &mut Page, expression: &str) -> Value {
    page.browser.evaluate(&format!("import('/assets/variables.js').then((lists) => {expression})"))
}

#[test]
fn two_edits_of_a_list_become_one() {
    let server = Server::start();
    let mut page = Page::signed_in(&server);
    let cases = [
        // Base, mine, theirs, what becomes of them, what is asked.
        ("a b", "a b c", "a b d", "a b d c", ""),
        ("a b", "a", "b", "", ""),
        ("a b", "a b", "b", "b", ""),
        ("a=1", "a=2", "a=2", "a=2", ""),
        ("a=1", "a=2", "a=3", "a=2", "a"),
        ("a=1", "", "a=3", "", "a"),
        ("a=1", "a=3", "", "a=3", "a"),
        ("", "a=1", "a=2", "a=1", "a"),
        // A secret that is kept here, or given anew where nobody sees what it is elsewhere.
        ("a!", "a! b", "a!", "a! b", ""),
        ("a!", "a!=1", "a!", "a!=1", "a"),
        ("a!", "", "a!", "", ""),
    ];
    let read = "((text) => text.split(' ').filter(Boolean).map((one) => {
        const [, name, secret, value] = /^(\\w+)(!?)(?:=(.*))?$/.exec(one);
        return { name, secret: !!secret, ...(value !== undefined && { value }) };
      }))";
    for (base, mine, theirs, list, asked) in cases {
        let [b, m, t, l] = [base, mine, theirs, list].map(|text| format!("{read}('{text}')"));
        let got = of_lists(
            &mut page,
            &format!(
                "{{ const {{ list, conflicts }} = lists.merge({b}, {m}, {t});
                   return JSON.stringify([list, conflicts.map((one) => one.name).join()]) ===
                     JSON.stringify([{l}, '{asked}']) || JSON.stringify([list, conflicts]); }}"
            ),
        );
        assert_eq!(got, true, "{base} | {mine} | {theirs}");
    }
}
