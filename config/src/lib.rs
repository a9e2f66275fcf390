//! The agent's settings, read from `/etc/manx/agent.yaml` and from the environment into one checked value ([`Config`]).
//!
//! Every key of the file is also a variable: `etcd.endpoints` is `MANX_ETCD_ENDPOINTS`, `bgp.listenPort` is
//! `MANX_BGP_LISTEN_PORT`. The variable wins, unless it is empty. A key that does not exist is an error naming it; a variable
//! that does not exist is ignored, as Kubernetes itself sets some (`MANX_ETCD_SERVICE_HOST`).
//!
//! What a setting means, its unit, range and default are said where its type is: [`types::config`]. `docs/configuration.md` lists
//! all keys; a test compares that list with this crate.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use types::config::{Config, ConfigError};

mod keys;
mod layers;
mod shape;
mod values;

pub use keys::{KEYS, variable};

/// Where the file lies unless a flag says otherwise.
pub const FILE: &str = "/etc/manx/agent.yaml";

/// The settings cannot be used. Each message begins with the path of the file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is there, but cannot be read.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The file is not YAML.
    #[error("{}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and where.
        source: Box<serde_saphyr::Error>,
    },
    /// A setting of the file or of the environment cannot be used.
    #[error("{}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key and what is wrong with its value.
        source: ConfigError,
    },
}

/// Reads the file, which need not be there, and this process's environment. `host_name` names the node where neither does.
pub fn read(path: &Path, host_name: &str) -> Result<Config, ReadError> {
    let file = read_yaml(path)?;
    let setting = |source| ReadError::Setting { path: path.to_owned(), source };
    assemble(&file, &std::env::vars().collect(), host_name).map_err(setting)
}

/// The same for who may do without etcd: where only the settings of etcd cannot be used, the rest is given, without etcd, with
/// what is wrong. The agent's own environment may have what is missing here.
pub fn read_without_etcd(path: &Path, host_name: &str) -> Result<(Config, Option<ReadError>), ReadError> {
    let file = read_yaml(path)?;
    let setting = |source| ReadError::Setting { path: path.to_owned(), source };
    let mut environment = std::env::vars().collect();
    match assemble(&file, &environment, host_name) {
        Ok(config) => Ok((config, None)),
        Err(error) if is_of_etcd(&error.key) => {
            let file = without_etcd(file, &mut environment);
            let config = assemble(&file, &environment, host_name).map_err(setting)?;
            Ok((config, Some(setting(error))))
        }
        Err(error) => Err(setting(error)),
    }
}

/// The name of the host that this process runs on.
pub fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

/// Checks and types what the file (null where there is none) and the environment say; `host_name` names the node where
/// neither does.
pub fn assemble(file: &Value, environment: &BTreeMap<String, String>, host_name: &str) -> Result<Config, ConfigError> {
    let layers = layers::merged(file, environment)?;
    let is_set = |key: &str| layers.contains(key);
    layers.extract::<shape::Shape>().map_err(layers::error)?.checked(is_set, host_name)
}

fn is_of_etcd(key: &str) -> bool {
    key == "etcd" || key.starts_with("etcd.")
}

/// What the file says of everything else; the variables of etcd go from the environment.
fn without_etcd(mut file: Value, environment: &mut BTreeMap<String, String>) -> Value {
    if let Some(keys) = file.as_object_mut() {
        keys.retain(|key, _| !is_of_etcd(key));
    }
    for key in KEYS.iter().filter(|key| is_of_etcd(key)) {
        environment.remove(&variable(key));
    }
    file
}

/// The file as a value; null where there is none.
fn read_yaml(path: &Path) -> Result<Value, ReadError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(source) => return Err(ReadError::File { path: path.to_owned(), source }),
    };
    // `yes` and `on` are texts, as in YAML 1.2.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| ReadError::Yaml { path: path.to_owned(), source: Box::new(error) })
}

#[cfg(test)]
mod tests;
