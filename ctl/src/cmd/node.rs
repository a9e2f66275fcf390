//! `manxctl node`.

use types::api::{Drain, NodeStatus, PeerStatus};

use crate::cli::{Node, NodeCommand, Place};
use crate::datastore::local_agent;
use crate::render;

pub(crate) async fn run(place: &Place, args: Node) -> anyhow::Result<()> {
    let output = match args.command {
        NodeCommand::Status(output) => output,
        NodeCommand::Install(args) => return super::install::run(&args),
        NodeCommand::Drain(args) => {
            let asked = Drain { drained: !args.undo };
            let Drain { drained } = local_agent(place)?.post("/v1/drain", &asked).await?;
            return render::say(if drained { "drained: nothing of this node is announced" } else { "not drained" });
        }
        NodeCommand::Clean(args) => return super::clean::run(place, &args).await,
    };
    let status: NodeStatus = local_agent(place)?.get("/v1/status").await?;
    render::print(output.output, &status, table)
}

fn table(status: &NodeStatus) -> String {
    let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
    let router_id = status.router_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let connected = if status.datastore_connected { "connected" } else { "NOT CONNECTED" };
    let confirmed = status.datastore_confirmed_secs;
    let confirmed = confirmed.map_or_else(String::new, |ago| format!(", last confirmed {} ago", render::age(ago)));
    let mut text = format!(
        "Node {} ({}), agent {}\n  AS {}, router id {router_id}, addresses {}\n  datastore {}: {connected}{confirmed}\n  \
         {} pods; kernel routes: {} local, {} blocks, {} by BGP, {} failed\n",
        status.node,
        if status.ready { "ready" } else { "NOT READY" },
        status.version,
        status.asn,
        if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") },
        status.datastore,
        status.endpoints,
        status.routes.local,
        status.routes.blocks,
        status.routes.bgp,
        status.routes.failed,
    );
    for problem in &status.problems {
        text.push_str(&format!("  problem: {problem}\n"));
    }
    text.push('\n');
    if status.peers.is_empty() {
        text.push_str("No BGP peers.");
        return text;
    }
    let header =
        ["PEER", "TYPE", "AS", "STATE", "SINCE", "RECEIVED", "ACCEPTED", "REFUSED", "STALE", "SECURITY", "LAST DOWN"];
    text.push_str(&render::table(&header, status.peers.iter().map(row)));
    text
}

fn row(peer: &PeerStatus) -> Vec<String> {
    let address = if peer.port == 179 {
        peer.address.to_string()
    } else {
        std::net::SocketAddr::new(peer.address, peer.port).to_string()
    };
    vec![
        address,
        peer.origin.clone(),
        peer.asn.to_string(),
        peer.state.as_str().to_owned(),
        peer.since_secs.map_or_else(|| "-".to_owned(), render::age),
        peer.received.to_string(),
        peer.accepted.to_string(),
        peer.refused.to_string(),
        peer.stale.to_string(),
        security(peer),
        [&peer.last_error, &peer.obstacle].into_iter().flatten().cloned().collect::<Vec<_>>().join("; "),
    ]
}

/// What protects the session, in a word or two.
fn security(peer: &PeerStatus) -> String {
    let ttl = peer.least_ttl.map(|least| format!("TTL {least}"));
    let words: Vec<_> = peer.has_password.then(|| "password".to_owned()).into_iter().chain(ttl).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}
