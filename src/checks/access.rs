//! Who could get in, or at what is secret: token, key, files, the way of requests, backups, audit.

use super::{Check, DAY, Facts, Finding, HOUR, ours, set};

/// How old a token may get: who has seen it once has it until then.
const TOKEN_AGE: i64 = 365 * DAY;

/// How old a backup may be where none is made by the clock.
const BY_HAND: i64 = 7 * DAY;

pub(super) const CHECKS: &[Check] = &[
    token,
    token_is_shown,
    key,
    files,
    cleartext,
    audit,
    backup,
    backup_damaged,
    backup_place,
    plain_http,
    proxy,
    trust,
];

fn token(facts: &Facts) -> Option<Finding> {
    let token = facts.token.as_ref()?;
    if token.is_pinned {
        let mend = if facts.is_installed {
            "`sudo sed -i /^ADMIN_TOKEN=/d /etc/better-paas.conf && sudo better-paas install`"
        } else {
            "start the server anew without ADMIN_TOKEN; it makes a token of its own"
        };
        let why = "ADMIN_TOKEN pins the admin token: it is in the environment of the server, and \
                   no command can change it";
        return Some(Finding::warn("token", why, mend));
    }
    let days = (facts.now - token.made_at?) / DAY;
    if days > TOKEN_AGE / DAY {
        let why = format!("the admin token is {days} days old; who has ever seen it gets in");
        return Some(Finding::warn("token", why, ours(facts, "token --rotate")));
    }
    Some(Finding::pass("token", format!("the admin token is {days} days old, in a file")))
}

fn token_is_shown(facts: &Facts) -> Option<Finding> {
    let (pid, name) = facts.token.as_ref()?.shown_by.as_ref()?;
    let why = format!(
        "the admin token stands in the arguments or the environment of process {pid} ({name}), \
         where others can read it"
    );
    let mend = if facts.token.as_ref().is_some_and(|token| token.is_pinned) {
        "set another ADMIN_TOKEN where that is set, and give it to nothing in this way".to_owned()
    } else {
        ours(facts, "token --rotate")
    };
    Some(Finding::fail("token-shown", why, mend))
}

fn key(facts: &Facts) -> Option<Finding> {
    let Some(file) = facts.key_in_data.as_ref()? else {
        return Some(Finding::pass("key", "the encryption key is kept apart from the data"));
    };
    let why = "the encryption key lies beside the data that it opens: who copies the data \
               directory has both";
    let mend = if facts.is_installed {
        format!(
            "`sudo sh -c 'umask 077; set -C; cat {file} >/etc/better-paas.key && better-paas install \
             && rm {file}'`"
        )
    } else {
        format!(
            "start the server anew with `BETTER_PAAS_SECRET_KEY=$(cat {file})` in its environment, \
             and remove that file"
        )
    };
    Some(Finding::warn("key", why, mend))
}

fn files(facts: &Facts) -> Option<Finding> {
    let all = facts.open_files.as_ref()?;
    let Some(first) = all.first() else {
        return Some(Finding::pass("files", "no other user can read the server's files"));
    };
    let more = all.len() - 1;
    let more = if more == 0 { String::new() } else { format!(" and {more} more files") };
    let why = format!("other users can read or write {first}{more}");
    Some(Finding::fail("files", why, format!("`sudo chmod go= {}`", all.join(" "))))
}

fn cleartext(facts: &Facts) -> Option<Finding> {
    Some(match facts.cleartext? {
        0 => Finding::pass("cleartext", "every secret in the database is encrypted"),
        n => Finding::warn(
            "cleartext",
            format!("secrets in the database that are of an older form, or not encrypted: {n}"),
            ours(facts, "rekey"),
        ),
    })
}

fn audit(facts: &Facts) -> Option<Finding> {
    Some(match facts.audit.as_ref()? {
        None => Finding::pass("audit", "the chain of the audit log is whole"),
        Some(wrong) => Finding::fail(
            "audit",
            format!(
                "the audit log was tampered with: {wrong}. Who did that could read the database; \
                 compare with a backup, then begin a new chain"
            ),
            ours(facts, "audit --begin-anew"),
        ),
    })
}

fn backup(facts: &Facts) -> Option<Finding> {
    let backups = facts.backups.as_ref()?;
    let limit = match i64::from(backups.interval_hours) {
        0 => BY_HAND,
        hours => 2 * hours * HOUR + HOUR,
    };
    let age = facts.now - backups.newest_at.unwrap_or(backups.since);
    let error = backups.last_error.as_ref();
    let because = error.map_or_else(String::new, |why| format!("; the last try failed: {why}"));
    let made = match backups.newest_at {
        None => "there is no backup yet".to_owned(),
        Some(_) if age < 2 * HOUR => "the newest backup is of this hour".to_owned(),
        Some(_) => format!("the newest backup is {} hours old", age / HOUR),
    };
    let (sentence, mend) = (made + &because, ours(facts, "backup"));
    Some(match (age > limit, backups.newest_at) {
        (true, _) => Finding::fail("backup", sentence, mend),
        (false, None) => Finding::warn("backup", sentence, mend),
        (false, Some(_)) if error.is_some() => Finding::warn("backup", sentence, mend),
        (false, Some(_)) => Finding::pass("backup", sentence),
    })
}

fn backup_damaged(facts: &Facts) -> Option<Finding> {
    let (path, why) = facts.backups.as_ref()?.damaged.as_ref()?;
    let why = format!("the backup {path} is damaged: {why}");
    Some(Finding::fail("backup-damaged", why, format!("`sudo rm {path}`")))
}

fn backup_place(facts: &Facts) -> Option<Finding> {
    let backups = facts.backups.as_ref()?;
    if let Some(why) = &backups.command_error {
        let why =
            format!("the newest backup is on this machine alone: BACKUP_COMMAND failed: {why}");
        let mend = "mend what it says, then press Back up now in the settings";
        return Some(Finding::fail("backup-place", why, mend));
    }
    Some(if backups.is_elsewhere {
        Finding::pass("backup-place", "backups are taken elsewhere")
    } else {
        Finding::warn(
            "backup-place",
            "every backup is on the disk of what it is a backup of; with that all are gone",
            format!("set BACKUP_COMMAND; {} says how", ours(facts, "help backup")),
        )
    })
}

fn plain_http(facts: &Facts) -> Option<Finding> {
    let client = facts.way.plain_from.as_ref()?;
    let why = format!(
        "the admin token came over plain HTTP from {client}: everybody on the way could read it. \
         Give the dashboard a name that leads here, and then make a new token"
    );
    let mend = format!("set DASHBOARD_DOMAIN; {} says how", ours(facts, "help domains-and-https"));
    Some(Finding::warn("plain-http", why, mend))
}

fn proxy(facts: &Facts) -> Option<Finding> {
    let peer = facts.way.proxy.as_ref()?;
    let why = format!(
        "requests come through a proxy at {peer} that is not trusted, so all clients seem to be \
         that one, and one who guesses tokens locks everybody out"
    );
    let mend = if facts.way.trusts || peer.contains('/') {
        "set TRUST_PROXY to the address of that proxy, beside those that it has".to_owned()
    } else {
        set(facts, &format!("TRUST_PROXY={peer}"))
    };
    Some(Finding::warn("proxy", why, mend))
}

fn trust(facts: &Facts) -> Option<Finding> {
    let port = facts.way.open_beside_proxy?;
    let why = "TRUST_PROXY=true believes each machine of a private network who its clients are, \
               and the port is open to all of them";
    let mend = format!(
        "set TRUST_PROXY to the address of your proxy alone; or, where that runs on this machine, \
         LISTEN_ADDR=127.0.0.1:{port}"
    );
    Some(Finding::warn("trust", why, mend))
}
