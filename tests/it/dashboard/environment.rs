//! The editor of an app's environment: two who write, and files that are pasted.

use super::page::Page;
use super::{GREETER, REFUSED};
use crate::harness::apps::{create, deploy_live};
use crate::harness::{GitServer, Http, Server, Setup};
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
    page.browser.evaluate(&format!("import(new URL('variables.js', document.querySelector('script').src).href).then((lists) => {expression})"))
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

#[test]
fn a_file_of_variables_is_read_as_shells_and_tools_read_it_or_not_at_all() {
    let server = Server::start();
    let mut page = Page::signed_in(&server);
    let cases: [(&str, Value); 19] = [
        ("", json!([])),
        ("\n# nothing\n  # more\n\n", json!([])),
        ("A=1", json!([["A", "1"]])),
        ("\u{feff}A=1\r\nB=2\r\n", json!([["A", "1"], ["B", "2"]])),
        ("export A = 1  # why\nexport\tB=2", json!([["A", "1"], ["B", "2"]])),
        ("A=\nB=#none\nC=a#b", json!([["A", ""], ["B", ""], ["C", "a#b"]])),
        ("A='b # c' # d", json!([["A", "b # c"]])),
        ("A='it\\n'\nB=`x\"y`", json!([["A", "it\\n"], ["B", "x\"y"]])),
        (r#"A="a\nb\t\"\\ \$ \x""#, json!([["A", "a\nb\t\"\\ $ \\x"]])),
        (
            "K=\"-----BEGIN\nabc=\n-----END\"\nB=2",
            json!([["K", "-----BEGIN\nabc=\n-----END"], ["B", "2"]]),
        ),
        ("A='one\n\n# two'", json!([["A", "one\n\n# two"]])),
        ("A=1\nA=2", json!([["A", "2"]])),
        ("A={\"a\":[1]}\nB=$(x) ${A}", json!([["A", "{\"a\":[1]}"], ["B", "$(x) ${A}"]])),
        ("URL=postgres://u:p@h/d?a=b", json!([["URL", "postgres://u:p@h/d?a=b"]])),
        ("__proto__=1", json!([["__proto__", "1"]])),
        ("A=1\nB 2\nC=3", json!("Line 2 is not NAME=value, so nothing was taken.")),
        ("1A=2", json!("Line 1 is not NAME=value, so nothing was taken.")),
        (
            "A=1\nB=\"x\nC=3",
            json!("Line 2: the quotes of B do not end as they should, so nothing was taken."),
        ),
        (
            "A=\"a\"b",
            json!("Line 1: the quotes of A do not end as they should, so nothing was taken."),
        ),
    ];
    for (file, expected) in cases {
        let read = format!(
            "{{ try {{ return JSON.stringify(lists.parseDotenv({}).map((one) => [one.name, one.value])); }}
               catch (failure) {{ return JSON.stringify(failure.message); }} }}",
            json!(file)
        );
        let got = of_lists(&mut page, &read);
        let got: Value = serde_json::from_str(got.as_str().expect("a text")).expect("JSON");
        assert_eq!(got, expected, "{file:?}");
    }
    // Long ones are read in no time, whatever is in them.
    let long = "{ const begun = performance.now();
      lists.parseDotenv('A1=\"x\\n# y\"\\n'.repeat(10000));
      try { lists.parseDotenv('A=\"'.repeat(40000)); } catch { }
      return performance.now() - begun; }";
    let took = of_lists(&mut page, long).as_f64().expect("a number");
    assert!(took < 5_000.0, "{took} ms");
}

/// Pastes a text where the focus is, as a person does.
fn paste(page: &mut Page, text: &str) {
    page.browser.evaluate(&format!(
        "{{ const clipboardData = new DataTransfer();
            clipboardData.setData('text/plain', {});
            document.activeElement.dispatchEvent(
              new ClipboardEvent('paste', {{ clipboardData, bubbles: true, cancelable: true }})); }}",
        json!(text)
    ));
}

#[test]
fn a_pasted_file_shows_what_it_changes_before_it_is_taken_and_saves_nothing_by_itself() {
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": "https://git.example/shop"}));
    let path = format!("/api/apps/{app}/env");
    let env = json!([
        {"name": "LEVEL", "value": "info"}, {"name": "SAME", "value": "same"}, {"name": "OLD", "value": "old"},
    ]);
    owner.put(&path, &json!({"env": env})).expect(200);
    let mut page = opened(&server, &app);
    let more: String = (0..37).map(|n| format!("export N{n}='<i>{n}</i>' # {n}\n")).collect();
    let file = format!("# forty\nLEVEL=debug\nSAME=same\n{more}");
    paste(&mut page, &file);
    page.see("env-review");
    let said = page.text("env-review").replace('\n', " ");
    assert!(said.contains("Added N36") && said.contains("Changed LEVEL"), "{said}");
    assert!(!said.contains("SAME") && !said.contains("Removed"), "{said}");
    assert!(said.contains("Remove what the file does not name: OLD"), "{said}");
    assert!(!said.contains("<i>"), "what is in it is for nobody's eyes: {said}");
    page.fits_in_both("env-review");
    page.browser.press("Escape");
    page.see("env-save");
    assert_eq!(page.browser.evaluate("document.querySelectorAll('[data-test=env-row]').length"), 3);

    // Into a name, and as a dropped file.
    page.click("env-add");
    paste(&mut page, &file);
    page.click("env-take");
    page.see_text("env-saved", "Not saved yet.");
    assert_eq!(stored(&server, &app).len(), 3, "it is not saved by itself");
    page.browser.evaluate(&format!(
        "{{ const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([{}], '.env'));
            document.querySelector('h2').dispatchEvent(
              new DragEvent('drop', {{ dataTransfer, bubbles: true, cancelable: true }})); }}",
        json!("LEVEL=debug\nSAME=same\nLAST=\"two\nlines\"\n")
    ));
    page.see_text("env-review", "Added LAST");
    page.click("env-rest");
    page.click("env-take");
    page.click("env-save");
    page.see_text("env-saved", "Saved.");
    // What was in the clear stays so, what is new is secret.
    assert_eq!(stored(&server, &app), ["LEVEL=debug", "SAME=same", "LAST"]);

    // A value is pasted as it is, and what is no file says so.
    page.click("env-add");
    page.click(&field(4, "value"));
    paste(&mut page, "A=1\nB=2");
    page.browser.evaluate("document.activeElement.blur()");
    paste(&mut page, "A=1\nthis is prose");
    page.see_text("env-error", "Line 2 is not NAME=value");
    let open = "document.querySelector('[data-test=env-review]').checkVisibility()";
    assert_eq!(page.browser.evaluate(open), false);
    page.nothing_went_wrong(&[]);
}

#[test]
fn changes_that_are_not_live_are_told_after_a_reload_and_a_restart_takes_them() {
    let git = GitServer::start();
    git.commit("greeter", &GREETER);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "greeter", "gitRepo": git.url("greeter")}));
    let path = format!("/api/apps/{app}/env");
    let shown = |owner: &mut Http| owner.get(&format!("/api/apps/{app}")).expect(200).json();
    let put =
        |owner: &mut Http, env: Value| drop(owner.put(&path, &json!({"env": env})).expect(200));
    put(&mut owner, json!([{"name": "GOES", "value": "1"}, {"name": "STAYS", "value": "1"}]));
    assert_eq!(shown(&mut owner)["envNotLive"], json!([]), "nothing is live");
    deploy_live(&mut owner, &app);
    assert_eq!(shown(&mut owner)["envNotLive"], json!([]));
    put(
        &mut owner,
        json!([{"name": "STAYS", "value": "1"}, {"name": "GREETING", "value": "hi", "secret": true}]),
    );
    assert_eq!(shown(&mut owner)["envNotLive"], json!(["GOES", "GREETING"]));
    put(&mut owner, json!([{"name": "STAYS", "value": "1"}, {"name": "GOES", "value": "1"}]));
    assert_eq!(shown(&mut owner)["envNotLive"], json!(["GOES"]), "sealed anew, it may be another");

    let mut page = opened(&server, &app);
    page.click("[data-test=env-row]:nth-child(1) [data-test=env-remove]");
    page.click("env-save");
    page.see_text("env-not-live", "2 changes not live: GOES, STAYS.");
    page.reload_signed_in();
    page.see_text("env-not-live", "2 changes not live: GOES, STAYS.");
    page.click("env-restart");
    page.see_status("deploy-result", "live");
    assert_eq!(shown(&mut owner)["envNotLive"], json!([]));
    page.browser.evaluate(&format!("location.hash = '#/apps/{app}/env'"));
    page.see("env-editor");
    let told = "document.querySelector('[data-test=env-not-live]').checkVisibility()";
    page.browser.wait_for(&format!("!{told}"));
    page.nothing_went_wrong(&[]);
}
