//! HTTP answers, and requests written by hand.

use std::fmt;

use lantern::api::Listener;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::TestServer;

/// One HTTP answer.
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads a response to its end.
    pub async fn of(response: reqwest::Response) -> Self {
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        Self {
            status: response.status().as_u16(),
            headers,
            body: response.bytes().await.unwrap().to_vec(),
        }
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The whole answer, for insta snapshots. Values that differ from run to run are replaced by their names.
impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.status)?;
        for (name, value) in &self.headers {
            let value = match name.as_str() {
                "x-request-id" => "[uuid]",
                _ => value,
            };
            writeln!(formatter, "{name}: {value}")?;
        }
        write!(formatter, "\n{}", self.text())
    }
}

impl TestServer {
    /// Sends `bytes` and returns everything that comes back until the server closes the connection, which it does after an
    /// error or when the request asks for it.
    pub async fn raw(&self, listener: Listener, bytes: &[u8]) -> String {
        self.exchange(listener, bytes, false).await
    }

    /// Does the same, and closes the client's side after sending.
    pub async fn raw_and_no_more(&self, listener: Listener, bytes: &[u8]) -> String {
        self.exchange(listener, bytes, true).await
    }

    async fn exchange(&self, listener: Listener, bytes: &[u8], no_more: bool) -> String {
        let (mut reader, mut writer) = self.connect(listener).await.into_split();
        let bytes = bytes.to_vec();
        // The server may answer and close the connection before everything is sent.
        let sent = tokio::spawn(async move {
            let _ = writer.write_all(&bytes).await;
            if no_more {
                let _ = writer.shutdown().await;
            }
            writer
        });
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.unwrap();
        sent.abort();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A connection to a listener.
    pub async fn connect(&self, listener: Listener) -> TcpStream {
        TcpStream::connect(self.address(listener)).await.unwrap()
    }
}
