//! The agent's local API, asked over its unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

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

    async fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, AgentError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| AgentError::Unreachable { socket: self.socket.clone(), error })?;
        let broken = |error: hyper::Error| AgentError::Broken { socket: self.socket.clone(), error };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the one exchange that it is made for.
        let exchange = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| AgentError::Request { path: path.to_owned(), error })?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        exchange.abort();
        if status.is_success() {
            return Ok(body);
        }
        let error = serde_json::from_slice::<ApiError>(&body).map_or_else(|_| status.to_string(), |error| error.error);
        Err(if status == hyper::StatusCode::NOT_FOUND {
            AgentError::NotFound(error)
        } else {
            AgentError::Refused(error)
        })
    }
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
