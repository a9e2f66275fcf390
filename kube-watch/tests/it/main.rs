//! The watches against a real kube-apiserver and a real etcd.

#[cfg(test)]
mod access;
#[cfg(test)]
mod breaking;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod following;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod picture;
#[cfg(test)]
mod relisting;
#[cfg(test)]
mod server;
#[cfg(test)]
mod services;
#[cfg(test)]
mod wire;
