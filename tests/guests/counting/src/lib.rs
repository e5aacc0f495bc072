//! Observes metrics of every kind, with the names of TorchServe's example of custom metrics.
//!
//! A request adds one row of one number, the length of its body. With the body `hostile` it observes metrics that a server
//! must refuse.

mod hostile;

use handler_sdk::metrics::{Counter, Gauge, Histogram, Unit};
use handler_sdk::{Context, Error, Handler, Outputs, Request, Response, Step, Tensor};

/// The metrics of one instance.
pub struct Counting {
    requests: Counter,
    preprocessed: Counter,
    postprocessed: Counter,
    batch_size: Gauge,
    image_size: Gauge,
    method_time: Gauge,
    percent: Histogram,
}

impl Handler for Counting {
    fn init(_context: &Context) -> Result<Self, Error> {
        Counter::new("InitializeCallCount", Unit::Count, &[]).add(1.0, &[]);
        Ok(Self {
            requests: Counter::new("InferenceRequestCount", Unit::Count, &[]),
            preprocessed: Counter::new("PreprocessCallCount", Unit::Count, &[]),
            postprocessed: Counter::new("PostprocessCallCount", Unit::Count, &[]),
            batch_size: Gauge::new("RequestBatchSize", Unit::Count, &[]),
            image_size: Gauge::new("SizeOfImage", Unit::None, &[]),
            method_time: Gauge::new("HandlerMethodTime", Unit::Milliseconds, &["MethodName"]),
            percent: Histogram::new("ExamplePercentMetric", Unit::Percent, &[]),
        })
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let body = request.bytes()?;
        if body == b"hostile" {
            hostile::measure();
        }
        self.requests.add(1.0, &[]);
        self.preprocessed.add(1.0, &[]);
        self.batch_size.set(1.0, &[]);
        self.image_size.set(kilobytes(body.len()), &[]);
        self.method_time.set(0.25, &["preprocess"]);
        self.percent.observe(50.0, &[]);
        let length = Tensor::from_vec("length", [1, 1], [kilobytes(body.len())])?;
        Ok(Step::infer(length))
    }

    fn postprocess(&self, _outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        self.postprocessed.add(1.0, &[]);
        Ok(Response::text("counted"))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bodies are far below 2^53 bytes"
)]
fn kilobytes(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}

handler_sdk::export!(Counting);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use handler_sdk::testing::{self, Host};

    use super::*;

    #[test]
    fn every_call_is_counted() {
        let host = Host::new();
        let handler: Counting = host.init().unwrap();
        handler.preprocess(testing::request([0; 512])).unwrap();
        handler.postprocess(Vec::new().into(), &[]).unwrap();
        let seen = host.observations();
        let of = |name: &str| seen.iter().find(|one| one.name == name).unwrap().value;
        for name in [
            "InitializeCallCount",
            "InferenceRequestCount",
            "PreprocessCallCount",
            "PostprocessCallCount",
            "RequestBatchSize",
        ] {
            assert!((of(name) - 1.0).abs() < 1e-9, "{name}");
        }
        assert!((of("SizeOfImage") - 0.5).abs() < 1e-9);
    }

    #[test]
    fn hostility_has_many_faces() {
        let host = Host::new();
        let handler: Counting = host.init().unwrap();
        handler.preprocess(testing::request("hostile")).unwrap();
        assert!(host.observations().len() > 2000);
    }
}
