//! Tests of who may stay when there is not room for all (P22).

use super::*;
use std::io::Read as _;
use std::net::TcpListener;
use std::time::Duration;

impl Admission {
    /// Connections that are admitted.
    pub fn count(&self) -> usize {
        lock(&self.seats).taken.len()
    }

    /// Bytes that are held for all of them.
    pub fn held(&self) -> usize {
        lock(&self.seats).held()
    }
}

/// A connection: the gate's end, and the client's.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (listener.accept().unwrap().0, client)
}

fn client(n: u8) -> Client {
    Client::of([192, 0, 2, n].into())
}

/// Seats one connection of a client.
fn seat(seats: &Arc<Admission>, n: u8) -> Option<(Permit, TcpStream)> {
    let (ours, theirs) = pair();
    seats.admit(ours, client(n), true).ok().map(|permit| (permit, theirs))
}

fn is_closed(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).is_ok_and(|n| n == 0)
}

#[test]
fn a_proof_counts_for_its_time_and_a_sessions_proof_as_long_as_the_session() {
    let seats = Admission::new(2, 2, 1 << 20);
    let (old, mut old_end) = seat(&seats, 1).unwrap();
    let (session, _session_end) = seat(&seats, 2).unwrap();
    old.prove();
    session.proof()();
    assert!(seat(&seats, 3).is_none(), "all have proved");
    // A minute, less the time that this test has taken.
    let ends = lock(&seats.seats).taken[&old.id].proved_until.unwrap();
    let left = ends.saturating_duration_since(Instant::now()).as_secs();
    assert!((30..=60).contains(&left), "{left} s");
    lock(&seats.seats).taken.get_mut(&old.id).unwrap().proved_until = Some(Instant::now());
    let (_newcomer, _newcomer_end) = seat(&seats, 3).unwrap();
    assert!(is_closed(&mut old_end) && session.enter(Phase::Running));
}

#[test]
fn the_longest_idle_connection_that_has_not_proved_the_token_makes_room() {
    let seats = Admission::new(3, 3, 1 << 20);
    let (owner, _owner_end) = seat(&seats, 1).unwrap();
    owner.prove();
    let (oldest, mut oldest_end) = seat(&seats, 2).unwrap();
    let (refreshed, mut refreshed_end) = seat(&seats, 3).unwrap();
    let (newcomer, mut newcomer_end) = seat(&seats, 4).unwrap();
    assert!(is_closed(&mut oldest_end));
    assert!(!oldest.enter(Phase::Running));
    drop(oldest);
    // A client that asks for something is not idle.
    assert!(newcomer.enter(Phase::Waiting));
    let (_last, _last_end) = {
        assert!(refreshed.enter(Phase::Waiting));
        seat(&seats, 5).unwrap()
    };
    assert!(is_closed(&mut newcomer_end));
    assert!(refreshed.enter(Phase::Running));
    drop(refreshed);
    assert!(is_closed(&mut refreshed_end) || seats.count() == 3);
    assert!(owner.enter(Phase::Running));
}

#[test]
fn a_newcomer_is_turned_away_when_all_have_proved_the_token() {
    let seats = Admission::new(2, 2, 1 << 20);
    let kept: Vec<_> = (1..=2).map(|n| seat(&seats, n).unwrap()).collect();
    kept.iter().for_each(|(permit, _)| permit.prove());
    assert!(seat(&seats, 3).is_none());
    assert!(!seats.evict_one());
    drop(kept);
    assert!(seat(&seats, 3).is_some());
    assert_eq!(seats.count(), 0);
}

#[test]
fn a_client_beyond_its_share_pushes_out_its_own_connections_only() {
    let seats = Admission::new(10, 2, 1 << 20);
    let (_other, _other_end) = seat(&seats, 1).unwrap();
    let (_first, mut first_end) = seat(&seats, 2).unwrap();
    let (_second, _second_end) = seat(&seats, 2).unwrap();
    let (_third, _third_end) = seat(&seats, 2).unwrap();
    assert!(is_closed(&mut first_end));
    assert!(_other.enter(Phase::Running) && _second.enter(Phase::Running));
    // A trusted proxy speaks for many.
    let proxied: Vec<_> = (0..5)
        .map(|_| {
            let (ours, theirs) = pair();
            (seats.admit(ours, client(2), false).ok().unwrap(), theirs)
        })
        .collect();
    assert!(proxied.iter().all(|(permit, _)| permit.enter(Phase::Running)));
}

#[test]
fn who_waits_for_the_handler_goes_last() {
    let seats = Admission::new(2, 2, 1 << 20);
    let (relayed, mut relayed_end) = seat(&seats, 1).unwrap();
    assert!(relayed.enter(Phase::Relayed));
    let (_waiting, mut waiting_end) = seat(&seats, 2).unwrap();
    let (next, _next_end) = seat(&seats, 3).unwrap();
    assert!(is_closed(&mut waiting_end));
    assert!(next.enter(Phase::Relayed));
    let (_last, _last_end) = seat(&seats, 4).unwrap();
    assert!(is_closed(&mut relayed_end));
}

#[test]
fn the_bytes_that_strangers_hold_are_bounded() {
    let seats = Admission::new(10, 10, 1000);
    let (first, mut first_end) = seat(&seats, 1).unwrap();
    let (second, _second_end) = seat(&seats, 2).unwrap();
    let (idle, _idle_end) = seat(&seats, 3).unwrap();
    first.hold(600);
    second.hold(300);
    assert_eq!(seats.held(), 900);
    second.hold(500);
    assert!(is_closed(&mut first_end));
    assert_eq!(seats.held(), 500);
    first.hold(10_000);
    assert_eq!(seats.held(), 500);
    drop(first);
    // Alone it takes nothing from anybody.
    second.hold(2000);
    assert!(second.enter(Phase::Running));
    second.hold(0);
    assert_eq!(seats.held(), 0);
    // The owner may hold any number of connections; others make room.
    second.prove();
    idle.hold(100);
    second.hold(5000);
    assert!(!idle.enter(Phase::Running) && second.enter(Phase::Running));
    drop((second, idle));
    assert_eq!((seats.held(), seats.count()), (0, 0));
}

#[test]
fn closing_ends_those_to_whom_nothing_is_owed_and_waits_for_the_others() {
    let seats = Admission::new(10, 10, 1000);
    let (waiting, mut waiting_end) = seat(&seats, 1).unwrap();
    assert!(waiting.enter(Phase::Waiting));
    let (running, mut running_end) = seat(&seats, 2).unwrap();
    assert!(running.enter(Phase::Running));
    let (fresh, _) = seat(&seats, 4).unwrap();
    let (mute, mut mute_end) = seat(&seats, 5).unwrap();
    seats.close(Duration::from_secs(3600));
    assert!(is_closed(&mut waiting_end));
    assert!(seat(&seats, 3).is_none() && running.is_last());
    assert!(fresh.enter(Phase::Relayed), "its request was on the way");
    seats.close(Duration::ZERO);
    assert!(is_closed(&mut mute_end) && fresh.enter(Phase::Relayed));
    drop((waiting, fresh, mute));
    assert_eq!(seats.wait_until_empty(Instant::now()), 1);
    assert!(running.enter(Phase::Relayed) && !running.enter(Phase::Waiting));
    seats.abort_all();
    assert!(is_closed(&mut running_end));
    drop(running);
    assert_eq!(seats.wait_until_empty(Instant::now()), 0);
}

#[test]
fn newcomers_wait_while_many_are_on_their_way_out() {
    let seats = Admission::new(1, 1, 1000);
    let mut sitting: Vec<_> = (0..MAX_LEAVING).map(|n| seat(&seats, n as u8).unwrap()).collect();
    assert!(!seats.is_crowded());
    sitting.push(seat(&seats, 200).unwrap());
    assert!(seats.is_crowded() && seats.count() == MAX_LEAVING + 1);
    drop(sitting.remove(0));
    assert!(!seats.is_crowded());
}
