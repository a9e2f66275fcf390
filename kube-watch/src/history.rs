//! What is known of the API server's history: the newest version seen.
//!
//! Versions of one resource can be compared as numbers (KEP-5504); one that is no number is taken as it comes.

/// So many lists in a row that are older than what was seen are taken for a server that lags. If they keep saying so, the
/// history itself went back: the cluster's etcd was restored from a backup.
const REFUSALS: u32 = 3;

/// The newest version seen of one resource.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The newest version that was seen; none before the first list.
    newest: Option<u64>,
    /// How many older lists have been refused since.
    refused: u32,
}

/// What a list means for what was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The list continues what was seen.
    Newer,
    /// The list is older than what was seen, so the server is asked again.
    Older,
    /// It is older and stays so: the history went back.
    WentBack,
}

impl History {
    /// An event or a bookmark of this version came.
    pub(crate) fn saw(&mut self, version: &str) {
        self.newest = self.newest.max(number(version));
        self.refused = 0;
    }

    /// Whether a server that is at this version has all that was seen.
    pub(crate) fn continues_at(&self, version: &str) -> bool {
        match (self.newest, number(version)) {
            (Some(newest), Some(version)) => version >= newest,
            _ => true,
        }
    }

    /// Judges a list; unless it is [`Judgement::Older`], it is what was seen from now on.
    pub(crate) fn judge(&mut self, version: &str) -> Judgement {
        if self.continues_at(version) {
            self.saw(version);
            return Judgement::Newer;
        }
        if self.refused < REFUSALS {
            self.refused += 1;
            return Judgement::Older;
        }
        *self = Self { newest: number(version), refused: 0 };
        Judgement::WentBack
    }
}

fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
mod tests;
