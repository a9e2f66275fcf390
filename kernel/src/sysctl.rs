//! Network sysctls: how they are named, read and written.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read, Write};

use types::InterfaceName;

use crate::KernelError;

/// A sysctl below `net`, as a path: interface names may contain dots, so the dotted form is ambiguous.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlKey(String);

impl SysctlKey {
    /// The sysctl `net/ipv4/conf/INTERFACE/KEY`.
    pub fn ipv4_conf(interface: &InterfaceName, key: &'static str) -> Self {
        Self(format!("net/ipv4/conf/{interface}/{key}"))
    }

    /// The sysctl `net/ipv6/conf/INTERFACE/KEY`.
    pub fn ipv6_conf(interface: &InterfaceName, key: &'static str) -> Self {
        Self(format!("net/ipv6/conf/{interface}/{key}"))
    }

    /// The sysctl `net/ipv4/neigh/INTERFACE/KEY`.
    pub fn ipv4_neigh(interface: &InterfaceName, key: &'static str) -> Self {
        Self(format!("net/ipv4/neigh/{interface}/{key}"))
    }

    /// The sysctl `net/ipv6/neigh/INTERFACE/KEY`.
    pub fn ipv6_neigh(interface: &InterfaceName, key: &'static str) -> Self {
        Self(format!("net/ipv6/neigh/{interface}/{key}"))
    }

    /// A sysctl below `net` without an interface: `ipv4/ip_forward`, `ipv6/conf/all/forwarding`.
    pub fn global(key: &'static str) -> Self {
        Self(format!("net/{key}"))
    }

    /// The path below `/proc/sys`.
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a sysctl of the calling thread's namespace.
pub(crate) fn read(key: &SysctlKey) -> Result<String, KernelError> {
    let mut text = String::new();
    OpenOptions::new()
        .read(true)
        .open(file(key))
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|error| KernelError::io(format!("cannot read sysctl {key}"), &error))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Writes a sysctl of the calling thread's namespace with one write, as the kernel takes a value only whole.
pub(crate) fn write(key: &SysctlKey, value: &str) -> Result<(), KernelError> {
    OpenOptions::new()
        .write(true)
        .open(file(key))
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| KernelError::io(format!("cannot set sysctl {key} to {value}"), &error))
}

/// The file of a sysctl. `/proc/sys/net` shows the namespace of the thread that opens it.
fn file(key: &SysctlKey) -> String {
    format!("/proc/sys/{key}")
}

#[cfg(test)]
mod tests;
