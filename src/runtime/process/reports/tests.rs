//! What the front keeps of what a process reports, whatever that is.
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::handler::LogLine;
use crate::model::{Limits, Settings};
use crate::runtime::protocol::messages::{
    Batching, Device, Level, Log, MetricKind, Observe, State, Verdict, Worker,
};
use crate::runtime::{Verdicts, WorkerIds, testing};

/// What comes through, in bytes, and the longest of it.
#[derive(Debug, Default)]
struct Kept {
    lines: usize,
    longest_line: usize,
    series: HashSet<(Arc<str>, Vec<String>)>,
}

#[derive(Default)]
struct Keeper(Mutex<Kept>);

impl Sink for Keeper {
    fn log(&self, line: LogLine) {
        let mut kept = self.0.lock();
        kept.lines += 1;
        let bytes = line.bytes() + line.request_id.len();
        kept.longest_line = kept.longest_line.max(bytes);
    }

    fn observe(&self, observation: Observation) {
        let series = (observation.name, observation.label_values);
        self.0.lock().series.insert(series);
    }
}

/// Texts as a handler has them, and texts that are far too long.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,8}",
        (0usize..20_000).prop_map(|length| "x".repeat(length)),
    ]
}

fn log() -> impl Strategy<Value = Report<String>> {
    let fields = prop::collection::vec((text(), text()), 0..40);
    (text(), fields, text()).prop_map(|(message, fields, request)| {
        Report::Log(Log {
            level: Level::Warn,
            message,
            fields,
            request,
        })
    })
}

fn observe() -> impl Strategy<Value = Report<String>> {
    let values = prop::collection::vec("[a-z]{0,3}", 1..3);
    ("[a-z]{1,3}", values, any::<f64>()).prop_map(|(name, label_values, value)| {
        let labels = 0..label_values.len();
        Report::Observe(Observe {
            name,
            kind: MetricKind::Gauge,
            unit: "none".to_owned(),
            label_names: labels.map(|label| format!("label{label}")).collect(),
            label_values,
            value,
            request: String::new(),
        })
    })
}

fn workers() -> impl Strategy<Value = Report<String>> {
    let worker = (0u32..5000).prop_map(|id| Worker {
        id,
        device: Device::Cuda(id),
        state: State::Loading,
    });
    prop::collection::vec(worker, 0..50).prop_map(Report::Workers)
}

fn batching() -> impl Strategy<Value = Report<String>> {
    text().prop_map(|text| Report::Batching {
        batching: Batching::Off(text.clone()),
        verdict: Some(Verdict::Refuted(text)),
    })
}

fn walls() -> impl Strategy<Value = Report<String>> {
    prop::collection::vec((0..Wall::ALL.len(), text()), 0..4).prop_map(|walls| {
        let walls = walls.into_iter();
        let walls = walls.map(|(wall, text)| (Wall::ALL[wall], Outcome::Missing(text)));
        Report::Walls(walls.collect())
    })
}

fn any_report() -> impl Strategy<Value = Report<String>> {
    prop_oneof![log(), observe(), workers(), batching(), walls()]
}

proptest! {
    /// A violation ends the process, and the next one begins where it ended: what is kept is kept of all.
    #[test]
    fn what_is_kept_of_any_reports_is_bounded(
        reports in prop::collection::vec(any_report(), 0..200),
    ) {
        let tasks = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = tasks.enter();
        let model = Arc::new(crate::model::ModelSpec {
            limits: Limits {
                log_lines_per_second: 10,
                log_bytes_per_second: 10_000,
                metric_series: 5,
                ..Limits::default()
            },
            ..testing::model(Settings::default())
        });
        let keeper = Arc::new(Keeper::default());
        let roster = Arc::new(Roster::new(Arc::new(WorkerIds::from(0))));
        let findings = Arc::new(Findings::new(&model, Verdicts::default()));
        let mut receiver = ReportReceiver::new(
            keeper.clone(),
            roster.clone(),
            findings.clone(),
            (Wall::Cgroup, Outcome::Off),
            &model,
            &Arc::default(),
        );
        let begun = std::time::Instant::now();
        for report in reports {
            let _ = receiver.take(report, 0);
            prop_assert!(receiver.series.len() <= 5);
        }
        let kept = keeper.0.lock();
        prop_assert!(kept.series.len() <= 5);
        let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
        prop_assert!(kept.lines <= 60 + 30 * seconds, "{kept:?}");
        prop_assert!(kept.longest_line <= 25 << 10, "{kept:?}");
        prop_assert!(roster.workers().len() <= 50);
        let walls = roster.walls();
        prop_assert!(walls.len() <= Wall::ALL.len() + 1);
        prop_assert!(walls.iter().all(|(_, outcome)| outcome.detail().len() <= 256));
        let reason = findings.status().map_or(0, |batching| batching.to_string().len());
        prop_assert!(reason <= 17 << 10);
    }
}
