//! What is ours in the runtime's CNI configurations, and what they need to plug pods into our network (pure). The files are in
//! `cni_configuration`.
//!
//! Of our own file the agent takes over its own object, and the file as a whole only where there is none: other plugins chain
//! themselves into it (istio-cni, linkerd-cni), and operators give our object keys. What would keep pods from starting is put right.

use std::path::Path;

use ::cni::spec::CniVersion;
use serde_json::{Map, Value, json};

use types::NetworkName;
use types::cni::{CONFLIST, PLUGIN};

/// The name of our network, and what is spoken, where the file does not say.
const NETWORK: &str = "manx";
const VERSION: CniVersion = CniVersion::V1_0_0;

/// The folder that the plugin takes for the agent's run folder unless its object says another.
const RUN_DIR: &str = ::cni::config::RUN_DIR;

/// What is to become of our configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It plugs pods in, and stays as it is.
    Stays,
    /// It is to have this text; with what was wrong.
    Corrected(String, Vec<String>),
    /// It makes no sense, for this reason: it is to be replaced.
    Damaged(String),
}

/// Judges the text of our file, for an agent with this run folder.
pub(super) fn judge(text: &str, run_dir: &Path) -> Verdict {
    let mut list = match read(text) {
        Ok(list) => list,
        Err(why) => return Verdict::Damaged(why),
    };
    let mut corrections = Vec::new();
    let version = list.get("cniVersion").and_then(Value::as_str).and_then(CniVersion::parse);
    if version.is_none() {
        let said = list.insert("cniVersion".to_owned(), json!(VERSION)).unwrap_or(Value::Null);
        corrections.push(format!("cniVersion was {said}, which manx does not speak, and is {VERSION} now"));
    }
    let name = list.get("name").and_then(Value::as_str).map(str::parse::<NetworkName>);
    if !matches!(name, Some(Ok(_))) {
        let said = list.insert("name".to_owned(), json!(NETWORK)).unwrap_or(Value::Null);
        corrections.push(format!("name was {said}, which is no network's, and is {NETWORK} now"));
    }
    if let Some(Value::Array(plugins)) = list.get_mut("plugins") {
        let mut ours = plugins.iter().enumerate().filter(|(_, plugin)| is_ours(plugin)).map(|(at, _)| at);
        match (ours.next(), ours.next()) {
            (None, _) => {
                plugins.insert(0, object(run_dir));
                corrections.push(format!("it had no plugin {PLUGIN}, which is the first now"));
            }
            (Some(first), Some(_)) => {
                let mut at = 0..;
                plugins.retain(|plugin| at.next() == Some(first) || !is_ours(plugin));
                corrections.push(format!("it had the plugin {PLUGIN} more than once, which would refuse every pod"));
            }
            (Some(_), None) => {}
        }
    }
    if corrections.is_empty() { Verdict::Stays } else { Verdict::Corrected(written(&Value::Object(list)), corrections) }
}

/// The file where there is none.
pub(super) fn fresh(run_dir: &Path) -> String {
    written(&json!({
        "cniVersion": VERSION,
        "name": NETWORK,
        "plugins": [object(run_dir), { "type": "portmap", "capabilities": { "portMappings": true } }],
    }))
}

/// Where another configuration than ours leads pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    /// To our network: it names our plugin or our file, as one of Multus does.
    ToUs,
    /// To another network, whose name it may say.
    Elsewhere(Option<String>),
    /// Wherever the next one does: Multus takes that for its first network if it is told no other.
    WithTheNext,
    /// Nowhere: no runtime can read it, for this reason.
    Nowhere(String),
}

/// Reads where another configuration leads.
pub(super) fn leads(text: &str) -> Leads {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return Leads::Nowhere(error.to_string()),
    };
    let single = std::slice::from_ref(&value);
    let plugins = value.get("plugins").and_then(Value::as_array).map_or(single, Vec::as_slice);
    let mut types = plugins.iter().filter_map(|plugin| plugin.get("type")?.as_str());
    let Some(first) = types.next() else { return Leads::Nowhere("it names no plugin".to_owned()) };
    let is_told =
        || plugins.iter().any(|plugin| ["clusterNetwork", "delegates"].iter().any(|key| plugin.get(key).is_some()));
    if names_us(&value) {
        Leads::ToUs
    } else if first.starts_with("multus") && !is_told() {
        Leads::WithTheNext
    } else {
        Leads::Elsewhere(value.get("name").and_then(Value::as_str).map(str::to_owned))
    }
}

/// The object of a configuration list, all of whose plugins have a type, as runtimes want it.
fn read(text: &str) -> Result<Map<String, Value>, String> {
    let list = match serde_json::from_str(text) {
        Ok(Value::Object(list)) => list,
        Ok(_) => return Err("it is no JSON object".to_owned()),
        Err(error) => return Err(format!("it is no JSON: {error}")),
    };
    let plugins = list.get("plugins").and_then(Value::as_array).ok_or("it has no list of plugins")?;
    let is_plugin = |plugin: &&Value| plugin.get("type").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    match plugins.iter().find(|plugin| !is_plugin(plugin)) {
        Some(other) => Err(format!("{other} among its plugins has no type")),
        None => Ok(list),
    }
}

fn object(run_dir: &Path) -> Value {
    if run_dir == Path::new(RUN_DIR) { json!({ "type": PLUGIN }) } else { json!({ "type": PLUGIN, "runDir": run_dir }) }
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

/// Whether our plugin, our file, or our network as the first one of Multus, is named anywhere in it.
fn names_us(value: &Value) -> bool {
    match value {
        Value::String(text) => text.rsplit('/').next() == Some(CONFLIST),
        Value::Array(items) => items.iter().any(names_us),
        Value::Object(fields) => {
            is_ours(value)
                || fields.get("clusterNetwork").and_then(Value::as_str) == Some(NETWORK)
                || fields.values().any(names_us)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn written(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests;
