//! `manxctl version`.

use serde::Serialize;

use types::api::NodeStatus;

use crate::cli::{Place, Version};
use crate::datastore::local_agent;
use crate::render;

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    /// What keeps us from knowing is said instead.
    agent: String,
}

pub(crate) async fn run(place: &Place, args: Version) -> anyhow::Result<()> {
    let agent = match local_agent(place)?.get::<NodeStatus>("/v1/status").await {
        Ok(status) => status.version,
        Err(error) => format!("unknown: {error}"),
    };
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), agent };
    render::print(args.output.output, &versions, |versions| {
        format!("Client version: {}\nAgent version:  {}", versions.client, versions.agent)
    })
}
