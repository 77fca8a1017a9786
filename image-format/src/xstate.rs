//! The extended state of a thread: an XSAVE area by its parts that are not zero.
//!
//! The area has room for every register of the processor, up to 11 KB, and most programs use a few of them: a thousand threads are
//! read, written and copied by what they have.

use crate::types::Blob;
use serde::{Deserialize, Serialize};

/// Bytes that are left out together. Every component begins at a multiple of them (Intel SDM, volume 1, 13.4).
const BLOCK: usize = 64;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// An XSAVE area in the standard format (ptrace(2), NT_X86_XSTATE), of which blocks of 64 bytes that are zero are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xstate(pub Vec<XstatePart>);

/// Blocks in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XstatePart {
    /// Where in the area they begin, in bytes.
    pub offset: u32,
    /// What they hold.
    pub bytes: Blob,
}

impl XstatePart {
    /// Where in the area they end.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + self.bytes.0.len() as u64
    }
}

impl Xstate {
    /// The parts of an area.
    #[must_use]
    pub fn of(area: &[u8]) -> Self {
        let mut parts: Vec<XstatePart> = Vec::new();
        for (index, block) in area.chunks(BLOCK).enumerate() {
            let Ok(offset) = u32::try_from(index * BLOCK) else { break };
            // As slices, which are compared many bytes at a time: a thousand threads have eleven megabytes.
            if *block == ZEROS[..block.len()] {
                continue;
            }
            match parts.last_mut().filter(|part| part.end() == u64::from(offset)) {
                Some(part) => part.bytes.0.extend_from_slice(block),
                None => parts.push(XstatePart { offset, bytes: Blob(block.to_vec()) }),
            }
        }
        Xstate(parts)
    }

    /// The area, `size` bytes of it.
    #[must_use]
    pub fn area(&self, size: usize) -> Vec<u8> {
        let mut area = vec![0; size];
        for part in &self.0 {
            let room = area.get_mut(part.offset as usize..).unwrap_or_default();
            room.iter_mut().zip(&part.bytes.0).for_each(|(byte, &new)| *byte = new);
        }
        area
    }

    /// A word of the area, at a multiple of its size.
    #[must_use]
    pub fn word(&self, offset: u32) -> u64 {
        let within = |part: &&XstatePart| part.offset <= offset && u64::from(offset) < part.end();
        let bytes = self.0.iter().find(within).and_then(|part| part.bytes.0.get((offset - part.offset) as usize..));
        bytes.and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Bytes that the area has at least.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.iter().map(XstatePart::end).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_comes_back() {
        let mut area = vec![0; 2696];
        for place in [24, 63, 64, 512, 519, 1088, 2688, 2695] {
            area[place] = 0x81;
        }
        let state = Xstate::of(&area);
        let parts: Vec<_> = state.0.iter().map(|part| (part.offset, part.bytes.0.len())).collect();
        assert_eq!(parts, [(0, 128), (512, 64), (1088, 64), (2688, 8)]);
        assert_eq!(state.area(area.len()), area);
        assert_eq!(
            (state.word(512), state.word(520), state.word(600), state.end()),
            (0x8100_0000_0000_0081, 0, 0, 2696)
        );
        // A processor that has more.
        assert_eq!(Xstate::of(&state.area(11_008)).area(area.len()), area);
    }
}
