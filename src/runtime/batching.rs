//! Whether requests of a version may be stacked along axis 0, and how that is found out.
//!
//! Stacking is right only where axis 0 of every input and output is the batch. What a model says of itself ([`Axis0`]) can
//! refute that but never prove it: a softmax over axis 0 keeps names and shapes and mixes the rows. So a version whose batch
//! size is over 1 is tried out:
//!
//! - `check` runs samples alone, stacked, and stacked in other orders, before the version is ready. Samples come from the
//!   archive (`lantern: samples`), else they are made from the signature. Made ones may refute; they confirm only where the
//!   names of the axes, or the owner, say that axis 0 is the batch.
//! - Where that decides nothing, the version is on [`Batching::Trial`]: the first real batches are run both ways and answered
//!   from the single runs, until eight of them agreed.
//!
//! A difference at any time refutes for good: the version runs unbatched. The verdict is kept by the archive's digest and the
//! number of rows that a batch may have ([`Verdicts`]). This module knows tensors and sessions; it knows neither queues nor
//! threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::pool::session::WorkerSession;
use crate::backend::{Axis0, LoadedModel, ModelState, Signature};
use crate::model::{BatchingMode, ModelSpec};

mod check;
pub(super) mod compare;
mod samples;
mod trial;
mod verdicts;

use compare::Finding;
use trial::Trial;
pub use verdicts::{Verdict, Verdicts};

/// The version of the rules by which verdicts are found. It is in the path of their files, so that another version of the rules
/// does not use them.
pub const RULES: &str = "1";
/// One in this many batches is run both ways if requests confirmed the version: later requests may be of another kind.
const SPOT_CHECK: u32 = 256;

/// How a version's requests are stacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Batching {
    /// They are not stacked, since `batchSize` is 1.
    #[default]
    Single,
    /// They are stacked, as something showed that this is right.
    On(Grounds),
    /// They are stacked because the owner says so, and nothing refuted it.
    OnByOwner,
    /// They are run both stacked and one by one, and answered from the single runs, until enough batches agreed.
    Trial,
    /// They are not stacked, for this reason.
    Off(String),
}

/// What showed that requests may be stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grounds {
    /// Samples gave the same alone and stacked.
    Samples,
    /// Samples gave the same but for rounding that depends on the other rows, as in models that are quantized dynamically.
    Rounded,
    /// The first real requests gave the same alone and stacked.
    Requests,
}

impl Batching {
    /// The rows that a batch may have where the settings allow `configured`.
    pub(crate) fn batch_size(&self, configured: usize) -> usize {
        match self {
            Self::Single | Self::Off(_) => 1,
            Self::Trial | Self::On(_) | Self::OnByOwner => configured,
        }
    }
}

impl std::fmt::Display for Batching {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Single => formatter.write_str("off (batchSize is 1)"),
            Self::Off(reason) => write!(formatter, "off ({reason})"),
            Self::Trial => formatter.write_str(
                "on trial (the first batches are run both ways and answered from the single runs)",
            ),
            Self::On(grounds) => write!(formatter, "on ({grounds})"),
            Self::OnByOwner => {
                formatter.write_str("on (the owner says so, and nothing refuted it)")
            }
        }
    }
}

impl std::fmt::Display for Grounds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Samples => "samples gave the same alone and stacked",
            Self::Rounded => {
                "samples gave the same alone and stacked, but for rounding that depends on the company"
            }
            Self::Requests => "the first requests gave the same alone and stacked",
        })
    }
}

/// The decision on one version, from the first worker that loaded it on.
#[derive(Debug)]
pub(crate) struct Decision {
    model: Arc<ModelSpec>,
    verdicts: Verdicts,
    settled: Mutex<Option<Batching>>,
    trial: Mutex<Trial>,
    /// Whether the status is [`Batching::Trial`]; read before every run.
    is_trial: AtomicBool,
    /// Whether requests confirmed it; read before every run.
    is_spot_checked: AtomicBool,
    /// Batches since requests confirmed it.
    batches: AtomicU32,
}

impl Decision {
    /// Nothing is decided before [`Self::settle`].
    pub(crate) fn new(model: Arc<ModelSpec>, verdicts: Verdicts) -> Self {
        Self {
            model,
            verdicts,
            settled: Mutex::default(),
            trial: Mutex::default(),
            is_trial: AtomicBool::default(),
            is_spot_checked: AtomicBool::default(),
            batches: AtomicU32::default(),
        }
    }

    /// What was decided; `None` before a worker loaded the model.
    pub(crate) fn status(&self) -> Option<Batching> {
        self.settled.lock().clone()
    }

    /// What was found out about the archive, if anything.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.verdicts.of(&self.key())
    }

    /// The rows that a batch may have.
    pub(crate) fn batch_size(&self) -> usize {
        let settled = self.settled.lock();
        let batching = settled.as_ref().unwrap_or(&Batching::Single);
        batching.batch_size(self.model.settings.batch_size)
    }

    fn key(&self) -> String {
        key(&self.model.digest, self.model.settings.batch_size)
    }

    /// Whether batches run both ways.
    pub(crate) fn is_trial(&self) -> bool {
        self.is_trial.load(Ordering::Relaxed)
    }

    /// Whether a batch of `jobs` jobs that is about to run is to be run both ways.
    pub(crate) fn compares(&self, jobs: usize) -> bool {
        if jobs < 2 || !self.is_spot_checked.load(Ordering::Relaxed) {
            return jobs > 1 && self.is_trial();
        }
        let before = self.batches.fetch_add(1, Ordering::Relaxed);
        before % SPOT_CHECK == SPOT_CHECK - 1
    }

    /// Decides if nothing was decided yet. Runs the model on `session`; other callers block meanwhile.
    pub(crate) fn settle(&self, session: &mut WorkerSession) -> Result<(), String> {
        let mut settled = self.settled.lock();
        if settled.is_none() {
            let decided = decide(&BatchingOptions::of(&self.model), session, &self.verdicts)?;
            self.set(&mut settled, decided);
        }
        Ok(())
    }

    /// Takes what a run showed: one of a batch that was run both ways, or one whose outputs could not be split. Returns
    /// whether that decides anew; then a thread of `tasks` writes the verdict's file.
    pub(crate) fn learn(&self, finding: &Finding, rows: usize, tasks: &Handle) -> bool {
        let Some(verdict) = self.verdict_after(finding, rows) else {
            return false;
        };
        let mut settled = self.settled.lock();
        if matches!(*settled, Some(Batching::Off(_))) {
            return false;
        }
        self.set(&mut settled, verdict.batching());
        drop(settled);
        self.verdicts.keep_soon(&self.key(), verdict, tasks);
        true
    }

    fn verdict_after(&self, finding: &Finding, rows: usize) -> Option<Verdict> {
        match finding {
            Finding::Different(reason) => Some(Verdict::Refuted(reason.clone())),
            Finding::Same { .. } if !self.is_trial() => None,
            Finding::Same { is_telling, .. } => {
                let most = self.model.settings.batch_size;
                let is_enough = self.trial.lock().note(*is_telling, rows, most);
                is_enough.then_some(Verdict::Confirmed(Grounds::Requests))
            }
        }
    }

    fn set(&self, settled: &mut Option<Batching>, decided: Batching) {
        let model = &self.model;
        let is_trial = decided == Batching::Trial;
        self.is_trial.store(is_trial, Ordering::Relaxed);
        let is_spot_checked = decided == Batching::On(Grounds::Requests);
        self.is_spot_checked
            .store(is_spot_checked, Ordering::Relaxed);
        match &decided {
            Batching::Single => {}
            Batching::Off(_) => {
                tracing::warn!(model = %model.name, version = %model.version, "batching: {decided}");
            }
            Batching::On(_) | Batching::OnByOwner | Batching::Trial => {
                tracing::info!(model = %model.name, version = %model.version, "batching: {decided}");
            }
        }
        *settled = Some(decided);
    }
}

/// The key of an archive's verdict: its digest and the batch size that it was tried out with, since what two rows show is not
/// enough for eight.
pub(crate) fn key(digest: &str, batch_size: usize) -> String {
    if digest.is_empty() {
        return String::new();
    }
    format!("{digest}-{batch_size}")
}

/// What a version's owner asks for.
#[derive(Debug, Clone)]
pub struct BatchingOptions<'a> {
    /// Rows a batch may have.
    pub batch_size: usize,
    /// Whether requests may be stacked at all.
    pub mode: BatchingMode,
    /// SHA-256 of the archive in hexadecimal digits.
    pub digest: &'a str,
    /// The archive's file of samples.
    pub samples: Option<PathBuf>,
}

impl<'a> BatchingOptions<'a> {
    fn of(model: &'a ModelSpec) -> Self {
        let samples = model.samples.as_ref();
        Self {
            batch_size: model.settings.batch_size,
            mode: model.settings.batching,
            digest: &model.digest,
            samples: samples.map(|name| model.directory.join(name)),
        }
    }
}

/// Decides on a loaded model. Blocks while it is tried out. The error says why nothing can be decided.
pub fn examine(
    options: &BatchingOptions<'_>,
    model: Arc<dyn LoadedModel>,
) -> Result<Batching, String> {
    let mut session = WorkerSession::new(model).map_err(|error| error.to_string())?;
    decide(options, &mut session, &Verdicts::default())
}

/// Decides on a model that was just loaded. The error says what is wrong with the archive's samples.
fn decide(
    options: &BatchingOptions<'_>,
    session: &mut WorkerSession,
    verdicts: &Verdicts,
) -> Result<Batching, String> {
    let signature = session.model().signature().clone();
    let samples = samples::read(options.samples.as_deref(), &signature)?;
    if options.batch_size <= 1 {
        return Ok(Batching::Single);
    }
    if !samples.is_empty() && !check::has_stacks(&samples, options.batch_size) {
        let size = options.batch_size;
        return Err(format!(
            "samples: no two of them fit into a batch of {size} rows (batchSize)"
        ));
    }
    if let Some(reason) = ruled_out(options.mode, &signature) {
        return Ok(Batching::Off(reason));
    }
    let key = key(options.digest, options.batch_size);
    let verdict = verdicts.of(&key).or_else(|| {
        let verdict = self_check(session, &signature, &samples, options.batch_size)?;
        verdicts.keep(&key, &verdict);
        Some(verdict)
    });
    Ok(match verdict {
        Some(verdict) => verdict.batching(),
        None if options.mode == BatchingMode::On => Batching::OnByOwner,
        None => Batching::Trial,
    })
}

/// Why a version must not be batched, where that is known without a run.
fn ruled_out(mode: BatchingMode, signature: &Signature) -> Option<String> {
    if mode == BatchingMode::Off {
        return Some("as lantern.batching says".to_owned());
    }
    match &signature.axis0 {
        Axis0::Refuted(reason) => Some(reason.clone()),
        Axis0::Unknown | Axis0::Shared if signature.state != ModelState::Stateless => {
            Some("runs change the model".to_owned())
        }
        Axis0::Unknown | Axis0::Shared => None,
    }
}

/// What samples show; `None` where there are none, they do not run, or a row in the wrong place would not show.
fn self_check(
    session: &mut WorkerSession,
    signature: &Signature,
    archived: &[samples::Sample],
    batch_size: usize,
) -> Option<Verdict> {
    let started = Instant::now();
    let is_made = archived.is_empty();
    let finding = if is_made {
        let sizes = samples::FREE_AXES.iter();
        let mut made = sizes.map_while(|size| samples::make(signature, batch_size, *size));
        made.find_map(|made| check::check(session, &made, batch_size))
    } else {
        check::check(session, archived, batch_size)
    };
    tracing::debug!(took = ?started.elapsed(), ?finding, is_made, "samples were compared");
    let may_confirm = !is_made || signature.axis0 == Axis0::Shared;
    match finding? {
        Finding::Different(reason) => Some(Verdict::Refuted(reason)),
        Finding::Same {
            is_telling: true,
            is_exact,
        } if may_confirm => Some(Verdict::Confirmed(if is_exact {
            Grounds::Samples
        } else {
            Grounds::Rounded
        })),
        Finding::Same { .. } => None,
    }
}

#[cfg(test)]
mod tests;
