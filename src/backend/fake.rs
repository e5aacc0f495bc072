//! A backend for tests and benches: its outputs are its inputs.
//!
//! Tests set up what else it does: rows whose data starts with a mark fail, panic, lose the device or are held; a [`Gate`]
//! holds runs without a clock; every run is logged, so that tests see how jobs were batched. It opens no artifact, so any
//! path loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::{Backend, BackendError, Interrupt, LoadSpec, LoadedModel, Session, Signature};
use crate::model::Device;
use crate::tensor::NamedTensor;

/// What a run does when one of its rows starts with a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole run fails, as a batch with one bad row does in a framework.
    Fail,
    /// The framework refuses the inputs.
    Refuse,
    /// No memory is left.
    OutOfMemory,
    /// The session panics.
    Panic,
    /// The device cannot be used any more.
    Fatal,
    /// The process dies, as it does on a fault in native code.
    Abort,
    /// The first row is lost on the way.
    LoseRow,
    /// The run is held at a gate of its own, [`FakeBackend::hold`], which is shut at first.
    Hold,
}

/// One run, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which session ran it; sessions count from 0 in the order they were made.
    pub session: usize,
    /// Where the session's model was loaded.
    pub device: Device,
    /// The inputs, stacked.
    pub inputs: Vec<NamedTensor>,
}

impl Run {
    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.inputs
            .first()
            .and_then(|input| input.tensor.rows())
            .unwrap_or(0)
    }
}

/// Holds runs until it lets them through. Open at first. Cheap to clone: clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<SharedGate>);

#[derive(Debug, Default)]
struct SharedGate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_shut: bool,
    permits: usize,
    waiting: usize,
}

impl Gate {
    /// Holds runs that start from now on.
    pub fn shut(&self) {
        self.0.state.lock().is_shut = true;
    }

    /// Lets every run through.
    pub fn open(&self) {
        let mut state = self.0.state.lock();
        state.is_shut = false;
        state.permits = 0;
        self.0.changed.notify_all();
    }

    /// Lets `runs` runs through a shut gate, those held first.
    pub fn let_through(&self, runs: usize) {
        self.0.state.lock().permits += runs;
        self.0.changed.notify_all();
    }

    /// Runs held at this moment.
    pub fn waiting(&self) -> usize {
        self.0.state.lock().waiting
    }

    /// Blocks until `runs` runs are held.
    pub fn wait_for(&self, runs: usize) {
        let mut state = self.0.state.lock();
        self.0
            .changed
            .wait_while(&mut state, |state| state.waiting < runs);
    }

    /// A gate that holds runs from the start.
    fn shut_at_first() -> Self {
        let gate = Self::default();
        gate.shut();
        gate
    }

    fn pass(&self) {
        self.pass_unless(&AtomicBool::new(false));
    }

    /// Waits at a shut gate until it lets the run through, or until somebody sets `is_interrupted` and calls [`Self::wake`].
    fn pass_unless(&self, is_interrupted: &AtomicBool) {
        let mut state = self.0.state.lock();
        if !state.is_shut {
            return;
        }
        state.waiting += 1;
        self.0.changed.notify_all();
        self.0.changed.wait_while(&mut state, |state| {
            state.is_shut && state.permits == 0 && !is_interrupted.load(Ordering::Relaxed)
        });
        state.waiting -= 1;
        state.permits = state.permits.saturating_sub(1);
    }

    /// Wakes the runs that are held, so that each checks whether it was interrupted.
    fn wake(&self) {
        let _state = self.0.state.lock();
        self.0.changed.notify_all();
    }
}

/// What a run computes.
pub type Model = fn(&[NamedTensor]) -> Vec<NamedTensor>;

/// The backend. Set up with the `with_` methods; clones share gate and log.
#[derive(Debug, Clone, Default)]
pub struct FakeBackend {
    shared: Arc<FakeState>,
}

#[derive(Debug)]
struct FakeState {
    signature: Signature,
    marks: Vec<(Vec<u8>, Outcome)>,
    load_error: Option<BackendError>,
    model: Option<Model>,
    gate: Gate,
    load_gate: Gate,
    hold: Gate,
    is_interruptible: bool,
    log: Mutex<Log>,
}

impl Default for FakeState {
    fn default() -> Self {
        Self {
            signature: Signature::default(),
            marks: Vec::new(),
            load_error: None,
            model: None,
            load_gate: Gate::default(),
            gate: Gate::default(),
            hold: Gate::shut_at_first(),
            is_interruptible: false,
            log: Mutex::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Log {
    loads: Vec<LoadSpec>,
    sessions: usize,
    runs: Vec<Run>,
}

impl FakeBackend {
    /// A backend that takes any inputs and gives them back.
    pub fn new() -> Self {
        Self::default()
    }

    /// Models have this signature instead of an unknown one.
    #[must_use]
    pub fn with_signature(self, signature: Signature) -> Self {
        self.with(|shared| shared.signature = signature)
    }

    /// A run with a row whose data starts with `mark` ends with `outcome`. The first mark that is found counts.
    #[must_use]
    pub fn with_mark(self, mark: impl Into<Vec<u8>>, outcome: Outcome) -> Self {
        self.with(|shared| shared.marks.push((mark.into(), outcome)))
    }

    /// Runs give what `model` makes of their inputs instead of the inputs.
    #[must_use]
    pub fn with_model(self, model: Model) -> Self {
        self.with(|shared| shared.model = Some(model))
    }

    /// Loading fails.
    #[must_use]
    pub fn with_load_error(self, error: BackendError) -> Self {
        self.with(|shared| shared.load_error = Some(error))
    }

    /// Runs that are held by [`Outcome::Hold`] end with an error when they are interrupted.
    #[must_use]
    pub fn with_interrupter(self) -> Self {
        self.with(|shared| shared.is_interruptible = true)
    }

    /// The gate that runs pass which [`Outcome::Hold`] holds.
    pub fn hold(&self) -> Gate {
        self.shared.hold.clone()
    }

    /// The gate that every run passes.
    pub fn gate(&self) -> Gate {
        self.shared.gate.clone()
    }

    /// The gate that every load passes.
    pub fn load_gate(&self) -> Gate {
        self.shared.load_gate.clone()
    }

    /// What was asked to be loaded so far.
    pub fn loads(&self) -> Vec<LoadSpec> {
        self.shared.log.lock().loads.clone()
    }

    /// The runs so far, those held at the gate included, in the order they started.
    pub fn runs(&self) -> Vec<Run> {
        self.shared.log.lock().runs.clone()
    }

    fn with(self, change: impl FnOnce(&mut FakeState)) -> Self {
        let mut shared = Arc::into_inner(self.shared).expect("set up before it is cloned or used");
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Backend for FakeBackend {
    fn load(&self, spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        self.shared.log.lock().loads.push(spec.clone());
        self.shared.load_gate.pass();
        match &self.shared.load_error {
            Some(error) => Err(error.clone()),
            None => Ok(Arc::new(FakeModel {
                device: spec.device,
                shared: Arc::clone(&self.shared),
            })),
        }
    }
}

struct FakeModel {
    device: Device,
    shared: Arc<FakeState>,
}

impl LoadedModel for FakeModel {
    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let mut log = self.shared.log.lock();
        let index = log.sessions;
        log.sessions += 1;
        Ok(Box::new(FakeSession {
            index,
            device: self.device,
            is_interrupted: Arc::default(),
            shared: Arc::clone(&self.shared),
        }))
    }
}

struct FakeSession {
    index: usize,
    device: Device,
    is_interrupted: Arc<AtomicBool>,
    shared: Arc<FakeState>,
}

struct FakeInterrupt {
    is_interrupted: Arc<AtomicBool>,
    hold: Gate,
}

impl Interrupt for FakeInterrupt {
    fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Relaxed);
        self.hold.wake();
    }
}

impl Session for FakeSession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let run = Run {
            session: self.index,
            device: self.device,
            inputs: inputs.clone(),
        };
        self.is_interrupted.store(false, Ordering::Relaxed);
        self.shared.log.lock().runs.push(run);
        self.shared.gate.pass();
        match self.shared.marked(&inputs) {
            None => Ok(match self.shared.model {
                Some(model) => model(&inputs),
                None => inputs,
            }),
            Some(Outcome::Hold) => self.hold(inputs),
            Some(outcome) => act(outcome, inputs),
        }
    }

    fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        let interrupt = || FakeInterrupt {
            is_interrupted: Arc::clone(&self.is_interrupted),
            hold: self.shared.hold.clone(),
        };
        self.shared
            .is_interruptible
            .then(|| Arc::new(interrupt()) as _)
    }
}

impl FakeSession {
    fn hold(&self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        self.shared.hold.pass_unless(&self.is_interrupted);
        if self.is_interrupted.load(Ordering::Relaxed) {
            return Err(BackendError::Infer("the run was interrupted".into()));
        }
        Ok(inputs)
    }
}

impl FakeState {
    fn marked(&self, inputs: &[NamedTensor]) -> Option<Outcome> {
        let is_marked = |mark: &[u8]| inputs.iter().any(|input| any_row_starts_with(input, mark));
        self.marks
            .iter()
            .find(|(mark, _)| is_marked(mark))
            .map(|(_, outcome)| *outcome)
    }
}

fn any_row_starts_with(input: &NamedTensor, mark: &[u8]) -> bool {
    let rows = vec![1; input.tensor.rows().unwrap_or(0)];
    let parts = input.tensor.split(&rows).unwrap_or_default();
    parts.iter().any(|part| part.data().starts_with(mark))
}

fn act(outcome: Outcome, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
    match outcome {
        Outcome::Fail => Err(BackendError::Infer("a row is marked to fail".into())),
        Outcome::Refuse => Err(BackendError::Input("a row is marked to be refused".into())),
        Outcome::OutOfMemory => Err(BackendError::OutOfMemory(
            "a row is marked to use up the memory".into(),
        )),
        Outcome::Fatal => Err(BackendError::Fatal(
            "a row is marked to lose the device".into(),
        )),
        Outcome::Panic => panic!("a row is marked to panic"),
        Outcome::Abort => std::process::abort(),
        Outcome::LoseRow => Ok(inputs.into_iter().map(without_first_row).collect()),
        // Held by the session before.
        Outcome::Hold => Ok(inputs),
    }
}

fn without_first_row(input: NamedTensor) -> NamedTensor {
    let rest = input.tensor.rows().unwrap_or(0).saturating_sub(1);
    let parts = input.tensor.split(&[1, rest]).unwrap_or_default();
    match parts.into_iter().nth(1) {
        Some(tensor) => NamedTensor { tensor, ..input },
        None => input,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::Declared;
    use crate::tensor::{DType, Tensor};

    fn session(backend: &FakeBackend) -> Box<dyn Session> {
        let spec = LoadSpec {
            artifact: "model".into(),
            device: Device::Cpu,
            workers: 1,
            intra_op_threads: 1,
            declared: Declared::default(),
            state: crate::model::StateSharing::default(),
            has_brief_outputs: true,
        };
        backend.load(&spec).unwrap().session().unwrap()
    }

    fn rows(data: &'static [u8]) -> Vec<NamedTensor> {
        let tensor =
            Tensor::new(DType::U8, vec![data.len() / 2, 2], Bytes::from_static(data)).unwrap();
        vec![NamedTensor::new("x", tensor)]
    }

    #[test]
    fn outputs_are_the_inputs_and_runs_are_logged() {
        let backend = FakeBackend::new();
        assert_eq!(
            session(&backend).infer(rows(b"aabb")).unwrap(),
            rows(b"aabb")
        );
        assert_eq!(session(&backend).infer(rows(b"cc")).unwrap(), rows(b"cc"));
        let runs = backend.runs();
        assert_eq!(
            runs.iter()
                .map(|run| (run.session, run.rows()))
                .collect::<Vec<_>>(),
            [(0, 2), (1, 1)]
        );
    }

    #[test]
    fn a_marked_row_decides_the_run_wherever_it_is() {
        let backend = FakeBackend::new()
            .with_mark("f", Outcome::Fail)
            .with_mark("d", Outcome::Fatal)
            .with_mark("l", Outcome::LoseRow);
        let mut session = session(&backend);
        assert!(matches!(
            session.infer(rows(b"aafb")),
            Err(BackendError::Infer(_))
        ));
        assert!(matches!(
            session.infer(rows(b"d.")),
            Err(BackendError::Fatal(_))
        ));
        assert_eq!(session.infer(rows(b"l.bb")).unwrap(), rows(b"bb"));
        assert_eq!(session.infer(rows(b"afbl")).unwrap(), rows(b"afbl"));
    }

    #[test]
    #[should_panic(expected = "marked to panic")]
    fn a_marked_row_panics() {
        let _ = session(&FakeBackend::new().with_mark("p", Outcome::Panic)).infer(rows(b"p."));
    }

    #[test]
    fn a_shut_gate_holds_runs_until_it_lets_them_through() {
        let backend = FakeBackend::new();
        let gate = backend.gate();
        gate.shut();
        let runs: Vec<_> = (0..2)
            .map(|_| {
                let mut session = session(&backend);
                std::thread::spawn(move || session.infer(rows(b"aa")).unwrap())
            })
            .collect();
        gate.wait_for(2);
        assert_eq!((gate.waiting(), backend.runs().len()), (2, 2));
        gate.let_through(1);
        gate.open();
        for run in runs {
            assert_eq!(run.join().unwrap(), rows(b"aa"));
        }
        assert_eq!(gate.waiting(), 0);
    }
}
