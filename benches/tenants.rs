//! What tenants notice of each other: the latency of one that sends a request now and then, alone and beside others that want more than the
//! machine has; and how the machine is divided between two that both do.
//!
//! `make bench ARGS="--bench tenants"`. Everything is measured in one run of one server. The model turns a vector as often as the request
//! says; how often that takes 5 ms is found out first.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lantern::token::KeyDigest;
use lantern_benches::load::{self, Load};
use lantern_benches::server::{self, Model, Server, Setup};
use lantern_benches::{fixture, guest};

/// How long one request of the victim's takes by itself.
const WORK: Duration = Duration::from_millis(5);
/// How long each case is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// Tells this program to be clients.
const FLOOD: &str = "--flood";
/// Tells this program to send back what it gets.
const RETURN: &str = "--return";
const NAMES: [&str; 3] = ["victim", "other", "third"];

/// A server with tenants, whose names are their keys.
struct Place {
    setup: Setup,
    _server: Server,
    /// So many steps take [`WORK`].
    steps: u32,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    if let [_, flood, address, connections, file] = &arguments[..]
        && flood == FLOOD
    {
        let address = address.parse().expect("an address");
        let connections = connections.parse().expect("a number");
        let request = std::fs::read(file).expect("the request can be read");
        return send_for_ever(address, connections, &request);
    }
    if let [_, mode] = &arguments[..]
        && mode == RETURN
    {
        return send_back();
    }
    let place = Place::new();
    println!(
        "\nA run of {WORK:?} takes {} steps; {} cores",
        place.steps,
        cores()
    );
    beside(&place);
    weights(&place);
    refusals(&place);
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir()
            .expect("a temporary directory can be made")
            .keep();
        let file = directory.join("tenants.yaml");
        std::fs::write(&file, tenants()).expect("the tenants can be written");
        let extra = format!(
            "disable_token_authorization=false\nenable_model_api=true\nlantern_tenants={}",
            file.display()
        );
        let setup = Setup::new(&[], &extra);
        let server = setup.start();
        let health = b"GET /ping HTTP/1.1\r\nHost: lantern\r\nConnection: close\r\n\r\n";
        setup.first_answer(health, Instant::now());
        for name in NAMES {
            serve(
                &setup,
                &directory.join("tenants").join(name).join("archives"),
                name,
            );
        }
        let mut place = Self {
            setup,
            _server: server,
            steps: 2000,
        };
        place.calibrate();
        place
    }

    /// Finds out how many steps take [`WORK`].
    fn calibrate(&mut self) {
        for _ in 0..3 {
            let outcome = self.drive("victim", 1, Duration::from_secs(2));
            let took = outcome.p50.as_secs_f64();
            let factor = WORK.as_secs_f64() / took;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "some thousands"
            )]
            let steps = (f64::from(self.steps) * factor) as u32;
            self.steps = steps.max(1);
        }
    }

    fn run(&self, tenant: &str) -> Vec<u8> {
        let body = format!(
            r#"{{"inputs":[{{"name":"steps","datatype":"INT64","shape":[1,1],"data":[{}]}}]}}"#,
            self.steps
        );
        let request = load::post("/v2/models/slow/infer", "application/json", body.as_bytes());
        load::authorized(&request, tenant)
    }

    fn drive(&self, tenant: &str, connections: usize, duration: Duration) -> load::Outcome {
        self.send(self.run(tenant), connections, duration)
    }

    fn send(&self, request: Vec<u8>, connections: usize, duration: Duration) -> load::Outcome {
        load::drive(&Load {
            address: self.setup.inference,
            request,
            connections,
            warm_up: Duration::from_millis(500),
            duration,
        })
    }

    /// Sends `request` over so many connections, each as fast as it is answered, until the result is dropped.
    fn flood(&self, request: &[u8], connections: usize) -> Flood {
        Flood::new(self.setup.inference, request, connections, true)
    }

    fn answered(&self, tenant: &str) -> f64 {
        self.usage(tenant)["requests"]["answered"]
            .as_f64()
            .unwrap_or(0.0)
    }

    /// Seconds of runs so far, and how many.
    fn runs(&self, tenant: &str) -> (f64, f64) {
        (self.seconds(tenant), self.answered(tenant))
    }

    fn seconds(&self, tenant: &str) -> f64 {
        self.usage(tenant)["inference_seconds"]
            .as_f64()
            .unwrap_or(0.0)
    }

    fn usage(&self, tenant: &str) -> serde_json::Value {
        let request =
            format!("GET /lantern/v1/tenants/{tenant}/usage HTTP/1.1\r\nHost: lantern\r\n\r\n");
        let request = load::authorized(request.as_bytes(), tenant);
        let answer = ask(self.setup.management, &request);
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let mut json: serde_json::Value = serde_json::from_str(body).expect("usage is JSON");
        json["usage"].take()
    }
}

/// Clients in a process and a session of their own: they take the processor from the server, but not from its group alone.
struct Flood {
    child: Child,
    _file: tempfile::NamedTempFile,
}

/// Runs a program after it was said that its session comes after others.
const BEHIND: &str = "echo 19 > /proc/self/autogroup || exit 1; exec \"$0\" \"$@\"";

impl Flood {
    /// Clients that take what others leave of the processor, as far as the kernel groups sessions; or as much as the server if they are `near`.
    fn new(address: SocketAddr, request: &[u8], connections: usize, is_near: bool) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(file.path(), request).expect("the request can be written");
        let program = std::env::current_exe().expect("a program knows its own path");
        let script = if is_near {
            "exec \"$0\" \"$@\""
        } else {
            BEHIND
        };
        let child = Command::new("setsid")
            .args(["sh", "-c", script])
            .arg(program)
            .arg(FLOOD)
            .arg(address.to_string())
            .arg(connections.to_string())
            .arg(file.path())
            .spawn()
            .expect("a flood can be started");
        Self { child, _file: file }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request over so many connections, each as fast as it is answered.
fn send_for_ever(address: SocketAddr, connections: usize, request: &[u8]) {
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut stream = connect(address);
                loop {
                    if exchange(&mut stream, request).is_err() {
                        stream = connect(address);
                    }
                }
            });
        }
    });
}

/// A process, in a session of its own, that sends every body back and does nothing else: what clients of a server take from it in any case.
struct Returner {
    child: Child,
    address: SocketAddr,
}

impl Returner {
    fn new() -> Self {
        let program = std::env::current_exe().expect("a program knows its own path");
        let mut child = Command::new("setsid")
            .arg(program)
            .arg(RETURN)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let output = child.stdout.take().expect("its output is a pipe");
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it says its address");
        let address = line.trim().parse().expect("it says its address");
        Self { child, address }
    }
}

impl Drop for Returner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers requests with their own bodies.
fn send_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it has an address");
    println!("{address}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            while let Ok((_, body)) = message(&mut stream) {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let sent = stream.get_mut().write_all(head.as_bytes());
                if sent
                    .and_then(|()| stream.get_mut().write_all(&body))
                    .is_err()
                {
                    return;
                }
            }
        });
    }
}

/// The victim at a tenth of what the machine can, beside one other tenant that wants more.
fn beside(place: &Place) {
    println!("\nA tenant at a tenth of the machine's capacity, {MEASURED:?} each, latency in ms");
    println!(
        "{:<30} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "beside", "run", "p50", "p99", "failures", "p99 ratio", "others/s"
    );
    let spins = load::authorized(
        &load::post("/predictions/hostile", "text/plain", b"loop"),
        "other",
    );
    let body = vec![b'x'; 6 << 20];
    let large = load::authorized(
        &load::post("/predictions/echo", "text/plain", &body),
        "other",
    );
    let run = place.run("other");
    let ten_times = 10 * cores();
    let mut alone = None;
    for (name, request, connections) in [
        ("nobody", None, 0),
        ("a flood of 10 x capacity", Some(&run), ten_times),
        ("8 handlers that spin", Some(&spins), 8),
        ("bodies of 6 MB", Some(&large), 8),
        ("6 MB, to another server", Some(&large), 8),
        ("near: bodies of 6 MB", Some(&large), 8),
        ("near: 6 MB, to another server", Some(&large), 8),
        ("nobody, again", None, 0),
    ] {
        let is_near = name.starts_with("near");
        let other = name.ends_with("server").then(Returner::new);
        let address = other
            .as_ref()
            .map_or(place.setup.inference, |other| other.address);
        let flood = request.map(|request| Flood::new(address, request, connections, is_near));
        std::thread::sleep(Duration::from_secs(1));
        let before = (place.answered("other"), place.runs("victim"));
        let (p50, p99, failures) = victim(place);
        let answered = (place.answered("other") - before.0) / MEASURED.as_secs_f64();
        let runs = place.runs("victim");
        let run = (runs.0 - before.1.0) / (runs.1 - before.1.1) * 1e3;
        drop((flood, other));
        let first = *alone.get_or_insert(p99);
        println!(
            "{name:<30} {run:>8.2} {:>8.2} {:>8.2} {failures:>9} {:>9.2} {answered:>9.1}",
            millis(p50),
            millis(p99),
            p99.as_secs_f64() / first.as_secs_f64()
        );
    }
}

/// Median and 99th percentile of requests that are sent at a fixed rate, from when each was to be sent; and how many failed.
fn victim(place: &Place) -> (Duration, Duration, usize) {
    let capacity = 1.0 / WORK.as_secs_f64() * f64::from(u32::try_from(cores()).unwrap_or(1));
    let pause = Duration::from_secs_f64(10.0 / capacity);
    let (begun, request) = (Instant::now(), place.run("victim"));
    let mut stream = connect(place.setup.inference);
    let (mut latencies, mut failures) = (Vec::new(), 0);
    let mut due = begun;
    while begun.elapsed() < MEASURED {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match exchange(&mut stream, &request) {
            Ok((head, _)) if head.starts_with("HTTP/1.1 200") => latencies.push(due.elapsed()),
            _ => {
                failures += 1;
                stream = connect(place.setup.inference);
            }
        }
        due += pause;
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies[latencies.len().saturating_sub(1) * percent / 100];
    (at(50), at(99), failures)
}

/// Two tenants with the weights 1 and 3 that both want all of the machine.
fn weights(place: &Place) {
    let request = |name: &str| place.run(name);
    let floods = [
        place.flood(&request("other"), 8 * cores()),
        place.flood(&request("third"), 8 * cores()),
    ];
    std::thread::sleep(Duration::from_secs(1));
    let before = ["other", "third"].map(|name| place.seconds(name));
    std::thread::sleep(Duration::from_secs(10));
    let after = ["other", "third"].map(|name| place.seconds(name));
    drop(floods);
    let used = [after[0] - before[0], after[1] - before[1]];
    let all = used[0] + used[1];
    println!("\nTwo that want everything for 10 s, weights 1 and 3: seconds of inference");
    println!("{:>8.2} {:>5.1} %", used[0], 100.0 * used[0] / all);
    println!("{:>8.2} {:>5.1} %", used[1], 100.0 * used[1] / all);
}

/// Whether the time of a refusal shows that another tenant has a model of that name.
fn refusals(place: &Place) {
    let request = |model: &str| {
        load::authorized(
            &load::post(&format!("/predictions/{model}"), "text/plain", b""),
            "victim",
        )
    };
    let names = ["theirs", "nobody"];
    let requests = names.map(request);
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..20_000 {
        // A connection ends with a refusal.
        let mut stream = connect(place.setup.inference);
        let begun = Instant::now();
        let (head, _) = exchange(&mut stream, &requests[round % 2]).expect("the server answers");
        took[round % 2].push(begun.elapsed());
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    }
    println!("\nA refusal of a model that another tenant has, and of one that nobody has");
    for (name, mut took) in names.into_iter().zip(took) {
        took.sort_unstable();
        let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e6;
        println!(
            "{name:>8} {:>7.1} {:>7.1} {:>7.1} us (25, 50, 75 %)",
            at(25),
            at(50),
            at(75)
        );
    }
}

fn tenants() -> String {
    let mut text = "tenants:\n".to_owned();
    for name in NAMES {
        let weight = if name == "third" { 3 } else { 1 };
        let digest = KeyDigest::of(name.as_bytes()).hex();
        let _ = writeln!(
            text,
            "  {name}:\n    weight: {weight}\n    keys:\n      - {{sha256: \"{digest}\", scopes: [predict, manage, observe]}}"
        );
    }
    text
}

/// Packs a tenant's models and has them served.
fn serve(setup: &Setup, archives: &Path, tenant: &str) {
    let workers = cores();
    let config = format!("minWorkers: {workers}\nmaxWorkers: {workers}\nbatchSize: 1\n");
    let models = [
        ("slow", "slow.onnx", "echo", ""),
        ("theirs", "linear.onnx", "echo", ""),
        (
            "hostile",
            "linear.onnx",
            "hostile",
            "lantern:\n  limits: {cpu: 2s}\n",
        ),
        ("echo", "linear.onnx", "echo", ""),
    ];
    for (name, artifact, handler, more) in models {
        if (name, tenant) == ("theirs", NAMES[0]) {
            continue;
        }
        let model = Model {
            name,
            artifact: &fixture(artifact),
            handler: &guest(handler),
            config: format!("{config}{more}"),
            extra_files: Vec::new(),
        };
        server::pack(archives, &model);
        let target = format!("/models?url={name}.mar&initial_workers={workers}&synchronous=true");
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: lantern\r\nContent-Length: 0\r\n\r\n");
        let answer = ask(
            setup.management,
            &load::authorized(request.as_bytes(), tenant),
        );
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket has options");
    BufReader::new(stream)
}

/// The whole answer to a request.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    let (head, body) = exchange(&mut stream, request).expect("the server answers");
    format!("{head}{}", String::from_utf8_lossy(&body))
}

/// Sends one request and reads one answer.
fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<(String, Vec<u8>)> {
    stream.get_mut().write_all(request)?;
    message(stream)
}

/// The next head and body.
fn message(stream: &mut BufReader<TcpStream>) -> io::Result<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = head[start..].trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
