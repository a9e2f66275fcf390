//! Whether the other end of a connection is there: its TCP acknowledges what is sent after it was asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bgp_proto::ConnId;

use crate::connection::Connection;

/// How often the kernel is asked for what has been acknowledged. It tells nobody by itself.
const POLL: Duration = Duration::from_millis(10);

/// After this long nobody waits for an answer any more: the session has its own, shorter limit.
const PATIENCE: Duration = Duration::from_secs(2);

/// The probes under way.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// The probes by connection.
    under_way: HashMap<ConnId, Probe>,
    /// When the kernel is asked next.
    look_at: Option<Instant>,
}

#[derive(Debug)]
struct Probe {
    /// How many octets of the connection have to be acknowledged; not known before the probe is written.
    target: Option<u64>,
    began: Instant,
}

impl Probes {
    pub(crate) fn begin(&mut self, conn: ConnId, now: Instant) {
        self.under_way.insert(conn, Probe { target: None, began: now });
        self.look_at.get_or_insert(now + POLL);
    }

    /// When [`Probes::acknowledged`] has something to do.
    pub(crate) const fn timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// What this round had to send has been handed to the kernel, as far as it takes it.
    pub(crate) fn written(&mut self, connections: &HashMap<ConnId, Connection>) {
        for (conn, probe) in self.under_way.iter_mut().filter(|(_, probe)| probe.target.is_none()) {
            let target = connections.get(conn).and_then(|connection| {
                let acknowledged = connection.acknowledged().ok()?;
                // With a full socket, any progress is an answer.
                Some(if connection.is_drained() { connection.written() } else { acknowledged + 1 })
            });
            probe.target = Some(target.unwrap_or(u64::MAX));
        }
    }

    /// The connections whose probes have been acknowledged. A connection that is gone, or silent, is forgotten.
    pub(crate) fn acknowledged(&mut self, connections: &HashMap<ConnId, Connection>, now: Instant) -> Vec<ConnId> {
        let mut answered = Vec::new();
        self.under_way.retain(|conn, probe| {
            let Some(connection) = connections.get(conn) else { return false };
            let acknowledged = connection.acknowledged().unwrap_or(0);
            if probe.target.is_some_and(|target| acknowledged >= target) {
                answered.push(*conn);
                return false;
            }
            probe.began + PATIENCE > now
        });
        self.look_at = (!self.under_way.is_empty()).then(|| now + POLL);
        answered
    }
}
