//! `manxctl get workloadendpoints`.

use types::EndpointPort;

use crate::cli::{Get, Output, Place};
use crate::datastore::Datastore;
use crate::endpoints::{self, EndpointName, Located};
use crate::render;

/// Whether people mean endpoints by this.
pub(crate) fn is_kind(text: &str) -> bool {
    let plain = text.to_ascii_lowercase().replace('-', "");
    ["workloadendpoint", "workloadendpoints", "wep", "weps"].contains(&plain.as_str())
}

pub(crate) async fn get(place: &Place, args: &Get) -> anyhow::Result<()> {
    let namespace = args.namespace.namespace.as_ref();
    let mut endpoints = endpoints::all(&Datastore::open(place).await?).await?;
    let output = args.output.output;
    let wide = output == Output::Wide;
    if let Some(name) = &args.name {
        let located = EndpointName::parse(name, namespace)?.find(&endpoints)?;
        return render::print(output, located, |located| table(std::slice::from_ref(located), false, wide));
    }
    let wanted = namespace.map_or("default", types::ResourceName::as_str);
    endpoints.retain(|located| args.all_namespaces || located.endpoint.pod.namespace == wanted);
    endpoints.sort_by(|a, b| (&a.endpoint.pod, &a.endpoint.id).cmp(&(&b.endpoint.pod, &b.endpoint.id)));
    match output {
        Output::Table | Output::Wide if endpoints.is_empty() => {
            let place = if args.all_namespaces { String::new() } else { format!(" in namespace {wanted}") };
            render::say(&format!("No WorkloadEndpoint found{place}."))
        }
        output => render::print(output, &endpoints, |endpoints| table(endpoints, args.all_namespaces, wide)),
    }
}

pub(crate) fn table(endpoints: &[Located], with_namespace: bool, wide: bool) -> String {
    let mut header = vec!["POD", "NODE", "ADDRESSES", "LABELS"];
    if with_namespace {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["PORTS", "INTERFACE", "ENDPOINT"]);
    }
    render::table(&header, endpoints.iter().map(|located| row(located, with_namespace, wide)))
}

fn row(Located { node, endpoint }: &Located, with_namespace: bool, wide: bool) -> Vec<String> {
    let list = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    let ended = if endpoint.finished { " (ended)" } else { "" };
    let mut cells = Vec::new();
    cells.extend(with_namespace.then(|| endpoint.pod.namespace.clone()));
    cells.extend([
        format!("{}{ended}", endpoint.pod.name),
        node.as_ref().map_or_else(|| "this node".to_owned(), ToString::to_string),
        list(endpoint.addresses.iter().map(ToString::to_string).collect()),
        list(endpoint.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
    ]);
    if wide {
        let port = |EndpointPort { name, protocol, port }: &EndpointPort| format!("{name}={port}/{protocol}");
        cells.extend([
            list(endpoint.ports.iter().map(port).collect()),
            endpoint.host_interface.to_string(),
            endpoint.id.to_string(),
        ]);
    }
    cells
}

#[cfg(test)]
mod tests;
