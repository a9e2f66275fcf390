//! `etcd.*`: how the datastore is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::ConfigError;

/// `etcd.*`: how the datastore is reached. There is at least one endpoint, and all of them are spoken to by TLS or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// The endpoints as they are written, with their scheme.
    endpoints: Vec<String>,
    tls: Option<EtcdTls>,
    /// `etcd.username` with `etcd.password`: who the client is, where etcd's authentication is on. By default nobody.
    pub user: Option<Credentials>,
    /// `etcd.prefix`: all keys lie under it. By default `/manx/v1/`.
    pub prefix: KeyPrefix,
}

/// The files of a connection by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// `etcd.ca`: the path of a file (PEM) with the certificates of the authorities that sign the members' certificates.
    pub ca: PathBuf,
    /// `etcd.cert` with `etcd.key`: what the client shows to the members. By default nothing.
    pub client: Option<ClientCertificate>,
}

/// The files of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `etcd.cert`: the path of the certificate (PEM).
    pub cert: PathBuf,
    /// `etcd.key`: the path of the certificate's private key (PEM).
    pub key: PathBuf,
}

/// The user that the agent is to etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `etcd.username`.
    pub username: String,
    /// `etcd.password`.
    pub password: Password,
}

/// A password that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// What all keys begin with: printable ASCII between single `/`, with a `/` at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl EtcdSettings {
    /// The settings for these endpoints (`etcd.endpoints`), without a user and with the default prefix.
    ///
    /// An endpoint is an `http://` URL, or an `https://` URL where there is TLS. The error names the key that is wrong or missing.
    pub fn new(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        tls: Option<EtcdTls>,
    ) -> Result<Self, ConfigError> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        let refuse = |problem: String| Err(ConfigError::new("etcd.endpoints", problem));
        if endpoints.is_empty() {
            return refuse("no endpoint".to_owned());
        }
        for endpoint in &endpoints {
            let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if host.is_none_or(|host| host.is_empty() || host.starts_with(':')) {
                return refuse(format!("{endpoint:?} is not a URL such as https://192.0.2.1:2379"));
            }
            match (endpoint.starts_with("https://"), &tls) {
                (true, None) => return refuse(format!("{endpoint} needs etcd.ca")),
                (false, Some(_)) => return refuse(format!("{endpoint} is not https://, but etcd.ca is set")),
                _ => {}
            }
        }
        Ok(Self { endpoints, tls, user: None, prefix: KeyPrefix::default() })
    }

    /// The members' URLs, as they are written.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The files of TLS, where it is used.
    pub const fn tls(&self) -> Option<&EtcdTls> {
        self.tls.as_ref()
    }

    /// The files of TLS, which a caller may redirect to where they lie for it.
    pub const fn tls_mut(&mut self) -> Option<&mut EtcdTls> {
        self.tls.as_mut()
    }
}

impl Password {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, for etcd alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for KeyPrefix {
    fn default() -> Self {
        Self("/manx/v1/".to_owned())
    }
}

impl FromStr for KeyPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') || !text.ends_with('/') {
            return Err("must begin and end with '/'".to_owned());
        }
        let parts = text.trim_matches('/');
        if parts.is_empty() || parts.contains("//") || !parts.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{text:?} is not a prefix such as /manx/v1/"));
        }
        Ok(Self(format!("/{parts}/")))
    }
}

#[cfg(test)]
mod tests;
