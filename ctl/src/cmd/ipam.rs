//! `manxctl ipam`.

use std::net::IpAddr;

use anyhow::bail;

use store::keys::{self, Subject};
use types::api::{BlockUsage, IpamView};
use types::resource::{Kind, Spec};
use types::{BlockClaim, NodeName, Prefix};

use crate::cli::{Ipam, IpamCommand, IpamShow, Place};
use crate::datastore::Datastore;
use crate::endpoints::{self, Located};
use crate::render;

pub(crate) async fn run(place: &Place, args: Ipam) -> anyhow::Result<()> {
    let IpamCommand::Show(args) = args.command;
    let datastore = Datastore::open(place).await?;
    let endpoints = endpoints::all(&datastore).await?;
    if let Some(address) = args.ip {
        return show_address(&args, address, &endpoints);
    }
    let view = match &datastore {
        Datastore::Agent(agent) => agent.get("/v1/ipam").await?,
        Datastore::Etcd(_) => {
            let addresses = endpoints.iter().flat_map(|located| located.endpoint.addresses.iter().copied());
            IpamView::new(pools(&datastore).await?, blocks(&datastore).await?, addresses)
        }
    };
    render::print(args.output.output, &view, |view| table(view, args.show_blocks))
}

fn show_address(args: &IpamShow, address: IpAddr, endpoints: &[Located]) -> anyhow::Result<()> {
    let Some(located) = endpoints.iter().find(|located| located.endpoint.addresses.contains(&address)) else {
        bail!("{address} is not given to any pod");
    };
    render::print(args.output.output, &located.endpoint, |endpoint| {
        let node = located.node.as_ref().map_or_else(String::new, |node| format!(" on {node}"));
        format!("{address} is pod {}{node}, attachment {}", endpoint.pod, endpoint.id)
    })
}

async fn pools(datastore: &Datastore) -> anyhow::Result<Vec<(types::ResourceName, Prefix)>> {
    let pools = datastore.list(Kind::IpPool, None).await?;
    let range = |resource: types::resource::Resource| match resource.spec {
        Spec::IpPool(pool) => Some((resource.metadata.name, pool.cidr)),
        _ => None,
    };
    Ok(pools.into_iter().filter_map(range).collect())
}

async fn blocks(datastore: &Datastore) -> anyhow::Result<Vec<(Prefix, NodeName)>> {
    let Datastore::Etcd(store) = datastore else { return Ok(Vec::new()) };
    let listing = store.list(&keys::blocks()).await?;
    let mut blocks = Vec::new();
    for entry in &listing.entries {
        if let Subject::Block(cidr) = keys::subject(&entry.key)? {
            let claim: BlockClaim = store::decode(&entry.key, &entry.value)?;
            blocks.push((cidr, claim.owner));
        }
    }
    Ok(blocks)
}

fn table(view: &IpamView, show_blocks: bool) -> String {
    let mut rows = Vec::new();
    for pool in &view.pools {
        rows.push(row("IP Pool", pool.cidr, pool.total, pool.in_use, pool.name.as_str()));
        if show_blocks {
            rows.extend(pool.blocks.iter().map(|block| block_row("Block", block)));
        }
    }
    rows.extend(view.orphans.iter().map(|block| block_row("Block without pool", block)));
    if rows.is_empty() {
        return "No IP pools.".to_owned();
    }
    render::table(&["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE", "NAME / NODE"], rows)
}

fn block_row(grouping: &str, block: &BlockUsage) -> Vec<String> {
    row(grouping, block.cidr, block.total, block.in_use, block.owner.as_str())
}

fn row(grouping: &str, cidr: Prefix, total: u128, in_use: u128, name: &str) -> Vec<String> {
    let share = |count: u128| {
        // Whole percents, rounded half up; a pool of IPv6 is too large for anything finer to be read.
        let percent = count.saturating_mul(200).checked_div(total).map_or(0, |double| double.div_ceil(2));
        format!("{} ({percent}%)", short(count))
    };
    let free = total.saturating_sub(in_use);
    vec![grouping.to_owned(), cidr.to_string(), short(total), share(in_use), share(free), name.to_owned()]
}

/// A count as it is, or as a power of ten where it is longer than a person reads.
fn short(count: u128) -> String {
    if count < 10_000_000_000 {
        return count.to_string();
    }
    let digits = count.ilog10();
    let leading = count / 10_u128.pow(digits.saturating_sub(4));
    format!("{}.{:04}e+{digits}", leading / 10_000, leading % 10_000)
}

#[cfg(test)]
mod tests;
