//! Modules that keep state, and modules that only look so.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, Mutex};

use lantern::backend::{Axis0, LoadedModel, ModelState};
use lantern::model::{Declared, StateSharing};
use lantern::tensor::NamedTensor;

use super::support::{floats, load, load_with, shown};

const WORKERS: usize = 4;

fn rows() -> NamedTensor {
    floats("x", &[1, 4], &[1.0, 1.0, 1.0, 1.0])
}

fn copies(name: &str) -> Arc<dyn LoadedModel> {
    load_with(name, Declared::default(), StateSharing::Copies).unwrap()
}

#[test]
fn what_a_program_writes_says_whether_it_keeps_state() {
    for (name, reason) in [
        ("assigns", "it assigns its attribute \"s\""),
        ("counts", "it assigns its attribute \"calls\""),
        ("writes_inside", "it writes in place (aten::add_)"),
        ("writes_view", "it writes in place (aten::copy_)"),
        ("writes_tuple", "it writes in place (aten::fill_)"),
        ("writes_items", "it writes in place (aten::add_)"),
        ("writes_same", "it writes in place (aten::add_)"),
        ("writes_sum", "it writes in place (aten::fill_)"),
        ("writes_dense", "it writes in place (aten::add_)"),
        ("appends", "it writes in place (aten::append)"),
        ("forks", "it writes in place (aten::add_)"),
        ("trains", "it updates running statistics"),
        ("traced", "it writes in place (aten::add_)"),
        ("seeds", "it seeds the random numbers of its process"),
    ] {
        let signature = load(name).signature().clone();
        assert_eq!(signature.state, ModelState::Locked, "{name}");
        let refuted = Axis0::Refuted(format!("the model keeps state: {reason}"));
        assert_eq!(signature.axis0, refuted, "{name}");
        let signature = copies(name).signature().clone();
        assert_eq!(signature.state, ModelState::Copied, "{name}");
    }
}

#[test]
fn writes_to_what_a_run_made_itself_are_no_state() {
    for name in [
        "normalized",
        "residual",
        "writes_locally",
        "order",
        "kinds",
        "lists",
    ] {
        for model in [load(name), copies(name)] {
            let signature = model.signature();
            assert_eq!(signature.state, ModelState::Stateless, "{name}");
            let refused =
                matches!(&signature.axis0, Axis0::Refuted(reason) if reason.contains("state"));
            assert!(!refused, "{name}");
        }
    }
}

/// Runs `each` calls in each of four sessions at once; how often each answer was given.
fn hammer(model: &Arc<dyn LoadedModel>, each: usize) -> BTreeMap<String, usize> {
    let answers = Mutex::new(BTreeMap::new());
    let start = Barrier::new(WORKERS);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (answers, start) = (&answers, &start);
            let mut session = model.session().unwrap();
            scope.spawn(move || {
                start.wait();
                for _ in 0..each {
                    let answer = shown(&session.infer(vec![rows()]).unwrap());
                    *answers.lock().unwrap().entry(answer).or_default() += 1;
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

fn alone(name: &str, times: usize) -> BTreeMap<String, usize> {
    let model = load(name);
    let mut session = model.session().unwrap();
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let answer = shown(&session.infer(vec![rows()]).unwrap());
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

#[test]
fn shared_state_is_that_of_one_worker() {
    for name in ["assigns", "counts", "appends"] {
        let together = hammer(&load(name), 500);
        assert_eq!(together, alone(name, WORKERS * 500), "{name}");
    }
}

#[test]
fn each_copy_has_a_state_of_its_own() {
    for name in ["assigns", "counts", "appends"] {
        let mut expected = alone(name, 500);
        for count in expected.values_mut() {
            *count *= WORKERS;
        }
        assert_eq!(hammer(&copies(name), 500), expected, "{name}");
    }
}

#[test]
fn copies_share_no_constant_of_the_program() {
    let model = copies("traced");
    for _ in 0..2 {
        let x = floats("x", &[1, 2], &[1.0, 2.0]);
        let outputs = model.session().unwrap().infer(vec![x]).unwrap();
        assert_eq!(shown(&outputs), "output_0 fp32[1, 2] 1 2");
    }
}
