//! The connection to etcd, as the settings say.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use types::config::{EtcdSettings, EtcdTls};

use crate::StoreError;

/// HTTP/2 pings on a silent connection. etcd ends connections that ping more often than every 5 s
/// (`--grpc-keepalive-min-time`).
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// How to reach etcd.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// The endpoints of etcd, and who we are to it.
    pub settings: EtcdSettings,
    /// A member that has not answered a request for so long is given up for it. By default 2.5 seconds.
    pub timeout: Duration,
}

impl From<EtcdSettings> for EtcdConfig {
    fn from(settings: EtcdSettings) -> Self {
        Self { settings, timeout: Duration::from_millis(2_500) }
    }
}

impl EtcdConfig {
    /// The members' URLs, as they are dialled.
    pub(super) fn urls(&self) -> Vec<String> {
        self.settings.endpoints().iter().map(|endpoint| without_brackets(endpoint)).collect()
    }

    /// The user's name and password, if there is a user.
    pub(super) fn user(&self) -> Option<(String, String)> {
        self.settings.user.as_ref().map(|user| (user.username.clone(), user.password.reveal().to_owned()))
    }

    /// Options of every connection, without the user. Reads the files of TLS; the error names the key and the path of one that
    /// cannot be used.
    pub(super) fn options(&self) -> Result<ConnectOptions, StoreError> {
        let (interval, timeout) = KEEP_ALIVE;
        let options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            .with_keep_alive(interval, timeout)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        Ok(match self.settings.tls() {
            Some(files) => options.with_tls(tls(files)?),
            None => options,
        })
    }

    /// The files behind the TLS settings, for errors; `None` where there is no TLS.
    pub(super) fn tls_files(&self) -> Option<String> {
        let EtcdTls { ca, client } = self.settings.tls()?;
        let client = client.iter().flat_map(|client| [("etcd.cert", &client.cert), ("etcd.key", &client.key)]);
        let files = [("etcd.ca", ca)].into_iter().chain(client);
        Some(files.map(|(key, path)| format!("{key} {}", path.display())).collect::<Vec<_>>().join(", "))
    }
}

fn tls(files: &EtcdTls) -> Result<TlsOptions, StoreError> {
    let authorities = pem("etcd.ca", &files.ca, "CERTIFICATE-----")?;
    let options = TlsOptions::new().ca_certificate(Certificate::from_pem(authorities));
    let Some(client) = &files.client else { return Ok(options) };
    let certificate = pem("etcd.cert", &client.cert, "CERTIFICATE-----")?;
    Ok(options.identity(Identity::from_pem(certificate, pem("etcd.key", &client.key, "PRIVATE KEY-----")?)))
}

/// An address of IPv4 in brackets stands for itself: a manifest that puts a Service's address between them cannot know its
/// family.
fn without_brackets(url: &str) -> String {
    let parts = url.split_once("://[").and_then(|(scheme, rest)| Some((scheme, rest.split_once(']')?)));
    match parts.and_then(|(scheme, (address, rest))| Some((scheme, address.parse::<Ipv4Addr>().ok()?, rest))) {
        Some((scheme, address, rest)) => format!("{scheme}://{address}{rest}"),
        None => url.to_owned(),
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

#[cfg(test)]
mod tests;
