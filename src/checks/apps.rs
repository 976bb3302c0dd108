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
    for host in &app.hosts {
        let why = format!("{} of {name}: {}", host.name, host.trouble);
        let mend = if host.leads_elsewhere {
            format!(
                "set the record that the settings of {name} name; `dig +short {}` shows it once it \
                 holds",
                host.name
            )
        } else {
            "open ports 80 and 443 to the Internet, also at the hoster; with ufw: `sudo ufw allow \
             80,443/tcp`"
                .to_owned()
        };
        let key = format!("host {}", host.name);
        add(match host.is_noticed {
            true => Finding::fail(&key, why, mend),
            false => Finding::warn(&key, why, mend),
        });
    }
}
