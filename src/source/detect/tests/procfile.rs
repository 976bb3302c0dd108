//! What a `Procfile` says, and what its other processes make of an app.

use super::*;

#[test]
fn a_procfile_says_how_to_start_and_the_language_how_to_build() {
    let procfile = "# comment\r\nworker: x\r\nweb: gunicorn a:b --bind 0.0.0.0:$PORT \r\n";
    let plan = look(&[("Procfile", procfile), ("requirements.txt", "")]).unwrap();
    assert_eq!(start(&plan), "gunicorn a:b --bind 0.0.0.0:$PORT");
    assert_eq!(declared(&plan), ["worker x"]);
    assert_eq!(commands(&[("Procfile", "\u{feff}web: ./run")]), (String::new(), "./run".into()));
    assert_eq!(
        commands(&[("Procfile", "web: vendor/bin/heroku-php-apache2 web/")]).1,
        "serve-php web"
    );
    assert!(look(&[("Procfile", "# nothing")]).unwrap_err().contains("give a start command"));
    for line in ["web: a\u{1}b", "web: a\nworker: a\u{1}b", "web: a\nrelease: \u{1}"] {
        assert!(look(&[("Procfile", line)]).is_err(), "{line:?}");
    }
}

/// The processes that a plan has besides the one that visitors reach.
fn declared(plan: &Plan) -> Vec<String> {
    plan.processes.iter().map(|(name, command)| format!("{name} {command}")).collect()
}

#[test]
fn a_procfile_without_web_declares_an_app_of_workers_or_of_files_with_workers() {
    let workers = ("Procfile", "worker: python3 bot.py\nclock: ./tick\nworker: second\n");
    let plan = look(&[workers, ("bot.py", ""), ("requirements.txt", "flask")]).unwrap();
    assert_eq!(declared(&plan), ["clock ./tick", "worker python3 bot.py"]);
    assert!(plan.build().is_some(), "it needs what it requires");
    assert_eq!(after_build(&plan, &["bot.py"]), Ok(Serve::Workers));
    assert!(plan.notes.iter().any(|note| note.contains("declares no `web:`")), "{:?}", plan.notes);
    assert_eq!(after_build(&look(&[workers]).unwrap(), &[]), Ok(Serve::Workers));

    let plan = look(&[workers, ("index.html", "")]).unwrap();
    assert_eq!(after_build(&plan, &["index.html"]), Ok(Serve::Files(String::new())));
    assert_eq!(plan.processes.len(), 2);
    for given in [["", "./own", ""], ["", "", "public"]] {
        let plan = look_on(&[workers], given, &[], ("", "")).unwrap();
        assert_ne!(plan.serve, [Serve::Workers], "the owner says what visitors get");
        assert_eq!(plan.processes.len(), 2);
    }
}

#[test]
fn lines_of_a_procfile_that_name_no_process_are_left_out_with_their_number() {
    let many: String = (1..=12).map(|n| format!("p{n}: run {n}\n")).collect();
    let plan = look(&[("Procfile", &format!("web: x\nBad Name: y\n{many}"))]).unwrap();
    assert_eq!(plan.processes.len(), 10);
    let left_out: Vec<_> = plan.notes.iter().filter(|note| note.contains("is left out")).collect();
    assert_eq!(left_out.len(), 3, "{left_out:?}");
    for (note, line) in left_out.into_iter().zip([2, 13, 14]) {
        assert!(note.starts_with(&format!("Line {line} of the Procfile")), "{note}");
    }
    let flood = "Bad Name: y\n".repeat(1000);
    let plan = look(&[("Procfile", &format!("web: x\n{flood}"))]).unwrap();
    assert!(plan.notes.len() < 20, "{}", plan.notes.len());
}
