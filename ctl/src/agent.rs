//! The agent's local API, asked over its unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use types::api::ApiError;

/// The agent of this node.
pub(crate) struct Agent {
    /// Its socket.
    socket: PathBuf,
}

impl Agent {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for a value.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AgentError> {
        let body = self.request(Method::GET, path, Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|error| AgentError::Answer { path: path.to_owned(), error })
    }

    /// Writes a value.
    pub(crate) async fn put<T: Serialize>(&self, path: &str, value: &T) -> Result<(), AgentError> {
        let body = serde_json::to_vec(value).map_err(|error| AgentError::Answer { path: path.to_owned(), error })?;
        self.request(Method::PUT, path, body).await.map(drop)
    }

    /// Removes a value.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), AgentError> {
        self.request(Method::DELETE, path, Vec::new()).await.map(drop)
    }

    /// Asks for a change, and takes what it has come to.
    pub(crate) async fn post<T: Serialize, R: DeserializeOwned>(&self, path: &str, value: &T) -> Result<R, AgentError> {
        let answer = |error| AgentError::Answer { path: path.to_owned(), error };
        let body = serde_json::to_vec(value).map_err(answer)?;
        serde_json::from_slice(&self.request(Method::POST, path, body).await?).map_err(answer)
    }

    /// Asks for a value, with a query.
    pub(crate) async fn ask<Q: Serialize, T: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<T, AgentError> {
        let query = serde_json::to_value(query).map_err(|error| AgentError::Answer { path: path.to_owned(), error })?;
        self.get(&format!("{path}?{}", encode(&query))).await
    }

    /// Asks for values that come as they arise, one a line.
    pub(crate) async fn lines(&self, path: &str) -> Result<Lines, AgentError> {
        let (response, exchange) = self.exchange(Method::GET, path, Vec::new()).await?;
        let (path, socket) = (path.to_owned(), self.socket.clone());
        Ok(Lines { path, socket, body: response.into_body(), read: Vec::new(), _exchange: exchange })
    }

    async fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, AgentError> {
        let (response, _exchange) = self.exchange(method, path, body).await?;
        let body = response.into_body().collect().await;
        Ok(body.map_err(|error| AgentError::Broken { socket: self.socket.clone(), error })?.to_bytes())
    }

    /// A request, up to the head of an answer that is no error.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(Response<Incoming>, Exchange), AgentError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| AgentError::Unreachable { socket: self.socket.clone(), error })?;
        let broken = |error: hyper::Error| AgentError::Broken { socket: self.socket.clone(), error };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = Exchange(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| AgentError::Request { path: path.to_owned(), error })?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok((response, exchange));
        }
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        let error = serde_json::from_slice::<ApiError>(&body).map_or_else(|_| status.to_string(), |error| error.error);
        Err(if status == hyper::StatusCode::NOT_FOUND {
            AgentError::NotFound(error)
        } else {
            AgentError::Refused(error)
        })
    }
}

/// A connection to the agent; it ends with the one exchange that it is made for.
struct Exchange(JoinHandle<hyper::Result<()>>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that has no end of its own.
pub(crate) struct Lines {
    /// What was asked, and whom, for errors.
    path: String,
    socket: PathBuf,
    body: Incoming,
    /// What has come of the next line so far, and maybe lines behind it.
    read: Vec<u8>,
    _exchange: Exchange,
}

impl Lines {
    /// The next value; none when the agent has no more.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, AgentError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let value = serde_json::from_slice(&line);
                return value.map(Some).map_err(|error| AgentError::Answer { path: self.path.clone(), error });
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.read.extend(frame.data_ref().into_iter().flatten()),
                Some(Err(error)) => return Err(AgentError::Broken { socket: self.socket.clone(), error }),
            }
        }
    }
}

/// The fields of a query that say something, as they stand in a URL.
fn encode(query: &Value) -> String {
    let fields = query.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let pairs = fields.map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let encoded: String = text
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect();
        format!("{key}={encoded}")
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// Why the agent did not answer what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("no agent answers on {}: {error} (is manx-agent running on this node, and are you root?)", socket.display())]
    Unreachable { socket: PathBuf, error: std::io::Error },
    #[error("the agent on {} broke off: {error}", socket.display())]
    Broken { socket: PathBuf, error: hyper::Error },
    #[error("{path} makes no request: {error}")]
    Request { path: String, error: hyper::http::Error },
    #[error("the agent's answer to {path} is not understood (is it of another version?): {error}")]
    Answer { path: String, error: serde_json::Error },
    #[error("{0}")]
    NotFound(String),
    #[error("the agent refused: {0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::api::{ExplainQuery, ShowQuery};

    #[test]
    fn queries_are_encoded_for_a_url() {
        let query = ExplainQuery {
            source: "fd00::1".parse().unwrap(),
            destination: "10.0.0.1".parse().unwrap(),
            protocol: None,
            port: Some(80),
        };
        let encoded = encode(&serde_json::to_value(query).unwrap());
        assert_eq!(encoded, "destination=10.0.0.1&port=80&source=fd00::1");
        let query = ShowQuery { endpoint: "manx/0123abc/eth&0%".parse().unwrap() };
        assert_eq!(encode(&serde_json::to_value(query).unwrap()), "endpoint=manx/0123abc/eth%260%25");
    }

    #[tokio::test]
    async fn lines_are_values_however_the_agent_cuts_them() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let body = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n1\n2\r\n4\r\n2\n\n3\r\n1\r\n\n\r\n0\r\n\r\n";
            stream.write_all(body).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let mut lines = Agent::new(socket).lines("/v1/policy/log").await.unwrap();
        let mut values = Vec::new();
        while let Some(value) = lines.next::<u32>().await.unwrap() {
            values.push(value);
        }
        assert_eq!(values, [1, 22, 3]);
        assert!(server.await.unwrap().starts_with("GET /v1/policy/log HTTP/1.1"));
    }
}
