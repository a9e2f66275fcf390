//! Tests that need a kernel, a peer or the whole workspace. Each area has its own file.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod clean;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod fabric;
#[cfg(test)]
mod fencing;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod house;
#[cfg(test)]
mod lab_itself;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod network;
#[cfg(test)]
mod newer;
#[cfg(test)]
mod node_life;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod reclaim;
#[cfg(test)]
mod services_bgp;
#[cfg(test)]
mod tls;

#[cfg(test)]
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::time::Duration;

/// What tests answer: any error fails them with its text.
#[cfg(test)]
pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// How long routes, sessions and agents may take on a busy machine before a test calls them stuck.
#[cfg(test)]
pub(crate) const CONVERGENCE: Duration = Duration::from_secs(45);

/// A topology of the project.
#[cfg(test)]
pub(crate) fn topology(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(file)
}
