//! The CNI configuration file, by which the runtime learns that this node's pods get their network from Manx.

use std::io;
use std::path::{Path, PathBuf};

use types::cni::CONFLIST;

/// Puts the CNI configuration into the folder, unless it is there: the runtime sees it whole or not at all. It stays when
/// the agent ends: an upgrade looks like the end from inside.
pub(crate) fn put_conflist(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(CONFLIST);
    let text = conflist();
    if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(path);
    }
    std::fs::create_dir_all(folder)?;
    // The runtime reads `.conflist`, `.conf` and `.json`.
    let aside = folder.join(format!(".{CONFLIST}.new"));
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, &path)?;
    Ok(path)
}

/// Another network's configuration that the runtime takes before ours: it takes the first by name.
pub(crate) fn first_of_others(folder: &Path) -> Option<String> {
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let read = |name: &String| [".conflist", ".conf", ".json"].iter().any(|end| name.ends_with(end));
    names.filter(|name| !name.starts_with('.') && read(name) && name.as_str() < CONFLIST).min()
}

fn conflist() -> String {
    let text = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "manx",
        "plugins": [{ "type": "manx" }, { "type": "portmap", "capabilities": { "portMappings": true } }],
    });
    format!("{text:#}\n")
}

#[cfg(test)]
mod tests;
