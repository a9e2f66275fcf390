//! The watches against a real kube-apiserver and a real etcd.

#![cfg(test)]

mod access;
mod breaking;
mod cluster;
mod events;
mod following;
mod objects;
mod picture;
mod relisting;
mod secrets;
mod server;
mod services;
mod wire;
