//! Each check: what is well, what is not, and what is said of it.

use super::*;

/// A server of which everything is well.
fn well() -> Facts {
    Facts {
        now: 1000 * DAY,
        command: "server".to_owned(),
        is_installed: true,
        token: Some(Token { made_at: Some(900 * DAY), ..Token::default() }),
        key_in_data: Some(None),
        open_files: Some(Vec::new()),
        cleartext: Some(0),
        audit: Some(None),
        backups: Some(Backups {
            interval_hours: 24,
            newest_at: Some(1000 * DAY - 30 * HOUR),
            is_elsewhere: true,
            ..Backups::default()
        }),
        built_at: Some(990 * DAY),
        disk: Some(Disk { free: 5 << 30, all: 10 << 30, mount: "/".to_owned(), ..Disk::default() }),
        memory: Some(Memory { total: 512 << 20, available: 200 << 20, ..Memory::default() }),
        clock_is_set: Some(true),
        ahead_of_browser: Some(-3),
        reboot_required: false,
        updates: Some(Updates { security: 0, asked_at: Some(999 * DAY) }),
        fences: ["identity", "firewall", "port-fence", "socket-fence"].map(|n| (n, None)).into(),
        router: None,
        open_ports: Some(Vec::new()),
        way: Way::default(),
        apps: vec![app()],
    }
}

fn app() -> App {
    let id = AppId::parse("aaaaaaaaaa").unwrap();
    App {
        id,
        name: "shop".to_owned(),
        looping: None,
        failed: None,
        jobs: Vec::new(),
        hosts: Vec::new(),
    }
}

/// The one finding that comes of a change.
#[track_caller]
fn after(change: impl FnOnce(&mut Facts)) -> Finding {
    let mut facts = well();
    change(&mut facts);
    let mut bad = findings(&facts);
    bad.retain(|finding| finding.level != Level::Pass);
    assert!(bad.len() == 1 && !bad[0].mend.is_empty(), "{bad:#?}");
    bad.remove(0)
}

#[track_caller]
fn is(level: Level, id: &str, part: &str, mend: &str, change: impl FnOnce(&mut Facts)) {
    let found = after(change);
    assert_eq!((found.level, found.id.as_str()), (level, id), "{found:#?}");
    assert!(found.sentence.contains(part) && found.mend.contains(mend), "{found:#?}");
}

#[test]
fn p28_where_all_is_well_each_check_says_so_and_where_nothing_is_known_none_says_a_thing() {
    let found = findings(&well());
    assert!(found.iter().all(|finding| finding.level == Level::Pass), "{found:#?}");
    assert!(found.iter().all(|finding| finding.mend.is_empty()) && found.len() > 15, "{found:#?}");
    assert_eq!(findings(&Facts::default()), [], "nothing is known, so nothing is said");
}

#[test]
fn p28_each_finding_of_access_says_what_is_so_and_what_mends_it() {
    use Level::{Fail, Warn};
    let token = |f: &mut Facts| f.token.take().unwrap();
    is(Warn, "token", "days old", "server token --rotate", |f| {
        f.token = Some(Token { made_at: Some(0), ..token(f) });
    });
    is(Warn, "token", "ADMIN_TOKEN", "sed -i /^ADMIN_TOKEN=/d /etc/better-paas.conf", |f| {
        f.token = Some(Token { is_pinned: true, ..token(f) });
    });
    is(Fail, "token-shown", "process 7 (curl)", "server token --rotate", |f| {
        f.token = Some(Token { shown_by: Some((7, "curl".to_owned())), ..token(f) });
    });
    is(Warn, "key", "beside the data", "cat /d/secret.key >/etc/better-paas.key", |f| {
        f.key_in_data = Some(Some("/d/secret.key".to_owned()));
    });
    is(Fail, "files", "/d/a and 1 more", "chmod go= /d/a /d/b", |f| {
        f.open_files = Some(vec!["/d/a".to_owned(), "/d/b".to_owned()]);
    });
    is(Warn, "cleartext", "not encrypted: 3", "server rekey", |f| f.cleartext = Some(3));
    is(Fail, "audit", "row 5 is missing", "server audit --begin-anew", |f| {
        f.audit = Some(Some("row 5 is missing".to_owned()));
    });
    is(Warn, "plain-http", "from 203.0.113.7", "server help domains-and-https", |f| {
        f.way.plain_from = Some("203.0.113.7".to_owned());
    });
    is(Warn, "proxy", "at 10.0.0.9", "TRUST_PROXY=10.0.0.9\\n' | sudo tee -a /etc/", |f| {
        f.way.proxy = Some("10.0.0.9".to_owned());
    });
    is(Warn, "proxy", "at 10.0.0.9", "beside those that it has", |f| {
        (f.way.proxy, f.way.trusts) = (Some("10.0.0.9".to_owned()), true);
    });
    is(Warn, "trust", "private network", "LISTEN_ADDR=127.0.0.1:8080", |f| {
        f.way.open_beside_proxy = Some(8080);
    });
    is(Warn, "proxy", "at 10.0.0.9", "start the server anew with `TRUST_PROXY=", |f| {
        f.way.proxy = Some("10.0.0.9".to_owned());
        f.is_installed = false;
    });
}

#[test]
fn p28_backups_are_to_be_there_of_late_whole_and_elsewhere() {
    use Level::{Fail, Warn};
    let with =
        |change: fn(&mut Backups)| move |facts: &mut Facts| change(facts.backups.as_mut().unwrap());
    let day = 1000 * DAY;
    assert_eq!(day, well().now);
    is(
        Fail,
        "backup",
        "50 hours old",
        "server backup",
        with(|b| b.newest_at = Some(1000 * DAY - 50 * HOUR)),
    );
    is(
        Warn,
        "backup",
        "no backup yet",
        "server backup",
        with(|b| {
            (b.newest_at, b.since) = (None, 1000 * DAY - HOUR);
        }),
    );
    is(Fail, "backup", "no backup yet", "server backup", with(|b| b.newest_at = None));
    is(
        Fail,
        "backup",
        "192 hours",
        "server backup",
        with(|b| {
            (b.interval_hours, b.newest_at) = (0, Some(992 * DAY));
        }),
    );
    is(
        Warn,
        "backup",
        "the last try failed: no room",
        "server backup",
        with(|b| {
            b.last_error = Some("no room".to_owned());
        }),
    );
    is(
        Fail,
        "backup-damaged",
        "truncated",
        "rm /d/x.tgz",
        with(|b| {
            b.damaged = Some(("/d/x.tgz".to_owned(), "truncated".to_owned()));
        }),
    );
    is(
        Warn,
        "backup-place",
        "all are gone",
        "server help backup",
        with(|b| b.is_elsewhere = false),
    );
    is(
        Fail,
        "backup-place",
        "exit code 1",
        "Back up now",
        with(|b| {
            b.command_error = Some("exit code 1".to_owned());
        }),
    );
}

#[test]
fn p28_each_finding_of_the_machine_says_what_is_so_and_what_mends_it() {
    use Level::{Fail, Warn};
    is(Fail, "disk", "only 3 MiB", "du -xah / |", |f| {
        f.disk.as_mut().unwrap().too_little = Some("only 3 MiB are free".to_owned());
    });
    is(Warn, "disk", "50 % of the disk's 10 GiB", "du -xah / |", |f| {
        f.disk.as_mut().unwrap().is_short = true
    });
    let memory = |swap, swap_free| {
        move |f: &mut Facts| {
            f.memory = Some(Memory { total: 1000 << 20, available: 50 << 20, swap, swap_free });
        }
    };
    is(Warn, "memory", "no swap", "swapon /swapfile", memory(0, 0));
    is(Fail, "memory", "full too", "stop an app", memory(1 << 30, 1 << 20));
    let mut facts = well();
    memory(1 << 30, 1 << 29)(&mut facts);
    assert!(findings(&facts).iter().all(|finding| finding.level == Level::Pass));
    is(Warn, "clock", "nothing keeps", "set-ntp true", |f| f.clock_is_set = Some(false));
    for (ahead, part) in [(10_800, "10800 seconds ahead of"), (-500, "500 seconds behind")] {
        is(Fail, "clock-browser", part, "set-ntp true", |f| {
            (f.ahead_of_browser, f.clock_is_set) = (Some(ahead), None);
        });
    }
    is(Warn, "reboot", "restart of the machine", "sudo reboot", |f| f.reboot_required = true);
    is(Warn, "updates", "2 security updates", "--with-new-pkgs upgrade", |f| {
        f.updates.as_mut().unwrap().security = 2;
    });
    is(Warn, "updates", "for two weeks", "unattended-upgrades", |f| {
        f.updates.as_mut().unwrap().asked_at = Some(980 * DAY);
    });
    is(Warn, "build", "800 days old", "server update", |f| f.built_at = Some(200 * DAY));
    is(Warn, "router", "no Caddy", "apt install caddy", |f| {
        f.router = Some("there is no Caddy; run `apt install caddy`".to_owned());
    });
    is(Warn, "router", "cannot listen", "server help", |f| {
        f.router = Some("it cannot listen".to_owned());
    });
    is(Warn, "port 3306", "at port 3306", "'sport = :3306'", |f| {
        f.open_ports = Some(vec![3306]);
    });
}

#[test]
fn p28_a_fence_that_was_installed_and_is_gone_fails_and_one_that_cannot_be_is_a_warning() {
    let why = "apps can connect; load it with `scripts/firewall paas`".to_owned();
    let gone = |name: &'static str, why: &str| {
        let why = why.to_owned();
        move |f: &mut Facts| f.fences = vec![(name, Some(why))]
    };
    is(Level::Fail, "firewall", "can connect", "sudo better-paas install", gone("firewall", &why));
    is(Level::Warn, "firewall", "can connect", "scripts/firewall paas", |f| {
        gone("firewall", &why)(f);
        f.is_installed = false;
    });
    let old = "this machine's kernel (6.1) does not keep apps from listening";
    is(Level::Warn, "port-fence", "kernel", "newer kernel", gone("port-fence", old));
    let shared = "no subordinate ids; run `usermod --add-subuids 1-2 paas`";
    is(Level::Fail, "identity", "subordinate", "usermod --add-subuids", gone("identity", shared));
}

#[test]
fn p28_each_finding_of_an_app_names_it_and_leads_to_it() {
    use Level::{Fail, Warn};
    is(Fail, "loop aaaaaaaaaa", "shop ends again and again: exit code 1", "roll back", |f| {
        f.apps[0].looping = Some("exit code 1".to_owned());
    });
    is(
        Warn,
        "deploy aaaaaaaaaa",
        "failed: no; the release before it serves on",
        "deploy again",
        |f| {
            f.apps[0].failed = Some(("no".to_owned(), true));
        },
    );
    is(Fail, "deploy aaaaaaaaaa", "failed: no", "deploy again", |f| {
        f.apps[0].failed = Some(("no".to_owned(), false));
    });
    is(Warn, "job aaaaaaaaaa nightly", "the job nightly of shop failed", "Run now", |f| {
        f.apps[0].jobs = vec![("nightly".to_owned(), "failed: exit code 1".to_owned())];
    });
    let host = |is_noticed, leads_elsewhere| {
        let (name, trouble) = ("shop.example.com".to_owned(), "it leads to 192.0.2.1".to_owned());
        move |f: &mut Facts| {
            f.apps[0].hosts = vec![Host { name, trouble, is_noticed, leads_elsewhere }];
        }
    };
    let (id, part) = ("host shop.example.com", "of shop: it leads to");
    is(Fail, id, part, "dig +short shop", host(true, true));
    is(Fail, id, part, "ufw allow", host(true, false));
    is(Warn, id, part, "dig +short shop", host(false, true));
    let found = after(|f| f.apps[0].looping = Some("x".to_owned()));
    assert_eq!(found.app_id, Some(app().id));
    let two = |f: &mut Facts| {
        f.reboot_required = true;
        f.apps[0].looping = Some("x".to_owned());
    };
    let mut facts = well();
    two(&mut facts);
    assert_eq!(findings(&facts)[0].level, Level::Fail, "the worst first");
}
