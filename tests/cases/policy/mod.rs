//! NetworkPolicy as the kernel enforces it, between real pods.

mod connections;
mod foreign;
mod guarded;
mod kubernetes;
mod no_window;
mod probers;
mod proxied;
mod repair;
mod services;
mod shown;
mod table;
mod world;
