use super::*;
use proptest::prelude::*;

/// Builds a file by hand, so that the expected offsets are known without the kernel.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0] }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    fn add(&mut self, name: &str, kind: u32, count: usize, flag: bool, size_or_type: u32, extra: &[u32]) {
        let name = self.name(name);
        let info = (u32::from(flag) << 31) | (kind << 24) | u32::try_from(count).unwrap();
        self.words(&[name, info, size_or_type]);
        self.words(extra);
    }

    /// Members: name, type, raw offset.
    fn aggregate(&mut self, name: &str, kind: u32, flag: bool, size: u32, members: &[(&str, u32, u32)]) {
        let extra: Vec<u32> = members.iter().flat_map(|&(name, id, raw)| [self.name(name), id, raw]).collect();
        self.add(name, kind, members.len(), flag, size, &extra);
    }

    fn finish(&self) -> Vec<u8> {
        let (types, strings) = (u32::try_from(self.types.len()).unwrap(), u32::try_from(self.strings.len()).unwrap());
        let mut file = vec![0x9f, 0xeb, 1, 0];
        file.extend([24, 0, types, types, strings].iter().flat_map(|word: &u32| word.to_le_bytes()));
        file.extend(&self.types);
        file.extend(&self.strings);
        file
    }
}

fn sample() -> Builder {
    let mut b = Builder::new();
    b.add("int", KIND_INT, 0, false, 4, &[0x0100_0020]); // 1
    b.add("", KIND_PTR, 0, false, 1, &[]); // 2
    b.add("number", KIND_TYPEDEF, 0, false, 1, &[]); // 3
    b.aggregate("pair", KIND_STRUCT, false, 8, &[("first", 3, 0), ("second", 1, 32)]); // 4
    b.add("", KIND_ARRAY, 0, false, 0, &[4, 1, 3]); // 5: pair[3]
    b.aggregate("", KIND_UNION, false, 8, &[("word", 2, 0), ("both", 4, 0)]); // 6
    b.aggregate(
        "outer",
        KIND_STRUCT,
        true,
        64,
        &[("head", 1, 0), ("low", 1, 32 | (3 << 24)), ("high", 1, 35 | (1 << 24)), ("", 6, 64), ("pairs", 5, 128)],
    ); // 7
    b
}

fn field(offset: u32, size: u32, kind: Kind) -> Result<Field, PathError> {
    Ok(Field { offset, bits: None, size, kind })
}

#[test]
fn members_are_found_through_names_arrays_and_anonymous_unions() {
    let file = sample().finish();
    let btf = Btf::parse(&file).unwrap();
    let found = btf.resolve(&[
        "outer.head",
        "outer.word",
        "outer.both.second",
        "outer.pairs[2].first",
        "outer.pairs",
        "pair",
        "outer.low",
        "outer.high",
    ]);
    let bits = |bits| Ok(Field { offset: 4, bits: Some(bits), size: 4, kind: Kind::Integer });
    assert_eq!(
        found,
        [
            field(0, 4, Kind::Integer),
            field(8, 8, Kind::Pointer),
            field(12, 4, Kind::Integer),
            field(32, 4, Kind::Integer),
            field(16, 24, Kind::Array),
            field(0, 8, Kind::Aggregate),
            bits((0, 3)),
            bits((3, 1)),
        ]
    );
}

#[test]
fn what_is_not_there_is_named() {
    let file = sample().finish();
    let btf = Btf::parse(&file).unwrap();
    let no = |path: &str| Err(PathError::NoMember(path.to_owned()));
    assert_eq!(
        btf.resolve(&[
            "nothing.at.all",
            "outer.tail",
            "outer.pairs[3].first",
            "outer.head.deeper",
            "outer.word.behind"
        ]),
        [
            Err(PathError::NoStruct("nothing".to_owned())),
            no("outer.tail"),
            no("outer.pairs[3].first"),
            no("outer.head.deeper"),
            no("outer.word.behind"),
        ]
    );
}

#[test]
fn two_structures_of_one_name_must_agree() {
    let mut b = sample();
    b.aggregate("pair", KIND_STRUCT, false, 16, &[("first", 1, 0), ("second", 1, 64)]);
    let file = b.finish();
    let found = Btf::parse(&file).unwrap().resolve(&["pair.first", "pair.second"]);
    assert_eq!(found, [field(0, 4, Kind::Integer), Err(PathError::Ambiguous("pair.second".to_owned()))]);
}

#[test]
fn loops_end() {
    let mut b = Builder::new();
    b.add("a", KIND_TYPEDEF, 0, false, 2, &[]); // 1 -> 2 -> 1
    b.add("b", KIND_TYPEDEF, 0, false, 1, &[]);
    b.aggregate("s", KIND_STRUCT, false, 8, &[("", 3, 0), ("", 3, 0), ("x", 1, 0)]); // 3 in itself, twice
    let file = b.finish();
    let found = Btf::parse(&file).unwrap().resolve(&["s.x"]);
    assert_eq!(found, [Err(PathError::Depth("s.x".to_owned()))]);
}

#[test]
fn every_truncation_is_an_error() {
    let file = sample().finish();
    for length in 0..file.len() {
        assert!(Btf::parse(&file[..length]).is_err(), "cut to {length} bytes");
    }
    let mut unknown = sample();
    unknown.add("", 25, 0, false, 0, &[]);
    assert_eq!(Btf::parse(&unknown.finish()).err(), Some(BtfError::Kind { id: 8, kind: 25 }));
    let mut wrong = file;
    wrong[0] = 0xeb;
    assert!(matches!(Btf::parse(&wrong), Err(BtfError::Magic { .. })));
}

const PATHS: [&str; 6] = [
    "outer.both.second",
    "outer.pairs[2].first",
    "outer.low",
    "pair",
    "s.x",
    "outer.pairs[18446744073709551615].first",
];

proptest! {
    #[test]
    fn random_bytes_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..400), types in 0u32..400) {
        let mut file = vec![0x9f, 0xeb, 1, 0];
        let strings = u32::try_from(body.len()).unwrap().saturating_sub(types);
        file.extend([24, 0, types, types, strings].iter().flat_map(|word: &u32| word.to_le_bytes()));
        file.extend(&body);
        file.push(0);
        if let Ok(btf) = Btf::parse(&file) {
            prop_assert_eq!(btf.resolve(&PATHS).len(), PATHS.len());
            prop_assert_eq!(btf.enumerator("no such name"), None);
        }
    }

    #[test]
    fn damaged_files_do_not_panic(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = sample().finish();
        for (at, value) in damage {
            let at = at.index(file.len());
            file[at] = value;
        }
        if let Ok(btf) = Btf::parse(&file) {
            prop_assert_eq!(btf.resolve(&PATHS).len(), PATHS.len());
            prop_assert_eq!(btf.enumerator("no such name"), None);
        }
    }
}
