//! The 82 management calls that TorchServe's own suite makes, in their order, each with the status it asserts.
//!
//! `tests/fixtures/management_data.json` has them, with the gRPC codes beside: `{name}` stands for an archive, `{zoo}` for a
//! web server that the archives may be fetched from.

use serde::Deserialize;

use crate::support::origin::Origin;
use crate::support::{Model, TestServer};

/// One call of the suite.
#[derive(Deserialize)]
pub struct Row {
    #[serde(rename = "row")]
    pub number: usize,
    pub name: String,
    pub method: String,
    path: String,
    rest: u16,
    /// Code that the same call has over gRPC.
    pub grpc: i32,
}

/// Archives by the suite's names for them.
const ARCHIVES: [&str; 5] = [
    "squeezenet1_1",
    "mnist",
    "densenet161",
    "resnet-152-batch",
    "resnet-18",
];

/// The model that stands for the one that the suite downloads.
fn stand_in(name: &str) -> Model {
    Model::new("echo").named(name).without_workers()
}

pub fn rows() -> Vec<Row> {
    let rows: Vec<Row> =
        serde_json::from_str(include_str!("../fixtures/management_data.json")).unwrap();
    assert_eq!(rows.len(), 82);
    rows
}

/// The path with its placeholders filled in.
pub fn path(row: &Row, origin: &Origin) -> String {
    let zoo = origin.url("/models").replace("://", "%3A%2F%2F");
    let path = row.path.replace("{zoo}", &zoo);
    ARCHIVES.iter().fold(path, |path, name| {
        path.replace(&format!("{{{name}}}"), &stand_in(name).url())
    })
}

/// A server that has the archives, and a web server that has none.
pub async fn server() -> (TestServer, Origin) {
    let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let origin = Origin::start(|_, _| missing.to_vec()).await;
    let builder = TestServer::builder().set(&format!("allowed_urls={}", origin.url("/models/.*")));
    let builder = ARCHIVES
        .iter()
        .fold(builder, |builder, name| builder.in_store(stand_in(name)));
    (builder.start().await, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_original_suite_has_its_status() {
    let (server, origin) = server().await;
    let mut wrong = Vec::new();
    for row in rows() {
        let answer = server.management(&row.method, &path(&row, &origin)).await;
        if answer.status != row.rest {
            wrong.push(format!(
                "{} {}: {} instead of {}: {}",
                row.number,
                row.name,
                answer.status,
                row.rest,
                answer.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
