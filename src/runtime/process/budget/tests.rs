//! Budgets by the clock of a test.
use proptest::prelude::*;

use super::*;
use crate::runtime::process::testing::Log;

fn limits() -> Limits {
    Limits {
        log_lines_per_second: 100,
        log_bytes_per_second: 10_000,
        observations_per_second: 1000,
        ..Limits::default()
    }
}

fn budget() -> (Budget, Arc<ProcessCounts>) {
    let counts = Arc::<ProcessCounts>::default();
    let sink = Arc::<Log>::default();
    (Budget::new(sink, &limits(), counts.clone()), counts)
}

fn cost(kind: ReportKind) -> Cost {
    Cost {
        kind,
        units: 1,
        bytes: 100,
    }
}

/// Sends `per_second` reports a second for so long, as far as it is read. How many were admitted, or why it is ended.
fn send(budget: &mut Budget, of: Cost, per_second: u32, seconds: u32) -> Result<u64, Flood> {
    send_from(Instant::now(), budget, of, per_second, seconds)
}

fn send_from(
    start: Instant,
    budget: &mut Budget,
    of: Cost,
    per_second: u32,
    seconds: u32,
) -> Result<u64, Flood> {
    let (mut now, mut admitted) = (start, 0);
    for _ in 0..per_second * seconds {
        now += Duration::from_secs(1) / per_second;
        if now - start > Duration::from_secs(seconds.into()) {
            break;
        }
        admitted += u64::from(budget.admit(of, now)?);
        now += budget.pause(now)?;
    }
    Ok(admitted)
}

#[test]
fn what_a_process_sends_that_nobody_took_over_comes_through() {
    for share in shares(&limits()) {
        let (mut budget, counts) = budget();
        let of = cost(share.kind);
        let per_second = share.reports.per_second;
        let sent = u64::from(per_second) * 60;
        assert_eq!(send(&mut budget, of, per_second, 60), Ok(sent), "{share:?}");
        assert_eq!(counts.take_dropped(share.kind), 0, "{share:?}");
    }
}

#[test]
fn what_is_over_a_share_is_dropped_and_counted() {
    for share in shares(&limits()) {
        let (mut budget, counts) = budget();
        let per_second = share.reports.per_second * 5 / 4;
        let admitted = send(&mut budget, cost(share.kind), per_second, 20).unwrap();
        let dropped = counts.take_dropped(share.kind);
        assert_eq!(admitted + dropped, u64::from(per_second) * 20, "{share:?}");
        let most = u64::from(share.reports.per_second) * 22;
        assert!(admitted <= most, "{admitted} of {most}: {share:?}");
    }
}

#[test]
fn who_goes_on_is_ended_for_a_reason_that_names_limit_value_and_setting() {
    for share in shares(&limits()) {
        let (mut budget, _) = budget();
        let flood = send(
            &mut budget,
            cost(share.kind),
            share.reports.per_second * 20,
            30,
        )
        .unwrap_err();
        let text = flood.to_string();
        assert!(text.contains(share.reports.what), "{text}");
        let limit = format!("may send {} a second", share.reports.per_second);
        assert!(text.contains(&limit), "{text}");
        assert!(text.contains(share.settings), "{text}");
        assert!(
            flood.sent > u64::from(share.reports.per_second) * 5,
            "{text}"
        );
    }
}

#[test]
fn a_burst_alone_ends_nobody() {
    let (mut budget, _) = budget();
    let (of, mut start) = (cost(ReportKind::Log), Instant::now());
    for _ in 0..10 {
        assert!(send_from(start, &mut budget, of, 10_000, 4).is_ok());
        start += Duration::from_secs(4) + CALM + Duration::from_secs(1);
    }
}

#[test]
fn long_lines_and_long_lists_count_for_what_they_hold() {
    for (kind, units, admitted) in [
        (ReportKind::Log, 100_000, 5..=7),
        (ReportKind::Answer, 10 << 20, 3..=5),
        (ReportKind::Workers, 4096, 8..=12),
    ] {
        let (mut budget, _) = budget();
        let of = Cost {
            units,
            ..cost(kind)
        };
        let start = Instant::now();
        let count = (0..100).filter(|_| budget.admit(of, start) == Ok(true));
        let count = count.count();
        assert!(admitted.contains(&count), "{kind:?}: {count}");
    }
}

#[test]
fn bytes_of_all_kinds_together_pause_the_reading() {
    let (mut budget, _) = budget();
    let now = Instant::now();
    let of = Cost {
        bytes: 8 << 20,
        ..cost(ReportKind::Alive)
    };
    for _ in 0..16 {
        budget.admit(of, now).unwrap();
    }
    assert_eq!(budget.pause(now), Ok(Duration::ZERO));
    budget.admit(of, now).unwrap();
    assert_eq!(budget.pause(now), Ok(Duration::from_millis(125)));
    // They are read later, and nobody is ended for it.
    assert!(send(&mut budget, of, 16, 30).is_ok());
}

/// Lines of a megabyte are few, and far more than a process may send.
#[test]
fn a_flood_of_long_lines_is_ended_as_well() {
    let (mut budget, _) = budget();
    let of = Cost {
        units: 1 << 20,
        bytes: 1 << 20,
        ..cost(ReportKind::Log)
    };
    let flood = send(&mut budget, of, 50, 30).unwrap_err().to_string();
    assert!(flood.contains("bytes of log lines"), "{flood}");
}

/// Reports that take longer to make up for than a process may keep still: the flood does not begin anew with each.
#[test]
fn pauses_belong_to_the_flood() {
    let (mut budget, _) = budget();
    let of = Cost {
        units: 1 << 30,
        bytes: 300 << 20,
        ..cost(ReportKind::Log)
    };
    assert!(send(&mut budget, of, 100, 60).is_err());
}

fn any_cost() -> impl Strategy<Value = Cost> {
    (0..KINDS, 0u32..20_000, 0u32..(2 << 20)).prop_map(|(kind, units, bytes)| Cost {
        kind: ReportKind::ALL[kind],
        units,
        bytes,
    })
}

proptest! {
    /// Whatever is sent, and whenever: no more of a kind comes through than a burst and its share, and no more is read in
    /// all than a burst, the shares together and one report.
    #[test]
    fn no_sequence_of_reports_gets_more_than_its_shares(
        reports in prop::collection::vec((any_cost(), 0u64..50), 1..500),
    ) {
        let (mut budget, _) = budget();
        let start = Instant::now();
        let (mut now, mut admitted, mut bytes) = (start, [0u64; KINDS], 0u64);
        for (cost, millis) in reports {
            now += Duration::from_millis(millis);
            let Ok(is_admitted) = budget.admit(cost, now) else { break };
            admitted[cost.kind as usize] += u64::from(is_admitted);
            bytes += u64::from(cost.bytes);
            let Ok(pause) = budget.pause(now) else { break };
            now += pause;
        }
        let seconds = (now - start).as_secs() + 1;
        for share in shares(&limits()) {
            prop_assert!(admitted[share.kind as usize] <= u64::from(share.reports.per_second) * (seconds + 2));
        }
        prop_assert!(bytes <= u64::from(BYTES) * (seconds + 2) + (2 << 20));
    }
}
