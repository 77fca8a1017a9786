//! The words the records are written in: ids, addresses, byte strings, flags.
//!
//! Numbers that can pass 2^53 are strings, because jq and JavaScript round larger ones.

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A process or thread id as the container sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(pub u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An open file description inside an image: the name of its entry under `files/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileId(pub u32);

/// A virtual address of a captured process, written `"0x7f..."`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub u64);

/// A 64-bit quantity without a better type (a mask, a device number), written `"0x..."`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hex(pub u64);

/// Permission bits, written as an octal string such as `"0022"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Octal(pub u32);

macro_rules! string_number {
    ($name:ident, $int:ty, $radix:literal, $prefix:literal, $format:literal) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_text(deserializer, |text| {
                    text.strip_prefix($prefix)
                        // `from_str_radix` takes a sign, which no kernel prints.
                        .filter(|digits| digits.bytes().all(|b| b.is_ascii_alphanumeric()))
                        .and_then(|digits| <$int>::from_str_radix(digits, $radix).ok())
                        .map($name)
                        .ok_or_else(|| format!("{text:?} is no number of the form {}...", $prefix))
                })
            }
        }
    };
}
string_number!(Address, u64, 16, "0x", "{:#x}");
string_number!(Hex, u64, 16, "0x", "{:#x}");
string_number!(Octal, u32, 8, "0", "0{:03o}");

impl Address {
    /// Rounded down to its page.
    #[must_use]
    pub fn page(self) -> Address {
        Address(self.0 & !(PAGE_SIZE - 1))
    }
}

/// Bytes of a page on x86-64.
pub const PAGE_SIZE: u64 = 4096;

/// A point or length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timespec {
    /// Seconds, negative before the clock's zero.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

impl Timespec {
    /// From a signed count of nanoseconds.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn from_ns(ns: i128) -> Self {
        Timespec { sec: ns.div_euclid(1_000_000_000) as i64, nsec: ns.rem_euclid(1_000_000_000) as u32 }
    }

    /// As a signed count of nanoseconds.
    #[must_use]
    pub fn ns(self) -> i128 {
        i128::from(self.sec) * 1_000_000_000 + i128::from(self.nsec)
    }
}

/// A byte string that need not be UTF-8 (a path, an argument). UTF-8 stands as it is; a backslash is `\\`, and each byte
/// that is not part of UTF-8, or belongs to a control character, is `\xHH`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The escaped form, for people.
    #[must_use]
    pub fn escaped(&self) -> String {
        let mut out = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    // C1 too: a terminal that shows a path must not be steered by it.
                    c if c.is_control() => push_hex(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                    c => out.push(c),
                }
            }
            push_hex(&mut out, chunk.invalid());
        }
        out
    }

    /// Reads the escaped form back.
    ///
    /// # Errors
    /// In words, when a backslash starts neither `\\` nor `\xHH`.
    pub fn unescape(text: &str) -> Result<Self, String> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let tail = &rest[at + 1..];
            if let Some(after) = tail.strip_prefix('\\') {
                out.push(b'\\');
                rest = after;
            } else {
                let digits = tail.strip_prefix('x').and_then(|hex| hex.get(..2));
                // `from_str_radix` takes a sign.
                let byte = digits
                    .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
                    .and_then(|d| u8::from_str_radix(d, 16).ok());
                out.push(byte.ok_or_else(|| format!("{text:?}: a backslash must start \\\\ or \\xHH"))?);
                rest = &tail[3..];
            }
        }
        out.extend_from_slice(rest.as_bytes());
        Ok(Bytes(out))
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        out.push_str(&format!("\\x{byte:02x}"));
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.escaped())
    }
}
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.escaped())
    }
}
impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Bytes(text.as_bytes().to_vec())
    }
}
impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes(bytes)
    }
}
impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.escaped())
    }
}
impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer, Bytes::unescape)
    }
}

/// Raw bytes that mean nothing to a reader (register files, siginfo), written as hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}
impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Thousands of bytes a thread: reckoned, since the compiler then takes many at once, which it cannot look up in a table.
        let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
        let mut text = vec![[0; 2]; self.0.len()];
        text.iter_mut().zip(&self.0).for_each(|(digits, byte)| *digits = [digit(byte >> 4), digit(byte & 15)]);
        let text = std::str::from_utf8(text.as_flattened()).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}
impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn digit(byte: u8) -> Option<u8> {
            match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            }
        }
        deserialize_text(deserializer, |text| {
            let pairs = text.as_bytes().chunks(2);
            let bytes = pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?));
            let bytes = bytes.collect::<Option<Vec<u8>>>();
            bytes.map(Blob).ok_or_else(|| "not an even number of lower-case hex digits".to_owned())
        })
    }
}

/// Reads a string and makes something of it. The error of `parse` comes up from inside the string's visitor: only there
/// does serde_json still know the line.
pub(crate) fn deserialize_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Text<F>(F);
    impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Text<F> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            (self.0)(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(parse))
}

/// Defines a set of kernel flags that is written as an array of names, with unknown bits as one hex string at the end.
#[macro_export]
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($flag:ident = $value:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);
        #[allow(non_upper_case_globals)]
        impl $name {
            /// Every flag this type has a name for.
            pub const NAMES: &'static [(&'static str, u64)] = &[$((stringify!($flag), $value)),*];
            $(#[doc = concat!("The kernel's `", stringify!($flag), "`.")] pub const $flag: $name = $name($value);)*
            /// Whether all bits of `other` are set.
            #[must_use]
            pub fn contains(self, other: Self) -> bool { self.0 & other.0 == other.0 }
        }
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&$crate::types::flag_names(self.0, Self::NAMES).join("|"))
            }
        }
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq($crate::types::flag_names(self.0, Self::NAMES))
            }
        }
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::types::deserialize_flags(deserializer, Self::NAMES).map($name)
            }
        }
    };
}

/// The names of the set bits, in the order of the table, and what is left as hex.
#[must_use]
pub fn flag_names(mut bits: u64, table: &[(&str, u64)]) -> Vec<String> {
    let mut names = Vec::new();
    for &(name, value) in table {
        if value != 0 && bits & value == value {
            names.push(name.to_owned());
            bits &= !value;
        }
    }
    if bits != 0 {
        names.push(format!("{bits:#x}"));
    }
    names
}

/// The bits that an array of names stands for. Name by name, so that an error carries the line of the name at fault.
///
/// # Errors
/// When a name is neither in the table nor hex.
pub fn deserialize_flags<'de, D: Deserializer<'de>>(deserializer: D, table: &[(&str, u64)]) -> Result<u64, D::Error> {
    struct Names<'a>(&'a [(&'a str, u64)]);
    impl<'de> Visitor<'de> for Names<'_> {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of flag names")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<u64, A::Error> {
            let mut bits = 0;
            while let Some(bit) = names.next_element_seed(Name(self.0))? {
                bits |= bit;
            }
            Ok(bits)
        }
    }
    struct Name<'a>(&'a [(&'a str, u64)]);
    impl<'de> DeserializeSeed<'de> for Name<'_> {
        type Value = u64;
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
            deserialize_text(deserializer, |name| {
                let known = self.0.iter().find(|(flag, _)| *flag == name).map(|&(_, value)| value);
                let hex = || {
                    let digits = name.strip_prefix("0x")?;
                    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
                    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
                };
                known.or_else(hex).ok_or_else(|| format!("unknown flag {name:?}"))
            })
        }
    }
    deserializer.deserialize_seq(Names(table))
}
