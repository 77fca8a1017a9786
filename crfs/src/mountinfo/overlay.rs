//! The directories of an overlay: as mountinfo shows them, and in the one form that images have, `lowerdir=/a:/b,upperdir=/c,workdir=/d`.
//!
//! Runtimes name many layers by paths below a directory that they stood in, since mount(2) takes no more than a page of options; others give
//! one `lowerdir+` for each. Source: `Documentation/filesystems/overlayfs.rst`, `ovl_show_options` in `fs/overlayfs/params.c`, v6.18.

use super::Mount;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The options of an overlay in that form. `near` are paths below the directory that relative ones may begin at, and `exists` looks for
/// them; what is found nowhere, or in two places, stays relative.
pub(crate) fn normal(mount: &Mount, near: &[&Path], exists: &dyn Fn(&Path) -> bool) -> Vec<Vec<u8>> {
    let layers = Layers::of(&mount.options);
    let upper = layers.upper.as_ref().filter(|upper| upper.is_absolute()).map(PathBuf::as_path);
    let relative: Vec<&PathBuf> = layers.all().filter(|path| path.is_relative()).collect();
    // What the kernel makes in it shows that it is the one of an overlay.
    let work = layers.work.iter().map(|work| work.join("work")).filter(|work| work.is_relative());
    let wanted: Vec<PathBuf> = relative.iter().map(|path| path.to_path_buf()).chain(work).collect();
    let mut bases: Vec<&Path> = near.iter().copied().chain(upper).flat_map(Path::ancestors).collect();
    bases.sort_unstable();
    bases.dedup();
    bases.retain(|base| base.is_absolute() && wanted.iter().all(|path| exists(&base.join(path))));
    let base = if let [base] = bases[..] { base } else { Path::new("") };
    let others = mount.options.iter().filter(|option| !is_directory(option));
    layers.options(base).into_iter().chain(others.cloned()).collect()
}

/// The options that name each lower directory by itself, which have no limit but that of a path each (255 bytes; Linux 6.7).
pub(crate) fn one_by_one(options: &[u8]) -> Vec<u8> {
    let options: Vec<Vec<u8>> = options.split(|&byte| byte == b',').map(<[u8]>::to_vec).collect();
    let layers = Layers::of(&options);
    let named = |name: &str, path: &PathBuf| [name.as_bytes(), path.as_os_str().as_bytes()].concat();
    let lower = layers.lower.iter().map(|path| named("lowerdir+=", path));
    let data = layers.data.iter().map(|path| named("datadir+=", path));
    let others = options.iter().filter(|option| !option.starts_with(b"lowerdir=")).cloned();
    lower.chain(data).chain(others).collect::<Vec<_>>().join(&b',')
}

/// The directories that an overlay is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    lower: Vec<PathBuf>,
    /// Those of which the lower ones have names, and nothing else is seen.
    data: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
}

impl Layers {
    /// Those that its options name.
    pub(crate) fn of(options: &[Vec<u8>]) -> Self {
        let mut layers = Layers::default();
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        for (name, value) in options.iter().filter_map(|option| option_of(option)) {
            match name {
                b"lowerdir" => {
                    let (lower, data) = split(value);
                    layers.lower.extend(lower);
                    layers.data.extend(data);
                }
                b"lowerdir+" => layers.lower.push(path(value)),
                b"datadir+" => layers.data.push(path(value)),
                b"upperdir" => layers.upper = Some(path(value)),
                b"workdir" => layers.work = Some(path(value)),
                _ => {}
            }
        }
        layers
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.lower.iter().chain(&self.data).chain(&self.upper).chain(&self.work)
    }

    fn options(&self, base: &Path) -> Vec<Vec<u8>> {
        let joined = |paths: &[PathBuf], between: &[u8]| {
            paths.iter().map(|path| escaped(&base.join(path))).collect::<Vec<_>>().join(between)
        };
        let mut lower = [b"lowerdir=", joined(&self.lower, b":").as_slice()].concat();
        if !self.data.is_empty() {
            lower.extend([b"::", joined(&self.data, b"::").as_slice()].concat());
        }
        let one = |name: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| [name.as_bytes(), base.join(path).as_os_str().as_bytes()].concat())
        };
        [Some(lower), one("upperdir=", &self.upper), one("workdir=", &self.work)].into_iter().flatten().collect()
    }
}

fn option_of(option: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = option.iter().position(|&byte| byte == b'=')?;
    Some((&option[..at], &option[at + 1..]))
}

fn is_directory(option: &[u8]) -> bool {
    let names: [&[u8]; 5] = [b"lowerdir", b"lowerdir+", b"datadir+", b"upperdir", b"workdir"];
    option_of(option).is_some_and(|(name, _)| names.contains(&name))
}

/// The paths of `lowerdir`, whose colons part them: one before a further layer, two before one of data.
fn split(value: &[u8]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut parts = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b':' => parts.push(Vec::new()),
            b'\\' => parts.last_mut().into_iter().for_each(|part| part.extend(bytes.next())),
            byte => parts.last_mut().into_iter().for_each(|part| part.push(byte)),
        }
    }
    let (mut lower, mut data) = (Vec::new(), Vec::new());
    let mut is_data = false;
    for part in parts {
        match part.is_empty() {
            true => is_data = true,
            false => if is_data { &mut data } else { &mut lower }.push(PathBuf::from(OsStr::from_bytes(&part))),
        }
    }
    (lower, data)
}

fn escaped(path: &Path) -> Vec<u8> {
    let escape = |&byte: &u8| if matches!(byte, b':' | b'\\') { vec![b'\\', byte] } else { vec![byte] };
    path.as_os_str().as_bytes().iter().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo::mounts;

    fn normal(options: &str, there: &[&str]) -> String {
        let mount = &mounts(format!("9 2 0:7 / /var/o/1/merged rw - overlay o {options}\n").as_bytes())[0];
        let exists = |path: &Path| there.contains(&path.to_str().unwrap());
        String::from_utf8(super::normal(mount, &[&mount.path], &exists).join(&b',')).unwrap()
    }

    #[test]
    fn relative_paths_begin_where_all_of_them_are() {
        let there = ["/var/o/l/A", "/var/o/l/B", "/var/o/1/diff", "/var/o/1/work", "/var/o/1/work/work", "/l/A"];
        assert_eq!(
            normal("rw,lowerdir=l/A:l/B,upperdir=1/diff,workdir=1/work,xino=off", &there),
            "lowerdir=/var/o/l/A:/var/o/l/B,upperdir=/var/o/1/diff,workdir=/var/o/1/work,rw,xino=off"
        );
        assert_eq!(
            normal("lowerdir=l/A:/b,upperdir=/var/o/x/fs", &there[..1]),
            "lowerdir=/var/o/l/A:/b,upperdir=/var/o/x/fs"
        );
        // In two places, or in none.
        assert_eq!(normal("lowerdir=l/A", &there), "lowerdir=l/A");
        assert_eq!(normal("lowerdir=l/C", &there), "lowerdir=l/C");
    }

    #[test]
    fn directories_that_were_given_one_by_one() {
        assert_eq!(normal("lowerdir+=/a:b,lowerdir+=/c,datadir+=/d,datadir+=/e", &[]), r"lowerdir=/a\:b:/c::/d::/e");
        assert_eq!(
            one_by_one(br"lowerdir=/a\:b:/c::/d::/e,index=off"),
            b"lowerdir+=/a:b,lowerdir+=/c,datadir+=/d,datadir+=/e,index=off"
        );
    }
}
