//! An in-memory host for tests on the developer's machine, one per thread.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::assets::{Asset, AssetError};
use crate::log::Level;
use crate::metrics::{Kind, Unit};

/// Most bytes that one call may copy, as a real host limits them.
const MAX_READ: u32 = 16 << 20;

/// A line that a handler logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Its fields, by name.
    pub fields: Vec<(String, String)>,
}

/// A value that a handler observed.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The metric's name.
    pub name: String,
    /// The metric's kind.
    pub kind: Kind,
    /// The metric's unit.
    pub unit: Unit,
    /// Label names and values.
    pub labels: Vec<(String, String)>,
    /// The value that was added, set or observed.
    pub value: f64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) assets: BTreeMap<String, Vec<u8>>,
    pub(crate) lines: Vec<Line>,
    pub(crate) observations: Vec<Observation>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Runs `act` on this thread's host.
pub(crate) fn with_state<T>(act: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(act)
}

pub(crate) fn list_assets() -> Vec<Asset> {
    with_state(|state| {
        let asset = |(name, bytes): (&String, &Vec<u8>)| Asset {
            name: name.clone(),
            size: bytes.len() as u64,
        };
        state.assets.iter().map(asset).collect()
    })
}

pub(crate) fn read_asset(name: &str, offset: u64, max: u32) -> Result<Vec<u8>, AssetError> {
    if max > MAX_READ {
        return Err(AssetError::TooLarge);
    }
    with_state(|state| {
        let bytes = state.assets.get(name).ok_or(AssetError::NotFound)?;
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let end = start.saturating_add(max as usize).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    })
}

pub(crate) fn log_enabled(level: Level) -> bool {
    level >= Level::Debug
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    let line = Line {
        level,
        message: message.to_owned(),
        fields: fields.to_vec(),
    };
    with_state(|state| state.lines.push(line));
}

#[derive(Debug)]
pub(crate) struct Metric {
    name: String,
    kind: Kind,
    unit: Unit,
    label_names: Vec<String>,
}

impl Metric {
    pub(crate) fn new(name: &str, kind: Kind, unit: Unit, label_names: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            unit,
            label_names: label_names.to_vec(),
        }
    }

    pub(crate) fn observe(&self, value: f64, label_values: &[String]) {
        let labels = self
            .label_names
            .iter()
            .cloned()
            .zip(label_values.iter().cloned())
            .collect();
        let observation = Observation {
            name: self.name.clone(),
            kind: self.kind,
            unit: self.unit,
            labels,
            value,
        };
        with_state(|state| state.observations.push(observation));
    }
}
