//! `manxctl label`.

use anyhow::bail;

use types::WorkloadEndpoint;
use types::api::{LabelChange, RelabelRequest};

use super::endpoints::{is_kind, table};
use crate::cli::{Label, Place};
use crate::datastore::{Datastore, local_agent};
use crate::endpoints::{self, EndpointName, Located};
use crate::render;

pub(crate) async fn run(place: &Place, args: Label) -> anyhow::Result<()> {
    if !is_kind(&args.kind) {
        bail!("{} is not labelled so: labels of resources are part of their documents (manxctl apply -f)", args.kind);
    }
    let change = LabelChange::parse(&args.labels)?;
    let name = EndpointName::parse(&args.name, args.namespace.namespace.as_ref())?;
    let agent = local_agent(place)?;
    let located = endpoints::find_local(&agent, &name, Datastore::open(place)).await?;
    let request = RelabelRequest { endpoint: located.endpoint.id, change };
    let endpoint: WorkloadEndpoint = agent.post("/v1/endpoints/labels", &request).await?;
    let located = Located { node: None, endpoint };
    render::print(args.output.output, &located, |located| table(std::slice::from_ref(located), true, false))
}
