//! What a worker process may send without being asked: a share a second of each kind of report, and of all together.
//!
//! A process that nobody took over keeps to its shares by itself: what its handler may log and observe is limited there by the
//! same settings, and the rest it sends on its own clock. What is over a share is dropped and counted. A process that sends
//! more than all its shares together is not read on until the second is over, so it costs the front no more than them, however
//! fast it sends. One that goes on so is to be ended. This module knows neither sockets nor where reports go.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cost::Cost;
use super::counts::ProcessCounts;
use crate::handler::{FAILURES_PER_SECOND, Level, RateLimit, Sink};
use crate::metrics::ReportKind;
use crate::model::Limits;

/// Bytes of all reports that answer nothing, decoded, that are read in a second. What is over that is read later: a handler
/// may have reason to observe much, and costs no more than this.
const BYTES: u32 = 64 << 20;
/// Bytes of lines about requests that failed outside of the handler, a second.
const FAILURE_BYTES: u32 = 256 << 10;
/// For how long a process may send far more than it may before it is ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// A process that has kept to its shares for so long is taken for one that always did.
const CALM: Duration = Duration::from_secs(2);
/// Between two lines of the log about one process.
const SILENCE: Duration = Duration::from_secs(10);
/// Kinds that have a share here. What a process prints is limited where it is read.
const KINDS: usize = ReportKind::ALL.len() - 1;

/// What a process may send of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    kind: ReportKind,
    /// Reports a second.
    reports: Allowance,
    /// Bytes of lines, or rows of lists, a second, where those are counted.
    units: Option<Allowance>,
    /// The settings that decide it; empty where none does.
    settings: &'static str,
}

/// How much there may be of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allowance {
    /// What it is, for people.
    what: &'static str,
    per_second: u32,
}

/// The shares of a process whose handler has these limits, in the order of [`ReportKind::ALL`].
fn shares(limits: &Limits) -> [Share; KINDS] {
    let share = |kind, what, per_second| Share {
        kind,
        reports: Allowance { what, per_second },
        units: None,
        settings: "",
    };
    let with = |share, what, per_second| Share {
        units: Some(Allowance { what, per_second }),
        ..share
    };
    let lines = limits.log_lines_per_second;
    let bytes = u32::try_from(limits.log_bytes_per_second).unwrap_or(u32::MAX);
    let log = share(
        ReportKind::Log,
        "log lines",
        lines.saturating_add(FAILURES_PER_SECOND),
    );
    let bytes = bytes.saturating_add(FAILURE_BYTES);
    let workers = share(ReportKind::Workers, "lists of workers", 16);
    let answers = share(ReportKind::Answer, "answers that nobody waits for", 128);
    [
        Share {
            settings: "lantern.limits.logLinesPerSecond, lantern_max_log_lines_per_second, \
                       lantern.limits.logBytesPerSecond, lantern_max_log_bytes_per_second",
            ..with(log, "bytes of log lines", bytes)
        },
        Share {
            settings: "lantern.limits.observationsPerSecond, lantern_max_observations_per_second",
            ..share(
                ReportKind::Observation,
                "observations",
                limits.observations_per_second,
            )
        },
        // A process looks four times a second whether its workers and its batching changed, and lives once a second.
        with(workers, "rows of lists of workers", 16 << 10),
        share(ReportKind::Batching, "reports of batching", 16),
        share(ReportKind::Walls, "reports of walls", 4),
        share(ReportKind::Alive, "signs of life", 16),
        with(answers, "bytes of answers that nobody waits for", 16 << 20),
    ]
}

/// A process sent far more than it may, for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    of: Allowance,
    sent: u64,
    during: Duration,
    settings: &'static str,
}

impl Flood {
    /// How many times its share of a second a process sent.
    fn times(&self) -> u64 {
        self.sent / u64::from(self.of.per_second.max(1))
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, settings, .. } = self;
        let Allowance { what, per_second } = self.of;
        let seconds = self.during.as_secs();
        write!(
            formatter,
            "sent {sent} {what} in {seconds} s, of which it may send {per_second} a second"
        )?;
        if settings.is_empty() {
            return Ok(());
        }
        write!(formatter, " ({settings})")
    }
}

/// What is left of the shares of one process.
pub struct Budget {
    sink: Arc<dyn Sink>,
    counts: Arc<ProcessCounts>,
    meters: [Meter; KINDS],
    reports: RateLimit,
    bytes: RateLimit,
    flood: Option<Episode>,
    /// Reports that were dropped since the log said so, and when it may again.
    unsaid: u64,
    silent_until: Option<Instant>,
}

/// What is left of one share.
struct Meter {
    share: Share,
    reports: RateLimit,
    units: RateLimit,
    /// What may be dropped of either before it is a flood.
    forgiven: [RateLimit; 2],
}

/// A time in which a process sends far more than it may.
struct Episode {
    since: Instant,
    until: Instant,
    /// Reports and their units, by kind.
    sent: [[u64; 2]; KINDS],
}

impl Budget {
    /// The budget of one process whose handler has these limits. Dropped reports are counted in `counts`, and `sink` is told of them.
    pub fn new(sink: Arc<dyn Sink>, limits: &Limits, counts: Arc<ProcessCounts>) -> Self {
        let shares = shares(limits);
        let reports = shares.iter().map(|share| share.reports.per_second);
        let reports = reports.fold(0u32, u32::saturating_add);
        Self {
            meters: shares.map(Meter::new),
            reports: twice(reports),
            bytes: twice(BYTES),
            flood: None,
            unsaid: 0,
            silent_until: None,
            sink,
            counts,
        }
    }

    /// Whether a report is within its share; it is to be dropped if not. An error says that the process is to be ended.
    pub fn admit(&mut self, cost: Cost, now: Instant) -> Result<bool, Flood> {
        self.reports.charge(1, now);
        self.bytes.charge(cost.bytes, now);
        if let Some(flood) = &mut self.flood {
            let [reports, units] = &mut flood.sent[cost.kind as usize];
            *reports += 1;
            *units += u64::from(cost.units);
        }
        let meter = &mut self.meters[cost.kind as usize];
        if meter.admit(cost.units, now) {
            return Ok(true);
        }
        self.counts.dropped(cost.kind);
        let (share, is_forgiven) = (meter.share, meter.forgive(cost.units, now));
        self.say_dropped(&share, now);
        if !is_forgiven {
            self.flooded(Duration::ZERO, now)?;
        }
        Ok(false)
    }

    /// Whether the process may have sent more than all its shares: see [`Self::pause`].
    pub const fn is_overdrawn(&self) -> bool {
        self.reports.is_overdrawn() || self.bytes.is_overdrawn()
    }

    /// How long the process is not to be read, because it sent more than all its shares. An error says that it is to be ended.
    pub fn pause(&mut self, now: Instant) -> Result<Duration, Flood> {
        let (reports, bytes) = (self.reports.owed(now), self.bytes.owed(now));
        let pause = reports.max(bytes);
        if !reports.is_zero() {
            self.flooded(pause, now)?;
        } else if let Some(flood) = &mut self.flood {
            flood.goes_on(pause, now);
        }
        Ok(pause)
    }

    /// The process sends far more than it may, and is not read during `pause`. An error if it has done so for too long.
    fn flooded(&mut self, pause: Duration, now: Instant) -> Result<(), Flood> {
        let flood = self.flood.get_or_insert_with(|| Episode::new(now));
        if !flood.goes_on(pause, now) {
            *flood = Episode::new(now);
            flood.until = now + pause;
        }
        flood.check(now, &self.meters)
    }

    /// Says in the log that reports are dropped, unless it said so a moment ago.
    fn say_dropped(&mut self, share: &Share, now: Instant) {
        self.unsaid += 1;
        if self.silent_until.is_some_and(|until| now < until) {
            return;
        }
        self.silent_until = Some(now + SILENCE);
        let dropped = std::mem::take(&mut self.unsaid);
        let Share {
            reports: Allowance { what, per_second },
            settings,
            ..
        } = share;
        let settings = match *settings {
            "" => String::new(),
            settings => format!(" ({settings})"),
        };
        let text = format!(
            "A worker process sends more {what} than the {per_second} a second that it may{settings}: what is over that is dropped (dropped: {dropped})."
        );
        self.sink.say(Level::Warn, text, None);
    }
}

impl Meter {
    fn new(share: Share) -> Self {
        let reports = share.reports.per_second;
        let units = share.units.map_or(0, |units| units.per_second);
        Self {
            share,
            reports: twice(reports),
            units: twice(units),
            forgiven: [reports, units].map(|per_second| RateLimit::new(per_second.max(1))),
        }
    }

    fn admit(&mut self, units: u32, now: Instant) -> bool {
        self.reports.admit(1, now) && (self.share.units.is_none() || self.units.admit(units, now))
    }

    /// Whether a report may be dropped without more ado: as many may be as are admitted.
    fn forgive(&mut self, units: u32, now: Instant) -> bool {
        let [of_reports, of_units] = &mut self.forgiven;
        let are_units_forgiven = self.share.units.is_none() || of_units.admit(units, now);
        of_reports.admit(1, now) && are_units_forgiven
    }
}

impl Episode {
    const fn new(now: Instant) -> Self {
        Self {
            since: now,
            until: now,
            sent: [[0; 2]; KINDS],
        }
    }

    /// Whether it goes on, through a `pause` in which nothing is read: not where it was over for a while.
    fn goes_on(&mut self, pause: Duration, now: Instant) -> bool {
        let is_over = now.saturating_duration_since(self.until) >= CALM;
        if !is_over {
            self.until = self.until.max(now + pause);
        }
        !is_over
    }

    /// An error if it has lasted for too long.
    fn check(&self, now: Instant, meters: &[Meter; KINDS]) -> Result<(), Flood> {
        let during = now.saturating_duration_since(self.since);
        if during < PATIENCE {
            return Ok(());
        }
        let shares = meters.iter().map(|meter| meter.share);
        let floods = shares.zip(self.sent).flat_map(|(share, [reports, units])| {
            let of_units = share.units.map(|of| (of, units));
            let all = [Some((share.reports, reports)), of_units];
            all.into_iter().flatten().map(move |(of, sent)| Flood {
                of,
                sent,
                during,
                settings: share.settings,
            })
        });
        floods.max_by_key(Flood::times).map_or(Ok(()), Err)
    }
}

/// So much a second, and twice that at once: a process is read late where the machine is busy.
fn twice(per_second: u32) -> RateLimit {
    RateLimit::with_burst(per_second, per_second.saturating_mul(2))
}

#[cfg(test)]
mod tests;
