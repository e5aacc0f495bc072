//! The queue on a paused clock: who waits, who is let go on, and what is charged for what does not say what it cost.

use std::pin::pin;

use super::*;

const BREADTH: Breadth = Breadth {
    workers: 1,
    batch: 1,
};

async fn turn(lane: &Lane) -> Turn {
    lane.turn(BREADTH, Priority::Normal, None).await.unwrap()
}

/// As many turns as `lane` gets at once.
async fn fill(lane: &Lane) -> Vec<Turn> {
    let mut turns = Vec::new();
    loop {
        let mut next = pin!(turn(lane));
        match futures_util::poll!(&mut next) {
            std::task::Poll::Ready(turn) => turns.push(turn),
            std::task::Poll::Pending => return turns,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_goes_on_when_a_turn_ends() {
    let queue = FairQueue::new(1);
    let party = queue.party(1);
    let lane = party.lane();
    let mut turns = fill(&lane).await;
    assert_eq!(party.waiting(), 0, "whoever left waits no more");
    let mut next = pin!(turn(&lane));
    assert!(futures_util::poll!(&mut next).is_pending());
    assert_eq!(party.waiting(), 1);
    turns.pop().unwrap().end(Duration::from_millis(10));
    next.await.end(Duration::from_millis(10));
    assert_eq!(party.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may() {
    let queue = FairQueue::new(1);
    let lane = queue.party(1).lane();
    let turns = fill(&lane).await;
    let waiting = pin!(turn(&lane));
    assert!(futures_util::poll!(waiting).is_pending());
    let refused = lane.turn(BREADTH, Priority::Normal, Some(1)).await;
    assert_eq!(refused.err(), Some(TooManyWait(1)));
    drop(turns);
}

#[tokio::test(start_paused = true)]
async fn another_owner_is_not_kept_by_what_does_not_end() {
    let queue = FairQueue::new(1);
    let (spins, lane) = (queue.party(1).lane(), queue.party(1).lane());
    let _spinning = fill(&spins).await;
    let mut again = pin!(turn(&spins));
    assert!(futures_util::poll!(&mut again).is_pending());
    for _ in 0..100 {
        turn(&lane).await.end(Duration::from_millis(20));
        tokio::time::advance(Duration::from_millis(30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_granted_to_one_who_left_is_given_back() {
    let queue = FairQueue::new(1);
    let lane = queue.party(1).lane();
    let turns = fill(&lane).await;
    let mut leaves = Box::pin(turn(&lane));
    let mut stays = pin!(turn(&lane));
    assert!(futures_util::poll!(&mut leaves).is_pending());
    assert!(futures_util::poll!(&mut stays).is_pending());
    drop(turns);
    drop(leaves);
    drop(stays.await);
    assert_eq!(queue.state.lock().order.all_waiting(), 0);
}
