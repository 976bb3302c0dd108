//! Which deploy begins, which one builds, and what ends them.

use super::*;
use crate::model::{AppId, DeployStatus, Trigger};
use std::io::Write as _;
use std::thread;

fn app(name: &str) -> AppId {
    AppId::parse(name).unwrap()
}

fn deploy(name: &str) -> DeployId {
    DeployId::parse(name).unwrap()
}

fn request(name: &str, is_rollback: bool) -> Deploy {
    Deploy {
        id: deploy(name),
        app: app(name),
        status: DeployStatus::Queued,
        trigger: Trigger::Manual,
        commit: None,
        commit_message: None,
        commit_author: None,
        steps: Vec::new(),
        error: None,
        release: is_rollback.then(|| deploy("rrrrrrrrrr")),
        created_at: 0,
        started_at: None,
        finished_at: None,
    }
}

/// Begins the first of these apps that is free.
fn begin(queue: &Queue, cancel: &Cancel, apps: &[&str]) -> Option<String> {
    let requests = || Ok::<_, ()>(apps.iter().map(|name| request(name, false)).collect());
    queue.state().begin(cancel, requests).unwrap().map(|begun| begun.app.to_string())
}

#[test]
fn only_the_deploy_that_was_cancelled_stops() {
    let queue = Queue::default();
    let cancels = ["aaaaaaaaaa", "bbbbbbbbbb"].map(|name| {
        let cancel = Cancel::new().unwrap();
        assert!(begin(&queue, &cancel, &[name]).is_some());
        cancel
    });
    queue.cancel(&deploy("cccccccccc"));
    queue.cancel(&deploy("aaaaaaaaaa"));
    assert_eq!(cancels.map(|cancel| cancel.is_cancelled()), [true, false]);
}

#[test]
fn what_is_done_between_deploys_of_an_app_is_not_done_beside_one() {
    let queue = Queue::default();
    assert!(begin(&queue, &Cancel::new().unwrap(), &["aaaaaaaaaa"]).is_some());
    assert!(!queue.between_deploys(&app("aaaaaaaaaa"), || panic!("it is being deployed")));
    assert!(queue.between_deploys(&app("bbbbbbbbbb"), || true));
    queue.end(&deploy("aaaaaaaaaa"));
    assert!(queue.between_deploys(&app("aaaaaaaaaa"), || true));
}

#[test]
fn once_closed_nothing_begins_and_nobody_waits() {
    let queue = Queue::default();
    let (first, second) = (Cancel::new().unwrap(), Cancel::new().unwrap());
    assert!(begin(&queue, &first, &["aaaaaaaaaa"]).is_some());
    let first_id = deploy("aaaaaaaaaa");
    let turn = queue.build_turn(&first_id, &first, || panic!("nobody builds")).unwrap();
    queue.close();
    assert!(first.is_cancelled() && queue.is_closed());
    assert!(begin(&queue, &second, &["bbbbbbbbbb"]).is_none());
    assert!(queue.next(&second, || Ok::<_, ()>(Vec::new())).unwrap().is_none());
    queue.insist(Duration::from_secs(600), || false);
    assert!(!queue.wait_for_garbage(Duration::from_secs(600)));
    drop(turn);
    assert!(queue.build_turn(&first_id, &first, || {}).is_none());
}

#[test]
fn what_must_be_noted_is_tried_until_it_succeeds() {
    let mut left = 3;
    Queue::default().insist(Duration::from_millis(1), || {
        left -= 1;
        left == 0
    });
    assert_eq!(left, 0);
}

#[test]
fn two_deploys_of_one_app_never_run_at_once_and_those_of_others_do() {
    let (queue, cancel) = (Queue::default(), Cancel::new().unwrap());
    let waiting = ["aaaaaaaaaa", "bbbbbbbbbb"];
    assert_eq!(begin(&queue, &cancel, &waiting).as_deref(), Some("aaaaaaaaaa"));
    assert_eq!(begin(&queue, &cancel, &waiting).as_deref(), Some("bbbbbbbbbb"));
    assert_eq!(begin(&queue, &cancel, &waiting), None);
    thread::scope(|scope| {
        let next = scope.spawn(|| {
            let requests = || Ok::<_, ()>(waiting.map(|name| request(name, false)).to_vec());
            queue.next(&cancel, requests).unwrap().unwrap()
        });
        queue.end(&deploy("aaaaaaaaaa"));
        assert_eq!(next.join().unwrap().app, app("aaaaaaaaaa"));
    });
    assert_eq!(queue.state().begin(&cancel, || Err("the database")).err(), Some("the database"));
    assert!(queue.state().begin(&cancel, || Ok::<_, ()>(Vec::new())).unwrap().is_none());
}

#[test]
fn a_rollback_waits_for_no_other_apps_build() {
    let (queue, cancel) = (Queue::default(), Cancel::new().unwrap());
    for name in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"] {
        assert!(begin(&queue, &cancel, &[name]).is_some());
    }
    let waiting = || Ok::<_, ()>(vec![request("eeeeeeeeee", false), request("ffffffffff", true)]);
    let begun = queue.state().begin(&cancel, waiting).unwrap().unwrap();
    assert_eq!(begun.app, app("ffffffffff"));
    assert!(queue.state().begin(&cancel, waiting).unwrap().is_none());
    queue.end(&deploy("aaaaaaaaaa"));
    assert_eq!(queue.state().begin(&cancel, waiting).unwrap().unwrap().app, app("eeeeeeeeee"));
}

/// Waits until so many wait for their turn.
fn until_awaited(queue: &Queue, count: usize) {
    let waiting = |s: &QueueState| s.current.iter().filter(|c| c.turn == Turn::Awaited).count();
    drop(wait_while(&queue.changed, queue.state(), |state| waiting(state) < count));
}

#[test]
fn ten_builds_are_built_in_the_order_in_which_their_deploys_began() {
    let names: Vec<String> = ('a'..='j').map(|c| c.to_string().repeat(10)).collect();
    let ids: Vec<DeployId> = names.iter().map(|name| deploy(name)).collect();
    let cancels: Vec<Cancel> = names.iter().map(|_| Cancel::new().unwrap()).collect();
    let (queue, built) = (Queue::default(), Mutex::new(vec![0]));
    thread::scope(|scope| {
        let begins = |n: usize| {
            assert_eq!(begin(&queue, &cancels[n], &[&names[n]]).as_ref(), Some(&names[n]));
        };
        begins(0);
        let first = queue.build_turn(&ids[0], &cancels[0], || panic!("nobody builds"));
        let mut awaited = 0;
        for three in [[1, 2, 3], [4, 5, 6], [7, 8, 9]] {
            three.into_iter().for_each(begins);
            // The last one has fetched first.
            for n in three.into_iter().rev() {
                let (queue, id, cancel, built) = (&queue, &ids[n], &cancels[n], &built);
                scope.spawn(move || {
                    let turn = queue.build_turn(id, cancel, || {}).unwrap();
                    built.lock().unwrap().push(n);
                    drop(turn);
                    queue.end(id);
                });
                awaited += 1;
                until_awaited(queue, awaited);
            }
        }
        drop(first);
    });
    assert_eq!(*built.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn one_that_waits_for_its_turn_takes_no_place_and_can_be_cancelled() {
    let queue = Queue::default();
    let names = ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd", "eeeeeeeeee"];
    let ids = names.map(deploy);
    let cancels = names.map(|_| Cancel::new().unwrap());
    for n in 0..4 {
        assert!(begin(&queue, &cancels[n], &[names[n]]).is_some());
    }
    let turn = queue.build_turn(&ids[0], &cancels[0], || panic!("nobody builds")).unwrap();
    assert!(begin(&queue, &cancels[4], &[names[4]]).is_none());
    thread::scope(|scope| {
        let wait = |n: usize| {
            let (queue, id, cancel) = (&queue, &ids[n], &cancels[n]);
            scope.spawn(move || queue.build_turn(id, cancel, || {}).is_some())
        };
        let (cancelled, last) = (wait(1), wait(2));
        until_awaited(&queue, 2);
        assert_eq!(begin(&queue, &cancels[4], &[names[4]]).as_deref(), Some(names[4]));
        queue.cancel(&ids[1]);
        assert!(!cancelled.join().unwrap());
        queue.end(&ids[1]);
        drop(turn);
        assert!(last.join().unwrap());
    });
    assert!(queue.state().current.iter().all(|c| c.turn == Turn::None));
}

#[test]
fn the_next_build_has_its_place_before_what_comes() {
    let queue = Queue::default();
    let cancel = Cancel::new().unwrap();
    for name in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"] {
        assert!(begin(&queue, &cancel, &[name]).is_some());
    }
    queue.set_turn(queue.state(), &deploy("bbbbbbbbbb"), Turn::Awaited);
    assert!(begin(&queue, &cancel, &["eeeeeeeeee"]).is_none());
    queue.set_turn(queue.state(), &deploy("bbbbbbbbbb"), Turn::Taken);
    queue.end(&deploy("aaaaaaaaaa"));
    assert!(begin(&queue, &cancel, &["eeeeeeeeee"]).is_some());
}

#[test]
fn an_archive_is_kept_for_its_deploy_and_closed_when_that_no_longer_waits() {
    let queue = Queue::default();
    let cancel = Cancel::new().unwrap();
    let keep = |name: &str| {
        let (read, write) = std::io::pipe().unwrap();
        let asked = queue.keep_archive(read.into(), || Ok::<_, ()>(Some(request(name, false))));
        assert!(asked.unwrap().is_some());
        write
    };
    let is_closed = |mut pipe: &std::io::PipeWriter| pipe.write(b"x").is_err();
    let [begun, waits, replaced] = ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"].map(keep);
    let first = begin(&queue, &cancel, &["aaaaaaaaaa", "bbbbbbbbbb"]);
    assert_eq!(first.as_deref(), Some("aaaaaaaaaa"));
    assert!(!is_closed(&begun) && !is_closed(&waits) && is_closed(&replaced));
    let archive = queue.take_archive(&deploy("aaaaaaaaaa"));
    assert!(archive.is_some() && !is_closed(&begun));
    drop(archive);
    assert!(is_closed(&begun) && queue.take_archive(&deploy("aaaaaaaaaa")).is_none());
    // Nothing is kept of one that could not be asked for.
    let (read, write) = std::io::pipe().unwrap();
    assert!(queue.keep_archive(read.into(), || Ok::<_, ()>(None)).unwrap().is_none());
    assert!(is_closed(&write));
}
