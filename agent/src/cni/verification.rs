//! CHECK, the agent's part: whether an attachment holds its addresses, and whether its policies are in the kernel.

use types::EndpointId;
use types::cni::{Refused, Wire, code};

use super::attachments::Attachments;

impl Attachments {
    /// What the attachment was made as, if all that the agent keeps of it is there; else everything that is wrong. Waits for
    /// whatever is being done with it.
    pub(super) async fn verify(&self, id: &EndpointId) -> Result<Wire, Refused> {
        let refused = |msg: String| Refused { code: code::AGENT, msg };
        let _turn = self.turns.at(&id.host_interface()).await;
        let Some(endpoint) = self.ipam.endpoint(id.clone()).await else {
            return Err(refused(format!("{id} holds no addresses on this node")));
        };
        let mut wrong = Vec::new();
        if self.acl.show(id.clone()).await.is_none() {
            wrong.push(format!("{id} is under no policies"));
        }
        match self.host.lacking(endpoint.host_interface.clone(), endpoint.addresses.clone()).await {
            Ok(lacking) => wrong.extend(lacking),
            Err(error) => wrong.push(format!("sets of the kernel cannot be read: {error}")),
        }
        if !wrong.is_empty() {
            return Err(refused(wrong.join("; ")));
        }
        Ok(Wire {
            host_interface: endpoint.host_interface,
            addresses: endpoint.addresses,
            subnets: endpoint.subnets,
            mtu: *self.mtu.borrow(),
            parked_group: self.parked_group,
            host_ports: self.host_ports.of(id),
            stale_mappings: Vec::new(),
            hears_made: false,
        })
    }
}

#[cfg(test)]
mod tests;
