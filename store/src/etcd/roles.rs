//! Users and roles: what etcd lets a node do.

use std::future::Future;

use etcd_client::{Client, Error as EtcdError, Permission, PermissionType, UserAddOptions};
use types::NodeName;

use super::Etcd;
use crate::{StoreError, keys};

/// The role that may do all, and the user without which etcd does not switch authentication on.
const ROOT: &str = "root";

impl Etcd {
    /// Makes a user of a node's name, without a password: who shows a certificate of that common name is that user. It
    /// reads all under the prefix, and writes what a node writes: its own keys, claims of blocks and addresses, and what it
    /// does if it is elected. What is there already stays.
    ///
    /// Anybody may ask for it before authentication is on, then the user `root` alone.
    pub async fn confine(&self, node: &NodeName) -> Result<(), StoreError> {
        let role = format!("manx-node-{node}");
        self.change(async |mut client| client.role_add(role.as_str()).await.map(drop)).await?;
        let own = keys::node(node);
        let writable = [own.as_str(), "blocks/", "borrowed/", "elected/"];
        let writes = writable.into_iter().map(|below| self.permission(PermissionType::Readwrite, below));
        for permission in std::iter::once(self.permission(PermissionType::Read, "")).chain(writes) {
            let grant = async |mut client: Client| {
                client.role_grant_permission(role.as_str(), permission.clone()).await.map(drop)
            };
            self.change(grant).await?;
        }
        self.make_user(node.as_str(), &role).await
    }

    /// Makes the user `root`, without a password, and switches authentication on: from then on a client is the user that
    /// its certificate names, and who has none may nothing.
    pub async fn enable_authentication(&self) -> Result<(), StoreError> {
        self.change(async |mut client| client.role_add(ROOT).await.map(drop)).await?;
        self.make_user(ROOT, ROOT).await?;
        self.change(async |mut client| client.auth_enable().await.map(drop)).await
    }

    async fn make_user(&self, name: &str, role: &str) -> Result<(), StoreError> {
        let options = UserAddOptions::new().with_no_pwd();
        self.change(async |mut client| client.user_add(name, "", Some(options.clone())).await.map(drop)).await?;
        self.change(async |mut client| client.user_grant_role(name, role).await.map(drop)).await
    }

    fn permission(&self, kind: PermissionType, below: &str) -> Permission {
        let (first, end) = self.calls.range_below(below);
        Permission::new(kind, first).with_range_end(end)
    }

    /// A change that may be asked for again: what is there already is no error.
    async fn change<F>(&self, change: impl Fn(Client) -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), EtcdError>>,
    {
        let tolerant = |client| {
            let change = change(client);
            async move {
                match change.await {
                    Err(EtcdError::GRpcStatus(status)) if status.message().contains("already exists") => Ok(()),
                    changed => changed,
                }
            }
        };
        Ok(self.calls.endpoints.repeatable(tolerant).await?)
    }
}
