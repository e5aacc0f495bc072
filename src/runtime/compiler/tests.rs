//! What is compiled, and what is found again.

use std::fs;

use super::*;

fn compiler(cache: Option<&Path>) -> Compiler {
    // Where this program is started, nothing comes from the cache or from somebody who keeps it.
    let program = "/no/such/program".into();
    Compiler::new(program, cache.map(Path::to_owned), CompileLimits::default())
}

fn component(directory: &Path) -> PathBuf {
    let path = directory.join("handler.wasm");
    fs::write(&path, b"wasm").unwrap();
    path
}

fn id() -> CodeId {
    CodeId::of(Sha256::digest(b"wasm").into()).unwrap()
}

#[test]
fn a_missing_component_is_named() {
    let error = compiler(None)
        .compile(Path::new("/no/handler.wasm"), Path::new("handler.wasm"))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::LoadFailed);
    assert_eq!(error.message(), "The handler handler.wasm cannot be read");
}

#[test]
fn code_in_the_cache_is_not_compiled_again() {
    let root = tempfile::tempdir().unwrap();
    let (path, cache) = (component(root.path()), root.path().join("cache"));
    let opened = CodeCache::open(&cache).unwrap();
    opened.put(&id(), &Code::none()).unwrap();
    let code = compiler(Some(&cache)).compile(&path, &path).unwrap();
    assert_eq!(code.length(), Code::none().length());
    // The key of another cache vouches for nothing.
    fs::write(cache.join("key"), [1; 32]).unwrap();
    assert!(compiler(Some(&cache)).compile(&path, &path).is_err());
}

#[test]
fn code_that_somebody_keeps_is_shared_and_else_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let path = component(root.path());
    let compiler = compiler(None);
    let kept = Code::none();
    compiler.known(&id()).0.lock().code = kept.downgrade();
    assert!(compiler.compile(&path, &path).is_ok());
    drop(kept);
    assert!(compiler.compile(&path, &path).is_err());
    let other = CodeId::of([0; 32]).unwrap();
    drop(compiler.known(&other));
    assert_eq!(compiler.known.lock().len(), 1, "what nobody wants is kept");
}

#[test]
fn a_cache_that_cannot_be_used_is_none() {
    // Not even root can make a directory there.
    assert!(compiler(Some(Path::new("/proc/lantern"))).cache().is_none());
    let directory = tempfile::tempdir().unwrap();
    let usable = compiler(Some(&directory.path().join("cache")));
    assert!(usable.cache().is_some());
}

#[test]
fn each_limit_is_named_with_its_setting() {
    let limits = CompileLimits::new(1 << 30, Duration::from_secs(30));
    for (refusal, text) in [
        (
            Refusal::Cpu,
            "takes more than 30 s of CPU time to compile (lantern_compile_cpu)",
        ),
        (
            Refusal::Memory,
            "takes more than 1024 MiB of memory to compile (lantern_compile_memory)",
        ),
        (
            Refusal::Wall,
            "was not compiled within 90 s, three times lantern_compile_cpu",
        ),
        (Refusal::Output, "compiles to more than 256 MiB"),
    ] {
        let error = refusal.explain(Path::new("handler.wasm"), &limits);
        assert_eq!(error.message(), format!("The handler handler.wasm {text}"));
        assert_eq!(error.kind(), Kind::LoadFailed);
    }
}
