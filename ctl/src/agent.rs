//! The agent's local API, asked over its unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use types::api::ApiError;

/// The agent of this node.
pub(crate) struct Agent {
    /// The path of the agent's socket.
    socket: PathBuf,
}

impl Agent {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Gets a value.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AgentError> {
        let body = self.request(Method::GET, path, Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|error| AgentError::Answer { path: path.to_owned(), error })
    }

    /// Writes a value.
    pub(crate) async fn put<T: Serialize>(&self, path: &str, value: &T) -> Result<(), AgentError> {
        let body = serde_json::to_vec(value).map_err(|error| AgentError::Answer { path: path.to_owned(), error })?;
        self.request(Method::PUT, path, body).await.map(drop)
    }

    /// Deletes a value.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), AgentError> {
        self.request(Method::DELETE, path, Vec::new()).await.map(drop)
    }

    /// Asks for a change, and answers what has come of it.
    pub(crate) async fn post<T: Serialize, R: DeserializeOwned>(&self, path: &str, value: &T) -> Result<R, AgentError> {
        let answer = |error| AgentError::Answer { path: path.to_owned(), error };
        let body = serde_json::to_vec(value).map_err(answer)?;
        serde_json::from_slice(&self.request(Method::POST, path, body).await?).map_err(answer)
    }

    /// Gets a value, with a query.
    pub(crate) async fn ask<Q: Serialize, T: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<T, AgentError> {
        let query = serde_json::to_value(query).map_err(|error| AgentError::Answer { path: path.to_owned(), error })?;
        self.get(&format!("{path}?{}", encode(&query))).await
    }

    /// Asks for values that the agent sends as they arise, one a line.
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

    /// Sends a request and reads the head of the answer; an answer that says no is an error.
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

/// A connection to the agent, which is made for one exchange and ends with it.
struct Exchange(JoinHandle<hyper::Result<()>>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that has no end of its own.
pub(crate) struct Lines {
    /// The path of the request, for errors.
    path: String,
    /// The socket of the agent that was asked, for errors.
    socket: PathBuf,
    body: Incoming,
    /// What has arrived of the next line so far, and maybe of lines behind it.
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

/// What a query may hold as it is: besides letters and digits what RFC 3986 calls unreserved (section 2.3), and what it
/// lets stand in a query (section 3.4), so that addresses and names stay readable.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// The fields of a query that say something, as they stand in a URL.
fn encode(query: &Value) -> String {
    let fields = query.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let pairs = fields.map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{key}={}", utf8_percent_encode(&text, ENCODED))
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
mod tests;
