//! What the room promises as a whole.

use super::*;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::{TempDir, tempdir};

const PINNED: &str = "a-pinned-token-of-more-than-32-characters";

struct Fixture {
    _top: TempDir,
    data: DataDir,
    clock: Arc<AtomicU64>,
    auth: Auth,
}

impl Fixture {
    fn new(pinned: Option<&str>) -> Self {
        let top = tempdir().unwrap();
        let data = DataDir::open(&top.path().join("data")).unwrap();
        let clock = Arc::new(AtomicU64::new(0));
        let pinned = pinned.map(|t| Secret::new(t.to_owned()));
        let seen = Arc::clone(&clock);
        let reads = move || seen.load(Ordering::Relaxed);
        let (auth, _) = Auth::start_at(pinned, &data, reads).unwrap();
        Self { _top: top, data, clock, auth }
    }

    fn wait(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    fn wrong(&self, client: Client) -> Verdict {
        self.auth.decide(Some(b"wrong"), client)
    }

    fn right(&self, client: Client) -> Verdict {
        self.auth.decide(Some(self.auth.token().expose().as_bytes()), client)
    }

    fn session(&self) -> Session {
        match self.right(client(99)) {
            Verdict::Allowed(session) => session,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn it_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Auth>();
}

fn client(n: u8) -> Client {
    Client::V4([192, 0, 2, n])
}

fn locked(retry_after_seconds: u32) -> Verdict {
    Verdict::Locked { retry_after_seconds }
}

#[test]
fn p1_a_first_start_makes_a_token_and_saves_it() {
    let top = tempdir().unwrap();
    let data = DataDir::open(top.path()).unwrap();
    let (auth, fresh) = Auth::start(None, &data).unwrap();
    assert_eq!(fresh, Fresh::Made);
    let token = auth.token();
    let hex = token.expose().strip_prefix("bpaas_").unwrap();
    assert!(hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let file = fs::read_to_string(data.join(token::FILE)).unwrap();
    assert_eq!(file, format!("{}\n", token.expose()));
    let (again, fresh) = Auth::start(None, &data).unwrap();
    assert!(fresh == Fresh::Kept && again.token() == token);
    assert!(!format!("{again:?}").contains(hex));
}

#[test]
fn p4_a_pinned_token_wins_and_makes_no_file() {
    let fixture = Fixture::new(Some(PINNED));
    assert!(fixture.auth.is_pinned());
    assert!(!fixture.data.join(token::FILE).exists());
    assert!(matches!(fixture.auth.decide(Some(PINNED.as_bytes()), client(1)), Verdict::Allowed(_)));
    let session = fixture.session();
    let file = token::rotate_file(&fixture.data).unwrap();
    assert_eq!(fixture.auth.decide(Some(file.expose().as_bytes()), client(1)), Verdict::Refused);
    assert!(fixture.auth.is_alive(&session), "the file is ignored");
    let error = fixture.auth.rotate().unwrap_err();
    assert!(matches!(error, AuthError::Pinned));
    assert!(error.to_string().contains("ADMIN_TOKEN"));
}

#[test]
fn a_file_without_a_token_stops_the_start_with_a_sentence() {
    let top = tempdir().unwrap();
    let data = DataDir::open(top.path()).unwrap();
    for bad in [
        "",
        "\n",
        "short",
        "0123456789abcdef 0123456789abcdef",
        "0123456789abcdef0123456789abcdef\n\n",
    ] {
        fs::write(data.join(token::FILE), bad).unwrap();
        let error = Auth::start(None, &data).unwrap_err().to_string();
        assert!(error.contains("admin_token.txt") && error.contains("remove the file"), "{error}");
        assert!(bad.trim().is_empty() || !error.contains(bad.trim()), "{error}");
    }
    for good in [PINNED.to_owned(), format!("{PINNED}\n"), format!("{PINNED}\r\n")] {
        fs::write(data.join(token::FILE), good).unwrap();
        assert_eq!(Auth::start(None, &data).unwrap().0.token().expose(), PINNED);
    }
}

#[test]
fn p6_a_token_is_compared_exactly_as_sent() {
    let fixture = Fixture::new(Some(PINNED));
    for wrong in [
        format!("{PINNED} "),
        format!(" {PINNED}"),
        format!("{PINNED}\n"),
        PINNED.to_uppercase(),
        PINNED[1..].to_owned(),
        String::new(),
    ] {
        let verdict = fixture.auth.decide_local(Some(wrong.as_bytes()));
        assert_eq!(verdict, Verdict::Refused, "{wrong:?}");
    }
}

#[test]
fn p8_a_lockout_refuses_right_and_wrong_and_ends_with_the_right_token() {
    let fixture = Fixture::new(None);
    for _ in 0..5 {
        assert_eq!(fixture.wrong(client(1)), Verdict::Refused);
    }
    for _ in 0..10 {
        assert_eq!(fixture.wrong(client(1)), locked(2));
        assert_eq!(fixture.right(client(1)), locked(2));
    }
    assert!(matches!(fixture.right(client(2)), Verdict::Allowed(_)), "only that client");
    fixture.wait(2);
    assert_eq!(fixture.wrong(client(1)), Verdict::Refused);
    assert_eq!(fixture.wrong(client(1)), locked(4), "tries during the lockout did not count");
    fixture.wait(4);
    assert!(matches!(fixture.right(client(1)), Verdict::Allowed(_)));
    for _ in 0..5 {
        assert_eq!(fixture.wrong(client(1)), Verdict::Refused, "the record is cleared");
    }
}

#[test]
fn p9_without_a_token_nothing_is_counted() {
    let fixture = Fixture::new(None);
    for _ in 0..100 {
        assert_eq!(fixture.auth.decide(None, client(1)), Verdict::Anonymous);
    }
    assert!(matches!(fixture.right(client(1)), Verdict::Allowed(_)));
    for _ in 0..5 {
        assert_eq!(fixture.wrong(client(1)), Verdict::Refused);
    }
    assert_eq!(fixture.auth.decide(None, client(1)), Verdict::Anonymous, "also while locked out");
}

#[test]
fn p8_tickets_and_tokens_share_the_record() {
    let fixture = Fixture::new(None);
    for _ in 0..3 {
        assert_eq!(fixture.wrong(client(1)), Verdict::Refused);
    }
    for _ in 0..2 {
        assert_eq!(fixture.auth.redeem(b"wrong", client(1)), Verdict::Refused);
    }
    let ticket = fixture.auth.open_ticket(&fixture.session()).unwrap();
    assert_eq!(fixture.wrong(client(1)), locked(2));
    assert_eq!(fixture.auth.redeem(ticket.expose().as_bytes(), client(1)), locked(2));
    fixture.wait(2);
    let verdict = fixture.auth.redeem(ticket.expose().as_bytes(), client(1));
    assert!(matches!(verdict, Verdict::Allowed(_)), "a lockout does not spend the ticket");
    let again = fixture.auth.redeem(ticket.expose().as_bytes(), client(1));
    assert_eq!(again, Verdict::Refused, "but using it does");
}

#[test]
fn a_ticket_ends_after_a_minute_and_with_its_token() {
    let fixture = Fixture::new(None);
    let ticket = fixture.auth.open_ticket(&fixture.session()).unwrap();
    fixture.wait(60);
    assert_eq!(fixture.auth.redeem(ticket.expose().as_bytes(), client(1)), Verdict::Refused);
    let ticket = fixture.auth.open_ticket(&fixture.session()).unwrap();
    fixture.auth.rotate().unwrap();
    assert_eq!(fixture.auth.redeem(ticket.expose().as_bytes(), client(1)), Verdict::Refused);
}

#[test]
fn p5_a_rotation_here_ends_the_sessions_of_the_old_token() {
    let fixture = Fixture::new(None);
    let (old, session) = (fixture.auth.token(), fixture.session());
    let new = fixture.auth.rotate().unwrap();
    assert_ne!(old, new);
    assert_eq!(fixture.auth.token(), new);
    assert_eq!(token::read(&fixture.data).unwrap().unwrap(), new);
    assert!(!fixture.auth.is_alive(&session));
    assert!(fixture.auth.is_alive(&fixture.session()));
    assert_eq!(fixture.auth.decide(Some(old.expose().as_bytes()), client(1)), Verdict::Refused);
}

#[test]
fn p5_a_rotation_by_another_process_counts_with_the_next_question() {
    let fixture = Fixture::new(None);
    for _ in 0..20 {
        let (old, session) = (fixture.auth.token(), fixture.session());
        let new = token::rotate_file(&fixture.data).unwrap();
        assert!(!fixture.auth.is_alive(&session));
        let verdict = fixture.auth.decide_local(Some(old.expose().as_bytes()));
        assert_eq!(verdict, Verdict::Refused);
        let verdict = fixture.auth.decide_local(Some(new.expose().as_bytes()));
        assert!(matches!(verdict, Verdict::Allowed(_)));
    }
}

#[test]
fn a_token_file_that_is_gone_or_damaged_locks_nobody_out_and_lets_nobody_in() {
    let fixture = Fixture::new(None);
    let (token, session) = (fixture.auth.token(), fixture.session());
    let path = fixture.data.join(token::FILE);
    let stays = || {
        assert!(matches!(fixture.right(client(1)), Verdict::Allowed(_)));
        assert_eq!(fixture.auth.decide_local(Some(b"")), Verdict::Refused);
        assert!(fixture.auth.token() == token && fixture.auth.is_alive(&session));
    };
    for bad in ["", "\n", "short\n", "not a token but a sentence of many words\n"] {
        fs::write(&path, bad).unwrap();
        stays();
        assert_eq!(fixture.auth.decide_local(Some(bad.trim_end().as_bytes())), Verdict::Refused);
    }
    fs::remove_file(&path).unwrap();
    stays();
    fs::create_dir(&path).unwrap();
    stays();
    fs::remove_dir(&path).unwrap();
    fs::write(&path, format!("{}\n", token.expose())).unwrap();
    stays();
    let new = token::rotate_file(&fixture.data).unwrap();
    assert_eq!(fixture.auth.token(), new);
    assert!(!fixture.auth.is_alive(&session));
}

#[test]
fn a_rotation_that_cannot_be_saved_changes_nothing() {
    let fixture = Fixture::new(None);
    let (token, session) = (fixture.auth.token(), fixture.session());
    fs::remove_dir_all(fixture.data.path()).unwrap();
    let error = fixture.auth.rotate().unwrap_err().to_string();
    assert!(error.contains("could not be saved"), "{error}");
    assert!(!error.contains(token.expose()));
    assert!(fixture.auth.token() == token && fixture.auth.is_alive(&session));
}

#[test]
fn p13_lockouts_are_listed_while_they_last_and_can_be_cleared() {
    let fixture = Fixture::new(None);
    assert!(!fixture.auth.clear(client(1)));
    for (n, tries) in [(1, 5), (2, 4)] {
        for _ in 0..tries {
            assert_eq!(fixture.wrong(client(n)), Verdict::Refused);
        }
    }
    let before = unix_millis();
    let all = fixture.auth.lockouts();
    let [lockout] = all[..] else { panic!("{all:?}") };
    assert!(lockout.client == client(1) && lockout.failures == 5);
    assert!((before + 2_000..=unix_millis() + 2_000).contains(&lockout.until));
    assert!(fixture.auth.clear(client(1)));
    assert!(fixture.auth.lockouts().is_empty());
    assert!(matches!(fixture.right(client(1)), Verdict::Allowed(_)));
    for _ in 0..5 {
        assert_eq!(fixture.wrong(client(3)), Verdict::Refused);
    }
    fixture.wait(2);
    assert!(fixture.auth.lockouts().is_empty());
}

#[test]
fn p13_the_local_door_needs_no_token_refuses_a_wrong_one_and_is_never_locked() {
    let fixture = Fixture::new(None);
    for _ in 0..100 {
        assert_eq!(fixture.auth.decide_local(Some(b"wrong")), Verdict::Refused);
    }
    assert!(matches!(fixture.auth.decide_local(None), Verdict::Allowed(_)));
    let token = fixture.auth.token();
    let verdict = fixture.auth.decide_local(Some(token.expose().as_bytes()));
    assert!(matches!(verdict, Verdict::Allowed(_)));
}
