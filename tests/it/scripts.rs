//! The script that builds a release and starts it.

use crate::harness::Setup;
use crate::harness::server::run;
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;

/// Stands for cargo: says that it is new enough, and "builds" what was built already.
const CARGO: &str = "#!/bin/sh
[ \"$1\" = --version ] && exec echo 'cargo 999.0.0 (stub)'
echo \"$*\" >>\"$CARGO_HOME/asked\"
mkdir -p \"$CARGO_TARGET_DIR/release\" && cp \"$BUILT\" \"$CARGO_TARGET_DIR/release/server\"
";

#[test]
fn scripts_run_builds_a_release_and_leaves_it_listening_with_url_and_token() {
    let setup = Setup::new().as_user();
    let home = setup.home().to_path_buf();
    let place = |name: &str| home.join(name).to_str().expect("UTF-8").to_owned();
    // A checkout, where the user may read it, and programs that the user may write.
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(Command::new("cp")
        .arg("-r")
        .args(["scripts", "Cargo.toml"].map(|n| checkout.join(n)))
        .arg(&home));
    run(Command::new("cp").arg(env!("CARGO_BIN_EXE_server")).arg(place("built")));
    std::fs::create_dir_all(home.join("cargo/bin")).unwrap();
    std::fs::write(home.join("cargo/bin/cargo"), CARGO).unwrap();
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(&home));
    run(Command::new("chmod").args(["a+x"]).args([place("cargo/bin/cargo"), place("built")]));
    let setup = setup
        .env("CARGO_HOME", &place("cargo"))
        .env("CARGO_TARGET_DIR", &place("target"))
        .env("BUILT", &place("built"))
        .shell(&format!("exec bash '{}'", place("scripts/run")));
    let mut server = setup.start();
    let asked = std::fs::read_to_string(home.join("cargo/asked")).unwrap();
    assert_eq!(asked, "build --release --locked\n");
    let program = std::fs::read_link(format!("/proc/{}/exe", server.pid())).unwrap();
    assert_eq!(program, home.join("target/release/server"), "no shell stays between");
    let (log, url) = (server.log(), format!("http://{}", server.address()));
    assert!(log.contains(&url) && log.contains(&server.token()), "{log}");
    server.owner().get("/api/session").expect(200);
    // Beside it, another one says so before it builds.
    let second = server.setup().run(&[]);
    let says =
        format!("A server already works in {} (pid={})", server.data().display(), server.pid());
    assert!(second.code == Some(1) && second.stderr.starts_with(&says), "{second:?}");
    let there = format!(":{}", server.address().port());
    let elsewhere = server.setup().clone().env("DATA_DIR", &place("other"));
    let port = elsewhere.env("LISTEN_ADDR", &there).run(&[]);
    assert!(port.code == Some(1) && port.stderr.contains("already answers at port"), "{port:?}");
    assert_eq!(std::fs::read_to_string(home.join("cargo/asked")).unwrap(), asked, "none built");
    assert_eq!(server.end_by(Signal::INT).0.code(), Some(0));
}
