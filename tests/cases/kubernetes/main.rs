//! Tests on a real Kubernetes cluster. They are a program of their own so that nothing else runs while they do, and they
//! share one cluster where they can (`shared`). `tests/cases/main.rs` says where a test goes.

#![cfg(test)]

mod cluster_itself;
mod components;
mod downgrade;
mod host_ports;
mod life;
mod manx;
mod mesh;
mod pods;
mod rights;
mod services;
mod shared;
mod uninstall;
mod upgrade;

/// How long pods, roll-outs and the like may take on a busy machine before a test calls them stuck.
pub(crate) const SOON: std::time::Duration = std::time::Duration::from_secs(90);
