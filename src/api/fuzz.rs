//! What the fuzzer calls of this module: URIs and parameters of management calls here, the rest beside its decoders.

use std::collections::HashSet;

use hyper::Uri;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::lenient::{self, Scalar};
use super::parameters::Parameters;
use super::uri::{as_sent, decode_query, normalized};
use super::{decode, grpc, oip};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) fn targets() -> impl Iterator<Item = (&'static str, fn(&[u8]))> {
    let own: [Target; 2] = [("uri", uri), ("management_json", management_json)];
    own.into_iter()
        .chain(decode::fuzz::TARGETS)
        .chain(oip::fuzz::targets())
        .chain(grpc::fuzz::TARGETS)
}

/// The segments of a path arrive as they were sent, decoded.
fn uri(bytes: &[u8]) {
    let Ok(uri) = Uri::try_from(bytes) else {
        return;
    };
    assert!(decode_query(&uri).len() <= bytes.len() + 1);
    let _ = normalized(&uri, &["predict", "explain"]);
    let Ok(Some(normal)) = normalized(&uri, &[]) else {
        return;
    };
    assert!(normal.path().starts_with('/'));
    assert_eq!(normal.query(), uri.query());
    let decoded = percent_decode_str(uri.path()).decode_utf8_lossy();
    let arrived = percent_decode_str(normal.path()).decode_utf8_lossy();
    let sent = decoded.trim_end_matches('/');
    assert_eq!(as_sent(&arrived), if sent.is_empty() { "/" } else { sent });
}

/// Members differ, and mean what they mean in JSON.
fn management_json(bytes: &[u8]) {
    let read = lenient::object(bytes);
    let json: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
    let Ok(members) = read else {
        let refusal = read.expect_err("it was refused").to_string();
        let is_limit = ["twice", "more than", "must be"].map(|text| refusal.contains(text));
        assert!(json.is_none() || is_limit.contains(&true), "{refusal}");
        return;
    };
    let names: HashSet<_> = members.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), members.len());
    for (name, value) in json.iter().flatten() {
        let read = members.iter().find(|(own, _)| own == name);
        let read = read.map(|(_, value)| value);
        let expected = match value {
            Value::Null => Scalar::Null,
            Value::String(text) => Scalar::Text(text.clone()),
            Value::Bool(flag) => Scalar::Text(flag.to_string()),
            // Numbers stay as they were written.
            _ => continue,
        };
        assert_eq!(read, Some(&expected), "{name}");
    }
    let parameters = Parameters::Json(members);
    for name in ["url", "batch_size", "synchronous"] {
        let _ = (parameters.integer(name), parameters.flag(name));
    }
}
