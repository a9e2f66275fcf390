//! Why the agent ends: a task that cannot go on says so here.

use tokio::sync::mpsc;

/// The way for any task to say that the agent cannot go on.
#[derive(Debug, Clone)]
pub(crate) struct Fatal(mpsc::Sender<anyhow::Error>);

/// What ends the agent, as soon as something does.
#[derive(Debug)]
pub(crate) struct Fatals(mpsc::Receiver<anyhow::Error>);

/// The way to say it, and where it is heard.
pub(crate) fn channel() -> (Fatal, Fatals) {
    let (say, hear) = mpsc::channel(1);
    (Fatal(say), Fatals(hear))
}

impl Fatal {
    /// Carries a task out whose error ends the agent.
    pub(crate) async fn unless_ok(self, task: impl Future<Output = anyhow::Result<()>>) {
        if let Err(error) = task.await {
            // Only the first error is told; a later one finds the channel full.
            let _ = self.0.try_send(error);
        }
    }
}

impl Fatals {
    /// The first error of a task that cannot go on.
    pub(crate) async fn first(mut self) -> anyhow::Error {
        self.0.recv().await.unwrap_or_else(|| anyhow::anyhow!("every task has ended"))
    }
}
