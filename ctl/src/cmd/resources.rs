//! `manxctl get`, `apply` and `delete`.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use types::resource::{Kind, PeerTarget, Resource, Spec};

use crate::cli::{Apply, Delete, Get, Output, Place};
use crate::datastore::Datastore;
use crate::render;

pub(crate) async fn get(place: &Place, args: Get) -> anyhow::Result<()> {
    let kind: Kind = args.kind.parse()?;
    let datastore = Datastore::open(place).await?;
    if let Some(name) = &args.name {
        let Some(resource) = datastore.get(kind, name).await? else { bail!("{kind} {name} does not exist") };
        return render::print(args.output.output, &resource, |resource| table(kind, std::slice::from_ref(resource)));
    }
    let resources = datastore.list(kind).await?;
    match args.output.output {
        Output::Table if resources.is_empty() => render::say(&format!("No {kind} found.")),
        output => render::print(output, &resources, |resources| table(kind, resources)),
    }
}

pub(crate) async fn apply(place: &Place, args: Apply) -> anyhow::Result<()> {
    // Every document is checked before the first is written: a file is applied whole or not at all.
    let resources = read(&args.filename)?;
    let datastore = Datastore::open(place).await?;
    for resource in &resources {
        let (kind, name) = (resource.kind(), &resource.metadata.name);
        let verb = match datastore.get(kind, name).await? {
            Some(present) if present == *resource => "unchanged",
            Some(_) => "configured",
            None => "created",
        };
        if verb != "unchanged" {
            datastore.put(resource).await?;
        }
        render::say(&format!("{kind} {name} {verb}"))?;
    }
    Ok(())
}

pub(crate) async fn delete(place: &Place, args: Delete) -> anyhow::Result<()> {
    let named: Vec<_> = match (&args.filename, &args.kind) {
        (Some(path), _) => read(path)?.into_iter().map(|r| (r.kind(), r.metadata.name)).collect(),
        (None, Some(kind)) => {
            let kind: Kind = kind.parse()?;
            args.names.into_iter().map(|name| (kind, name)).collect()
        }
        (None, None) => bail!("say what to delete: KIND NAME, or -f FILE"),
    };
    let datastore = Datastore::open(place).await?;
    let mut missing = Vec::new();
    for (kind, name) in named {
        if datastore.delete(kind, &name).await? {
            render::say(&format!("{kind} {name} deleted"))?;
        } else {
            missing.push(format!("{kind} {name}"));
        }
    }
    if missing.is_empty() { Ok(()) } else { bail!("{} does not exist", missing.join(", ")) }
}

/// The resources of a file with one or more documents. All faults of all documents are told at once.
fn read(path: &Path) -> anyhow::Result<Vec<Resource>> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| shown.to_string())?
    };
    parse(&text).with_context(|| shown.to_string())
}

fn parse(text: &str) -> anyhow::Result<Vec<Resource>> {
    // As kubectl has it: a node may be named `n`, which older YAML takes for false.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
    let (mut resources, mut faults) = (Vec::new(), Vec::new());
    let documents = documents.into_iter().filter(|document| !document.is_null()).flat_map(|document| match document {
        Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        Value::Array(items) => items,
        document => vec![document],
    });
    for document in documents {
        match Resource::from_value(document) {
            Ok(resource) => resources.push(resource),
            Err(error) => faults.push(error.to_string()),
        }
    }
    match (faults.is_empty(), resources.is_empty()) {
        (false, _) => bail!("{}", faults.join("\n")),
        (true, true) => bail!("holds no resource"),
        (true, false) => Ok(resources),
    }
}

fn table(kind: Kind, resources: &[Resource]) -> String {
    let header: &[&str] = match kind {
        Kind::IpPool => &["NAME", "CIDR", "BLOCK SIZE", "DISABLED", "BGP EXPORT", "SELECTOR"],
        Kind::Node => &["NAME", "AS", "IPV4", "IPV6", "REFLECTS FOR"],
        Kind::BgpConfiguration => &["NAME", "AS", "MESH", "PORT", "RESTART TIME"],
        Kind::BgpPeer => &["NAME", "PEER", "AS", "NODES", "RESTART TIME"],
    };
    render::table(header, resources.iter().map(row))
}

fn row(resource: &Resource) -> Vec<String> {
    let mut cells = vec![resource.metadata.name.to_string()];
    match &resource.spec {
        Spec::IpPool(pool) => cells.extend([
            pool.cidr.to_string(),
            pool.block_len().map_or_else(|error| error.to_string(), |size| size.len().to_string()),
            pool.disabled.to_string(),
            (!pool.disable_bgp_export).to_string(),
            pool.node_selector.as_ref().map_or_else(|| "all()".to_owned(), ToString::to_string),
        ]),
        Spec::Node(node) => {
            let bgp = node.bgp.as_ref();
            cells.extend([
                text(bgp.and_then(|bgp| bgp.as_number)),
                text(bgp.and_then(|bgp| bgp.ipv4_address.clone())),
                text(bgp.and_then(|bgp| bgp.ipv6_address.clone())),
                text(bgp.and_then(|bgp| bgp.route_reflector_cluster_id)),
            ]);
        }
        Spec::BgpConfiguration(bgp) => cells.extend([
            text(bgp.as_number),
            bgp.node_to_node_mesh_enabled.unwrap_or(true).to_string(),
            text(bgp.listen_port),
            text(bgp.node_mesh_max_restart_time.clone()),
        ]),
        Spec::BgpPeer(peer) => {
            let (target, asn) = match peer.target() {
                Some(PeerTarget::Router(address, asn)) => (address.to_string(), asn.to_string()),
                Some(PeerTarget::Nodes(selector)) => (format!("nodes {selector}"), "-".to_owned()),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let nodes = match (&peer.node, &peer.node_selector) {
                (Some(node), _) => node.to_string(),
                (None, Some(selector)) => selector.to_string(),
                (None, None) => "all()".to_owned(),
            };
            cells.extend([target, asn, nodes, text(peer.max_restart_time.clone())]);
        }
    }
    cells
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str =
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.0.0.0/16}\n";

    #[test]
    fn a_file_may_hold_several_documents_and_lists() {
        let pools = parse(&format!("---\n{POOL}---\n{POOL}---\n")).unwrap();
        assert_eq!(pools.len(), 2);
        let list = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n}}\n";
        assert_eq!(parse(list).unwrap().len(), 1);
    }

    #[test]
    fn all_faults_of_a_file_are_told_at_once_and_nothing_is_applied() {
        let bad = POOL.replace("cidr", "cdir");
        let error =
            parse(&format!("{POOL}---\n{bad}---\n{}", POOL.replace("IPPool", "FelixConfiguration"))).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("spec.cdir") && error.contains("FelixConfiguration"), "{error}");
        assert!(parse("---\n").unwrap_err().to_string().contains("no resource"));
    }
}
