//! Why a route is not used.

use std::fmt;

/// The reasons. Each is a number of six bits in a path, so there are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Import policy does not accept the prefix.
    Import = 1,
    /// The peer has as many routes in use as it may have.
    OverLimit,
    /// It is a block of this node.
    OwnBlock,
    /// It is part of a block, of whatever node.
    PartOfBlock,
    /// It is in a range of blocks, and neither a block nor a listed aggregate.
    NotABlock,
    /// It has the size of a block, and nobody has claimed it.
    Unclaimed,
    /// The peer, a node, is not the one that owns the block.
    NotTheOwner,
    /// The next hop is not the owner's.
    NextHop,
    /// ORIGINATOR_ID is another node's.
    Originator,
    /// AS_PATH is not one of the owner's routes.
    AsPath,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Import,
        Self::OverLimit,
        Self::OwnBlock,
        Self::PartOfBlock,
        Self::NotABlock,
        Self::Unclaimed,
        Self::NotTheOwner,
        Self::NextHop,
        Self::Originator,
        Self::AsPath,
    ];

    /// The name under which it is counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Import => "import-policy",
            Self::OverLimit => "over-limit",
            Self::OwnBlock => "own-block",
            Self::PartOfBlock => "part-of-block",
            Self::NotABlock => "not-a-block",
            Self::Unclaimed => "unclaimed",
            Self::NotTheOwner => "not-the-owner",
            Self::NextHop => "next-hop",
            Self::Originator => "originator",
            Self::AsPath => "as-path",
        }
    }

    /// Its place in [`Refusal::ALL`].
    pub(crate) const fn place(self) -> usize {
        self as usize - 1
    }

    /// The refusal of this number; none for 0.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Import => "refused by import policy",
            Self::OverLimit => "refused: the peer has as many routes as maxPrefixes allows",
            Self::OwnBlock => "refused: this node's own block",
            Self::PartOfBlock => "refused: part of a node's block",
            Self::NotABlock => "refused: in a pool, and no claimed block",
            Self::Unclaimed => "refused: no node has claimed the block",
            Self::NotTheOwner => "refused: another node's block",
            Self::NextHop => "refused: the next hop is not the owner's",
            Self::Originator => "refused: another node originated it",
            Self::AsPath => "refused: the AS path is not the owner's",
        })
    }
}
