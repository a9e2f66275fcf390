//! Tests on a real Kubernetes cluster. They are a program of their own so that nothing else runs while they do, and they
//! share one cluster where they can (`shared`).

#[cfg(test)]
mod cluster_itself;
#[cfg(test)]
mod components;
#[cfg(test)]
mod downgrade;
#[cfg(test)]
mod life;
#[cfg(test)]
mod manx;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod services;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod uninstall;
#[cfg(test)]
mod upgrade;

/// What tests answer: any error fails them with its text.
#[cfg(test)]
pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// How long pods, roll-outs and the like may take on a busy machine before a test calls them stuck.
#[cfg(test)]
pub(crate) const SOON: std::time::Duration = std::time::Duration::from_secs(90);
