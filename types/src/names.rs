//! Names, parsed once at the boundary.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::stable_hash;

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is not a {kind}: {rule}", shown(text))]
pub struct NameError {
    /// The kind of name that was expected.
    kind: &'static str,
    /// The text as given.
    text: String,
    /// The rule that the text breaks.
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and wraps a text.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(NameError { kind: $kind, text, rule: $rule }) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// A node's name: a DNS-1123 subdomain, as Kubernetes has it.
    NodeName, "node name", "lower-case letters, digits, '-' and '.', starting and ending with a letter or digit, at most 253",
    dns_subdomain
);
name!(
    /// A resource's name: a DNS-1123 subdomain.
    ResourceName, "resource name",
    "lower-case letters, digits, '-' and '.', starting and ending with a letter or digit, at most 253",
    dns_subdomain
);
name!(
    /// A network interface's name as the kernel takes it: 1 to 15 bytes, no '/', ':' or white space, not "." or "..".
    InterfaceName, "interface name", "1 to 15 bytes without '/', ':' or white space, not '.' or '..'",
    |text| (1..=15).contains(&text.len())
        && text != "." && text != ".."
        && !text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
);
name!(
    /// CNI_CONTAINERID (CNI spec section 2): the sandbox that an interface belongs to.
    ContainerId, "container id", "letters, digits, '_', '.' and '-', starting with a letter or digit, at most 253",
    cni_identifier
);
name!(
    /// The name of a CNI network (CNI spec section 1).
    NetworkName, "network name", "letters, digits, '_', '.' and '-', starting with a letter or digit, at most 253",
    cni_identifier
);

impl InterfaceName {
    /// The prefix of the names of host interfaces that Manx makes.
    pub const HOST_PREFIX: &'static str = "mx";

    /// The host interface of an attachment: a function of sandbox and interface alone, so that whoever knows the two
    /// finds the link without asking. [`stable_hash`] in 13 base-32 digits.
    pub fn of_attachment(container: &ContainerId, interface: &Self) -> Self {
        let hash = stable_hash(container.as_str().bytes().chain([b'/']).chain(interface.as_str().bytes()));
        let digits = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut name = String::from(Self::HOST_PREFIX);
        for place in 0..13 {
            let digit = usize::try_from((hash >> (place * 5)) & 31).unwrap_or(0);
            name.push(char::from(digits.get(digit).copied().unwrap_or(b'a')));
        }
        Self(name)
    }

    /// Whether the name has the form of those that [`InterfaceName::of_attachment`] gives.
    pub fn is_ours(&self) -> bool {
        self.0.len() == 15
            && self
                .0
                .strip_prefix(Self::HOST_PREFIX)
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)))
    }
}

/// Enough of a text to know it by: it may be of any length.
fn shown(text: &str) -> String {
    const SHOWN: usize = 300;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}... ({} octets)", text.get(..end).unwrap_or_default(), text.len()),
    }
}

fn dns_subdomain(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 253
        && text.split('.').all(|label| {
            edge(label.as_bytes().first())
                && edge(label.as_bytes().last())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

fn cni_identifier(text: &str) -> bool {
    text.len() <= 253
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_name_says_what_it_was_to_name_and_the_rule() {
        let error = NodeName::new("Node_1").unwrap_err().to_string();
        assert!(error.starts_with("\"Node_1\" is not a node name: lower-case"), "{error}");
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-bytes-xx"] {
            assert!(InterfaceName::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "-a", "a/b", "_a"] {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "a..b", "-a", "a-", "a."] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_host_interface_is_a_valid_name_and_differs_with_sandbox_and_interface() {
        let id = |text: &str| ContainerId::new(text).unwrap();
        let ifname = |text: &str| InterfaceName::new(text).unwrap();
        let mut seen = std::collections::HashSet::new();
        for sandbox in 0..2_000 {
            for interface in ["eth0", "eth1"] {
                let name = InterfaceName::of_attachment(&id(&format!("c{sandbox}")), &ifname(interface));
                assert!(name.is_ours(), "{name}");
                assert!(InterfaceName::new(name.as_str()).is_ok());
                assert!(seen.insert(name));
            }
        }
        assert!(!ifname("mx0").is_ours());
    }
}
