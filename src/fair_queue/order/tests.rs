//! Properties of the order, on a machine that is played: shares by weight, no idle core, nobody delayed by a flood, books that are even at the end.

use proptest::prelude::*;

use super::*;

/// A machine that is played: parties that always have requests waiting, each of which costs what `costs` says next.
struct Machine {
    queue: Order<usize>,
    lanes: Vec<(PartyId, LaneId)>,
    breadth: Breadth,
    running: Vec<(Duration, Duration, usize, Grant)>,
    now: Duration,
    served: Vec<Duration>,
}

impl Machine {
    fn new(cores: usize, weights: &[u32], breadth: Breadth) -> Self {
        let mut queue = Order::new(cores);
        let lanes: Vec<_> = weights
            .iter()
            .map(|weight| {
                let party = queue.join(*weight);
                (party, queue.open(party))
            })
            .collect();
        Self {
            served: vec![Duration::ZERO; lanes.len()],
            queue,
            lanes,
            breadth,
            running: Vec::new(),
            now: Duration::from_secs(1),
        }
    }

    fn wait(&mut self, party: usize) -> Rank {
        let (_, lane) = self.lanes[party];
        let place = self.queue.wait(lane, self.breadth, Priority::Normal, party);
        place.unwrap()
    }

    /// Begins what may begin; each request costs what `cost` says. Returns whose they are.
    fn go_on(&mut self, mut cost: impl FnMut(usize) -> Duration) -> Vec<usize> {
        let mut begun = Vec::new();
        while let Some(turn) = self.queue.next(self.now) {
            for (party, grant) in turn {
                let cost = cost(party);
                self.running.push((self.now + cost, cost, party, grant));
                begun.push(party);
            }
        }
        begun
    }

    /// Until the next request is over. Returns whose it is.
    fn step(&mut self) -> Option<usize> {
        let times = self.running.iter().enumerate();
        let (place, _) = times.min_by_key(|(_, (end, ..))| *end)?;
        let (end, cost, party, grant) = self.running.swap_remove(place);
        self.now = self.now.max(end);
        self.served[party] += cost;
        self.queue.finish(grant, cost, true);
        self.queue.charge_late(self.now);
        Some(party)
    }

    fn is_empty(&self) -> bool {
        let queue = &self.queue;
        let nothing = (queue.turns, queue.busy, queue.outstanding, queue.waiting);
        let parties = queue.parties.values();
        nothing == (0, 0, 0, 0)
            && queue.under_way.is_empty()
            && queue.ready.is_empty()
            && queue.active.is_empty()
            && parties
                .into_iter()
                .all(|party| party.turns == 0 && party.waiting == 0 && party.heads.is_empty())
    }
}

const WIDE: Breadth = Breadth {
    workers: 8,
    batch: 1,
};

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

proptest! {
    /// Whoever has something to do all the time gets a part of the time that is as its weight, whatever its requests cost.
    #[test]
    fn time_is_divided_by_weights(
        weights in prop::collection::vec(1u32..5, 2..5),
        base in prop::collection::vec(1u64..40, 5),
        jitter in prop::collection::vec(0u64..10, 1..50),
        cores in 1usize..5,
    ) {
        let mut machine = Machine::new(cores, &weights, WIDE);
        let mut jitter = jitter.into_iter().cycle();
        for party in 0..weights.len() {
            for _ in 0..200 {
                machine.wait(party);
            }
        }
        let end = machine.now + Duration::from_secs(20);
        while machine.now < end {
            machine.go_on(|party| milliseconds(base[party] + jitter.next().unwrap()));
            let party = machine.step().unwrap();
            machine.wait(party);
        }
        let all: Duration = machine.served.iter().sum();
        let sum: u32 = weights.iter().sum();
        for (weight, served) in weights.iter().zip(&machine.served) {
            let part = served.as_secs_f64() / all.as_secs_f64();
            let due = f64::from(*weight) / f64::from(sum);
            prop_assert!((part - due).abs() < 0.03, "{part} of {due}: {:?}", machine.served);
        }
    }

    /// While somebody could go on, no core has nothing to do; and whatever comes, begins, ends and leaves, the books are even at the end.
    #[test]
    fn no_core_waits_while_somebody_does(
        steps in prop::collection::vec((0usize..3, 0u8..4, 1u64..30), 1..300),
        cores in 1usize..4,
        batch in 1usize..4,
    ) {
        let breadth = Breadth { workers: 2, batch };
        let mut machine = Machine::new(cores, &[1, 2, 3], breadth);
        let mut waiting: Vec<(usize, Rank)> = Vec::new();
        for (party, what, cost) in steps {
            match what {
                0 | 1 => waiting.push((party, machine.wait(party))),
                2 => drop(machine.step()),
                _ => if let Some((party, place)) = waiting.pop() {
                    let (_, lane) = machine.lanes[party];
                    machine.queue.give_up(lane, place);
                }
            }
            machine.go_on(|_| milliseconds(cost));
            let queue = &machine.queue;
            if queue.busy < cores {
                let mut lanes = queue.lanes.values();
                prop_assert!(lanes.all(|lane| lane.waiting.is_empty() || !lane.has_room()));
            }
            let waiting: usize = queue.lanes.values().map(|lane| lane.waiting.len()).sum();
            prop_assert_eq!(queue.waiting, waiting);
        }
        while machine.step().is_some() {
            machine.go_on(|_| milliseconds(1));
        }
        prop_assert!(machine.is_empty());
    }

    /// However many of another's wait, and however long they take, whoever comes with one request at a time begins at once.
    #[test]
    fn a_flood_delays_nobody_else(cost in 1u64..5000, cores in 1usize..5, rest in 5u64..50) {
        let mut machine = Machine::new(cores, &[1, 1], WIDE);
        for _ in 0..100 {
            machine.wait(0);
        }
        let of_flood = |party| milliseconds(if party == 0 { cost } else { 1 });
        machine.go_on(of_flood);
        for _ in 0..100 {
            machine.now += milliseconds(rest);
            machine.queue.charge_late(machine.now);
            while machine.running.iter().any(|(end, ..)| *end <= machine.now) {
                let party = machine.step().unwrap();
                if party == 0 {
                    machine.wait(0);
                }
                machine.go_on(of_flood);
            }
            machine.wait(1);
            prop_assert!(machine.go_on(of_flood).contains(&1));
        }
    }
}

/// What takes long is charged for the time until it is known that it cost less. Whoever comes then begins where the others are, and not where
/// they seemed to be.
#[test]
fn what_others_were_charged_too_much_delays_nobody() {
    let mut machine = Machine::new(1, &[1, 1], WIDE);
    for _ in 0..100 {
        machine.wait(0);
    }
    let cost = |_| milliseconds(1);
    machine.go_on(cost);
    for _ in 0..10 {
        machine.now += milliseconds(11);
        machine.queue.charge_late(machine.now);
        while machine.running.iter().any(|(end, ..)| *end <= machine.now) {
            if machine.step() == Some(0) {
                machine.wait(0);
            }
            machine.go_on(cost);
        }
        machine.wait(1);
        assert!(machine.go_on(cost).contains(&1));
    }
}

#[test]
fn requests_of_a_turn_share_a_run() {
    let breadth = Breadth {
        workers: 1,
        batch: 4,
    };
    let mut machine = Machine::new(1, &[1], breadth);
    for _ in 0..10 {
        machine.wait(0);
    }
    let mut turns = vec![machine.go_on(|_| milliseconds(20)).len()];
    while machine.step().is_some() {
        turns.push(machine.go_on(|_| milliseconds(20)).len());
    }
    turns.retain(|size| *size > 0);
    assert_eq!(turns, [4, 4, 2]);
}

#[test]
fn what_waits_for_a_worker_keeps_no_core_from_others() {
    let narrow = Breadth {
        workers: 1,
        batch: 1,
    };
    let mut machine = Machine::new(3, &[1, 1], narrow);
    for _ in 0..3 {
        machine.wait(0);
    }
    // One runs, and one is there when it is done.
    assert_eq!(machine.go_on(|_| milliseconds(20)), [0, 0]);
    machine.breadth = WIDE;
    for _ in 0..3 {
        machine.wait(1);
    }
    let begun = machine.go_on(|_| milliseconds(20));
    assert!(begun.len() >= 2 && begun.iter().all(|party| *party == 1));
}

#[test]
fn the_highest_priority_of_a_party_goes_first_and_others_are_not_passed() {
    let mut queue = Order::new(1);
    let (one, other) = (queue.join(1), queue.join(1));
    let (first, second) = (queue.open(one), queue.open(one));
    let others = queue.open(other);
    let breadth = Breadth {
        workers: 1,
        batch: 1,
    };
    let now = Duration::ZERO;
    queue.wait(first, breadth, Priority::Low, "low");
    queue.wait(first, breadth, Priority::Normal, "normal");
    queue.wait(second, breadth, Priority::High, "high");
    queue.wait(others, breadth, Priority::Low, "other's");
    let mut order = Vec::new();
    loop {
        let mut begun = Vec::new();
        while let Some(turn) = queue.next(now) {
            begun.extend(turn);
        }
        if begun.is_empty() {
            break;
        }
        for (name, grant) in begun {
            order.push(name);
            queue.finish(grant, milliseconds(10), true);
        }
    }
    let own: Vec<_> = order.iter().filter(|name| **name != "other's").collect();
    assert_eq!(own, [&"high", &"normal", &"low"]);
    assert_ne!(order.last(), Some(&"other's"));
}

#[test]
fn a_lane_that_closes_takes_what_is_its_own_along() {
    let mut machine = Machine::new(2, &[1, 1], WIDE);
    for party in [0, 0, 0, 0, 0, 1] {
        machine.wait(party);
    }
    machine.go_on(|_| milliseconds(50));
    let (party, lane) = machine.lanes[0];
    machine.queue.close(lane);
    machine.queue.leave(party);
    while machine.step().is_some() {}
    assert!(machine.is_empty());
}

#[test]
fn however_cheap_requests_were_only_so_many_are_computed() {
    let mut machine = Machine::new(2, &[1, 1], WIDE);
    for _ in 0..100 {
        machine.wait(0);
        machine.go_on(|_| Duration::ZERO);
        machine.step();
    }
    // Now they are dear, and many.
    for _ in 0..1000 {
        machine.wait(0);
    }
    let begun = machine.go_on(|_| milliseconds(10_000)).len();
    assert!(begun <= 2 * DEEPEST, "{begun}");
    machine.wait(1);
    assert_eq!(machine.go_on(|_| milliseconds(1)), [1]);
}

#[test]
fn what_was_not_usual_lowers_no_estimate() {
    let mut queue = Order::new(1);
    let party = queue.join(1);
    let lane = queue.open(party);
    let estimate = |queue: &Order<()>| queue.lanes[&lane].estimate.unwrap();
    for (cost, is_usual) in [(80, true), (0, false), (160, false), (10, true)] {
        let before = queue.lanes[&lane].estimate;
        queue.wait(lane, WIDE, Priority::Normal, ()).unwrap();
        let ((), grant) = queue.next(Duration::ZERO).unwrap().remove(0);
        queue.finish(grant, milliseconds(cost), is_usual);
        let after = estimate(&queue);
        if !is_usual {
            assert!(after >= before.unwrap());
        }
    }
    assert!(estimate(&queue) < 90_000_000);
}

#[test]
fn what_was_charged_too_much_is_given_back_but_nothing_is_saved() {
    let mut machine = Machine::new(1, &[1, 1], WIDE);
    machine.wait(0);
    let (_, grant) = machine.queue.next(machine.now).unwrap().remove(0);
    machine.now += Duration::from_mins(1);
    machine.queue.charge_late(machine.now);
    let (first, second) = (machine.lanes[0].0, machine.lanes[1].0);
    for _ in 0..20 {
        machine.wait(1);
        machine.go_on(|_| milliseconds(100));
        machine.step();
    }
    // It waits again, and only then its long request turns out to have cost nothing.
    machine.wait(0);
    machine.queue.finish(grant, Duration::ZERO, true);
    let tag = |party| machine.queue.parties[&party].tag;
    assert!(tag(first) >= machine.queue.clock && tag(second) > 0);
}

/// Parties with as many workers as cores, of which one is only seldom out of turns to take.
#[test]
fn weights_hold_where_lanes_are_narrow() {
    let narrow = Breadth {
        workers: 2,
        batch: 1,
    };
    let mut machine = Machine::new(2, &[1, 3], narrow);
    for party in [0, 1] {
        for _ in 0..50 {
            machine.wait(party);
        }
    }
    for _ in 0..4000 {
        machine.go_on(|_| milliseconds(5));
        let party = machine.step().unwrap();
        machine.wait(party);
    }
    let part =
        machine.served[0].as_secs_f64() / (machine.served[0] + machine.served[1]).as_secs_f64();
    assert!((0.22..0.28).contains(&part), "{part}");
}

#[test]
fn requests_that_come_one_by_one_join_the_turn_whose_run_they_share() {
    let breadth = Breadth {
        workers: 1,
        batch: 16,
    };
    let mut machine = Machine::new(2, &[1], breadth);
    for _ in 0..16 {
        machine.wait(0);
        assert_eq!(machine.go_on(|_| milliseconds(1000)), [0]);
    }
    // The next one begins the turn that waits for the worker, and no more than two are there.
    for expected in [16, 0] {
        for _ in 0..16 {
            machine.wait(0);
        }
        assert_eq!(machine.go_on(|_| milliseconds(1000)).len(), expected);
    }
}

#[test]
fn however_many_do_nothing_with_their_turns_nobody_waits_for_them() {
    let mut machine = Machine::new(2, &[1; 40], WIDE);
    for party in 0..39 {
        machine.wait(party);
        machine.wait(party);
        machine.go_on(|_| milliseconds(100_000));
        machine.now += milliseconds(1);
        machine.queue.charge_late(machine.now);
    }
    machine.now += milliseconds(20);
    machine.queue.charge_late(machine.now);
    machine.wait(39);
    assert!(machine.go_on(|_| milliseconds(1)).contains(&39));
}
