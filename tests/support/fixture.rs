//! The models under `tests/fixtures` with the answers that the Python runtime gave, for tests of backends.
//!
//! Included by path into the tests of each backend, which bring `DType`, `NamedTensor`, `Tensor`, `Declared` and
//! `TensorSpec` into the including module. Knows the files' format, which `tests/fixtures/README.md` describes.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "each backend uses its part")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are told by the environment what the machine has"
)]

use std::path::PathBuf;

use serde_json::Value;

use super::{DType, Declared, NamedTensor, Tensor, TensorSpec};

/// A model file and how it must behave.
pub struct Fixture {
    /// The model file.
    pub path: PathBuf,
    /// Inputs and outputs as an archive would declare them.
    pub declared: Declared,
    /// How many tensors each input, then each output, stands for: `one`, `optional` or `list`.
    pub arities: Vec<String>,
    /// Calls with their answers.
    pub cases: Vec<Case>,
    absolute: f64,
    relative: f64,
}

/// One call.
pub struct Case {
    /// For messages.
    pub name: String,
    /// What goes in.
    pub inputs: Vec<NamedTensor>,
    /// What must come out, or a part of the error's text.
    pub expected: Result<Vec<NamedTensor>, String>,
}

/// The path of a file under `tests/fixtures`.
pub fn path(file: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/fixtures");
    let fixtures = if here.is_dir() {
        here
    } else {
        root.join("../tests/fixtures")
    };
    fixtures.join(file)
}

/// Whether tests on a GPU must run; where not, they are skipped on a machine without one.
pub fn requires_cuda() -> bool {
    std::env::var_os("LANTERN_REQUIRE_CUDA").is_some_and(|value| value == "1")
}

/// The ONNX Runtime that tests are to use.
pub fn onnxruntime() -> Option<PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from)
}

/// Private dirty bytes of memory of this process. Clean pages are left out: whether those of a library count as private
/// depends on other processes.
pub fn private_memory() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let kilobytes = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|number| number.parse::<usize>().ok())
    };
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_Dirty"))
        .filter_map(kilobytes)
        .sum::<usize>()
        * 1024
}

impl Fixture {
    /// Reads `MODEL.json` beside a model.
    pub fn read(model: &str) -> Self {
        let text = std::fs::read_to_string(path(&format!("{model}.json"))).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let tolerance = |key: &str| json["tolerance"][key].as_f64().unwrap();
        Self {
            path: path(model),
            declared: Declared {
                inputs: specs(&json["inputs"]),
                outputs: specs(&json["outputs"]),
            },
            arities: list(&json["inputs"])
                .iter()
                .chain(list(&json["outputs"]))
                .map(|spec| spec["arity"].as_str().unwrap_or("one").to_owned())
                .collect(),
            cases: list(&json["cases"]).iter().map(case).collect(),
            absolute: tolerance("absolute"),
            relative: tolerance("relative"),
        }
    }

    /// Asserts that a call gave the expected outputs or error.
    pub fn check<E: std::fmt::Display>(&self, case: &Case, actual: Result<Vec<NamedTensor>, E>) {
        let name = format!("{} {}", self.path.display(), case.name);
        match (&case.expected, actual) {
            (Ok(expected), Ok(actual)) => self.compare(&name, expected, &actual),
            (Err(part), Err(error)) => assert!(error.to_string().contains(part), "{name}: {error}"),
            (Ok(_), Err(error)) => panic!("{name}: {error}"),
            (Err(part), Ok(_)) => panic!("{name}: no error, expected {part:?}"),
        }
    }

    /// Asserts that outputs are the same by name and value, floats within the tolerance.
    pub fn compare(&self, name: &str, expected: &[NamedTensor], actual: &[NamedTensor]) {
        let names = |tensors: &[NamedTensor]| {
            tensors
                .iter()
                .map(|tensor| tensor.name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(expected), names(actual), "{name}");
        for (expected, actual) in expected.iter().zip(actual) {
            let name = format!("{name} {}", expected.name);
            assert_eq!(expected.tensor.dtype(), actual.tensor.dtype(), "{name}");
            assert_eq!(expected.tensor.shape(), actual.tensor.shape(), "{name}");
            match (floats(&expected.tensor), floats(&actual.tensor)) {
                (Some(expected), Some(actual)) => self.close(&name, &expected, &actual),
                _ => assert_eq!(expected.tensor, actual.tensor, "{name}"),
            }
        }
    }

    fn close(&self, name: &str, expected: &[f64], actual: &[f64]) {
        for (expected, actual) in expected.iter().zip(actual) {
            let allowed = self.absolute + self.relative * expected.abs();
            assert!(
                (expected - actual).abs() <= allowed,
                "{name}: {actual} is not {expected}"
            );
        }
    }
}

fn list(json: &Value) -> &[Value] {
    json.as_array().unwrap()
}

fn text(json: &Value) -> &str {
    json.as_str().unwrap()
}

fn dtype(json: &Value) -> DType {
    DType::from_name(text(&json["dtype"])).unwrap()
}

fn specs(json: &Value) -> Vec<TensorSpec> {
    let axis = |axis: &Value| usize::try_from(axis.as_i64().unwrap()).ok();
    let spec = |json: &Value| {
        let shape = json["shape"].as_array();
        let shape = shape.map(|axes| axes.iter().map(axis).collect());
        TensorSpec {
            shape,
            ..TensorSpec::new(text(&json["name"]), dtype(json), vec![])
        }
    };
    list(json).iter().map(spec).collect()
}

fn case(json: &Value) -> Case {
    let tensors = |key: &str| list(&json[key]).iter().map(tensor).collect();
    Case {
        name: text(&json["name"]).to_owned(),
        inputs: tensors("inputs"),
        expected: match json.get("error") {
            Some(part) => Err(text(part).to_owned()),
            None => Ok(tensors("outputs")),
        },
    }
}

fn tensor(json: &Value) -> NamedTensor {
    let dtype = dtype(json);
    let shape = list(&json["shape"])
        .iter()
        .map(|axis| usize::try_from(axis.as_u64().unwrap()).unwrap())
        .collect();
    let data: Vec<u8> = list(&json["data"])
        .iter()
        .flat_map(|element| bytes(dtype, element))
        .collect();
    NamedTensor::new(
        text(&json["name"]),
        Tensor::new(dtype, shape, data.into()).unwrap(),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the files hold values of the dtype"
)]
fn bytes(dtype: DType, json: &Value) -> Vec<u8> {
    let integer = || json.as_i64().unwrap();
    let float = || json.as_f64().unwrap();
    match dtype {
        DType::Bool => vec![u8::from(json.as_bool().unwrap())],
        DType::U8 => vec![u8::try_from(integer()).unwrap()],
        DType::I8 => vec![i8::try_from(integer()).unwrap().cast_unsigned()],
        DType::U16 => u16::try_from(integer()).unwrap().to_le_bytes().to_vec(),
        DType::U32 => u32::try_from(integer()).unwrap().to_le_bytes().to_vec(),
        DType::U64 => json.as_u64().unwrap().to_le_bytes().to_vec(),
        DType::I16 => (integer() as i16).to_le_bytes().to_vec(),
        DType::I32 => (integer() as i32).to_le_bytes().to_vec(),
        DType::I64 => integer().to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(float()).to_le_bytes().to_vec(),
        DType::Bf16 => half::bf16::from_f64(float()).to_le_bytes().to_vec(),
        DType::F32 => (float() as f32).to_le_bytes().to_vec(),
        DType::F64 => float().to_le_bytes().to_vec(),
        DType::Bytes => {
            let string = text(json).as_bytes();
            [&u32::try_from(string.len()).unwrap().to_le_bytes(), string].concat()
        }
    }
}

/// The elements of a floating-point tensor; `None` of others.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let data = tensor.data();
    Some(match tensor.dtype() {
        DType::F16 => data
            .chunks(2)
            .map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).into())
            .collect(),
        DType::Bf16 => data
            .chunks(2)
            .map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).into())
            .collect(),
        DType::F32 => data
            .chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
            .collect(),
        DType::F64 => data
            .chunks(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        _ => return None,
    })
}
