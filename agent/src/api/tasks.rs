//! The tasks of this room, as the diagram in `crate::tasks` shows them.

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::task::TaskTracker;

use types::config::Config;

use super::health;
use super::local::{self, Api};
use super::sockets;
use super::waiting::Waiting;
use crate::node::fatal::Fatal;

/// The parts that the tasks of this room are made of.
pub(crate) struct ApiTasks {
    /// The socket that operators connect to.
    pub(crate) socket: UnixListener,
    /// The port that probes and scrapers connect to.
    pub(crate) health_port: TcpListener,
    /// The owners and streams that requests are answered from.
    pub(crate) api: Api,
}

impl ApiTasks {
    /// Starts the tasks that answer operators, probes and scrapers.
    pub(crate) fn start(self, fatal: &Fatal, tracker: &TaskTracker) {
        let Self { socket, health_port, api } = self;
        let health = axum::serve(health_port, health::router(api.status.clone())).into_future();
        let local = axum::serve(socket, local::router(api)).into_future();
        tracker.spawn(fatal.clone().unless_ok(async { local.await.context("local API") }));
        tracker.spawn(fatal.clone().unless_ok(async { health.await.context("health port") }));
    }
}

/// What comes; until then operators, probes and scrapers are told what is waited for. Nobody is answered where it has come
/// already. The sockets are closed afterwards.
pub(crate) async fn answer_until<T>(
    come: impl Future<Output = T>,
    waiting: Waiting,
    config: &Config,
) -> anyhow::Result<T> {
    let answer = async {
        let (socket, health) = sockets::asked(config).await?;
        let health = axum::serve(health, waiting.clone().health()).into_future();
        let local = axum::serve(socket, waiting.local()).into_future();
        tokio::try_join!(local, health).context("local API and health port")
    };
    tokio::select! {
        biased;
        come = come => Ok(come),
        ended = answer => Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("the local API has ended"))),
    }
}
