//! Requests that ended worker processes: an equal one is refused for a while.
//!
//! Only digests are kept. Where none is kept, which is the ordinary case, a request pays for reading one number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::error::Error;
use crate::payload::{Body, Request};
use crate::runtime::failures::poison;

/// Processes that a request may cost before an equal one is refused.
const PROCESSES: usize = 2;

/// For how long a request is remembered: longer than a client goes on trying, and short enough for a model whose fault was
/// repaired outside, such as a driver's, to serve again without an operator.
const MEMORY: Duration = Duration::from_mins(10);

/// How many requests are remembered of a version. Of more, the one that would be forgotten first is forgotten.
const MOST: usize = 256;

/// Headers that differ between equal requests, since they name one request.
const NAMING: [&str; 6] = [
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-amzn-trace-id",
    "x-b3-spanid",
    "x-b3-traceid",
];

type Digest = [u8; 32];

/// The requests of one version that ended worker processes.
#[derive(Debug, Default)]
pub struct PoisonRequests {
    /// How many are remembered. Read without the lock.
    known: AtomicUsize,
    by_digest: Mutex<HashMap<Digest, Suspicion>>,
}

#[derive(Debug)]
struct Suspicion {
    /// Processes that died of the request.
    processes: usize,
    forgotten_at: Instant,
}

impl PoisonRequests {
    /// Refuses a request that is equal to one that cost two processes.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        if self.known.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let digest = digest(request);
        let mut by_digest = self.by_digest.lock();
        self.forget(&mut by_digest);
        match by_digest.get(&digest) {
            Some(known) if known.processes >= PROCESSES => Err(poison()),
            _ => Ok(()),
        }
    }

    /// Takes it that so many `processes` died of `request`.
    pub fn blame(&self, request: &Request, processes: usize) {
        let (digest, forgotten_at) = (digest(request), Instant::now() + MEMORY);
        let mut by_digest = self.by_digest.lock();
        let known = by_digest.entry(digest).or_insert(Suspicion {
            processes: 0,
            forgotten_at,
        });
        known.processes += processes;
        known.forgotten_at = forgotten_at;
        self.forget(&mut by_digest);
    }

    fn forget(&self, by_digest: &mut HashMap<Digest, Suspicion>) {
        let now = Instant::now();
        by_digest.retain(|_, known| known.forgotten_at > now);
        while by_digest.len() > MOST {
            let oldest = by_digest.iter().min_by_key(|(_, known)| known.forgotten_at);
            let Some((oldest, _)) = oldest.map(|(digest, known)| (*digest, known)) else {
                break;
            };
            by_digest.remove(&oldest);
        }
        self.known.store(by_digest.len(), Ordering::Relaxed);
    }
}

/// Of all that the handler sees of a request, but for what names the request itself.
fn digest(request: &Request) -> Digest {
    let mut digest = Sha256::new();
    let mut add = |field: &[u8]| {
        // With its length, so that no two lists of fields are one text.
        digest.update(field.len().to_le_bytes());
        digest.update(field);
    };
    add_optional(&mut add, request.content_type.as_deref());
    for (name, value) in &request.headers {
        if !NAMING.contains(&name.as_str()) {
            add(name.as_bytes());
            add(value.as_bytes());
        }
    }
    add_body(&mut add, &request.body);
    digest.finalize().into()
}

fn add_body(add: &mut impl FnMut(&[u8]), body: &Body) {
    match body {
        Body::Raw(bytes) => {
            add(b"raw");
            add(bytes);
        }
        Body::Form(parts) => {
            add(b"form");
            for part in parts {
                add(part.name.as_bytes());
                add_optional(add, part.filename.as_deref());
                add_optional(add, part.content_type.as_deref());
                add(&part.body);
            }
        }
        Body::Tensors(tensors) => {
            add(b"tensors");
            for named in tensors {
                add(named.name.as_bytes());
                add(named.tensor.dtype().name().as_bytes());
                let shape = named.tensor.shape().iter();
                add(&shape
                    .flat_map(|axis| axis.to_le_bytes())
                    .collect::<Vec<_>>());
                add(named.tensor.data());
            }
        }
    }
}

fn add_optional(add: &mut impl FnMut(&[u8]), text: Option<&str>) {
    add(&[u8::from(text.is_some())]);
    add(text.unwrap_or_default().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::testing::request;
    use super::*;
    use crate::error::Kind;
    use crate::payload::Part;

    fn raw(body: &str) -> Request {
        Request {
            body: Body::Raw(body.to_owned().into()),
            ..request("r")
        }
    }

    fn with_header(name: &str) -> Request {
        Request {
            headers: vec![(name.to_owned(), "1".to_owned())],
            ..raw("a")
        }
    }

    fn part(name: &str, body: &str) -> Part {
        Part {
            name: name.to_owned(),
            filename: None,
            content_type: None,
            body: body.to_owned().into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_cost_two_processes_is_refused_for_ten_minutes() {
        let poison = PoisonRequests::default();
        poison.blame(&raw("a"), 1);
        poison.check(&raw("a")).unwrap();
        poison.blame(&raw("a"), 1);
        let refusal = poison.check(&raw("a")).unwrap_err();
        assert_eq!(refusal.kind(), Kind::WorkerDied);
        poison.check(&raw("b")).unwrap();
        tokio::time::advance(MEMORY).await;
        poison.check(&raw("a")).unwrap();
        assert_eq!(poison.known.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_too_many_is_forgotten() {
        let poison = PoisonRequests::default();
        for number in 0..=MOST {
            poison.blame(&raw(&number.to_string()), 2);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        poison.check(&raw("0")).unwrap();
        poison.check(&raw("1")).unwrap_err();
        assert_eq!(poison.known.load(Ordering::Relaxed), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_equal_by_what_the_handler_sees_and_not_by_their_names() {
        let same = [
            Request {
                id: "another".to_owned(),
                ..raw("a")
            },
            with_header("traceparent"),
        ];
        let others = [
            raw("b"),
            with_header("x-mode"),
            Request {
                content_type: Some("text/plain".to_owned()),
                ..raw("a")
            },
            Request {
                body: Body::Form(vec![part("a", "")]),
                ..raw("a")
            },
            Request {
                body: Body::Form(vec![part("", "a")]),
                ..raw("a")
            },
        ];
        let known = digest(&raw("a"));
        assert!(same.iter().all(|request| digest(request) == known));
        let mut digests: Vec<_> = others.iter().map(digest).collect();
        digests.push(known);
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
    }
}
