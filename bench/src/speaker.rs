//! The BGP speaker alone, as a daemon for a load generator to speak to: what it chooses goes nowhere.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bgp::{Bgp, ByFamily, Families, Identity, ImportPolicy, Outputs, PeerConfig, SpeakerConfig};
use clap::Args;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{Asn, NextHopState, NextHopWatch, Passwords, RouterId};

/// What the speaker is to be.
#[derive(Debug, Clone, Args)]
pub(crate) struct Daemon {
    /// A file of JSON: `address` (of the speaker, also its router id), `port`, `as`, and `peers`, each with `address`, `as`
    /// and `client` (whether it is a reflector's client). All peers are waited for, none is dialled.
    config: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Config {
    address: std::net::Ipv4Addr,
    port: u16,
    #[serde(rename = "as")]
    asn: u32,
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    address: IpAddr,
    #[serde(rename = "as")]
    asn: u32,
    client: bool,
}

/// Speaks until the process is ended.
pub(crate) fn run(daemon: &Daemon) -> anyhow::Result<()> {
    let config = read(&daemon.config).with_context(|| format!("reading {}", daemon.config.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let _bgp = start(config).await?;
        std::future::pending().await
    })
}

fn read(file: &Path) -> anyhow::Result<Config> {
    Ok(serde_json::from_slice(&std::fs::read(file)?)?)
}

async fn start(config: Config) -> anyhow::Result<Bgp> {
    let own = IpAddr::V4(config.address);
    let identity =
        Identity { router_id: RouterId::new(config.address)?, addresses: ByFamily { ipv4: Some(own), ipv6: None } };
    let import = ImportPolicy { pools: vec!["0.0.0.0/0".parse()?], prefixes: Vec::new() };
    let speaker =
        SpeakerConfig { identity, restart_time: std::time::Duration::ZERO, preserved: Families::NONE, import };
    let (bgp, Outputs { mut fib, watches }) = bgp::start(speaker, &TaskTracker::new(), CancellationToken::new());
    tokio::spawn(answer(watches, bgp.clone()));
    tokio::spawn(async move { while fib.recv().await.is_some() {} });
    let asn = Asn::new(config.asn)?;
    let peer = |peer: Peer| -> anyhow::Result<PeerConfig> {
        Ok(PeerConfig {
            passive: true,
            local_address: Some(own),
            route_reflector_client: peer.client,
            // As a router tells its neighbours, and as the daemons do that it is measured beside.
            export_all: true,
            ..PeerConfig::new(peer.address, Asn::new(peer.asn)?, asn)
        })
    };
    let peers = config.peers.into_iter().map(peer).collect::<Result<_, _>>()?;
    bgp.configure(identity, peers, None, Passwords::new()).await?;
    bgp.originate(BTreeSet::new()).await?;
    bgp.listen(config.port).await?;
    Ok(bgp)
}

/// Says of every next hop that it is reached at once.
pub(crate) async fn answer(mut watches: mpsc::Receiver<Vec<NextHopWatch>>, bgp: Bgp) {
    while let Some(batch) = watches.recv().await {
        let asked = batch.into_iter().filter_map(|watch| match watch {
            NextHopWatch::Track(address) => Some(NextHopState { address, metric: Some(0) }),
            NextHopWatch::Untrack(_) => None,
        });
        if bgp.next_hops(asked.collect()).await.is_err() {
            return;
        }
    }
}
