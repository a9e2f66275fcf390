//! Lines of the log that a peer can bring about as often as it likes: one a second for each peer and kind, with a count.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_proto::PeerEvent;

/// The least time between two lines of a peer about the same kind of event.
const PAUSE: Duration = Duration::from_secs(1);

/// What was said of peers lately.
#[derive(Debug, Default)]
pub(crate) struct Sparingly {
    lately: HashMap<(IpAddr, Discriminant<PeerEvent>), Lately>,
}

/// What was said of one peer about one kind of event.
#[derive(Debug)]
struct Lately {
    /// When a line may come again.
    quiet_until: Instant,
    /// The last event since then, and how many there were.
    unsaid: Option<(PeerEvent, u64)>,
}

impl Sparingly {
    /// The event, if it is to be said now. If not, it is counted, and [`Sparingly::due`] hands the last one out.
    pub(crate) fn says(&mut self, peer: IpAddr, event: PeerEvent, now: Instant) -> Option<PeerEvent> {
        let frequent = matches!(event, PeerEvent::Fault(_) | PeerEvent::SecondRefused(_) | PeerEvent::AttemptFailed(_));
        if !frequent {
            return Some(event);
        }
        let key = (peer, discriminant(&event));
        match self.lately.get_mut(&key) {
            Some(Lately { unsaid, .. }) => {
                let count = unsaid.take().map_or(0, |(_, count)| count);
                *unsaid = Some((event, count + 1));
                None
            }
            None => {
                self.lately.insert(key, Lately { quiet_until: now + PAUSE, unsaid: None });
                Some(event)
            }
        }
    }

    /// When [`Sparingly::due`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.lately.values().map(|lately| lately.quiet_until).min()
    }

    /// What was kept back for long enough: the last event of a peer and kind, and for how many it stands.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(IpAddr, PeerEvent, u64)> {
        let mut due = Vec::new();
        self.lately.retain(|(peer, _), lately| {
            if lately.quiet_until > now {
                return true;
            }
            let Some((event, count)) = lately.unsaid.take() else { return false };
            due.push((*peer, event, count));
            lately.quiet_until = now + PAUSE;
            true
        });
        due
    }
}

#[cfg(test)]
mod tests;
