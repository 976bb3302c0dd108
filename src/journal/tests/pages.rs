//! Pages of a log as its readers go through them.

use super::*;

fn wanted(edge: Edge, lines: usize, find: Option<&str>) -> Wanted {
    Wanted { edge, lines, find: find.map(str::to_owned) }
}

fn texts(page: &Page) -> Vec<&str> {
    page.lines.iter().map(|(_, line)| line.as_str()).collect()
}

/// All lines, by pages from the end back to the beginning.
fn backwards(page: impl Fn(&Wanted) -> Page) -> Vec<String> {
    let (mut all, mut to) = (Vec::new(), None);
    loop {
        let page = page(&wanted(Edge::Before(to), 7, None));
        assert!(page.lines.len() <= 7);
        all.splice(0..0, page.lines.into_iter().map(|(_, line)| line));
        to = page.from;
        if to.is_none() {
            return all;
        }
    }
}

/// All lines, by pages from the beginning to the end.
fn forwards(page: impl Fn(&Wanted) -> Page) -> Vec<String> {
    let (mut all, mut from) = (Vec::new(), Position::default());
    loop {
        let page = page(&wanted(Edge::After(from), 7, None));
        if page.lines.is_empty() {
            assert_eq!(page.at, from);
            return all;
        }
        from = page.at;
        all.extend(page.lines.into_iter().map(|(_, line)| line));
    }
}

#[test]
fn every_line_is_on_one_page_in_both_directions_and_a_follower_goes_on_from_any_place() {
    let room = room(1_500);
    let mut process = process(&room);
    let writer = room.journal.begin(deploy(), Redactor::default()).unwrap();
    for i in 0..400 {
        let line = format!("{i} {}", "x".repeat(i % 37));
        // Programs write lines in pieces, and one piece may begin another filling.
        let (one, two) = line.split_at(line.len() / 2);
        write!(process, "{one}").unwrap();
        writeln!(process, "{two}").unwrap();
        writer.line(&line);
    }
    write!(process, "unfinished").unwrap();
    let of_app =
        |wanted: &Wanted| room.journal.app_page(&app(), wanted, &Redactor::default()).unwrap();
    let of_deploy = |wanted: &Wanted| room.journal.page(&deploy(), wanted).unwrap();
    let all = backwards(of_deploy);
    assert_eq!((all.len(), forwards(of_deploy)), (400, all.clone()));
    // Of an app's log the oldest lines are gone, perhaps with the first half of one.
    let kept = backwards(of_app);
    assert!(kept.len() > 50 && all.ends_with(&kept), "{kept:?}");
    assert_eq!(forwards(of_app), kept);

    for number in [0, 1, kept.len() - 1] {
        let page = of_app(&wanted(Edge::Before(None), kept.len() - number, None));
        for (place, (at, _)) in page.lines.iter().enumerate() {
            let begin = Begin::At(*at);
            let mut follower =
                room.journal.follow_app(&app(), begin, || Ok(Redactor::default())).unwrap();
            let expected: Vec<_> =
                page.lines[place + 1..].iter().map(|(_, line)| line.clone()).collect();
            assert_eq!(drain(&mut follower), expected);
        }
    }
    let page = of_deploy(&wanted(Edge::Before(None), 3, None));
    let mut follower = room.journal.follow(&deploy(), page.lines[0].0).unwrap().unwrap();
    assert_eq!(drain(&mut follower), [&*all[398], &all[399]]);
    assert_eq!(follower.place(), Some(page.at));
    writer.line("more");
    let mut late = room.journal.follow(&deploy(), page.at).unwrap().unwrap();
    assert_eq!(drain(&mut late), ["more"]);
}

#[test]
fn a_follower_that_comes_back_to_its_place_sees_each_line_once_whatever_was_written_meanwhile() {
    let room = room(HALF_APP_LOG);
    let mut process = process(&room);
    let mut seen = Vec::new();
    let mut begin = Begin::At(Position::default());
    for i in 0..200 {
        write!(process, "line {i}\nhalf of ").unwrap();
        write!(process, "{}", "y".repeat(if i % 20 == 0 { 3 * MAX_LINE } else { 3 })).unwrap();
        let mut follower =
            room.journal.follow_app(&app(), begin, || Ok(Redactor::default())).unwrap();
        let mut sure = 0;
        let mut lines = Vec::new();
        loop {
            let events = follower.read(500);
            if events.is_empty() {
                break;
            }
            lines.extend(events);
            if let Some(place) = follower.place() {
                (begin, sure) = (Begin::At(place), lines.len());
            }
        }
        // What is not sure yet comes again.
        seen.extend(lines.drain(..sure));
        writeln!(process).unwrap();
    }
    let last = room.journal.follow_app(&app(), begin, || Ok(Redactor::default()));
    seen.extend(drain(&mut last.unwrap()));
    let whole =
        room.journal.follow_app(&app(), Begin::At(Position::default()), || Ok(Redactor::default()));
    assert!(seen.len() > 400 && seen == drain(&mut whole.unwrap()));
}

#[test]
fn a_text_is_found_in_any_case_page_by_page_and_a_secret_never() {
    let room = room(HALF_APP_LOG);
    let mut process = process(&room);
    for i in 0..500 {
        let word = if i % 10 == 0 { "ERROR" } else { "fine" };
        writeln!(process, "{i} {word} with s3cr3t-value").unwrap();
    }
    let redactor = secret("s3cr3t-value");
    let page = |edge, find| {
        room.journal.app_page(&app(), &wanted(edge, 20, Some(find)), &redactor).unwrap()
    };
    let (mut to, mut all) = (None, Vec::new());
    loop {
        let found = page(Edge::Before(to), "error");
        assert!(found.lines.len() <= 20);
        all.splice(0..0, texts(&found).into_iter().map(str::to_owned));
        to = found.from;
        if to.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..50).map(|i| format!("{} ERROR with [redacted]", 10 * i)).collect();
    assert_eq!(all, expected);
    for hidden in ["s3cr3t", "value"] {
        assert_eq!(texts(&page(Edge::Before(None), hidden)), Vec::<&str>::new());
    }
    // The place of what was found leads to it.
    let (at, line) = &page(Edge::Before(None), "480 error").lines[0];
    let around = wanted(Edge::Before(Some(*at)), 2, None);
    let around = room.journal.app_page(&app(), &around, &redactor).unwrap();
    assert_eq!(texts(&around), ["479 fine with [redacted]", line]);
}

#[test]
fn a_place_inside_of_a_line_shows_no_half_of_a_secret() {
    let room = room(HALF_APP_LOG);
    let mut process = process(&room);
    for _ in 0..3 {
        writeln!(process, "a secret is 0123456789abcdef").unwrap();
    }
    let redactor = secret("0123456789abcdef");
    // Beyond the end there are none, and it says so.
    let is_whole = |line: &str| line == "a secret is [redacted]" || line.contains("is left out");
    for offset in 0..200 {
        let place = Position { number: 1, offset };
        for edge in [Edge::After(place), Edge::Before(Some(place))] {
            let page = room.journal.app_page(&app(), &wanted(edge, 9, None), &redactor).unwrap();
            assert!(texts(&page).into_iter().all(is_whole), "{page:?}");
        }
        let follower = room.journal.follow_app(&app(), Begin::At(place), || Ok(redactor.clone()));
        let seen = drain(&mut follower.unwrap());
        let whole = |line: &String| is_whole(line);
        assert!(seen.iter().all(whole), "{seen:?}");
    }
}
