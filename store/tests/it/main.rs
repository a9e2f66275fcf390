//! The stores behave alike, and the journal and the cache keep what they promise: against real files and a real etcd.

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod etcd_security;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod local;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod server;
#[cfg(test)]
mod watching;
