//! Signs of life, sent by a thread of its own: neither tasks nor runs of a model delay them.
//!
//! Each says how long the runtime threads have done nothing. A task counts for them, which
//! any of them runs as soon as it is free.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::protocol::messages::Report;
use super::super::protocol::outbox::{Outbox, Urgency};

/// Between two signs of life.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time between two counts of the runtime threads.
const TICK: Duration = Duration::from_millis(500);

/// Begins to give signs of life, for as long as there is an outbox. Must be called on a runtime thread.
pub fn start(outbox: &Arc<Outbox>) -> io::Result<()> {
    let ticks = Arc::new(AtomicU64::new(0));
    tokio::spawn(tick(ticks.clone()));
    let outbox = Arc::downgrade(outbox);
    std::thread::Builder::new()
        .name("lantern-pulse".to_owned())
        .spawn(move || beat(&outbox, &ticks))?;
    Ok(())
}

async fn tick(ticks: Arc<AtomicU64>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        ticks.fetch_add(1, Ordering::Relaxed);
    }
}

fn beat(outbox: &Weak<Outbox>, ticks: &AtomicU64) {
    let mut stuck = Duration::ZERO;
    while let Some(outbox) = outbox.upgrade() {
        super::send(&outbox, &Report::Alive { stuck }, Urgency::Now);
        outbox.tidy();
        drop(outbox);
        let (seen, asleep) = (ticks.load(Ordering::Relaxed), Instant::now());
        std::thread::park_timeout(INTERVAL);
        let has_ticked = ticks.load(Ordering::Relaxed) != seen;
        stuck = if has_ticked {
            Duration::ZERO
        } else {
            // Where this thread slept for longer, so did the whole process.
            stuck + asleep.elapsed().min(2 * INTERVAL)
        };
    }
}
