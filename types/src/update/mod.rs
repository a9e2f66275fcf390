//! The update protocol: the one shape in which a source of state reports, and what every receiver of it needs.
//!
//! A receiver that keeps the objects as they are holds a [`Mirror`]. One that keeps them in a form of its own follows their
//! keys with a [`Listing`], which tells it what a restart has left behind. One that cannot say what it has, because that
//! lies in a file, collects what was repeated in [`Repeated`]. A task that only passes updates on types them with
//! [`Update::map`], [`Update::filter_map`] and [`Update::try_map`].

mod listing;
mod mirror;
#[cfg(test)]
mod tests;

pub use listing::{Change, Listing, Repeated};
pub use mirror::Mirror;

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

impl<K, V> Update<K, V> {
    /// What a source reports that lists these objects.
    pub fn listing(objects: impl IntoIterator<Item = (K, V)>) -> impl Iterator<Item = Self> {
        let sets = objects.into_iter().map(|(key, value)| Self::Set(key, value));
        std::iter::once(Self::Restart).chain(sets).chain([Self::InSync])
    }

    /// The same report, of an object that stays where it is.
    pub const fn as_ref(&self) -> Update<&K, &V> {
        match self {
            Self::Restart => Update::Restart,
            Self::Set(key, value) => Update::Set(key, value),
            Self::Delete(key) => Update::Delete(key),
            Self::InSync => Update::InSync,
        }
    }

    /// The same report in other words: another name for the object, and its value as seen under that name.
    pub fn map<L, W>(self, key: impl FnOnce(K) -> L, value: impl FnOnce(&L, V) -> W) -> Update<L, W> {
        match self {
            Self::Restart => Update::Restart,
            Self::Set(known, present) => {
                let named = key(known);
                let valued = value(&named, present);
                Update::Set(named, valued)
            }
            Self::Delete(known) => Update::Delete(key(known)),
            Self::InSync => Update::InSync,
        }
    }

    /// The same report for a receiver that wants some of the objects: none where `key` finds that it is of another object.
    /// `Restart` and `InSync` are about the source, so every receiver of a part of it gets them.
    pub fn filter_map<L>(self, key: impl FnOnce(K) -> Option<L>) -> Option<Update<L, V>> {
        Some(match self {
            Self::Restart => Update::Restart,
            Self::Set(known, present) => Update::Set(key(known)?, present),
            Self::Delete(known) => Update::Delete(key(known)?),
            Self::InSync => Update::InSync,
        })
    }

    /// The same report with its value read. Where that fails the object's key comes back with the reason, so that the
    /// caller decides whether the receiver hears nothing of the object or hears that it is gone.
    pub fn try_map<W, E>(self, value: impl FnOnce(&K, V) -> Result<W, E>) -> Result<Update<K, W>, (K, E)> {
        Ok(match self {
            Self::Restart => Update::Restart,
            Self::Set(key, present) => match value(&key, present) {
                Ok(read) => Update::Set(key, read),
                Err(error) => return Err((key, error)),
            },
            Self::Delete(key) => Update::Delete(key),
            Self::InSync => Update::InSync,
        })
    }

    /// The key of the object that the report is about; none where it is about the source.
    pub const fn key(&self) -> Option<&K> {
        match self {
            Self::Set(key, _) | Self::Delete(key) => Some(key),
            Self::Restart | Self::InSync => None,
        }
    }
}
