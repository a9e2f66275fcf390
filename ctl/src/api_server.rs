//! The API server, asked as the service account of this pod: for the few things that are told to it before there is an
//! agent. One connection per request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where a pod finds who it is.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the API server is asked, and with what rights.
pub(crate) struct ApiServer {
    host: String,
    port: u16,
    tls: TlsConnector,
    token: String,
}

impl ApiServer {
    /// As the kubelet tells every pod.
    pub(crate) fn of_this_pod() -> Result<Self, ApiError> {
        let variable = |name: &'static str| std::env::var(name).map_err(|_| ApiError::NoPod(name));
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let port = port.parse().map_err(|_| ApiError::NoPod("KUBERNETES_SERVICE_PORT"))?;
        Self::new(variable("KUBERNETES_SERVICE_HOST")?, port, Path::new(SERVICE_ACCOUNT))
    }

    /// The one at that address, with the files `ca.crt` and `token` of a folder.
    fn new(host: String, port: u16, account: &Path) -> Result<Self, ApiError> {
        let path = account.join("ca.crt");
        let unusable = |what: String| ApiError::File { path: path.clone(), what };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let path = account.join("token");
        let token = std::fs::read_to_string(&path);
        let token = token.map_err(|error| ApiError::File { path, what: error.to_string() })?.trim().to_owned();
        Ok(Self { host, port, tls: TlsConnector::from(Arc::new(config)), token })
    }

    /// An object, or a list of them.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, "application/json", None).await
    }

    /// Changes an object by a JSON merge patch (RFC 7396); with a resourceVersion in it only if the object has that.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> Result<(), ApiError> {
        self.call(Method::PATCH, path, "application/merge-patch+json", Some(patch)).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, kind: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let io = |error| ApiError::Unreachable { server: self.name(), error };
        let broken = |error: hyper::Error| ApiError::Broken { server: self.name(), what: error.to_string() };
        let unusable = |what: String| ApiError::Broken { server: self.name(), what };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unusable(error.to_string()))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(io)?;
        let stream = self.tls.connect(name, stream).await.map_err(io)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", &self.host)
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", "application/json")
            .header("content-type", kind)
            .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))
            .map_err(|error| unusable(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        connection.abort();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let message = value.get("message").and_then(Value::as_str).map_or_else(|| status.to_string(), str::to_owned);
        Err(ApiError::Refused { request: format!("{method} {path}"), status, message })
    }

    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Why the API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0} is not set as in a pod: this is for a pod of the cluster, with a service account")]
    NoPod(&'static str),
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("cannot reach the API server at {server}: {error}")]
    Unreachable { server: String, error: io::Error },
    #[error("the API server at {server}: {what}")]
    Broken { server: String, what: String },
    #[error("{request}: {message} ({status})")]
    Refused { request: String, status: StatusCode, message: String },
}
