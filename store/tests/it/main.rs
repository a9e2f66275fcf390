//! The stores behave alike, and the journal and the cache keep what they promise: against real files and a real etcd.

#![cfg(test)]

mod behaviour;
mod cache;
mod etcd;
mod etcd_security;
mod journal;
mod local;
mod memory;
mod server;
mod watching;
