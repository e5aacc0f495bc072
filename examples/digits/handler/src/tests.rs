#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use handler_sdk::{ErrorKind, Tensor, testing};
use serde::Deserialize;

use super::*;

/// One drawing, in every guise that people send it in.
const SEVENS: [&[u8]; 4] = [
    include_bytes!("../tests/white_on_black.png"),
    include_bytes!("../tests/black_on_white.png"),
    include_bytes!("../tests/black_on_transparent.png"),
    include_bytes!("../tests/photo.jpg"),
];

/// The drawing as the model wants it, made by Pillow.
const SMALL: &[u8] = include_bytes!("../tests/small.png");

fn handler() -> Digits {
    testing::Host::new().init().unwrap()
}

fn input(picture: &[u8]) -> Vec<f32> {
    let (inputs, _) = testing::inferred(handler().preprocess(testing::request(picture)).unwrap());
    assert_eq!(
        (inputs[0].name(), inputs[0].shape()),
        ("image", &[1, 1, 28, 28][..])
    );
    inputs[0].view::<f32>().unwrap().to_vec()
}

#[test]
fn the_same_drawing_becomes_the_same_tensor_in_every_guise() {
    let wanted = input(SMALL);
    assert!(wanted.iter().any(|&value| value > 0.9) && wanted[0] == 0.0);
    for (index, picture) in SEVENS.iter().enumerate() {
        let pairs = input(picture).into_iter().zip(&wanted);
        let largest = pairs
            .map(|(value, wanted)| (value - wanted).abs())
            .fold(0.0, f32::max);
        assert!(largest < 0.04, "picture {index}: {largest}");
    }
}

/// The example's pictures, with the pixels that `reference.py` makes of them.
#[derive(Deserialize)]
struct Reference {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    file: String,
    pixels: Vec<u8>,
}

#[test]
fn samples_become_what_the_reference_makes_of_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let reference = fs::read(directory.join("expected.json")).unwrap();
    let reference: Reference = serde_json::from_slice(&reference).unwrap();
    assert!(!reference.samples.is_empty());
    for Sample { file, pixels } in reference.samples {
        let values = input(&fs::read(directory.join(&file)).unwrap());
        let wanted = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0);
        let largest = values
            .iter()
            .zip(wanted)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(largest < 2.5 / 255.0, "{file}: {largest}");
    }
}

#[test]
fn answer_has_as_many_classes_as_the_settings_say() {
    let host = testing::Host::new().settings(serde_json::json!({"topk": 2}));
    let outputs = vec![Tensor::from_vec("logits", [1, 3], [1.0f32, 2.0, 3.0]).unwrap()];
    let response = host
        .init::<Digits>()
        .unwrap()
        .postprocess(outputs.into(), &[])
        .unwrap();
    let answer: BTreeMap<String, f32> = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(answer.into_keys().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn answer_is_the_five_best_in_descending_order() {
    let mut logits = [0.0f32; 10];
    (logits[7], logits[1]) = (9.0, 4.0);
    let outputs = vec![Tensor::from_vec("logits", [1, 10], logits).unwrap()];
    let response = handler().postprocess(outputs.into(), &[]).unwrap();
    let text = std::str::from_utf8(response.body()).unwrap();
    let labels: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    assert_eq!(labels, ["7", "1", "0", "2", "3"]);
    assert!(text.starts_with("{\n  \"7\": 0.99"), "{text}");
}

#[test]
fn labels_come_from_the_archive() {
    let host = testing::Host::new().asset("index_to_name.json", r#"{"0": "zero"}"#);
    let digits: Digits = host.init().unwrap();
    let outputs = vec![Tensor::from_vec("logits", [1, 1], [0.0f32]).unwrap()];
    let response = digits.postprocess(outputs.into(), &[]).unwrap();
    assert_eq!(response.body(), b"{\n  \"zero\": 1.0\n}");
}

#[test]
fn what_is_no_picture_is_the_clients_fault() {
    let error = handler().preprocess(testing::request("seven")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedMediaType);
    let cut = &SEVENS[0][..SEVENS[0].len() / 2];
    let error = handler().preprocess(testing::request(cut)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest);
}

#[test]
fn it_describes_itself() {
    let host = testing::Host::new().settings(serde_json::json!({"topk": 3}));
    let host = host.asset("index_to_name.json", r#"{"0": "zero"}"#);
    let digits: Digits = host.init().unwrap();
    let described: serde_json::Value =
        serde_json::from_str(digits.describe().unwrap().as_str()).unwrap();
    assert_eq!(
        (&described["side"], &described["topk"]),
        (&28.into(), &3.into())
    );
    assert_eq!(described["classes"][0], "zero");
    assert_eq!(described["classes"][9], "9");
}
