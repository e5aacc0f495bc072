//! Write Lantern handlers: `preprocess` and `postprocess` of a model, compiled to a WebAssembly component.
//!
//! A whole classifier:
//!
//! ```
//! use handler_sdk::{
//!     Context, Error, Handler, Labels, Outputs, Request, Response, Step, classification, image, softmax,
//! };
//!
//! struct Classifier {
//!     labels: Labels,
//! }
//!
//! impl Handler for Classifier {
//!     fn init(_context: &Context) -> Result<Self, Error> {
//!         Ok(Self { labels: Labels::from_assets()? })
//!     }
//!
//!     fn preprocess(&self, request: Request) -> Result<Step, Error> {
//!         let picture = image::decode(request.bytes()?)?.to_rgb();
//!         let picture = picture.resize_shorter_side(256)?.center_crop(224, 224)?;
//!         let (mean, deviation) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
//!         Ok(Step::infer(picture.to_tensor_chw("input", &mean, &deviation)?))
//!     }
//!
//!     fn postprocess(&self, outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
//!         let probabilities = softmax(outputs.get("logits")?.view::<f32>()?.row(0));
//!         Response::json_pretty(&classification(&probabilities, &self.labels, 5))
//!     }
//! }
//!
//! handler_sdk::export!(Classifier);
//!
//! // The rest is a test: it runs on the developer's machine, without a server.
//! use handler_sdk::{Tensor, testing};
//!
//! # fn main() -> Result<(), Error> {
//! let host = testing::Host::new().asset("index_to_name.json", r#"{"0": "cat", "1": "dog"}"#);
//! let classifier: Classifier = host.init()?;
//! # let mut png = Vec::new();
//! # png::Encoder::new(&mut png, 300, 400).write_header().unwrap().write_image_data(&[0; 300 * 400]).unwrap();
//! let (inputs, carry) = testing::inferred(classifier.preprocess(testing::request(png))?);
//! assert_eq!(inputs[0].shape(), [1, 3, 224, 224]);
//!
//! let logits = Tensor::from_vec("logits", [1, 2], [0.0f32, 3.0])?;
//! let response = classifier.postprocess(vec![logits].into(), &carry)?;
//! assert!(response.body().starts_with(b"{\n  \"dog\": 0.9525"));
//! # Ok(())
//! # }
//! ```
//!
//! From there to a packed archive: `README.md` beside this crate.

// Tests may unwrap; everything else says why nothing can go wrong, or passes the error on.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod assets;
pub mod bindings;
mod classify;
#[doc(hidden)]
pub mod component;
mod context;
mod description;
mod error;
mod export;
mod handler;
#[cfg(feature = "image")]
pub mod image;
mod imports;
pub mod log;
pub mod metrics;
mod outputs;
mod request;
mod response;
mod tensor;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use classify::{Classification, Labels, classification, softmax, top_k};
pub use context::{Context, Device};
pub use description::Description;
pub use error::{Error, ErrorKind};
pub use handler::{Handler, Inputs, Step};
pub use outputs::Outputs;
pub use request::{Body, Field, Part, Request};
pub use response::Response;
pub use tensor::{Dtype, Element, Source, Tensor, TensorView};

// Element types that are not in the standard library.
pub use half::{bf16, f16};
