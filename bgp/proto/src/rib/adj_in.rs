//! Adj-RIB-In: what every peer offers, kept per prefix and not per peer.
//!
//! A prefix is stored once; each peer that offers it adds one [`Path`] of eight bytes. Losing a peer is therefore a sweep
//! of the table, which costs milliseconds and nothing at rest. Routes that are kept while a peer restarts (RFC 4724
//! section 4.2) are not marked one by one either: a path bears the generation of the session it came over, and is stale
//! when the peer has moved on to the next.

use super::attrs::AttrId;
use super::decision::Source;
use crate::origin::Refusal;

/// A peer's place in the speaker's tables; reused once no path bears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerIndex(pub(crate) u16);

impl PeerIndex {
    /// The origin of this speaker's own routes.
    pub(crate) const LOCAL: Self = Self(u16::MAX);
}

/// Which of a peer's sessions a path came over. Two values do: what was stale already goes when a session is lost again
/// (RFC 4724 section 4.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Generation(bool);

impl Generation {
    pub(crate) const fn next(self) -> Self {
        Self(!self.0)
    }
}

/// One peer's route to one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// Its attributes and next hop.
    pub(crate) attrs: AttrId,
    /// Who offers it.
    pub(crate) peer: PeerIndex,
    /// What kind of peer that is.
    pub(crate) source: Source,
    /// [`GENERATION`], [`DOUBTED`], and above them the number of a [`Refusal`].
    marks: u8,
}

/// The generation of the session that the path came over.
const GENERATION: u8 = 1;
/// The origin is in doubt.
const DOUBTED: u8 = 2;
/// Where the number of the refusal begins.
const REFUSAL_SHIFT: u8 = 2;

/// Whether a path may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Why it is not.
    pub(crate) refusal: Option<Refusal>,
    /// It is used only where there is nothing better.
    pub(crate) doubted: bool,
}

impl Admission {
    const fn marks(self) -> u8 {
        let refusal = match self.refusal {
            Some(refusal) => (refusal as u8) << REFUSAL_SHIFT,
            None => 0,
        };
        if self.doubted { refusal | DOUBTED } else { refusal }
    }
}

impl Path {
    pub(crate) const fn new(
        peer: PeerIndex,
        source: Source,
        attrs: AttrId,
        generation: Generation,
        admission: Admission,
    ) -> Self {
        let generation = if generation.0 { GENERATION } else { 0 };
        Self { attrs, peer, source, marks: generation | admission.marks() }
    }

    /// Whether it may be used.
    pub(crate) fn admission(&self) -> Admission {
        Admission { refusal: Refusal::from_number(self.marks >> REFUSAL_SHIFT), doubted: self.marks & DOUBTED != 0 }
    }

    pub(crate) const fn set_admission(&mut self, admission: Admission) {
        self.marks = self.marks & GENERATION | admission.marks();
    }

    pub(crate) const fn generation(&self) -> Generation {
        Generation(self.marks & GENERATION != 0)
    }
}

/// The paths to one prefix: none, one without an allocation, or several. The best is first once they are decided.
#[derive(Debug, Clone, Default)]
pub(crate) enum Paths {
    #[default]
    None,
    One(Path),
    /// Two at least.
    Many(Vec<Path>),
}

impl Paths {
    pub(crate) fn as_slice(&self) -> &[Path] {
        match self {
            Self::None => &[],
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Self::None => &mut [],
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths,
        }
    }

    /// Adds the path, or puts it where the same peer's was, which is returned.
    pub(crate) fn insert(&mut self, path: Path) -> Option<Path> {
        if let Some(old) = self.as_mut_slice().iter_mut().find(|old| old.peer == path.peer) {
            return Some(std::mem::replace(old, path));
        }
        *self = match std::mem::take(self) {
            Self::None => Self::One(path),
            Self::One(first) => Self::Many(vec![first, path]),
            Self::Many(mut paths) => {
                paths.push(path);
                Self::Many(paths)
            }
        };
        None
    }

    /// Takes out the paths that `goes` names, keeping the order of the rest.
    pub(crate) fn remove(&mut self, mut goes: impl FnMut(&Path) -> bool, mut removed: impl FnMut(Path)) {
        *self = match std::mem::take(self) {
            Self::One(path) if goes(&path) => {
                removed(path);
                Self::None
            }
            Self::Many(mut paths) => {
                paths.retain(|path| {
                    let goes = goes(path);
                    if goes {
                        removed(*path);
                    }
                    !goes
                });
                match paths.as_slice() {
                    [] => Self::None,
                    [path] => Self::One(*path),
                    _ => Self::Many(paths),
                }
            }
            other => other,
        };
    }
}

#[cfg(test)]
mod tests;
