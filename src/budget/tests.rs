//! Charges come and go; nothing is lost, nobody is starved.

use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

fn budget(bytes: usize, of_peer: usize) -> (Budget, Refusals) {
    let refusals = Refusals::default();
    let cfg = Config {
        bytes,
        of_peer,
        patience: PATIENCE,
    };
    (Budget::new(cfg, refusals.clone()), refusals)
}

fn kind<T>(result: Result<T, Error>) -> Option<Kind> {
    result.err().map(|error| error.kind())
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_waits_and_is_refused() {
    let (budget, refusals) = budget(8 * MIB, 8 * MIB);
    let account = budget.account();
    let first = account.charge(6 * MIB).await.unwrap();
    let began = Instant::now();
    let refused = account.charge(2 * MIB).await;
    assert_eq!(kind(refused), Some(Kind::Overloaded));
    assert_eq!(began.elapsed(), PATIENCE);
    assert_eq!(refusals.of(Limit::BytesOfPeer), 1);
    let waiting = tokio::spawn(async move { account.charge(2 * MIB).await });
    tokio::task::yield_now().await;
    drop(first);
    let second = waiting.await.unwrap().unwrap();
    assert_eq!(budget.used(), 2 * MIB);
    drop(second);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn small_charges_go_on_beside_large_ones_of_the_same_client() {
    let (budget, _) = budget(8 * MIB, 8 * MIB);
    let account = budget.account();
    let _large = account.charge(7 * MIB).await.unwrap();
    let small = account.hold_now(Bytes::from(vec![0; SMALL]));
    assert_eq!(small.unwrap().len(), SMALL);
    assert_eq!(
        kind(account.hold_now(Bytes::from(vec![0; SMALL + 1]))),
        Some(Kind::Overloaded)
    );
}

#[tokio::test(start_paused = true)]
async fn one_client_cannot_have_everything() {
    let (budget, refusals) = budget(8 * MIB, 4 * MIB);
    let (greedy, other) = (budget.account(), budget.account());
    let _large = greedy.charge(3 * MIB).await.unwrap();
    assert_eq!(kind(greedy.charge(MIB).await), Some(Kind::Overloaded));
    assert_eq!(refusals.of(Limit::BytesOfPeer), 1);
    assert!(other.charge(3 * MIB).await.is_ok());
    let _more = other.charge(3 * MIB).await.unwrap();
    assert_eq!(
        kind(budget.account().charge(2 * MIB).await),
        Some(Kind::Overloaded)
    );
    assert_eq!(refusals.of(Limit::BytesInFlight), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_larger_than_everything_goes_alone() {
    let (budget, _) = budget(MIB, MIB);
    let account = budget.account();
    let mut alone = account.charge(20 * MIB).await.unwrap();
    alone.grow_to(30 * MIB).await.unwrap();
    assert_eq!(kind(account.charge(MIB / 2).await), Some(Kind::Overloaded));
    drop(alone);
    assert!(account.charge(20 * MIB).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order() {
    let (budget, _) = budget(8 * MIB, 8 * MIB);
    let account = budget.account();
    let first = account.charge(7 * MIB).await.unwrap();
    let (order, served) = std::sync::mpsc::channel();
    let waiting = [(0, 7 * MIB), (1, MIB), (2, MIB)].map(|(number, bytes)| {
        let (account, order) = (account.clone(), order.clone());
        tokio::spawn(async move {
            let charge = account.charge(bytes).await.unwrap();
            order.send(number).unwrap();
            tokio::task::yield_now().await;
            drop(charge);
        })
    });
    tokio::task::yield_now().await;
    // There is room for a smaller one, but others came before.
    assert!(!account.open().grow_now(SMALL + 1));
    drop(first);
    for one in waiting {
        one.await.unwrap();
    }
    assert_eq!(served.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn half_read_bodies_that_hold_everything_give_way() {
    let (budget, _) = budget(8 * MIB, 8 * MIB);
    let readers = (0..7).map(|_| {
        let account = budget.account();
        tokio::spawn(async move {
            let mut body = account.charge(MIB).await?;
            tokio::task::yield_now().await;
            body.grow_to(2 * MIB).await
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut done = 0;
    for reader in readers {
        done += usize::from(reader.await.unwrap().is_ok());
    }
    assert!(done > 0, "nobody got anywhere");
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn held_bytes_are_charged_until_their_last_part_is_gone() {
    let (budget, _) = budget(8 * MIB, 8 * MIB);
    let account = budget.account();
    let mut bytes = account.hold(Bytes::from(vec![7; MIB])).await.unwrap();
    let part = bytes.split_to(10);
    drop(bytes);
    assert_eq!(budget.used(), MIB);
    assert!(!account.is_empty());
    drop(part);
    assert!(account.is_empty());
    let tiny = account.hold(Bytes::from(vec![7; UNCOUNTED])).await.unwrap();
    assert_eq!((budget.used(), tiny.len()), (0, UNCOUNTED));
}

#[tokio::test]
async fn nobodys_account_takes_anything() {
    let account = Account::default();
    let charge = account.charge(usize::MAX).await.unwrap();
    assert_eq!(charge.bytes(), usize::MAX);
    assert!(account.is_empty());
}

#[derive(Debug, Clone)]
enum Order {
    Grow(usize, usize),
    Force(usize, usize),
    Drop(usize),
}

fn order() -> impl Strategy<Value = Order> {
    let bytes = prop_oneof![0..2 * UNCOUNTED, 0..2 * SMALL, 0..2 * MIB];
    (0usize..6, bytes, 0..3).prop_map(|(which, bytes, what)| match what {
        0 => Order::Drop(which),
        1 => Order::Force(which, bytes),
        _ => Order::Grow(which, bytes),
    })
}

proptest! {
    /// Whatever is charged, grown and dropped: what is used is the sum of what is held, and nothing is left at the end.
    #[test]
    fn the_sum_is_right(orders in prop::collection::vec(order(), 0..60)) {
        let (budget, _) = budget(4 * MIB, 3 * MIB);
        let accounts = [budget.account(), budget.account()];
        let mut charges: Vec<_> = (0..6).map(|index| accounts[index % 2].open()).collect();
        for order in orders {
            match order {
                Order::Grow(which, bytes) => drop(charges[which].grow_now(bytes)),
                Order::Force(which, bytes) => charges[which].grow_anyway(bytes),
                Order::Drop(which) => charges[which] = accounts[which % 2].open(),
            }
            let counted = charges.iter().map(Charge::bytes).filter(|bytes| *bytes > UNCOUNTED);
            prop_assert_eq!(budget.used(), counted.sum::<usize>());
        }
        drop(charges);
        prop_assert_eq!(budget.used(), 0);
        prop_assert!(accounts.iter().all(Account::is_empty));
    }
}
