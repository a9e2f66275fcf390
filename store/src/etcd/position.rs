//! How far a watch has got, and whether the cluster it comes back to still has that history. Pure.

use super::call::ClusterState;

/// What a watch has reported, so that it resumes without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The cluster, its revision and its term when last heard of.
    seen: ClusterState,
    /// The first revision that is not, or not wholly, reported.
    next: i64,
    /// So many events of revision `next` are reported. Several answers may share a revision's events (`fragment`), so a
    /// connection can break within one.
    reported: usize,
}

impl Position {
    /// Everything as of `state` has been reported by a listing.
    pub(super) const fn listed(state: ClusterState) -> Self {
        Self { seen: state, next: state.revision + 1, reported: 0 }
    }

    /// The revision to ask a new stream for.
    pub(super) const fn resume_at(&self) -> i64 {
        self.next
    }

    /// So many events of [`Position::resume_at`] come again on a new stream and are to be skipped.
    pub(super) const fn skip(&self) -> usize {
        self.reported
    }

    /// An event of this revision has been reported.
    pub(super) fn event(&mut self, revision: i64) {
        self.reported = if revision == self.next { self.reported + 1 } else { 1 };
        self.next = revision;
        self.seen.revision = self.seen.revision.max(revision);
    }

    /// etcd says that everything up to this revision has been sent (`progress_notify`).
    pub(super) fn progress(&mut self, revision: i64) {
        if revision >= self.next {
            self.next = revision + 1;
            self.reported = 0;
            self.seen.revision = self.seen.revision.max(revision);
        }
    }

    /// Whether a cluster in this state has the history that was reported. Its revision never goes back, nor does its term;
    /// both do when it is restored from a backup, which may keep its id.
    pub(super) fn continues_in(&mut self, state: ClusterState) -> bool {
        let same =
            state.cluster == self.seen.cluster && state.revision >= self.seen.revision && state.term >= self.seen.term;
        if same {
            self.seen = state;
        }
        same
    }

    /// Whether an answer is of the same cluster; of its members, one may lag behind. etcd's grpc-proxy leaves the id out
    /// (0) where it answers by itself.
    pub(super) const fn is_of(&self, state: ClusterState) -> bool {
        state.cluster == 0 || state.cluster == self.seen.cluster
    }
}

#[cfg(test)]
mod tests;
