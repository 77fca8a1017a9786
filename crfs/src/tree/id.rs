//! Node ids: what stands for a file while the mount lives, and what `ls -i` shows.
//!
//! ```text
//! 1                               the root
//! 2, 3, 4                         `.ctl` of the root, its `status`, its `features`
//! serial << 4 | fixed             a container's directory and what stands in it in every state (below 2^40)
//! generation << 40 | index        a file of an image; bit 39 of the index: reached by a decimal process id
//! ```
//! A generation is never used twice, so an id of an earlier freeze means nothing to a later one and is answered ESTALE. The
//! serial is the server's own count of containers: it may start again with the server, since the mount does too.

/// The id of a node, which is also its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

const GENERATION_SHIFT: u32 = 40;
/// 2^24 generations: a freeze a second for half a year. Beyond that the number wraps, when no one holds the first ones.
const GENERATION_MASK: u64 = (1 << 24) - 1;
const ALIAS: u64 = 1 << 39;
const INDEX_MASK: u64 = u32::MAX as u64;
const FIXED_SHIFT: u32 = 4;

/// What stands in a container's directory whatever its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fixed {
    Top,
    Ctl,
    State,
    Status,
    Events,
    Blockers,
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Root,
    RootCtl,
    RootStatus,
    RootFeatures,
    Fixed { serial: u64, what: Fixed },
    Image(ImageNode),
}

/// A file of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ImageNode {
    /// Masked to what fits into an id.
    pub(super) generation: u64,
    pub(super) index: u32,
    /// Below a directory that was looked up by the decimal process id. A directory has one name only in the kernel's
    /// eyes, so the second name needs an id of its own.
    pub(super) alias: bool,
}

impl ImageNode {
    pub(super) fn new(generation: u64, index: u32, alias: bool) -> Self {
        ImageNode { generation: mask(generation), index, alias }
    }
}

/// A generation as ids carry it.
pub(super) fn mask(generation: u64) -> u64 {
    generation & GENERATION_MASK
}

impl From<Place> for NodeId {
    fn from(place: Place) -> Self {
        NodeId(match place {
            Place::Root => 1,
            Place::RootCtl => 2,
            Place::RootStatus => 3,
            Place::RootFeatures => 4,
            Place::Fixed { serial, what } => (serial << FIXED_SHIFT) | what as u64,
            Place::Image(node) => {
                (mask(node.generation) << GENERATION_SHIFT) | (u64::from(node.alias) * ALIAS) | u64::from(node.index)
            }
        })
    }
}

impl NodeId {
    /// The root directory's.
    pub const ROOT: NodeId = NodeId(1);

    /// What it stands for; None for a number that was never given out.
    pub(super) fn place(self) -> Option<Place> {
        let generation = self.0 >> GENERATION_SHIFT;
        if generation != 0 {
            let index = u32::try_from(self.0 & INDEX_MASK).ok()?;
            return Some(Place::Image(ImageNode::new(generation, index, self.0 & ALIAS != 0)));
        }
        let what = match self.0 & ((1 << FIXED_SHIFT) - 1) {
            0 => Fixed::Top,
            1 => Fixed::Ctl,
            2 => Fixed::State,
            3 => Fixed::Status,
            4 => Fixed::Events,
            5 => Fixed::Blockers,
            _ => return None,
        };
        match (self.0, self.0 >> FIXED_SHIFT) {
            (1, _) => Some(Place::Root),
            (2, _) => Some(Place::RootCtl),
            (3, _) => Some(Place::RootStatus),
            (4, _) => Some(Place::RootFeatures),
            (_, 0) => None,
            (_, serial) => Some(Place::Fixed { serial, what }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_differ() {
        let places = [
            Place::Root,
            Place::RootCtl,
            Place::RootStatus,
            Place::RootFeatures,
            Place::Fixed { serial: 1, what: Fixed::Top },
            Place::Fixed { serial: 1, what: Fixed::Blockers },
            Place::Fixed { serial: 77, what: Fixed::Events },
            Place::Image(ImageNode::new(1, 1, false)),
            Place::Image(ImageNode::new(1, 1, true)),
            Place::Image(ImageNode::new(5, u32::MAX, false)),
        ];
        let ids: std::collections::BTreeSet<NodeId> = places.iter().map(|&place| place.into()).collect();
        assert_eq!(ids.len(), places.len());
        for place in places {
            assert_eq!(NodeId::from(place).place(), Some(place));
        }
        assert_eq!(NodeId(0).place(), None);
        assert_eq!(NodeId(5).place(), None);
        assert_eq!(NodeId(0x1f).place(), None);
    }
}
