//! `manxctl get`, `apply` and `delete`.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use types::ResourceName;
use types::policy::Direction;
use types::resource::{Kind, PeerTarget, Resource, ResourceRef, Spec};

use super::endpoints;
use crate::cli::{Apply, Delete, Get, Output, Place};
use crate::datastore::Datastore;
use crate::render;

pub(crate) async fn get(place: &Place, args: Get) -> anyhow::Result<()> {
    if endpoints::is_kind(&args.kind) {
        return endpoints::get(place, &args).await;
    }
    let kind: Kind = args.kind.parse()?;
    let namespace = args.namespace.namespace;
    if args.all_namespaces && args.name.is_some() {
        bail!("a name is in one namespace: give -n instead of -A");
    }
    let datastore = Datastore::open(place).await?;
    if let Some(name) = args.name {
        let reference = reference(kind, namespace, name.parse()?)?;
        let Some(resource) = datastore.get(&reference).await? else { bail!("{reference} does not exist") };
        let table = |resource: &Resource| table(kind, std::slice::from_ref(resource), false);
        return render::print(args.output.output, &resource, table);
    }
    let namespace = match args.all_namespaces {
        false if kind.is_namespaced() => Some(namespace.map_or_else(default_namespace, Ok)?),
        _ => None,
    };
    let resources = datastore.list(kind, namespace.as_ref()).await?;
    match args.output.output {
        Output::Table | Output::Wide if resources.is_empty() => {
            let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
            render::say(&format!("No {kind} found{place}."))
        }
        output => render::print(output, &resources, |resources| table(kind, resources, args.all_namespaces)),
    }
}

pub(crate) async fn apply(place: &Place, args: Apply) -> anyhow::Result<()> {
    // Every document is checked before the first is written, so that a file with a fault changes nothing.
    let resources = read(&args.filename, args.namespace.namespace.as_ref())?;
    let datastore = Datastore::open(place).await?;
    for resource in &resources {
        let reference = resource.reference();
        let verb = match datastore.get(&reference).await? {
            Some(present) if present == *resource => "unchanged",
            Some(_) => "configured",
            None => "created",
        };
        if verb != "unchanged" {
            datastore.put(resource).await?;
        }
        render::say(&format!("{reference} {verb}"))?;
    }
    Ok(())
}

pub(crate) async fn delete(place: &Place, args: Delete) -> anyhow::Result<()> {
    let namespace = args.namespace.namespace;
    let named: Vec<_> = match (&args.filename, &args.kind) {
        (Some(path), _) => read(path, namespace.as_ref())?.iter().map(Resource::reference).collect(),
        (None, Some(kind)) => {
            let kind: Kind = kind.parse()?;
            args.names.into_iter().map(|name| reference(kind, namespace.clone(), name)).collect::<Result<_, _>>()?
        }
        (None, None) => bail!("say what to delete: KIND NAME, or -f FILE"),
    };
    let datastore = Datastore::open(place).await?;
    let mut missing = Vec::new();
    for reference in named {
        if datastore.delete(&reference).await? {
            render::say(&format!("{reference} deleted"))?;
        } else {
            missing.push(reference.to_string());
        }
    }
    if missing.is_empty() { Ok(()) } else { bail!("{} does not exist", missing.join(", ")) }
}

/// What a name means: for kinds in namespaces the given one, or `default`. Other kinds ignore it, as kubectl does.
fn reference(kind: Kind, namespace: Option<ResourceName>, name: ResourceName) -> anyhow::Result<ResourceRef> {
    let namespace = if kind.is_namespaced() { Some(namespace.map_or_else(default_namespace, Ok)?) } else { None };
    Ok(ResourceRef { kind, namespace, name })
}

fn default_namespace() -> anyhow::Result<ResourceName> {
    Ok(ResourceName::new("default")?)
}

/// The resources of a file with one or more documents. All faults of all documents are told at once.
fn read(path: &Path, namespace: Option<&ResourceName>) -> anyhow::Result<Vec<Resource>> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| shown.to_string())?
    };
    parse(&text, namespace).with_context(|| shown.to_string())
}

fn parse(text: &str, namespace: Option<&ResourceName>) -> anyhow::Result<Vec<Resource>> {
    // A node may be named `n`, which older YAML takes for false; kubectl reads it as a name, too.
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
    for mut document in documents {
        let read = match namespace.map_or(Ok(()), |namespace| put_into(&mut document, namespace)) {
            Ok(()) => Resource::from_value(document).map_err(|error| error.to_string()),
            Err(fault) => Err(fault),
        };
        match read {
            Ok(resource) => resources.push(resource),
            Err(fault) => faults.push(fault),
        }
    }
    match (faults.is_empty(), resources.is_empty()) {
        (false, _) => bail!("{}", faults.join("\n")),
        (true, true) => bail!("holds no resource"),
        (true, false) => Ok(resources),
    }
}

/// Puts a document that belongs into a namespace and names none into this one. One that names another is a mistake.
fn put_into(document: &mut Value, namespace: &ResourceName) -> Result<(), String> {
    let is_namespaced = |kind: &Value| {
        kind.as_str()
            .is_some_and(|kind| Kind::ALL.into_iter().any(|known| known.as_str() == kind && known.is_namespaced()))
    };
    if !document.get("kind").is_some_and(is_namespaced) {
        return Ok(());
    }
    let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) else { return Ok(()) };
    match metadata.get("namespace") {
        None | Some(Value::Null) => {
            metadata.insert("namespace".to_owned(), Value::from(namespace.as_str()));
            Ok(())
        }
        Some(said) if *said == namespace.as_str() => Ok(()),
        Some(said) => {
            let name = metadata.get("name").and_then(Value::as_str).unwrap_or("?");
            Err(format!("{name}: the document is for namespace {said}, the command line for {namespace}"))
        }
    }
}

fn table(kind: Kind, resources: &[Resource], with_namespace: bool) -> String {
    let header: &[&str] = match kind {
        Kind::IpPool => &["NAME", "CIDR", "BLOCK SIZE", "NAT", "DISABLED", "BGP EXPORT", "SELECTOR"],
        Kind::Node => &["NAME", "AS", "IPV4", "IPV6", "REFLECTS FOR"],
        Kind::BgpConfiguration => &["NAME", "AS", "MESH", "PORT", "RESTART TIME"],
        Kind::BgpPeer => &["NAME", "PEER", "AS", "NODES", "EXPORTS", "RESTART TIME"],
        Kind::NetworkPolicy => &["NAME", "PODS", "INGRESS", "EGRESS", "PROBLEMS"],
        Kind::Namespace => &["NAME", "LABELS"],
    };
    let namespaced = with_namespace && kind.is_namespaced();
    let header = namespaced.then_some("NAMESPACE").into_iter().chain(header.iter().copied());
    let rows = resources.iter().map(|resource| {
        let namespace = resource.namespace().filter(|_| namespaced).map(ToString::to_string);
        namespace.into_iter().chain(row(resource)).collect::<Vec<_>>()
    });
    render::table(&header.collect::<Vec<_>>(), rows)
}

fn row(resource: &Resource) -> Vec<String> {
    let mut cells = vec![resource.metadata.name.to_string()];
    match &resource.spec {
        Spec::IpPool(pool) => cells.extend([
            pool.cidr.to_string(),
            pool.block_len().map_or_else(|error| error.to_string(), |size| size.len().to_string()),
            pool.nat_outgoing.to_string(),
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
                Some(PeerTarget::Pods(selector, asn)) => (format!("pods {selector}"), asn.to_string()),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let nodes = match (&peer.node, &peer.node_selector) {
                (Some(node), _) => node.to_string(),
                (None, Some(selector)) => selector.to_string(),
                (None, None) => "all()".to_owned(),
            };
            let exports = if peer.export_other_nodes { "all nodes' blocks" } else { "own blocks" };
            cells.extend([target, asn, nodes, exports.to_owned(), text(peer.max_restart_time.clone())]);
        }
        Spec::NetworkPolicy(spec) => {
            let policy = spec.policy();
            let rules = |direction| match policy.rules(direction) {
                None => "-".to_owned(),
                Some([]) => "deny".to_owned(),
                Some([_]) => "1 rule".to_owned(),
                Some(rules) => format!("{} rules", rules.len()),
            };
            let problems: Vec<_> = spec.problems().iter().map(ToString::to_string).collect();
            cells.extend([
                policy.subject.endpoints.to_string(),
                rules(Direction::Ingress),
                rules(Direction::Egress),
                if problems.is_empty() { "-".to_owned() } else { problems.join("; ") },
            ]);
        }
        Spec::Namespace => {
            let labels = resource.metadata.labels.iter();
            cells.push(labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","));
        }
    }
    cells
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests;
