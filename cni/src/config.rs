//! The network configuration on stdin (CNI spec section 1, and section 4 for what the runtime derives).
//!
//! Keys are matched exactly, except below `args`, `runtimeConfig` and `prevResult`'s values, where containerd writes Go's
//! capitalised names. Unknown keys are tolerated, but for those that are known to ask for something (`wishes`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use types::policy::Protocol;
use types::{ContainerId, EndpointPort, InterfaceName, NetworkName};

use crate::args::Attachment;
use crate::lease::{self, LeaseConfig};
use crate::spec::{CniError, CniVersion, Code};
use crate::wishes::{self, Wish, lookup};

/// Where the agent's files are unless the configuration says otherwise.
pub const RUN_DIR: &str = "/run/manx";

/// A checked network configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// The version in which the result is written.
    pub version: CniVersion,
    /// The network.
    pub name: NetworkName,
    /// The agent's run folder.
    pub run_dir: PathBuf,
    /// The agent's CNI socket.
    pub agent_socket: PathBuf,
    /// The value of `args.cni.labels`.
    pub labels: BTreeMap<String, String>,
    /// The value of `args.cni["manx.io/ports"]`.
    pub ports: Vec<EndpointPort>,
    /// The result of the plugins before this one, with all its keys.
    pub previous: Option<Map<String, Value>>,
    /// The MTU that the pod is to have, in octets; none leaves it to the agent.
    pub mtu: Option<u32>,
    /// The value of `dns`, if it says anything.
    pub dns: Option<Value>,
    /// Another plugin wires, and runs this one for addresses alone.
    pub lease: Option<LeaseConfig>,
    /// The value of `cni.dev/valid-attachments`: what GC is to leave.
    valid_attachments: Option<Value>,
    /// What is asked for in vain.
    wishes: Vec<Wish>,
}

impl NetworkConfig {
    /// Parses and checks. An error comes with the version to write it in: the configuration's where that is known.
    pub fn parse(input: &[u8]) -> Result<Self, (CniVersion, CniError)> {
        let object = object(input)?;
        let version = version(&object).map_err(|error| (CniVersion::LATEST, error))?;
        Self::checked(version, &object).map_err(|error| (version, error))
    }

    fn checked(version: CniVersion, object: &Map<String, Value>) -> Result<Self, CniError> {
        let name = required(object, "name")?;
        let name = NetworkName::new(name).map_err(|error| invalid(format!("name: {error}")))?;
        if required(object, "type")?.is_empty() {
            return Err(invalid("type is empty"));
        }
        let ipam = lease::section(object);
        let own = ipam.unwrap_or(object);
        let run_dir = path(own, "runDir")?.unwrap_or_else(|| PathBuf::from(RUN_DIR));
        let agent_socket = path(own, "agentSocket")?.unwrap_or_else(|| run_dir.join(types::cni::SOCKET));
        let args = section(object, "args", "args")?.map(|args| section(args, "cni", "args.cni")).transpose()?.flatten();
        let runtime = section(object, "runtimeConfig", "runtimeConfig")?;
        let previous = section(object, "prevResult", "prevResult")?.cloned();
        let mut wishes = match ipam {
            Some(ipam) => wishes::of_main_plugin(ipam, runtime),
            None => wishes::of(object, runtime),
        };
        let asked: &[_] = match ipam {
            Some(_) => &[("args.cni.ips", "ips")],
            None => &[("args.cni.ips", "ips"), ("args.cni.mac", "mac")],
        };
        for (place, key) in asked.iter().copied() {
            let value = args.and_then(|args| lookup(args, key));
            wishes.extend(value.and_then(|value| wishes::wish(place.to_owned(), value, wishes::ADDRESSES)));
        }
        let labels = args.and_then(|args| lookup(args, "labels")).map_or_else(|| Ok(BTreeMap::new()), labels)?;
        let ports = args.and_then(|args| lookup(args, "manx.io/ports")).map_or_else(|| Ok(Vec::new()), ports)?;
        fits(&labels, &ports)?;
        let is_own = ipam.is_none();
        let dns = if is_own { section(object, "dns", "dns")? } else { None };
        Ok(Self {
            version,
            name,
            agent_socket,
            run_dir,
            labels,
            ports,
            previous,
            mtu: if is_own { mtu(object)? } else { None },
            dns: dns.filter(|dns| !dns.is_empty()).map(|dns| Value::Object(dns.clone())),
            lease: ipam.map(|ipam| LeaseConfig::of(required(object, "type")?, ipam)).transpose()?,
            valid_attachments: object.get("cni.dev/valid-attachments").filter(|value| !value.is_null()).cloned(),
            wishes,
        })
    }

    /// The same for DEL, which goes by the network's name and the agent's places alone: whatever else was written since the
    /// ADD, a version that is not spoken among it, must not keep a pod from being taken down.
    pub fn parse_for_del(input: &[u8]) -> Result<Self, (CniVersion, CniError)> {
        let object = object(input)?;
        let version = version(&object).unwrap_or(CniVersion::LATEST);
        let kept = ["name", "type", "runDir", "agentSocket"];
        let keep = |(key, _): &(&String, &Value)| kept.contains(&key.as_str());
        let clone = |(key, value): (&String, &Value)| (key.clone(), value.clone());
        let ipam = lease::section(&object).map(|ipam| ipam.iter().filter(keep).map(clone).collect());
        let mut object: Map<String, Value> = object.iter().filter(keep).map(clone).collect();
        if let Some(ipam) = ipam {
            object.insert("ipam".to_owned(), Value::Object(ipam));
        }
        Self::checked(version, &object).map_err(|error| (version, error))
    }

    /// The attachments of this network that GC is to leave (CNI spec section 2, GC). A list that is absent is an error, never
    /// an empty one: all pods of the node would go.
    pub fn valid_attachments(&self) -> Result<BTreeSet<(ContainerId, InterfaceName)>, CniError> {
        const KEY: &str = "cni.dev/valid-attachments";
        let value = self.valid_attachments.as_ref();
        let value = value.ok_or_else(|| invalid(format!("{KEY} is missing: without it nothing is collected")))?;
        let items = value.as_array().ok_or_else(|| invalid(format!("{KEY}: {value} is not a list")))?;
        let attachment = |item: &Value| {
            let field = |key| {
                let text = item.as_object().and_then(|item| lookup(item, key)).and_then(Value::as_str);
                text.ok_or_else(|| invalid(format!("{KEY}: {item} has no {key}")))
            };
            let container = ContainerId::new(field("containerID")?);
            let interface = InterfaceName::new(field("ifname")?);
            Ok((
                container.map_err(|error| invalid(format!("{KEY}: containerID: {error}")))?,
                interface.map_err(|error| invalid(format!("{KEY}: ifname: {error}")))?,
            ))
        };
        items.iter().map(attachment).collect()
    }

    /// Refuses the first wish that is not granted (code 2).
    pub fn refuse_wishes(&self, attachment: &Attachment) -> Result<(), CniError> {
        let argument = |place, key: &str| {
            let value = attachment.args.get(key).filter(|value| !value.is_empty());
            value.map(|value| Wish::argument(place, value.clone()))
        };
        let mac = argument("CNI_ARGS MAC", "MAC").filter(|_| self.lease.is_none());
        let arguments = [argument("CNI_ARGS IP", "IP"), mac];
        let first = self.wishes.iter().cloned().chain(arguments.into_iter().flatten()).next();
        first.map_or(Ok(()), |wish| Err(wish.into_cni()))
    }

    /// Where it is said which host ports are mapped.
    pub fn mapped(&self) -> PathBuf {
        self.run_dir.join(types::cni::MAPPED)
    }

    /// Where a DEL without an agent leaves its tombstone.
    pub fn tombstones(&self) -> PathBuf {
        self.run_dir.join(types::cni::RELEASED)
    }
}

/// What describes a pod is kept, and told to the other nodes, for as long as the pod is there: a megabyte of it would be no
/// description.
fn fits(labels: &BTreeMap<String, String>, ports: &[EndpointPort]) -> Result<(), CniError> {
    const MOST: usize = 64 << 10;
    let labels: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let ports: usize = ports.iter().map(|port| port.name.len() + size_of::<EndpointPort>()).sum();
    for (key, size) in [("args.cni.labels", labels), ("args.cni[\"manx.io/ports\"]", ports)] {
        if size > MOST {
            return Err(invalid(format!("{key}: {size} octets are more than the {MOST} that describe a pod")));
        }
    }
    Ok(())
}

/// The runtime's `cniVersion`, if the input is an object that has one. VERSION asks for no more.
pub fn requested_version(input: &[u8]) -> Option<String> {
    let object: Map<String, Value> = serde_json::from_slice(input).ok()?;
    object.get("cniVersion")?.as_str().map(str::to_owned)
}

fn object(input: &[u8]) -> Result<Map<String, Value>, (CniVersion, CniError)> {
    let msg = match serde_json::from_slice(input) {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(_) => "the network configuration is not a JSON object".to_owned(),
        Err(error) => format!("the network configuration is not JSON: {error}"),
    };
    Err((CniVersion::LATEST, CniError::new(Code::Decode, msg)))
}

/// The key `mtu`; 0 leaves it to the agent, as nothing does.
fn mtu(object: &Map<String, Value>) -> Result<Option<u32>, CniError> {
    // The least that IPv4 works with (RFC 791), and the most that a pair of links takes.
    const SIZES: std::ops::RangeInclusive<u64> = 68..=65_535;
    match object.get("mtu") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(0) => Ok(None),
            Some(size) if SIZES.contains(&size) => Ok(u32::try_from(size).ok()),
            _ => Err(invalid(format!("mtu: {value} is not a number of octets between 68 and 65535"))),
        },
    }
}

/// CNI spec section 4: an absent version is 0.1.0.
fn version(object: &Map<String, Value>) -> Result<CniVersion, CniError> {
    let text = match object.get("cniVersion") {
        None => "0.1.0",
        Some(Value::String(text)) if text.is_empty() => "0.1.0",
        Some(Value::String(text)) => text,
        Some(other) => return Err(CniError::new(Code::Decode, format!("cniVersion: {other} is not a string"))),
    };
    CniVersion::parse(text).ok_or_else(|| {
        let supported = CniVersion::ALL.map(CniVersion::as_str).join(", ");
        CniError::new(Code::IncompatibleVersion, format!("incompatible CNI versions: config is {text:?}"))
            .with_details(format!("plugin supports {supported}"))
    })
}

pub(crate) fn required<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, CniError> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(invalid(format!("{key}: {other} is not a string"))),
        None => Err(invalid(format!("{key} is missing"))),
    }
}

fn path(object: &Map<String, Value>, key: &str) -> Result<Option<PathBuf>, CniError> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if Path::new(text).is_absolute() => Ok(Some(text.into())),
        Some(other) => Err(invalid(format!("{key}: {other} is not an absolute path"))),
    }
}

/// An object inside the configuration; `null` counts as absent.
fn section<'a>(
    object: &'a Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<Option<&'a Map<String, Value>>, CniError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(section)) => Ok(Some(section)),
        Some(other) => Err(invalid(format!("{place}: {other} is not an object"))),
    }
}

/// Labels as an object, or as the list of `{"key", "value"}` of CNI's conventions.
fn labels(value: &Value) -> Result<BTreeMap<String, String>, CniError> {
    let text = |value: &Value, key: &str| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(invalid(format!("args.cni.labels: {key}: {other} is not a string"))),
    };
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(labels) => labels.iter().map(|(key, value)| Ok((key.clone(), text(value, key)?))).collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                let field = |name| item.as_object().and_then(|item| lookup(item, name));
                match (field("key").and_then(Value::as_str), field("value")) {
                    (Some(key), Some(value)) => Ok((key.to_owned(), text(value, key)?)),
                    _ => Err(invalid(format!("args.cni.labels: {item} has no key and value"))),
                }
            })
            .collect(),
        other => Err(invalid(format!("args.cni.labels: {other} is neither an object nor a list"))),
    }
}

fn ports(value: &Value) -> Result<Vec<EndpointPort>, CniError> {
    const PLACE: &str = "args.cni[\"manx.io/ports\"]";
    let items = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) => items,
        other => return Err(invalid(format!("{PLACE}: {other} is not a list"))),
    };
    let port = |item: &Value| {
        let field = |name| item.as_object().and_then(|item| lookup(item, name));
        let wrong = |name: &str, what: &str| invalid(format!("{PLACE}: {name} of {item} is not {what}"));
        let name = field("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let protocol = match field("protocol") {
            None => Some(Protocol::Tcp),
            Some(protocol) => protocol.as_str().and_then(|text| text.parse().ok()),
        };
        let port = field("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        Ok(EndpointPort {
            name: name.ok_or_else(|| wrong("name", "a name"))?.to_owned(),
            protocol: protocol.ok_or_else(|| wrong("protocol", "TCP, UDP or SCTP"))?,
            port: port.filter(|port| *port != 0).ok_or_else(|| wrong("port", "a port number"))?,
        })
    };
    items.iter().map(port).collect()
}

pub(crate) fn invalid(msg: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidConfig, msg)
}

#[cfg(test)]
mod tests;
