//! Every limit of a version: what goes beyond it, what its client is told, and where that is counted, in both hostings.

use lantern::api::Listener;
use lantern::model::Limits;

use crate::support::{Model, TestServer};

/// What a client that goes beyond a limit gets.
enum Gets {
    /// An answer with this status and text, counted as failed.
    Refusal(u16, &'static str),
    /// A right answer; what is beyond the limit is left out. So many samples begin with this text.
    Less(&'static str, usize),
    /// The version is not registered, for a reason with this text.
    NoModel(&'static str),
}

/// One limit and what goes beyond it.
struct Row {
    /// The field of [`Limits`].
    limit: &'static str,
    /// The setting.
    setting: &'static str,
    /// A line of the settings that has the handler go beyond the limit when it starts.
    init: &'static str,
    /// What the request has the handler do.
    order: &'static str,
    gets: Gets,
    /// Whether it means something to a version that is hosted inline.
    holds_inline: bool,
}

const fn row(limit: &'static str, setting: &'static str, order: &'static str, gets: Gets) -> Row {
    Row {
        limit,
        setting,
        init: "",
        order,
        gets,
        holds_inline: true,
    }
}

const ROWS: [Row; 13] = [
    row(
        "memory",
        "memory: 16MiB",
        "allocate",
        Gets::Refusal(507, "more than its 16777216 bytes of memory"),
    ),
    row(
        "cpu",
        "cpu: 100ms",
        "loop",
        Gets::Refusal(500, "more than 100 ms of CPU time in preprocess"),
    ),
    Row {
        init: "handler: {init: loop}",
        ..row(
            "init_cpu",
            "initCpu: 100ms",
            "",
            Gets::NoModel("more than 100 ms of CPU time in init"),
        )
    },
    row(
        "output",
        "output: 4MiB",
        "carry 6000000",
        Gets::Refusal(503, "handed over more than 4194304 bytes"),
    ),
    row(
        "response",
        "response: 1MiB",
        "body-bytes 2000000",
        Gets::Refusal(503, "the limit is 1048576"),
    ),
    row(
        "host_calls",
        "hostCalls: 10000",
        "calls 20000",
        Gets::Refusal(503, "more than 10000 calls to the host"),
    ),
    // How many lines are left out is in the model's log.
    row(
        "log_lines_per_second",
        "logLinesPerSecond: 5",
        "log 5000",
        Gets::Less("no such metric", 0),
    ),
    row(
        "log_bytes_per_second",
        "logBytesPerSecond: 100B",
        "log 5000",
        Gets::Less("no such metric", 0),
    ),
    row(
        "observations_per_second",
        "observationsPerSecond: 0",
        "series 100",
        Gets::Less("flood{", 0),
    ),
    row(
        "metric_series",
        "metricSeries: 10",
        "series 100",
        Gets::Less("flood{", 10),
    ),
    // Calls take turns.
    row(
        "instances",
        "instances: 1",
        "log 1",
        Gets::Less("no such metric", 0),
    ),
    Row {
        holds_inline: false,
        ..row(
            "process_memory",
            "memory: 1GiB, processMemory: 256MiB, cpu: 2s",
            "allocate",
            Gets::Refusal(507, "lantern.limits.processMemory"),
        )
    },
    Row {
        holds_inline: false,
        ..row(
            "threads",
            "threads: 2",
            "",
            Gets::NoModel("lantern.limits.threads"),
        )
    },
];

/// The names of all fields. It does not compile when there is another one.
macro_rules! names_of_limits {
    ($($name:ident),*) => {{
        let Limits { $($name: _),* } = Limits::default();
        [$(stringify!($name)),*]
    }};
}

#[test]
fn every_limit_has_a_row() {
    let mut names = names_of_limits!(
        memory,
        cpu,
        init_cpu,
        output,
        response,
        host_calls,
        log_lines_per_second,
        log_bytes_per_second,
        observations_per_second,
        metric_series,
        instances,
        process_memory,
        threads
    );
    let mut rows = ROWS.map(|row| row.limit);
    names.sort_unstable();
    rows.sort_unstable();
    assert_eq!(names, rows);
}

impl Row {
    fn model(&self) -> Model {
        Model::new("hostile")
            .artifact("linear.onnx")
            .with(self.init)
            .lantern(&format!("limits: {{{}}}", self.setting))
    }

    async fn holds(&self, model: Model) {
        let server = TestServer::builder()
            .set("model_metrics_auto_detect=true")
            .in_store(model)
            .start()
            .await;
        let path = "/models?url=hostile-1.0.mar&initial_workers=1&synchronous=true";
        let registered = server.management("POST", path).await;
        let name = self.limit;
        if let Gets::NoModel(says) = &self.gets {
            if name == "threads" && registered.status == 200 {
                // Where the kernel does not count threads, the server does, perhaps after the version was loaded.
                ends_a_process(&server).await;
                return;
            }
            assert_eq!(registered.status / 100, 5, "{name}: {}", registered.text());
            assert!(
                registered.text().contains(says),
                "{name}: {}",
                registered.text()
            );
            return;
        }
        assert_eq!(registered.status, 200, "{name}: {}", registered.text());
        let answer = server.predict("hostile", self.order).await;
        let failed = server.sample("lantern_failed_requests_total{").await;
        match &self.gets {
            Gets::Refusal(status, says) => {
                assert_eq!(answer.status, *status, "{name}: {}", answer.text());
                assert!(answer.text().contains(says), "{name}: {}", answer.text());
                assert_eq!(failed, Some(1.0), "{name}");
            }
            Gets::Less(metric, samples) => {
                assert_eq!(answer.status, 200, "{name}: {}", answer.text());
                assert_eq!(samples_of(&server, metric).await, *samples, "{name}");
                assert!(failed.is_none_or(|failed| failed < 1.0), "{name}");
            }
            Gets::NoModel(_) => {}
        }
        assert_eq!(
            server.predict("hostile", "done").await.text(),
            "hostile",
            "{name}"
        );
    }
}

/// Returns when a worker process was ended.
async fn ends_a_process(server: &TestServer) {
    let deaths = || server.sample("lantern_worker_deaths_total{");
    let begun = std::time::Instant::now();
    while deaths().await.is_none_or(|deaths| deaths < 1.0) {
        assert!(begun.elapsed().as_secs() < 20, "the process goes on");
    }
}

async fn samples_of(server: &TestServer, metric: &str) -> usize {
    let request = server.request(Listener::Metrics, "GET", "/metrics");
    let text = request.send().await.unwrap().text().await.unwrap();
    text.lines().filter(|line| line.starts_with(metric)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_in_the_servers_process() {
    for row in ROWS.iter().filter(|row| row.holds_inline) {
        row.holds(row.model()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_in_worker_processes() {
    for row in &ROWS {
        row.holds(row.model().in_process()).await;
    }
}
