//! What the owner should know of the apps.

use super::{App, Facts, Finding};

/// All of them, and one that says so where all is well.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for app in &facts.apps {
        let mut add = |finding: Finding| {
            found.push(Finding { app_id: Some(app.id.clone()), ..finding });
        };
        of(app, &mut add);
    }
    if found.is_empty() && !facts.apps.is_empty() {
        found.push(Finding::pass("apps", "all apps, their jobs and host names are well"));
    }
    found
}

fn of(app: &App, add: &mut dyn FnMut(Finding)) {
    let (id, name) = (app.id.as_str(), &app.name);
    if let Some(why) = &app.looping {
        let why = format!("{name} ends again and again: {why}");
        let mend = "its log says why; deploy a mend, or roll back to the release before";
        add(Finding::fail(&format!("loop {id}"), why, mend));
    }
    if let Some((why, serves_on)) = &app.failed {
        let why = format!("the last deploy of {name} failed: {why}");
        let mend = "mend what its log says and deploy again";
        let key = format!("deploy {id}");
        add(if *serves_on {
            Finding::warn(&key, format!("{why}; the release before it serves on"), mend)
        } else {
            Finding::fail(&key, why, mend)
        });
    }
    for (job, how) in &app.jobs {
        let why = format!("the job {job} of {name} {how}");
        let mend = "mend it, then press Run now under Processes";
        add(Finding::warn(&format!("job {id} {job}"), why, mend));
    }
    for (host, trouble) in &app.hosts {
        let Some((why, is_noticed)) = trouble else { continue };
        let why = format!("{host} of {name}: {why}");
        let mend =
            format!("the record to set stands in the settings of {name}; then: dig +short {host}");
        let key = format!("host {host}");
        add(match is_noticed {
            true => Finding::fail(&key, why, mend),
            false => Finding::warn(&key, why, mend),
        });
    }
}
