//! The TorchScript backend against the answers of the Python runtime, files that are no models, and many workers.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use lantern::backend::{Backend as _, BackendError, LoadSpec, LoadedModel};
use lantern::model::{Declared, Device, TensorSpec};
use lantern::tensor::{DType, NamedTensor, Tensor};
use torch_worker::torch::TorchBackend;

#[path = "../../tests/support/fixture.rs"]
mod fixture;

#[path = "torch/answers.rs"]
mod answers;
#[path = "torch/signatures.rs"]
mod signatures;
#[path = "torch/state.rs"]
mod state;
#[path = "torch/support.rs"]
mod support;

use fixture::Fixture;

const MODELS: [&str; 10] = [
    "linear.pt",
    "multi.pt",
    "dtypes.pt",
    "tuple.pt",
    "list.pt",
    "dict.pt",
    "scalar_rows.pt",
    "fixed_rows.pt",
    "fails.pt",
    "slow.pt",
];

fn spec(artifact: PathBuf, device: Device, declared: Declared) -> LoadSpec {
    LoadSpec {
        artifact,
        device,
        workers: 4,
        intra_op_threads: 1,
        declared,
        state: lantern::model::StateSharing::default(),
        has_brief_outputs: true,
    }
}

fn load(fixture: &Fixture, device: Device) -> Arc<dyn LoadedModel> {
    TorchBackend::new()
        .load(&spec(
            fixture.path.clone(),
            device,
            fixture.declared.clone(),
        ))
        .unwrap()
}

fn refusal(file: &str) -> String {
    match TorchBackend::new().load(&spec(fixture::path(file), Device::Cpu, Declared::default())) {
        Err(BackendError::Load(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{file} loads"),
    }
}

fn answers_match(device: Device) {
    for model in MODELS {
        let fixture = Fixture::read(model);
        let loaded = load(&fixture, device);
        let mut session = loaded.session().unwrap();
        // Three rounds, since the first ones run before libtorch has optimized the program.
        for case in fixture.cases.iter().cycle().take(3 * fixture.cases.len()) {
            loaded.signature().check(&case.inputs).unwrap();
            fixture.check(case, session.infer(case.inputs.clone()));
        }
    }
}

#[test]
fn answers_are_those_of_the_python_runtime() {
    answers_match(Device::Cpu);
}

#[test]
fn answers_on_cuda_are_those_of_the_python_runtime() {
    let fixture = Fixture::read("linear.pt");
    let spec = spec(fixture.path, Device::Cuda(0), fixture.declared);
    match TorchBackend::new().load(&spec) {
        Ok(_) => answers_match(Device::Cuda(0)),
        Err(error) => {
            assert!(matches!(error, BackendError::Library(_)), "{error:?}");
            assert!(!fixture::requires_cuda(), "CUDA was promised: {error}");
            eprintln!("SKIPPED: {error}");
        }
    }
}

#[test]
fn files_that_are_no_models_are_refused() {
    for file in [
        "broken.pt",
        "hostile/cut_short.pt",
        "hostile/empty.pt",
        "missing.pt",
    ] {
        refusal(file);
    }
}

#[test]
fn weights_without_a_program_are_refused_with_a_hint() {
    let text = refusal("hostile/state_dict.pt");
    assert!(text.contains("torch.jit.script"), "{text}");
}

#[test]
fn undeclared_outputs_of_a_tuple_are_counted() {
    let fixture = Fixture::read("tuple.pt");
    let loaded = TorchBackend::new()
        .load(&spec(
            fixture.path.clone(),
            Device::Cpu,
            Declared::default(),
        ))
        .unwrap();
    let inputs = fixture.cases[0].inputs.clone();
    let outputs = loaded.session().unwrap().infer(inputs).unwrap();
    let expected = fixture.cases[0].expected.as_ref().unwrap();
    for (index, (expected, output)) in expected.iter().zip(&outputs).enumerate() {
        assert_eq!(*output.name, format!("output_{index}"));
        let renamed = NamedTensor::new(Arc::clone(&expected.name), output.tensor.clone());
        fixture.compare("by position", std::slice::from_ref(expected), &[renamed]);
    }
}

#[test]
fn inputs_are_taken_by_name() {
    let fixture = Fixture::read("multi.pt");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    for case in &fixture.cases {
        let mut inputs = case.inputs.clone();
        inputs.reverse();
        fixture.check(case, session.infer(inputs));
    }
    let lone = vec![fixture.cases[0].inputs[0].clone()];
    assert!(matches!(session.infer(lone), Err(BackendError::Input(_))));
}

#[test]
fn outputs_of_a_list_must_be_as_many_as_declared() {
    let fixture = Fixture::read("list.pt");
    let mut declared = fixture.declared.clone();
    declared.outputs.pop();
    let loaded = TorchBackend::new()
        .load(&spec(fixture.path.clone(), Device::Cpu, declared))
        .unwrap();
    let error = loaded
        .session()
        .unwrap()
        .infer(fixture.cases[0].inputs.clone())
        .unwrap_err();
    let text = "1 outputs are declared, but the model returns 2: output_0, output_1";
    assert_eq!(error, BackendError::Infer(text.into()));
}

#[test]
fn strings_are_refused() {
    let fixture = Fixture::read("linear.pt");
    let text = TensorSpec::new("x", DType::Bytes, vec![None]);
    let declared = Declared {
        inputs: vec![text],
        outputs: vec![],
    };
    let error = TorchBackend::new()
        .load(&spec(fixture.path.clone(), Device::Cpu, declared))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("no tensors of strings"),
        "{error}"
    );
    let undeclared = TorchBackend::new()
        .load(&spec(fixture.path, Device::Cpu, Declared::default()))
        .unwrap();
    let tensor = Tensor::new(DType::Bytes, vec![1], vec![0; 4].into()).unwrap();
    let error = undeclared
        .session()
        .unwrap()
        .infer(vec![NamedTensor::new("x", tensor)])
        .unwrap_err();
    assert!(matches!(error, BackendError::Input(_)), "{error:?}");
}

#[test]
fn a_failure_says_first_what_the_model_said() {
    let fixture = Fixture::read("fails.pt");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let case = fixture
        .cases
        .iter()
        .find(|case| case.expected.is_err())
        .unwrap();
    let error = session.infer(case.inputs.clone()).unwrap_err().to_string();
    let first = error.lines().next().unwrap();
    assert!(
        !first.contains("Traceback") && !first.starts_with("The following"),
        "{error}"
    );
}

#[test]
fn failed_runs_leak_nothing() {
    let fixture = Fixture::read("fails.pt");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let case = fixture
        .cases
        .iter()
        .find(|case| case.expected.is_err())
        .unwrap();
    let mut fail = |times: usize| {
        for _ in 0..times {
            assert!(session.infer(case.inputs.clone()).is_err());
        }
    };
    fail(2000);
    // A leak grows in every round; an allocator's arena does in one or the other.
    let rounds = [(); 4].map(|()| {
        let before = fixture::private_memory();
        fail(2000);
        fixture::private_memory().saturating_sub(before)
    });
    let grown = rounds.into_iter().min().unwrap();
    assert!(grown < 400_000, "2000 failed runs took {rounds:?} bytes");
}

#[test]
fn workers_infer_at_once_on_one_copy() {
    let fixture = Fixture::read("linear.pt");
    let loaded = load(&fixture, Device::Cpu);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (fixture, mut session) = (&fixture, loaded.session().unwrap());
            scope.spawn(move || {
                for case in fixture.cases.iter().cycle().take(500) {
                    fixture.check(case, session.infer(case.inputs.clone()));
                }
                assert_eq!(tch::get_num_threads(), 1);
            });
        }
    });
}

#[test]
fn inputs_are_not_written_to() {
    let fixture = Fixture::read("dtypes.pt");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let case = &fixture.cases[0];
    let copies: Vec<Vec<u8>> = case
        .inputs
        .iter()
        .map(|input| input.tensor.data().to_vec())
        .collect();
    session.infer(case.inputs.clone()).unwrap();
    for (input, copy) in case.inputs.iter().zip(copies) {
        assert_eq!(*input.tensor.data(), copy);
    }
}

#[test]
fn cuda_is_not_opened_unless_it_is_asked_for() {
    load(&Fixture::read("linear.pt"), Device::Cpu);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains("libtorch_cpu.so") && !maps.contains("libtorch_cuda.so"));
}
