//! Compiled code of handlers: from the cache, or from a process that compiles one component under limits.
//!
//! Components come from others, and a small one can make the compiler use gigabytes or minutes, or fail. So the front never
//! compiles: it starts `lantern compile` for each component, which has nothing but the component and a file to write to, and
//! ends it when it takes too much. What comes of it is sealed before anybody loads it.
//!
//! This module knows neither archives nor settings; what the limits are called in settings is only in its messages.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::error::{Error, Kind};
use crate::handler::{Code, CodeCache, CodeId, SIZE_LIMIT, Sealed, WeakCode, memory_file};
use crate::model::ModelSpec;
use crate::sandbox::{Demands, Users};

use super::failures::load_failed;
use refusal::Refusal;
use slots::Slots;

pub mod child;
mod process;
mod refusal;
mod slots;

/// Versions that wait for code at a time. The threads that are left unpack archives and look after files.
const TURNS: usize = 32;

/// How long a component that was refused is remembered, so that it does not cost as much again.
const REMEMBERED: Duration = Duration::from_mins(10);

/// Refused components that are remembered at most.
const MOST_REMEMBERED: usize = 256;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Gives compiled code of handlers. Called from threads that may block.
pub trait CodeSource: Send + Sync {
    /// The compiled code of `model`'s handler, after as long as compiling takes.
    ///
    /// Every failure is [`Kind::LoadFailed`] with the reason in its message.
    fn code(&self, model: &ModelSpec) -> Result<Code, Error>;

    /// How many may wait for code at a time, where that takes long: each blocks a thread and holds a component.
    fn turns(&self) -> Option<&Semaphore> {
        None
    }
}

/// The code of `model`'s handler, made on a thread that may block.
pub(super) async fn code(
    source: Arc<dyn CodeSource>,
    model: Arc<ModelSpec>,
) -> Result<Code, Error> {
    let asked = source.clone();
    let _turn = match asked.turns() {
        Some(turns) => turns.acquire().await.ok(),
        None => None,
    };
    let made = tokio::task::spawn_blocking(move || source.code(&model)).await;
    made.unwrap_or_else(|error| Err(load_failed("compiling the handler was aborted", &error)))
}

/// Code that is there already, as a worker process has it.
impl CodeSource for Code {
    fn code(&self, _model: &ModelSpec) -> Result<Code, Error> {
        Ok(self.clone())
    }
}

/// Compiles in this process, without limits: for tests and benches.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompileHere;

impl CodeSource for CompileHere {
    fn code(&self, model: &ModelSpec) -> Result<Code, Error> {
        let path = model.directory.join(&model.handler);
        let component = Component::read(&path).map_err(|error| unread(&model.handler, &error))?;
        let wasm = component.sealed.read();
        let wasm = wasm.map_err(|error| unread(&model.handler, &error))?;
        Code::compile_here(&wasm).map_err(|reason| failed(&model.handler, &reason))
    }
}

/// What compiling one component may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// CPU time of all its threads, in whole seconds.
    pub cpu: Duration,
    /// Time until it has to be over.
    pub wall: Duration,
    /// Bytes of compiled code.
    pub output: u64,
}

impl CompileLimits {
    /// Limits with these two from the settings. The third is there for compilers that wait for a processor.
    pub fn new(memory: u64, cpu: Duration) -> Self {
        Self {
            memory,
            cpu,
            wall: cpu.saturating_mul(3),
            output: crate::handler::CODE_LIMIT,
        }
    }
}

impl Default for CompileLimits {
    /// Twice the memory and the time that the interpreters of Python and JavaScript take.
    fn default() -> Self {
        Self::new(1 << 30, Duration::from_secs(30))
    }
}

/// Gives compiled code, and compiles what the cache does not have.
pub struct Compiler {
    setup: Setup,
    directory: Option<PathBuf>,
    cache: OnceLock<Option<CodeCache>>,
    slots: Arc<Slots>,
    turns: Arc<Semaphore>,
    /// By name, what is being compiled and what somebody keeps.
    known: Mutex<HashMap<CodeId, Arc<Known>>>,
}

/// What its processes are started with.
#[derive(Clone)]
struct Setup {
    /// The `lantern` program, started as `lantern compile`.
    program: PathBuf,
    limits: CompileLimits,
    /// Which walls are wanted.
    demands: Demands,
    /// The users that processes become, where this one is root.
    users: Users,
}

/// One component's code. Whoever holds the lock is making it.
#[derive(Default)]
struct Known(Mutex<Outcome>);

#[derive(Default)]
struct Outcome {
    code: WeakCode,
    /// Why and when it was refused, for those who waited while it was compiled, and who try again.
    refusal: Option<(Refusal, Instant)>,
}

impl Outcome {
    /// Whether somebody can use it yet.
    fn is_of_use(&self) -> bool {
        let is_fresh = |(refusal, at): &(Refusal, Instant)| {
            refusal.is_of_the_component() && at.elapsed() < REMEMBERED
        };
        self.code.is_alive() || self.refusal.as_ref().is_some_and(is_fresh)
    }
}

/// A component's file, copied to where nobody can change it, and its digest.
struct Component {
    sealed: Sealed,
    digest: [u8; 32],
}

impl Compiler {
    /// A compiler that starts `program`, and keeps code in the directory `cache` if there is one. Nothing is opened yet.
    pub fn new(program: PathBuf, cache: Option<PathBuf>, limits: CompileLimits) -> Self {
        Self {
            setup: Setup {
                program,
                limits,
                demands: Demands::default(),
                users: Users::default(),
            },
            directory: cache,
            cache: OnceLock::new(),
            slots: Arc::new(Slots::for_this_machine()),
            turns: Arc::new(Semaphore::new(TURNS)),
            known: Mutex::default(),
        }
    }

    /// One for somebody else: it has a cache of its own, and nothing tells whether this one has compiled the same. Both together compile
    /// as much at a time as one does.
    #[must_use]
    pub fn with_cache_of_its_own(&self, cache: Option<PathBuf>) -> Self {
        Self {
            setup: self.setup.clone(),
            directory: cache,
            cache: OnceLock::new(),
            slots: Arc::clone(&self.slots),
            turns: Arc::clone(&self.turns),
            known: Mutex::default(),
        }
    }

    /// The same with the walls that are wanted, and the users that other processes take theirs from as well.
    #[must_use]
    pub fn within(mut self, demands: Demands, users: Users) -> Self {
        self.setup.demands = demands;
        self.setup.users = users;
        self
    }

    /// The compiled code of the component in the file `path`. `shown` names it in errors. Blocks.
    pub fn compile(&self, path: &Path, shown: &Path) -> Result<Code, Error> {
        let component = Component::read(path).map_err(|error| unread(shown, &error))?;
        let id = CodeId::of(component.digest)?;
        let known = self.known(&id);
        // Others who want the same wait here.
        let mut outcome = known.0.lock();
        if let Some(code) = outcome.code.upgrade() {
            return Ok(code);
        }
        if let Some((refusal, _)) = &outcome.refusal {
            return Err(refusal.explain(shown, &self.setup.limits));
        }
        let made = self.cached_or_compiled(&id, &component, shown);
        match made {
            Ok(code) => {
                outcome.code = code.downgrade();
                Ok(code)
            }
            Err(refusal) => {
                let error = refusal.explain(shown, &self.setup.limits);
                outcome.refusal = Some((refusal, Instant::now()));
                Err(error)
            }
        }
    }

    /// What is known of the code of that name. What nobody wants any more is forgotten.
    fn known(&self, id: &CodeId) -> Arc<Known> {
        let mut known = self.known.lock();
        let has_room = known.len() < MOST_REMEMBERED;
        known.retain(|_, one| {
            let outcome = || one.0.lock();
            Arc::strong_count(one) > 1
                || outcome().code.is_alive()
                || (has_room && outcome().is_of_use())
        });
        known.entry(id.clone()).or_default().clone()
    }

    fn cached_or_compiled(
        &self,
        id: &CodeId,
        component: &Component,
        shown: &Path,
    ) -> Result<Code, Refusal> {
        let cache = self.cache();
        if let Some(code) = cache.and_then(|cache| cache.get(id)) {
            return Ok(code);
        }
        let _slot = self.slots.take();
        let code = self.compile_logged(component, shown)?;
        if let Some(Err(error)) = cache.map(|cache| cache.put(id, &code)) {
            // The handler is served all the same, and compiled again at the next start.
            tracing::warn!(%error, "the compiled handler cannot be written to the cache");
        }
        Ok(code)
    }

    fn compile_logged(&self, component: &Component, shown: &Path) -> Result<Code, Refusal> {
        let (handler, bytes) = (shown.display(), component.sealed.length());
        tracing::info!(%handler, bytes, "compiling a handler");
        let started = Instant::now();
        let compiled = process::compile(&self.setup, &component.sealed);
        let seconds = started.elapsed().as_secs_f64();
        match &compiled {
            Ok(code) => {
                tracing::info!(%handler, seconds, code = code.length(), "compiled a handler");
            }
            Err(refusal) => tracing::info!(%handler, seconds, %refusal, "a handler was refused"),
        }
        compiled
    }

    /// The cache, opened at the first use. Handlers are served without one, too.
    fn cache(&self) -> Option<&CodeCache> {
        let open = || {
            let directory = self.directory.as_ref()?;
            let opened = CodeCache::open(directory).inspect_err(|error| {
                tracing::warn!(directory = %directory.display(), %error,
                    "the cache of compiled handlers cannot be used: they are compiled each time");
            });
            opened.ok()
        };
        self.cache.get_or_init(open).as_ref()
    }
}

impl CodeSource for Compiler {
    fn code(&self, model: &ModelSpec) -> Result<Code, Error> {
        self.compile(&model.directory.join(&model.handler), &model.handler)
    }

    fn turns(&self) -> Option<&Semaphore> {
        Some(&self.turns)
    }
}

impl Component {
    /// Copies at most one byte more than components may have, so that one that is too large is noticed.
    fn read(path: &Path) -> io::Result<Self> {
        let mut from = File::open(path)?.take(SIZE_LIMIT as u64 + 1);
        let mut copy = memory_file("lantern-component")?;
        let mut digest = Sha256::new();
        let mut piece = vec![0; CHUNK];
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                break;
            }
            digest.update(&piece[..read]);
            copy.write_all(&piece[..read])?;
        }
        Ok(Self {
            sealed: Sealed::new(copy)?,
            digest: digest.finalize().into(),
        })
    }
}

fn unread(shown: &Path, error: &io::Error) -> Error {
    failed(shown, "cannot be read").with_detail(error)
}

fn failed(shown: &Path, reason: &str) -> Error {
    let text = format!("The handler {} {reason}", shown.display());
    Error::new(Kind::LoadFailed, text)
}

#[cfg(test)]
mod tests;
