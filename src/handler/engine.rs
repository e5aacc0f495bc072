//! wasmtime's configuration, the linker and the ticker that all handlers of a process share.

use std::hash::{Hash as _, Hasher};
use std::sync::{Arc, LazyLock};

use sha2::{Digest as _, Sha256};

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, OptLevel, Strategy, WasmBacktraceDetails, WasmFeatures};

use crate::error::{Error, Kind};

use super::bindings;
use super::host::Host;
use super::ticker::Ticker;
use super::wasi;

/// The part of a fiber's stack that wasm may use. Host functions use the rest, where an overflow ends the process.
const WASM_STACK: usize = 1 << 20;
const FIBER_STACK: usize = 4 << 20;
const BACKTRACE_FRAMES: usize = 20;

/// What all handlers of a process share.
pub(super) struct EngineState {
    pub engine: Engine,
    pub linker: Linker<Host>,
    pub ticker: Ticker,
}

impl EngineState {
    /// Configures wasmtime and starts the ticker.
    pub fn new() -> Result<Arc<Self>, Error> {
        let engine = new()?;
        let linker = linker(&engine).map_err(|error| internal("link the interface", &error))?;
        let ticker =
            Ticker::start(engine.weak()).map_err(|error| internal("start the ticker", &error))?;
        Ok(Arc::new(Self {
            engine,
            linker,
            ticker,
        }))
    }
}

/// An engine, for compiling or for running.
pub(super) fn new() -> Result<Engine, Error> {
    Engine::new(&config()).map_err(|error| internal("configure wasmtime", &error))
}

/// The proposals that are on.
pub(super) fn features() -> Result<WasmFeatures, Error> {
    Ok(new()?.get_wasm_features())
}

/// Digest of all that compiled code depends on beside the component: wasmtime's version, its settings, the processor.
pub(super) fn identity() -> Result<[u8; 32], Error> {
    static IDENTITY: LazyLock<Result<[u8; 32], Error>> =
        LazyLock::new(|| new().map(|engine| identity_of(&engine)));
    IDENTITY.clone()
}

pub(super) fn identity_of(engine: &Engine) -> [u8; 32] {
    let mut hasher = Sha256Hasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

/// Feeds what implements `Hash` to SHA-256: `DefaultHasher` is neither stable nor long enough.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

fn internal(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Internal, format!("Failed to {what}")).with_detail(error)
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    bindings::Handler::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    Ok(linker)
}

/// Only the proposals that handlers need are on: code of wasmtime that serves another one cannot be reached by hostile wasm.
///
/// Multi-memory must stay on: without it wasmtime 48 panics while compiling components made of several inner ones.
/// Details of backtraces are switched off explicitly, because their default depends on an environment variable and they
/// make a trap a hundred times slower.
fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .signals_based_traps(true)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .debug_info(false);
    proposals(&mut config);
    config
}

fn proposals(config: &mut Config) {
    config
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_reference_types(true)
        .wasm_multi_value(true)
        .wasm_multi_memory(true)
        .wasm_component_model(true)
        .shared_memory(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .gc_support(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_configured_as_decided() {
        let engine = Engine::new(&config()).unwrap();
        assert_eq!(engine.get_strategy(), Some(Strategy::Cranelift));
        assert!(matches!(
            engine.get_cranelift_opt_level(),
            Some(OptLevel::Speed)
        ));
        assert!(!engine.get_concurrency_support());
        assert!(engine.get_epoch_interruption());
        assert!(!engine.get_consume_fuel());
        assert!(!engine.get_shared_memory());
        assert!(!engine.get_debug_info());
        assert!(engine.get_signals_based_traps());
        assert!(engine.get_memory_init_cow());
        assert_eq!(engine.get_max_wasm_stack(), 1 << 20);
        assert_eq!(engine.get_async_stack_size(), 4 << 20);
        assert_eq!(engine.get_wasm_backtrace_max_frames(), 20);
        assert_eq!(engine.get_memory_reservation(), 4 << 30);
        assert!(engine.get_memory_guard_size() > 0);
        assert!(engine.get_pooling_config().is_none());
    }

    #[test]
    fn code_of_other_settings_has_another_identity() {
        assert_eq!(identity().unwrap(), identity_of(&new().unwrap()));
        let mut other = config();
        other.epoch_interruption(false);
        assert_ne!(
            identity().unwrap(),
            identity_of(&Engine::new(&other).unwrap())
        );
    }

    #[test]
    fn only_the_proposals_that_handlers_need_are_on() {
        let engine = Engine::new(&config()).unwrap();
        let features = engine.get_wasm_features();
        for on in [
            WasmFeatures::SIMD,
            WasmFeatures::BULK_MEMORY,
            WasmFeatures::REFERENCE_TYPES,
            WasmFeatures::MULTI_VALUE,
            WasmFeatures::MULTI_MEMORY,
            WasmFeatures::COMPONENT_MODEL,
        ] {
            assert!(features.contains(on), "{on:?}");
        }
        for off in [
            WasmFeatures::THREADS,
            WasmFeatures::SHARED_EVERYTHING_THREADS,
            WasmFeatures::MEMORY64,
            WasmFeatures::GC,
            WasmFeatures::FUNCTION_REFERENCES,
            WasmFeatures::EXCEPTIONS,
            WasmFeatures::TAIL_CALL,
            WasmFeatures::RELAXED_SIMD,
            WasmFeatures::CUSTOM_PAGE_SIZES,
            WasmFeatures::WIDE_ARITHMETIC,
            WasmFeatures::STACK_SWITCHING,
            WasmFeatures::CM_ASYNC,
        ] {
            assert!(!features.intersects(off), "{off:?}");
        }
    }
}
