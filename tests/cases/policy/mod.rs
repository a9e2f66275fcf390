//! NetworkPolicy as the kernel enforces it, between real pods.

// These files set scenes: pods on two nodes and a host outside; a server with friends and strangers; nodes that follow
// an API server.
pub(crate) mod guarded;
mod watched;
pub(crate) mod world;

// These files are the cases.
mod connections;
mod foreign;
mod kubernetes;
mod no_window;
mod probers;
mod proxied;
mod repair;
mod services;
mod shown;
mod table;
