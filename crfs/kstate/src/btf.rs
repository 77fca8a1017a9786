//! A small strict reader of BTF: where a member lies in a structure of the running kernel.
//!
//! Only what that needs: header, types, strings; structures, unions, arrays, pointers and what merely renames a type. Anything out of
//! bounds or unknown is an error and nothing panics: the file comes from the kernel, but this code also runs on bytes of anybody's
//! making in its tests.
//!
//! Source: Documentation/bpf/btf.rst and include/uapi/linux/btf.h, v6.18.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const MAGIC: u32 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_ENUM64: u32 = 19;

/// Renamings on the way to a type, anonymous structures inside each other: the kernel has fewer than ten.
const MAX_DEPTH: usize = 32;
/// Members looked at for one path. The largest structure of the kernel has some 250.
const MAX_VISITS: usize = 100_000;

/// The bytes are not BTF as this code knows it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BtfError {
    /// Not little-endian BTF version 1.
    #[error("not BTF version 1 (magic {magic:#x}, version {version})")]
    Magic {
        /// The first two bytes.
        magic: u32,
        /// The third.
        version: u8,
    },
    /// The file or a section ends too early.
    #[error("BTF ends inside {part} at byte {at}")]
    Short {
        /// What was being read.
        part: &'static str,
        /// Offset in the file or the section.
        at: usize,
    },
    /// A kind of type that this code does not know, and so cannot skip.
    #[error("BTF type {id} is of the unknown kind {kind}")]
    Kind {
        /// Number of the type.
        id: usize,
        /// Its kind.
        kind: u32,
    },
}

/// One path could not be resolved. The file may be fine otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum PathError {
    /// No structure of that name.
    #[error("this kernel has no `{0}`")]
    NoStruct(String),
    /// The structure has no such member.
    #[error("this kernel has no `{0}`")]
    NoMember(String),
    /// Several structures of that name, which differ in it.
    #[error("this kernel has several different `{0}`")]
    Ambiguous(String),
    /// The types on the way form a loop, or one too deep.
    #[error("the types of `{0}` are nested too deeply")]
    Depth(String),
    /// It is there, but not of the shape that the code expects.
    #[error("`{path}` has another shape than expected: {found:?}")]
    Shape {
        /// The path.
        path: String,
        /// What it is.
        found: Field,
    },
}

/// What a member is, as far as reading it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An integer, an enumeration or a boolean.
    Integer,
    /// A pointer.
    Pointer,
    /// A structure or union.
    Aggregate,
    /// An array. One without a length has size 0.
    Array,
}

/// Where a member lies, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Bytes from the beginning of the outermost structure.
    pub offset: u32,
    /// For a bit field: the first bit (0..8) counted from `offset`, and how many.
    pub bits: Option<(u8, u8)>,
    /// Bytes of its type.
    pub size: u32,
    /// Its kind.
    pub kind: Kind,
}

/// A parsed file: where each type begins.
#[derive(Debug)]
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    starts: Vec<u32>,
}

struct Type {
    name: usize,
    kind: u32,
    count: usize,
    kind_flag: bool,
    size_or_type: u32,
    /// Offset of what follows the common part.
    extra: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

fn index(value: u32) -> usize {
    // Lossless: this crate is for 64-bit machines.
    value as usize
}

impl<'a> Btf<'a> {
    /// Checks the header and finds every type.
    ///
    /// # Errors
    /// [`BtfError`] for anything that is not complete BTF of known kinds.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, BtfError> {
        let head = |at: usize| word(file, at).ok_or(BtfError::Short { part: "the header", at });
        let first = head(0)?;
        let (magic, version) = (first & 0xffff, u8::try_from((first >> 16) & 0xff).unwrap_or(0));
        if magic != MAGIC || version != 1 {
            return Err(BtfError::Magic { magic, version });
        }
        let header = index(head(4)?);
        let section = |offset: u32, length: u32, part| {
            let start = header.checked_add(index(offset));
            let range = start.and_then(|start| Some(start..start.checked_add(index(length))?));
            range.and_then(|range| file.get(range)).ok_or(BtfError::Short { part, at: file.len() })
        };
        let types = section(head(8)?, head(12)?, "the types")?;
        let strings = section(head(16)?, head(20)?, "the strings")?;
        if strings.last() != Some(&0) {
            return Err(BtfError::Short { part: "the strings", at: strings.len() });
        }
        // Type 0 is void and has no entry.
        let mut btf = Self { types, strings, starts: vec![u32::MAX] };
        let mut at = 0;
        while at < types.len() {
            let id = btf.starts.len();
            let short = BtfError::Short { part: "a type", at };
            let found = btf.type_at(at).ok_or_else(|| short.clone())?;
            let extra = match found.kind {
                KIND_PTR | 7..=12 | 16 | 18 => 0,
                KIND_INT | 14 | 17 => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | 15 | KIND_ENUM64 => 12 * found.count,
                KIND_ENUM | 13 => 8 * found.count,
                kind => return Err(BtfError::Kind { id, kind }),
            };
            btf.starts.push(u32::try_from(at).map_err(|_| short.clone())?);
            at = found.extra + extra;
            if at > types.len() {
                return Err(short);
            }
        }
        Ok(btf)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(self.types, at + 4)?;
        Some(Type {
            name: index(word(self.types, at)?),
            kind: (info >> 24) & 31,
            count: index(info & 0xffff),
            kind_flag: info >> 31 != 0,
            size_or_type: word(self.types, at + 8)?,
            extra: at + 12,
        })
    }

    /// None for void and for numbers out of range.
    fn get(&self, id: u32) -> Option<Type> {
        let at = *self.starts.get(index(id))?;
        if at == u32::MAX { None } else { self.type_at(index(at)) }
    }

    fn name(&self, offset: usize) -> &'a [u8] {
        let rest = self.strings.get(offset..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Follows typedef, const, volatile, restrict and type tags to the type they rename.
    fn plain(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                KIND_TYPEDEF | 9..=11 | 18 => id = found.size_or_type,
                _ => return Some(found),
            }
        }
        None
    }

    /// Resolves paths, in one pass over the types.
    ///
    /// A path is the name of a structure, or that with members and array indexes: `task_struct`, `signal_struct.it[1].incr`. Members
    /// of anonymous structures and unions count as members of what surrounds them. Pointers are not followed. A name alone gives the size.
    #[must_use]
    pub(crate) fn resolve(&self, paths: &[&str]) -> Vec<Result<Field, PathError>> {
        let mut wanted: HashMap<&[u8], Vec<u32>> =
            paths.iter().map(|path| (root(path).as_bytes(), Vec::new())).collect();
        for id in 1..u32::try_from(self.starts.len()).unwrap_or(u32::MAX) {
            if let Some(found) = self.get(id)
                && matches!(found.kind, KIND_STRUCT | KIND_UNION)
                && found.name != 0
                && let Some(ids) = wanted.get_mut(self.name(found.name))
            {
                ids.push(id);
            }
        }
        paths
            .iter()
            .map(|path| {
                let mut result = Err(PathError::NoStruct(root(path).to_owned()));
                for &id in wanted.get(root(path).as_bytes()).into_iter().flatten() {
                    match (&result, self.resolve_in(id, path)) {
                        // Another structure of the same name without that member is not the one meant.
                        (Ok(_), Err(_)) => {}
                        (Ok(known), Ok(found)) if *known == found => {}
                        (Ok(_), Ok(_)) => return Err(PathError::Ambiguous((*path).to_owned())),
                        (Err(_), found) => result = found,
                    }
                }
                result
            })
            .collect()
    }

    /// The value of an enumerator, wherever it is declared.
    #[must_use]
    pub(crate) fn enumerator(&self, name: &str) -> Option<u32> {
        for id in 1..u32::try_from(self.starts.len()).unwrap_or(u32::MAX) {
            let Some(found) = self.get(id).filter(|found| found.kind == KIND_ENUM) else { continue };
            for number in 0..found.count {
                let at = found.extra + 8 * number;
                if self.name(index(word(self.types, at)?)) == name.as_bytes() {
                    return word(self.types, at + 4);
                }
            }
        }
        None
    }

    fn resolve_in(&self, id: u32, path: &str) -> Result<Field, PathError> {
        let missing = || PathError::NoMember(path.to_owned());
        let mut id = id;
        let mut bits = 0u64;
        let mut bit_field = None;
        let mut visits = 0;
        for part in path.split('.').skip(1) {
            let (name, indexes) = part.split_once('[').map_or((part, None), |(name, rest)| (name, Some(rest)));
            let member = self
                .member(id, name.as_bytes(), MAX_DEPTH, &mut visits)
                .map_err(|()| PathError::Depth(path.to_owned()))?
                .ok_or_else(missing)?;
            id = member.id;
            bits += member.bit_offset;
            bit_field = member.bit_size;
            if let Some(indexes) = indexes {
                let number: u64 = indexes.strip_suffix(']').and_then(|text| text.parse().ok()).ok_or_else(missing)?;
                let array = self.plain(id).filter(|found| found.kind == KIND_ARRAY).ok_or_else(missing)?;
                let length = word(self.types, array.extra + 8).ok_or_else(missing)?;
                id = word(self.types, array.extra).ok_or_else(missing)?;
                if number >= u64::from(length) {
                    return Err(missing());
                }
                let size = self.size(id, MAX_DEPTH).ok_or_else(missing)?;
                bits = bits.checked_add(number.saturating_mul(u64::from(size) * 8)).ok_or_else(missing)?;
            }
        }
        let last = self.plain(id).ok_or_else(missing)?;
        let kind = match last.kind {
            KIND_INT | KIND_ENUM | KIND_ENUM64 => Kind::Integer,
            KIND_PTR => Kind::Pointer,
            KIND_STRUCT | KIND_UNION => Kind::Aggregate,
            KIND_ARRAY => Kind::Array,
            _ => return Err(missing()),
        };
        let shift = u8::try_from(bits % 8).unwrap_or(0);
        if shift != 0 && bit_field.is_none() {
            return Err(missing());
        }
        Ok(Field {
            offset: u32::try_from(bits / 8).map_err(|_| missing())?,
            bits: bit_field.map(|width| (shift, width)),
            size: self.size(id, MAX_DEPTH).ok_or_else(missing)?,
            kind,
        })
    }

    /// Looks for a member, also in anonymous members. `Err`: too deep.
    fn member(&self, id: u32, name: &[u8], depth: usize, visits: &mut usize) -> Result<Option<Member>, ()> {
        let Some(found) = self.plain(id).filter(|found| matches!(found.kind, KIND_STRUCT | KIND_UNION)) else {
            return Ok(None);
        };
        let depth = depth.checked_sub(1).ok_or(())?;
        for number in 0..found.count {
            *visits += 1;
            if *visits > MAX_VISITS {
                return Err(());
            }
            let at = found.extra + 12 * number;
            let [Some(own_name), Some(own_id), Some(raw)] = [0, 4, 8].map(|plus| word(self.types, at + plus)) else {
                return Err(());
            };
            let (bit_offset, width) =
                if found.kind_flag { (raw & 0x00ff_ffff, u8::try_from(raw >> 24).unwrap_or(0)) } else { (raw, 0) };
            let bit_offset = u64::from(bit_offset);
            if own_name == 0 {
                if let Some(inner) = self.member(own_id, name, depth, visits)? {
                    return Ok(Some(Member { bit_offset: inner.bit_offset + bit_offset, ..inner }));
                }
            } else if self.name(index(own_name)) == name {
                return Ok(Some(Member { id: own_id, bit_offset, bit_size: (width != 0).then_some(width) }));
            }
        }
        Ok(None)
    }

    fn size(&self, id: u32, depth: usize) -> Option<u32> {
        let found = self.plain(id)?;
        match found.kind {
            KIND_INT | KIND_ENUM | KIND_ENUM64 | KIND_STRUCT | KIND_UNION => Some(found.size_or_type),
            KIND_PTR => Some(8),
            KIND_ARRAY => {
                let element = self.size(word(self.types, found.extra)?, depth.checked_sub(1)?)?;
                element.checked_mul(word(self.types, found.extra + 8)?)
            }
            _ => None,
        }
    }
}

struct Member {
    id: u32,
    bit_offset: u64,
    bit_size: Option<u8>,
}

fn root(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "btf_tests.rs"]
mod tests;
