//! `manxctl version`.

use serde::Serialize;

use types::api::NodeStatus;

use crate::cli::{Place, Version};
use crate::datastore::local_agent;
use crate::render;

#[derive(Serialize)]
struct Versions {
    /// The version of this tool.
    client: &'static str,
    /// The agent's version; where it cannot be asked, why not.
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
