//! NetworkPolicy as the kernel enforces it, between real pods.

mod connections;
mod foreign;
mod guarded;
mod no_window;
mod probers;
mod repair;
mod table;
mod world;
