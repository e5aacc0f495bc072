//! HTTP/2 and gRPC written by hand, for requests that no client library sends.

use lantern::api::Listener;
use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::TestServer;

/// The client's preface and empty SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Type of the frame that says that the connection is about to end.
pub const GOAWAY: u8 = 7;
/// Flag of HEADERS: no CONTINUATION follows.
pub const END_HEADERS: u8 = 4;
/// Flag of HEADERS and DATA: the stream ends.
pub const END_STREAM: u8 = 1;

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A HEADERS frame of a call, its headers literal.
pub fn call(path: &str, flags: u8, stream: u32) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers_frame(&headers, flags, stream)
}

/// A HEADERS frame, its headers literal.
pub fn headers_frame(headers: &[(&str, &str)], flags: u8, stream: u32) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    frame(1, flags | END_HEADERS, stream, &block)
}

/// The types of the frames that a server sent.
pub fn frame_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        types.push(*kind);
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        bytes = rest.get(length..).unwrap_or_default();
    }
    types
}

/// A message as gRPC frames it.
pub fn message(flag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, body].concat()
}

/// The answer to a call written by hand.
#[derive(Debug)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// Headers; of a failed call, with its gRPC status.
    headers: HeaderMap,
}

impl RawAnswer {
    /// The gRPC code, of a call that failed before anything was sent.
    pub fn code(&self) -> Option<i32> {
        self.header("grpc-status")?.parse().ok()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl TestServer {
    /// Calls `path` with these headers and this body, which need not be gRPC at all. Fails where the server refuses to
    /// speak.
    pub async fn call(
        &self,
        listener: Listener,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<RawAnswer, reqwest::Error> {
        let client = reqwest::Client::builder().http2_prior_knowledge();
        let url = format!("http://{}{path}", self.address(listener));
        let request = client.build().unwrap().post(url).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        response.bytes().await?;
        Ok(RawAnswer { status, headers })
    }

    /// Sends bytes and reads until the server ends the connection.
    pub async fn bytes(&self, listener: Listener, bytes: &[u8]) -> Vec<u8> {
        let (mut reader, mut writer) = self.connect(listener).await.into_split();
        let bytes = bytes.to_vec();
        // The server may close the connection before everything is sent.
        let sent = tokio::spawn(async move {
            let _ = writer.write_all(&bytes).await;
            writer
        });
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        sent.abort();
        answer
    }
}
