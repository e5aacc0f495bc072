//! Compiling handlers in a process of its own: what it may use, what comes of components that want more, and who gets the code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lantern::handler::Code;
use lantern::runtime::{CompileLimits, Compiler};
use lantern::sandbox::{Demand, Demands, Users};
use tempfile::TempDir;

use crate::support::{Model, ROW, TestServer, fixture, guest};

fn hostile(name: &str) -> PathBuf {
    fixture("hostile/components").join(format!("{name}.wasm"))
}

fn compiler(limits: CompileLimits) -> Compiler {
    compiler_with(None, limits)
}

fn compiler_with(cache: Option<&Path>, limits: CompileLimits) -> Compiler {
    let program = env!("CARGO_BIN_EXE_lantern").into();
    Compiler::new(program, cache.map(Path::to_owned), limits)
}

/// `value` in LEB128.
fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], leb(content.len()), content.to_vec()].concat()
}

/// A handler with a further module, which has `functions` of many small loops over many locals: seconds of work for the
/// compiler, within every limit of the screening.
fn slow_component(directory: &TempDir, functions: usize) -> PathBuf {
    let locals = [vec![1], leb(200), vec![0x7f]].concat();
    // A loop that decrements the first local until it is 0.
    let once = [
        0x03, 0x40, 0x20, 0x00, 0x41, 0x01, 0x6b, 0x22, 0x00, 0x0d, 0x00, 0x0b,
    ];
    let body = [locals, once.repeat(20_000), vec![0x0b]].concat();
    let bodies = [leb(body.len()), body].concat().repeat(functions);
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[leb(functions), vec![0; functions]].concat()),
        section(10, &[leb(functions), bodies].concat()),
    ];
    let mut component = fs::read(guest("passthrough")).unwrap();
    component.extend(section(1, &module.concat()));
    let path = directory.path().join("slow.wasm");
    fs::write(&path, component).unwrap();
    path
}

fn refusal(limits: CompileLimits, component: &Path) -> String {
    let shown = Path::new("handler.wasm");
    let refused = compiler(limits).compile(component, shown);
    refused.unwrap_err().message().to_owned()
}

#[test]
fn each_limit_has_its_error() {
    let directory = TempDir::new().unwrap();
    let (plain, slow) = (guest("passthrough"), slow_component(&directory, 8));
    let limits = CompileLimits::default();
    for (limits, component, says) in [
        (
            CompileLimits {
                memory: 8 << 20,
                ..limits
            },
            &plain,
            "takes more than 8 MiB of memory to compile (lantern_compile_memory)",
        ),
        (
            CompileLimits {
                cpu: Duration::from_secs(1),
                ..limits
            },
            &slow,
            "takes more than 1 s of CPU time to compile (lantern_compile_cpu)",
        ),
        (
            CompileLimits {
                wall: Duration::from_millis(100),
                ..limits
            },
            &slow,
            "was not compiled within 0.1 s, three times lantern_compile_cpu",
        ),
        (
            CompileLimits {
                output: 4 << 10,
                ..limits
            },
            &plain,
            "compiles to more than 4 KiB",
        ),
    ] {
        let told = refusal(limits, component);
        assert_eq!(told, format!("The handler handler.wasm {says}"));
    }
}

#[test]
fn limits_hold_where_walls_are_off() {
    let limits = CompileLimits {
        memory: 8 << 20,
        ..CompileLimits::default()
    };
    let compiler = compiler(limits).within(Demands::all(Demand::Off), Users::default());
    let component = guest("passthrough");
    let refused = compiler.compile(&component, &component).unwrap_err();
    assert!(
        refused.message().contains("(lantern_compile_memory)"),
        "{refused}"
    );
}

#[test]
fn what_is_no_handler_is_refused_with_the_reason() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("handler.wasm");
    for (wasm, says) in [
        (&b"not wasm"[..], "is not a WebAssembly component"),
        (b"\0asm\x01\0\0\0", "is a core module"),
        (b"\0asm\x0d\0\x01\0", "exports no lantern:handler/pipeline"),
    ] {
        fs::write(&path, wasm).unwrap();
        let told = refusal(CompileLimits::default(), &path);
        assert!(
            told.starts_with("The handler handler.wasm ") && told.contains(says),
            "{told}"
        );
    }
    let told = refusal(CompileLimits::default(), &guest("forbidden"));
    assert!(
        told.contains("imports what handlers may not have"),
        "{told}"
    );
}

fn lantern(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command.args(arguments).current_dir(directory.path());
    command.output().unwrap()
}

#[test]
fn what_takes_too_much_to_compile_is_not_packed() {
    let directory = TempDir::new().unwrap();
    let [handler, model] = [hostile("many_merges"), fixture("linear.onnx")];
    let handler = format!("--handler={}", handler.display());
    let model = format!("--serialized-file={}", model.display());
    let packed = lantern(
        &directory,
        &[
            "archive",
            "--model-name=m",
            "--version=1.0",
            &handler,
            &model,
        ],
    );
    assert_eq!(packed.status.code(), Some(1));
    let told = String::from_utf8_lossy(&packed.stderr).into_owned();
    assert!(told.contains("(lantern_compile_"), "{told}");
    assert!(!directory.path().join("m.mar").exists());
}

#[test]
fn what_takes_too_much_to_compile_is_inspected_as_not_servable() {
    let directory = TempDir::new().unwrap();
    hostile_model("many_merges").pack_into(directory.path());
    let inspected = lantern(&directory, &["inspect", "hostile-1.0.mar"]);
    assert_eq!(inspected.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(shown.contains("(lantern_compile_"), "{shown}");
}

/// Most bytes of memory that this process ever had, without the files that are mapped, of which the program itself is the largest: how much of
/// it has been read depends on what ran before.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() << 10
    };
    bytes("VmHWM:") - bytes("RssFile:")
}

#[test]
fn hostile_components_are_refused_within_the_limits_and_cost_the_caller_nothing() {
    let limits = CompileLimits {
        memory: 128 << 20,
        ..CompileLimits::default()
    };
    let before = peak();
    for name in ["many_merges_small", "many_merges"] {
        let started = Instant::now();
        let told = refusal(limits, &hostile(name));
        assert!(told.contains("(lantern_compile_"), "{name}: {told}");
        assert!(started.elapsed() < limits.wall, "{name}");
    }
    let grown = peak() - before;
    assert!(grown < 16 << 20, "{grown} bytes more");
}

/// The file in memory that the code is in.
fn file(code: &Code) -> u64 {
    rustix::fs::fstat(code).unwrap().st_ino
}

#[test]
fn versions_with_one_component_share_what_is_compiled_once() {
    let directory = TempDir::new().unwrap();
    let copies = ["a.wasm", "b.wasm", "c.wasm"].map(|name| directory.path().join(name));
    let compiler = compiler(CompileLimits::default());
    let codes = std::thread::scope(|scope| {
        let compiling = copies.each_ref().map(|copy| {
            fs::copy(guest("passthrough"), copy).unwrap();
            scope.spawn(|| compiler.compile(copy, copy).unwrap())
        });
        compiling.map(|one| one.join().unwrap())
    });
    assert_eq!(file(&codes[0]), file(&codes[1]));
    assert_eq!(file(&codes[0]), file(&codes[2]));
}

#[test]
fn altered_code_is_compiled_again() {
    let directory = TempDir::new().unwrap();
    let cache = directory.path().join("cache");
    let component = guest("passthrough");
    let compile = || {
        // Each is a server of its own, which keeps nothing of the others'.
        let compiler = compiler_with(Some(&cache), CompileLimits::default());
        compiler.compile(&component, &component).unwrap()
    };
    let length = compile().length();
    let entries = fs::read_dir(cache.join("code")).unwrap();
    let [kept] = entries
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let good = fs::read(&kept).unwrap();
    let forged = [
        vec![0x90; good.len() - 32],
        good[good.len() - 32..].to_vec(),
    ]
    .concat();
    fs::remove_file(&kept).unwrap();
    fs::write(&kept, &forged).unwrap();
    assert_eq!(compile().length(), length);
    assert_ne!(fs::read(&kept).unwrap(), forged, "not compiled again");
}

/// A model whose handler is a hostile component.
fn hostile_model(name: &str) -> Model {
    let path = hostile(name).with_extension("");
    Model::new(path.to_str().unwrap()).named("hostile")
}

async fn stays_refused_and_others_serve(model: Model) {
    let server = TestServer::builder()
        .model(Model::linear())
        .in_store(model.clone())
        .set("lantern_compile_memory=64MiB")
        .start()
        .await;
    let before = peak();
    let path = format!(
        "/models?url={}&initial_workers=1&synchronous=true",
        model.url()
    );
    let registering = server.management("POST", &path);
    tokio::pin!(registering);
    let mut answered = 0;
    let refused = loop {
        tokio::select! {
            biased;
            refused = &mut registering => break refused,
            answer = server.predict("linear", ROW) => {
                assert_eq!(answer.status, 200);
                answered += 1;
            }
        }
    };
    assert_eq!(refused.status, 500);
    let told = refused.json()["message"].to_string();
    assert!(told.contains("(lantern_compile_"), "{told}");
    assert!(answered > 0, "nothing else was answered meanwhile");
    let grown = peak() - before;
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn a_hostile_component_is_refused_at_its_registration_while_others_serve() {
    stays_refused_and_others_serve(hostile_model("many_merges_small").in_process()).await;
}

#[tokio::test]
async fn a_hostile_component_hosted_inline_is_refused_at_its_registration_while_others_serve() {
    stays_refused_and_others_serve(hostile_model("many_merges_small")).await;
}

/// Where the descriptors of a process lead.
fn open_files(pid: u64) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

#[tokio::test]
async fn a_worker_process_has_no_file_of_the_cache_open_and_is_told_none() {
    let server = TestServer::with(Model::linear().in_process()).await;
    let described = server.management("GET", "/models/linear").await.json();
    let pid = described[0]["workers"][0]["pid"].as_u64().unwrap();
    let cache = server.directory().join(".cache").display().to_string();
    assert!(Path::new(&cache).is_dir(), "the cache is elsewhere");
    let files = open_files(pid);
    if files.is_empty() && !rustix::process::geteuid().is_root() {
        return println!("skipped: only root may look into a worker process");
    }
    assert!(!files.is_empty());
    assert!(
        !files.iter().any(|file| file.starts_with(&cache)),
        "{files:?}"
    );
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains(&cache), "{file}: {text}");
    }
}
