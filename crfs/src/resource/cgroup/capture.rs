//! From the files of cgroups to records.

use super::super::subject::Subjects;
use crate::failure::{Doing, Failure};
use crate::freezer;
use image_format::cgroups::{Cgroup, DelegatedFile, Maker, Setting};
use image_format::{Bytes, Octal, Pid};
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How a fresh hugetlb.SIZE.max says it (v6.18): PAGE_COUNTER_MAX, `include/linux/page_counter.h`, in bytes.
const UNLIMITED: &str = "9223372036854771712";

/// Reads the cgroup of a frozen container, and all inside it.
///
/// # Errors
/// When a file cannot be read.
pub fn capture(top: &freezer::Cgroup, subjects: &Subjects) -> Result<Vec<Cgroup>, Failure> {
    let mut paths = top.with_descendants()?;
    // By components: each before those in it, and in the order of names.
    paths.sort();
    let mut cgroups = Vec::with_capacity(paths.len());
    for path in &paths {
        let inside = path.strip_prefix(top.path()).unwrap_or(path).as_os_str().as_bytes();
        let name = if inside.is_empty() { b"." } else { inside };
        cgroups.push(read(path, Bytes(name.to_vec())).doing(|| format!("cgroup {}: reading", path.display()))?);
    }
    if paths.len() > 1 {
        let places = places(&paths)?;
        settle(&mut cgroups, subjects, |host| places.get(&host).copied().unwrap_or(0));
    }
    Ok(cgroups)
}

/// In which of the cgroups each thread lies, as the host numbers them; the first is left out.
fn places(paths: &[PathBuf]) -> Result<BTreeMap<i32, usize>, Failure> {
    let mut places = BTreeMap::new();
    for (index, path) in paths.iter().enumerate().skip(1) {
        let file = path.join("cgroup.threads");
        let text = fs::read_to_string(&file).doing(|| format!("{}: reading", file.display()))?;
        places.extend(text.lines().filter_map(|line| Some((line.parse().ok()?, index))));
    }
    Ok(places)
}

/// Writes down who lies where.
fn settle(cgroups: &mut [Cgroup], subjects: &Subjects, place: impl Fn(i32) -> usize) {
    for process in &subjects.processes {
        let home = place(process.alive().host);
        // The container's own lists nobody: whoever is listed nowhere lies there.
        if let Some(cgroup) = cgroups.get_mut(home).filter(|_| home != 0) {
            cgroup.processes.push(process.pid);
        }
        let living = process.threads.iter().filter(|thread| !thread.has_ended());
        for (tid, index) in living.map(|thread| (thread.tid, place(thread.host))).filter(|&(_, index)| index != home) {
            if let Some(cgroup) = cgroups.get_mut(index) {
                cgroup.threads.push(tid);
            }
        }
    }
}

fn read(path: &Path, name: Bytes) -> std::io::Result<Cgroup> {
    let text = |file: &str| fs::read_to_string(path.join(file));
    let directory = fs::metadata(path)?;
    // Nobody delegates a file that cannot be written.
    let made = fs::metadata(path.join("cgroup.controllers"))?;
    let maker = Maker { uid: made.uid(), gid: made.gid() };
    let is_top = name.0 == b".";
    let mut cgroup = Cgroup {
        path: name,
        threaded: !is_top && text("cgroup.type")?.trim_end() == "threaded",
        // That of the container's own says that it is a checkpoint.
        frozen: !is_top && text("cgroup.freeze")?.trim_end() == "1",
        mode: permissions(&directory),
        uid: directory.uid(),
        gid: directory.gid(),
        maker,
        delegated: Vec::new(),
        controllers: text("cgroup.subtree_control")?.split_whitespace().map(str::to_owned).collect(),
        settings: Vec::new(),
        processes: Vec::<Pid>::new(),
        threads: Vec::new(),
    };
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let (Ok(file), found) = (entry.file_name().into_string(), entry.metadata()?) else { continue };
        if !found.is_file() {
            continue;
        }
        if is_delegated(&found, maker) {
            let (mode, uid, gid) = (permissions(&found), found.uid(), found.gid());
            cgroup.delegated.push(DelegatedFile { file: file.clone(), mode, uid, gid });
        }
        if let Some(value) = setting(path, &file, &found)? {
            cgroup.settings.push(Setting { file, value });
        }
    }
    cgroup.controllers.sort();
    cgroup.delegated.sort_by(|a, b| a.file.cmp(&b.file));
    cgroup.settings.sort_by(|a, b| a.file.cmp(&b.file));
    // The kernel takes no weight for what has none.
    if cgroup.settings.iter().any(|setting| setting.file == "cpu.idle") {
        cgroup.settings.retain(|setting| setting.file != "cpu.weight");
    }
    Ok(cgroup)
}

fn permissions(metadata: &Metadata) -> Octal {
    Octal(metadata.mode() & 0o7777)
}

/// Whether a file was given to somebody else, or other permissions than the kernel gives (`cgroup_file_mode`,
/// `kernel/cgroup/cgroup.c`, v6.18).
fn is_delegated(found: &Metadata, maker: Maker) -> bool {
    let mode = found.mode() & 0o7777;
    let read = if mode & 0o400 == 0 { 0 } else { 0o444 };
    mode != read | mode & 0o200 || (found.uid(), found.gid()) != (maker.uid, maker.gid)
}

/// What a file says that is a setting and was changed.
fn setting(path: &Path, file: &str, found: &Metadata) -> std::io::Result<Option<String>> {
    if found.mode() & 0o600 != 0o600 || Setting::is_no_setting(file) {
        return Ok(None);
    }
    let text = match fs::read_to_string(path.join(file)) {
        // A controller that was taken away, or that has nothing to say here.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => return Ok(None),
        text => text?,
    };
    let value = text.trim_end();
    // A partition that is not valid at the moment says why behind its name.
    let value = if file == "cpuset.cpus.partition" { value.split(" invalid").next().unwrap_or(value) } else { value };
    Ok((!is_default(file, value)).then(|| value.to_owned()))
}

/// Whether a fresh cgroup says this too: `Documentation/admin-guide/cgroup-v2.rst`, v6.18. Of a file that is not known here a value that
/// is nothing or 0 is taken for it; what is written down without need does no harm.
fn is_default(file: &str, value: &str) -> bool {
    match file {
        "cpu.max" => value == "max 100000",
        "cpu.uclamp.min" => value == "0.00",
        "cpu.weight" => value == "100",
        "io.weight" | "io.bfq.weight" => value == "default 100",
        "io.prio.class" => value == "no-change",
        "cpuset.cpus.partition" => value == "member",
        "cgroup.pressure" | "memory.zswap.writeback" => value == "1",
        // Of each device or resource, where there are several.
        _ if file.ends_with(".max") || file.ends_with(".high") || file.starts_with("cgroup.max.") => {
            let limits = value
                .lines()
                .flat_map(|line| line.split(' ').filter(|word| word.contains('=')).chain(line.split(' ').next_back()));
            limits.into_iter().all(|limit| ["max", UNLIMITED].contains(&limit) || limit.ends_with("=max"))
        }
        _ => value.lines().all(|line| line.split(' ').next_back() == Some("0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    /// What a fresh cgroup with every controller says.
    const FRESH: [(&str, &str); 29] = [
        ("cgroup.max.depth", "max\n"),
        ("cgroup.max.descendants", "max\n"),
        ("cgroup.pressure", "1\n"),
        ("cpu.idle", "0\n"),
        ("cpu.max", "max 100000\n"),
        ("cpu.max.burst", "0\n"),
        ("cpu.uclamp.max", "max\n"),
        ("cpu.uclamp.min", "0.00\n"),
        ("cpu.weight", "100\n"),
        ("cpuset.cpus", "\n"),
        ("cpuset.cpus.exclusive", "\n"),
        ("cpuset.cpus.partition", "member\n"),
        ("cpuset.mems", "\n"),
        ("dmem.low", "drm/0000:03:00.0/vram0 0\n"),
        ("dmem.max", "drm/0000:03:00.0/vram0 max\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.rsvd.max", "9223372036854771712\n"),
        ("io.latency", ""),
        ("io.max", ""),
        ("io.weight", "default 100\n"),
        ("memory.high", "max\n"),
        ("memory.low", "0\n"),
        ("memory.max", "max\n"),
        ("memory.oom.group", "0\n"),
        ("memory.swap.max", "max\n"),
        ("memory.zswap.writeback", "1\n"),
        ("misc.max", "sev max\nsev_es max\n"),
        ("pids.max", "max\n"),
        ("rdma.max", "mlx4_0 hca_handle=max hca_object=max\nocrdma1 hca_handle=max hca_object=max\n"),
    ];

    fn settings(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let directory = tempfile::tempdir().unwrap();
        let mut own = vec![("cgroup.controllers", ""), ("cgroup.subtree_control", ""), ("cgroup.procs", "7\n")];
        own.extend([("memory.pressure", "some avg10=0.00\n"), ("memory.peak", "7\n"), ("cpu.weight.nice", "7\n")]);
        for (file, text) in own.iter().chain(files) {
            fs::write(directory.path().join(file), text).unwrap();
        }
        fs::set_permissions(directory.path().join("cgroup.controllers"), Permissions::from_mode(0o444)).unwrap();
        let cgroup = read(directory.path(), ".".into()).unwrap();
        cgroup.settings.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn a_fresh_cgroup_has_no_settings() {
        assert_eq!(settings(&FRESH), []);
    }

    #[test]
    fn what_was_changed_is_told() {
        let changed = [
            ("cgroup.max.depth", "3"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-3"),
            ("cpuset.cpus.partition", "root"),
            ("io.max", "8:0 rbps=1048576 wbps=max riops=max wiops=max"),
            ("io.weight", "default 100\n8:0 50"),
            ("memory.max", "1073741824"),
            ("memory.min", "4096"),
            ("misc.max", "sev max\nsev_es 5"),
            ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max"),
            ("some.new_one", "whatever it is"),
        ];
        let found = settings(&changed);
        assert_eq!(found, changed.map(|(file, value)| (file.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_partition_and_an_idle_one_are_told_as_they_can_be_written() {
        let found =
            settings(&[("cpuset.cpus.partition", "root invalid (no cpus)\n"), ("cpu.idle", "1"), ("cpu.weight", "0")]);
        let pair = |file: &str, value: &str| (file.to_owned(), value.to_owned());
        assert_eq!(found, [pair("cpu.idle", "1"), pair("cpuset.cpus.partition", "root")]);
    }
}
