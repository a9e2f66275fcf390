//! The sockets on which the node is spoken to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};

use types::config::Config;

/// The Unix sockets are for root alone, the health port is as public as its address.
pub(crate) struct Sockets {
    /// The socket that the CNI binary connects to.
    pub(crate) cni: UnixListener,
    /// The socket that operators connect to.
    pub(crate) api: UnixListener,
    /// The port that probes and scrapers connect to.
    pub(crate) health: TcpListener,
}

impl Sockets {
    /// Listens, without answering yet: a DEL that comes from here on waits for the answer instead of leaving a tombstone.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let (api, health) = asked(config).await?;
        Ok(Self { cni: unix_listener(&config.run_dir.join(types::cni::SOCKET))?, api, health })
    }
}

/// The socket that operators connect to and the port that probes and scrapers connect to.
pub(super) async fn asked(config: &Config) -> anyhow::Result<(UnixListener, TcpListener)> {
    let health = TcpListener::bind(config.health_address)
        .await
        .with_context(|| format!("configuration key healthAddress: cannot listen on {}", config.health_address))?;
    Ok((unix_listener(&config.run_dir.join(types::api::SOCKET))?, health))
}

/// A socket for root alone. One that a former agent left is replaced: the lock on the state folder says it is dead.
fn unix_listener(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = || path.display().to_string();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(shown),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(shown)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(shown)?;
    Ok(listener)
}
