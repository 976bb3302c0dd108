//! Jobs that an `app.json` declares, well or badly.

use super::*;

/// What a `app.json` comes to: its jobs, a line each, and what the log says of them.
fn jobs(manifest: &str) -> (Vec<String>, Vec<String>) {
    let plan = look(&[("Procfile", "web: ./run"), ("app.json", manifest)]).unwrap();
    assert_eq!(start(&plan), "./run", "whatever its jobs are");
    let jobs = plan.jobs.iter().map(|j| format!("{}|{}|{}", j.name, j.schedule, j.command));
    let notes = plan.notes.iter().filter(|note| note.contains("app.json"));
    (jobs.collect(), notes.cloned().collect())
}

#[test]
fn the_jobs_of_an_app_json_get_names_and_are_told_of() {
    let (found, notes) = jobs(
        r#"{"name": "shop", "cron": [
            {"command": "./tidy", "schedule": "0  3 * * *"},
            {"command": "./mail", "schedule": "@Hourly", "name": "mail", "maintenance": true},
            {"command": "./late", "schedule": "0 4 * * *"}
        ]}"#,
    );
    assert_eq!(
        found,
        ["cron-1|0 3 * * *|./tidy", "mail|@hourly|./mail", "cron-3|0 4 * * *|./late"]
    );
    let told =
        "Jobs from app.json, in UTC: cron-1 (0 3 * * *), mail (@hourly), cron-3 (0 4 * * *).";
    assert_eq!(notes, [told]);
    for silent in ["{}", r#"{"expo": {"name": "x"}}"#, r#"{"cron": []}"#, "[]", "3"] {
        assert_eq!(jobs(silent), (Vec::new(), Vec::new()), "{silent}");
    }
}

#[test]
fn a_job_that_is_none_is_left_out_with_a_line_and_the_others_stay() {
    let (found, notes) = jobs(
        r#"{"cron": [
            7, {}, {"command": ["x"], "schedule": "@daily"}, {"command": "x", "schedule": 3},
            {"command": "x", "schedule": "99 * * * *"}, {"command": "x", "schedule": "0 0 30 2 *"},
            {"command": "x\u001b[2K", "schedule": "@daily"}, {"command": " ", "schedule": "@daily"},
            {"command": "x", "schedule": "@daily", "name": "../x"},
            {"command": "x", "schedule": "@daily", "name": "one"},
            {"command": "y", "schedule": "@daily", "name": "one"}
        ]}"#,
    );
    assert_eq!(found, ["one|@daily|x"]);
    for (number, why) in [
        (1, "its command is no text"),
        (2, "its command is no text"),
        (3, "its command is no text"),
        (4, "its schedule is no text"),
        (5, "its schedule has a minute that is none"),
        (6, "its schedule never comes"),
        (7, "its command must not hold control characters"),
        (8, "its command must not be empty"),
        (9, "its name may hold only"),
        (11, "its name is taken"),
    ] {
        let line = format!("Job {number} of app.json is left out: {why}");
        assert!(notes.iter().any(|note| note.starts_with(&line)), "{line}: {notes:?}");
    }
    assert_eq!(notes.len(), 11);
}

#[test]
fn an_app_json_that_is_hostile_costs_one_line() {
    let deep = format!("{{\"cron\":{}", "[".repeat(10_000));
    let large = format!("{{\"cron\":[{}]}}", " ".repeat(50 << 20));
    for (manifest, why) in [
        (deep.as_str(), "app.json is not valid JSON"),
        (&large, "no more than 1024 KiB of it are read"),
        ("{\"cron\":", "app.json is not valid JSON"),
        ("", "app.json is not valid JSON"),
        (r#"{"cron": {"command": "x"}}"#, "`cron` must be a list"),
        (r#"{"cron": "0 3 * * *"}"#, "`cron` must be a list"),
    ] {
        let (found, notes) = jobs(manifest);
        assert!(found.is_empty());
        assert!(notes.len() == 1 && notes[0].contains(why), "{notes:?}");
        assert!(!notes[0].contains('\n') && notes[0].len() < 300, "{notes:?}");
    }
    let many = vec![r#"{"command": "x", "schedule": "@daily"}"#; 20_000].join(",");
    let (found, notes) = jobs(&format!("{{\"cron\": [{many}]}}"));
    assert_eq!((found.len(), notes.len()), (20, 2));
    assert_eq!(notes[0], "Job 21 of app.json is left out: no more than 20 are read.");
}
