//! The one shape in which a source of state reports.

/// A report of a source of keyed objects (a watch in etcd, the kernel, a file).
///
/// A source begins with `Restart`, repeats all it has as `Set`, then says `InSync`; from then on it reports changes. When
/// it has to begin again (its connection broke and history was lost), it says `Restart` again: what is not set again by
/// the next `InSync` is gone. The receiver acts on absence only at `InSync`, on `Delete` at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<K, V> {
    /// The source lists its state anew.
    Restart,
    /// The object is there, with this value.
    Set(K, V),
    /// The object is gone.
    Delete(K),
    /// All that exists has been set since the last `Restart`.
    InSync,
}
