//! Words in, commands out.

use super::*;

fn words(line: &str) -> Result<Command, String> {
    parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn an_update_is_understood_with_what_it_may_be_told() {
    let update = |sha256: Option<&str>, may_be_older| {
        let (source, sha256) = ("a".to_owned(), sha256.map(str::to_owned));
        Ok(Command::Update(Update { source, sha256, may_be_older }))
    };
    assert_eq!(words("update a"), update(None, false));
    assert_eq!(words("update a --downgrade"), update(None, true));
    assert_eq!(words("update a --sha256 ff"), update(Some("ff"), false));
    assert_eq!(words("update a --sha256 ff --downgrade"), update(Some("ff"), true));
    // It becomes a word of what root runs.
    for source in ["a of=/etc/passwd", "a\tb"] {
        let refused = parse(["update", source].map(OsString::from)).unwrap_err();
        assert!(refused.contains("without spaces"), "{refused}");
    }
    for bad in ["update", "update a b", "update a --sha256", "update a --force", "prove"] {
        assert!(words(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_command_is_understood() {
    assert_eq!(words(""), Ok(Command::Serve));
    assert_eq!(words("token"), Ok(Command::Token { rotate: false }));
    assert_eq!(words("token --rotate"), Ok(Command::Token { rotate: true }));
    assert_eq!(words("deploy shop -"), Ok(Command::Deploy("shop".to_owned())));
    assert_eq!(words("deploy --sample"), Ok(Command::DeploySample));
    assert_eq!(words("lockouts"), Ok(Command::Lockouts));
    let client = Client::parse("192.0.2.1").unwrap();
    assert_eq!(words("lockouts clear 192.0.2.1"), Ok(Command::ClearLockout(client)));
    let command = ["manage.py", "--help", "--"].map(str::to_owned).to_vec();
    let run = Command::Run { app: "shop".to_owned(), command };
    assert_eq!(words("run shop -- manage.py --help --"), Ok(run));
    let import = |yes| Ok(Command::Import { dir: "/old".to_owned(), yes });
    assert_eq!(words("import /old"), import(false));
    assert_eq!(words("import /old --yes"), import(true));
    assert_eq!(words("audit"), Ok(Command::Audit { head: None }));
    let head = Some("00ff".to_owned());
    assert_eq!(words("audit --head 00ff"), Ok(Command::Audit { head }));
    assert_eq!(words("rekey"), Ok(Command::Rekey { key_file: None }));
    let key_file = Some(PathBuf::from("/root/k"));
    assert_eq!(words("rekey --key-file /root/k"), Ok(Command::Rekey { key_file }));
    assert_eq!(words("rekey --mark-lost"), Ok(Command::MarkLost { yes: false }));
    assert_eq!(words("rekey --mark-lost --yes"), Ok(Command::MarkLost { yes: true }));
    let backup = |file: &str, app_data| {
        Ok(Command::Backup { file: Some(file).filter(|f| !f.is_empty()).map(Into::into), app_data })
    };
    assert_eq!(words("backup"), backup("", true));
    assert_eq!(words("backup --no-app-data"), backup("", false));
    assert_eq!(words("backup -"), backup("-", true));
    assert_eq!(words("backup --no-app-data x.tgz"), backup("x.tgz", false));
    let restore = |key: Option<&str>| {
        Ok(Command::Restore { file: "x.tgz".into(), key_file: key.map(Into::into) })
    };
    assert_eq!(words("restore x.tgz"), restore(None));
    assert_eq!(words("restore x.tgz --key-file k"), restore(Some("k")));
    assert_eq!(words("config"), Ok(Command::Config));
    assert_eq!(words("install"), Ok(Command::Install { dry_run: false }));
    assert_eq!(words("install --dry-run"), Ok(Command::Install { dry_run: true }));
    let uninstall = |purge, yes| Ok(Command::Uninstall { purge, yes });
    assert_eq!(words("uninstall"), uninstall(false, false));
    assert_eq!(words("uninstall --purge"), uninstall(true, false));
    assert_eq!(words("uninstall --purge --yes"), uninstall(true, true));
    for (name, example) in EXAMPLES {
        assert_eq!(words(&format!("{name} --help")), Ok(Command::HelpOf(name)));
        let help = help_of(name);
        assert!(help.starts_with(&format!("  {name}")) && help.ends_with(example), "{help}");
        let others = help.lines().filter(|line| line.starts_with("  ") && !line.contains(name));
        assert!(others.clone().all(|line| line.starts_with("      ")), "{help}");
        assert!(completions().contains(name));
    }
    assert_eq!(words("completions"), Ok(Command::Completions));
    assert_eq!(words("version"), Ok(Command::Version));
    assert_eq!(words("--help"), Ok(Command::Help));
    assert!(matches!(words("help backup"), Ok(Command::Page(text)) if text.starts_with("# ")));
}

#[test]
fn anything_else_is_refused_with_a_hint() {
    for line in [
        "serve",
        "token x",
        "--rotate",
        "token --rotate=1",
        "lockouts clear",
        "lockouts x",
        "lockouts clear nonsense",
        "-x",
        "--listen",
        "version x",
        "install now",
        "install --purge",
        "uninstall --dry-run",
        "config --yes",
        "audit --head",
        "rekey now",
        "rekey --yes",
        "rekey --key-file",
        "help --rotate",
        "help nothing",
        "deploy",
        "deploy shop",
        "deploy shop x.tar",
        "import",
        "import /old --no",
        "import --yes",
        "run",
        "run shop",
        "run shop --",
        "run shop ls",
        "backup --all",
        "backup a b",
        "restore",
        "restore --key-file k",
        "restore x.tgz --key-file",
    ] {
        let error = words(line).unwrap_err();
        assert!(error.ends_with("'server help' lists the commands"), "{line}: {error}");
    }
}
