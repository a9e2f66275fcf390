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
mod tests {
    use super::*;

    const LISTED: ClusterState = ClusterState { cluster: 7, revision: 10, term: 3 };

    #[test]
    fn a_watch_resumes_behind_what_was_listed_reported_or_notified() {
        let mut position = Position::listed(LISTED);
        assert_eq!((position.resume_at(), position.skip()), (11, 0));
        position.event(14);
        assert_eq!((position.resume_at(), position.skip()), (14, 1), "revision 14 may have more events");
        position.event(14);
        assert_eq!((position.resume_at(), position.skip()), (14, 2));
        position.event(15);
        assert_eq!((position.resume_at(), position.skip()), (15, 1));
        position.progress(20);
        assert_eq!((position.resume_at(), position.skip()), (21, 0));
        position.progress(19);
        assert_eq!((position.resume_at(), position.skip()), (21, 0), "progress of a lagging member is no news");
    }

    #[test]
    fn another_cluster_or_one_that_went_back_is_another_history() {
        let mut position = Position::listed(LISTED);
        assert!(position.continues_in(LISTED));
        assert!(!position.continues_in(ClusterState { cluster: 8, ..LISTED }));
        assert!(!position.continues_in(ClusterState { revision: 9, ..LISTED }));
        assert!(!position.continues_in(ClusterState { term: 2, ..LISTED }));
        assert!(position.continues_in(ClusterState { revision: 12, term: 4, ..LISTED }));
        assert!(
            position.is_of(ClusterState { cluster: 0, ..LISTED })
                && !position.is_of(ClusterState { cluster: 8, ..LISTED })
        );
        assert!(!position.continues_in(LISTED), "what was seen once may not go back");
    }
}
