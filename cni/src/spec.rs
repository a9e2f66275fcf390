//! What the CNI specification fixes: versions, error codes and the error object.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::json;

/// A version of the CNI specification that this plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CniVersion {
    /// 0.3.0: the same as 0.3.1, which corrects its text.
    V0_3_0,
    /// 0.3.1: interfaces, addresses with a family, routes.
    V0_3_1,
    /// Version 0.4.0, with CHECK and with prevResult in DEL.
    V0_4_0,
    /// Version 1.0.0, whose addresses have no family.
    V1_0_0,
    /// Version 1.1.0, with GC and STATUS, and with MTUs in the result.
    V1_1_0,
}

impl CniVersion {
    /// Every version, the oldest first.
    pub const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What is spoken where the runtime names no version.
    pub const LATEST: Self = Self::V1_1_0;

    /// The supported version of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The version as it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for CniVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The answer to VERSION (CNI spec section 2, VERSION): `requested` is the runtime's own `cniVersion`, repeated. With what the agent
/// and the installer want to know of the binary.
pub fn version_report(requested: Option<&str>) -> String {
    json!({
        "cniVersion": requested.unwrap_or(CniVersion::LATEST.as_str()),
        "supportedVersions": CniVersion::ALL,
        types::cni::VERSION_KEY: env!("CARGO_PKG_VERSION"),
        types::cni::PROTOCOL_KEY: types::cni::PROTOCOL,
    })
    .to_string()
}

/// An error in the terms of the CNI spec (section 5, Error).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    /// The code of the error.
    pub code: Code,
    /// What went wrong, naming the culprit.
    pub msg: String,
    /// The details for a person; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The object that goes to stdout.
    pub fn to_json(&self, version: CniVersion) -> String {
        let mut object = json!({ "cniVersion": version, "code": self.code.number(), "msg": self.msg });
        if let (false, Some(object)) = (self.details.is_empty(), object.as_object_mut()) {
            object.insert("details".to_owned(), self.details.as_str().into());
        }
        object.to_string()
    }
}

/// The error codes of the CNI spec (section 5, Error), of its reference implementation (8), and our own from 100 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1: the configuration's version is not supported, or too old for the command.
    IncompatibleVersion,
    /// 2: a field of the configuration asks for what the plugin cannot do.
    UnsupportedField,
    /// 4: an environment variable is missing or invalid.
    InvalidEnvironment,
    /// Code 5: stdin could not be read.
    Io,
    /// Code 6: stdin is not the JSON that was expected.
    Decode,
    /// Code 7: the network configuration is invalid.
    InvalidConfig,
    /// 8: CNI_NETNS is no namespace, or the plugin's own.
    InvalidNetns,
    /// Code 11: the failure is transient, and the runtime may try again later.
    TryAgain,
    /// Code 50: ADD cannot be served now.
    Unavailable,
    /// 101: the agent does not keep to the conversation.
    Protocol,
    /// 102: the kernel refused a step of the wiring.
    Kernel,
    /// 104: an attachment is not as ADD left it (CHECK).
    Deviates,
    /// What a plugin that this one ran answered, by its own number.
    Delegate(u32),
    /// What the agent answered, by its own number.
    Agent(u32),
}

impl Code {
    /// The number that goes out.
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgain => types::cni::code::TRY_AGAIN,
            Self::Unavailable => types::cni::code::UNAVAILABLE,
            Self::Protocol => types::cni::code::PROTOCOL,
            Self::Kernel => 102,
            Self::Deviates => 104,
            Self::Delegate(number) | Self::Agent(number) => number,
        }
    }
}

#[cfg(test)]
mod tests;
