//! Settings of the connection to etcd, checked before anything is sent.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use types::config::EtcdSettings;

use crate::StoreError;

/// HTTP/2 pings on a silent connection. etcd ends connections that ping more often than every 5 s
/// (`--grpc-keepalive-min-time`).
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// How to reach etcd.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// URLs of the members; without a scheme, `https://` where there is a `ca`, else `http://`.
    pub endpoints: Vec<String>,
    /// The file (PEM) of the authorities that sign the members' certificates.
    pub ca: Option<PathBuf>,
    /// The file (PEM) of our own certificate; with `key`.
    pub cert: Option<PathBuf>,
    /// The file (PEM) of our certificate's private key; with `cert`.
    pub key: Option<PathBuf>,
    /// Our name, where etcd's authentication is on; with `password`.
    pub username: Option<String>,
    /// Our password; with `username`.
    pub password: Option<Password>,
    /// All our keys begin with this.
    pub prefix: String,
    /// A member that has not answered a request for so long is given up for it.
    pub timeout: Duration,
}

/// A password that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl EtcdConfig {
    /// Settings for these endpoints; all else as by default.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The prefix, with exactly one `/` at its end.
    pub(super) fn checked_prefix(&self) -> Result<String, StoreError> {
        let parts = self.prefix.trim_matches('/');
        if parts.is_empty() || parts.contains("//") || !parts.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = format!("{:?} is not a prefix such as /manx/v1/", self.prefix);
            return Err(StoreError::Config { key: "etcd.prefix".to_owned(), what });
        }
        Ok(format!("/{parts}/"))
    }

    /// The endpoints as URLs.
    pub(super) fn urls(&self) -> Result<Vec<String>, StoreError> {
        let refuse = |what: String| StoreError::Config { key: "etcd.endpoints".to_owned(), what };
        if self.endpoints.is_empty() {
            return Err(refuse("no endpoint".to_owned()));
        }
        let tls = self.ca.is_some();
        let url = |endpoint: &String| match endpoint.split_once("://") {
            None if tls => Ok(format!("https://{endpoint}")),
            None => Ok(format!("http://{endpoint}")),
            Some(("https", _)) if !tls => Err(refuse(format!("{endpoint} needs etcd.ca"))),
            Some(("http", _)) if tls => Err(refuse(format!("{endpoint} is not https://, but etcd.ca is set"))),
            Some((scheme @ ("http" | "https"), rest)) => Ok(format!("{scheme}://{}", without_brackets(rest))),
            Some(_) => Err(refuse(format!("{endpoint} is not an http:// or https:// URL"))),
        };
        self.endpoints.iter().map(url).collect()
    }

    /// Name and password.
    pub(super) fn user(&self) -> Result<Option<(String, String)>, StoreError> {
        match (&self.username, &self.password) {
            (Some(name), Some(password)) => Ok(Some((name.clone(), password.0.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(missing("etcd.password", "etcd.username")),
            (None, Some(_)) => Err(missing("etcd.username", "etcd.password")),
        }
    }

    /// Options of every connection, without the user.
    pub(super) fn options(&self) -> Result<ConnectOptions, StoreError> {
        let (interval, timeout) = KEEP_ALIVE;
        let options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            .with_keep_alive(interval, timeout)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        Ok(match self.tls()? {
            Some(tls) => options.with_tls(tls),
            None => options,
        })
    }

    /// The files behind the TLS settings, for errors.
    pub(super) fn tls_files(&self) -> String {
        let file = |key: &str, path: &Option<PathBuf>| path.as_ref().map(|path| format!("{key} {}", path.display()));
        let files = [file("etcd.ca", &self.ca), file("etcd.cert", &self.cert), file("etcd.key", &self.key)];
        files.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn tls(&self) -> Result<Option<TlsOptions>, StoreError> {
        let Some(ca) = &self.ca else {
            return match (&self.cert, &self.key) {
                (None, None) => Ok(None),
                (Some(_), _) => Err(missing("etcd.ca", "etcd.cert")),
                (_, Some(_)) => Err(missing("etcd.ca", "etcd.key")),
            };
        };
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(pem("etcd.ca", ca, "CERTIFICATE-----")?));
        Ok(Some(match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => tls.identity(Identity::from_pem(
                pem("etcd.cert", cert, "CERTIFICATE-----")?,
                pem("etcd.key", key, "PRIVATE KEY-----")?,
            )),
            (None, None) => tls,
            (Some(_), None) => return Err(missing("etcd.key", "etcd.cert")),
            (None, Some(_)) => return Err(missing("etcd.cert", "etcd.key")),
        }))
    }
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            ca: None,
            cert: None,
            key: None,
            username: None,
            password: None,
            prefix: "/manx/v1/".to_owned(),
            timeout: Duration::from_millis(2_500),
        }
    }
}

impl From<&EtcdSettings> for EtcdConfig {
    fn from(settings: &EtcdSettings) -> Self {
        Self {
            endpoints: settings.endpoints.clone(),
            ca: settings.ca.clone(),
            cert: settings.cert.clone(),
            key: settings.key.clone(),
            username: settings.username.clone(),
            password: settings.password.clone().map(Password::new),
            prefix: settings.prefix.clone(),
            ..Self::default()
        }
    }
}

impl Password {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// An address of IPv4 in brackets stands for itself: a manifest that puts a Service's address between them cannot know its
/// family.
fn without_brackets(authority: &str) -> String {
    let parts = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match parts.and_then(|(address, rest)| Some((address.parse::<Ipv4Addr>().ok()?, rest))) {
        Some((address, rest)) => format!("{address}{rest}"),
        None => authority.to_owned(),
    }
}

/// Reads a PEM file and looks for a section, because the TLS library takes a file without one for an empty list.
fn pem(setting: &str, path: &Path, section: &str) -> Result<Vec<u8>, StoreError> {
    let refuse = |what: String| StoreError::Config { key: format!("{setting} {}", path.display()), what };
    let bytes = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let found = std::str::from_utf8(&bytes).is_ok_and(|text| {
        text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(section))
    });
    if found { Ok(bytes) } else { Err(refuse(format!("no PEM section that ends in {section}"))) }
}

fn missing(key: &str, beside: &str) -> StoreError {
    StoreError::Config { key: key.to_owned(), what: format!("missing beside {beside}") }
}

#[cfg(test)]
mod tests;
