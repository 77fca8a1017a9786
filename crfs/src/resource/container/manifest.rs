//! What `manifest` says of the container and of where it was taken; its list of paths is [`image_format::Image::paths`] of the whole.

use super::super::proc::Proc;
use super::inside::{NET, inside};
use super::{Moment, cpu, host, uts};
use crate::failure::{Doing, Failure};
use crate::registry::Record;
use crfs_sys::ptrace::xstate_size;
use crfs_sys::sockets::loopback_is_up;
use image_format::manifest::{Container, Cpu, FORMAT_VERSION, Kernel, Manifest, NamespaceKind};
use image_format::memory::checksum;
use image_format::namespaces::UtsNames;
use image_format::types::{Bytes, Hex, PAGE_SIZE};
use image_format::{Pid, ProcessImage, memory::Backing};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

/// Where the kernel leaves XCR0 in an XSAVE area read by ptrace (`USER_XSTATE_XCR0_WORD`, `arch/x86/include/uapi/asm/sigcontext.h`).
const XCR0: u32 = 464;

/// What is read from outside of processes.
#[derive(Clone, Debug)]
pub struct Environment {
    clocks: image_format::manifest::Clocks,
    names: UtsNames,
    loopback: bool,
    release: String,
    flags: Vec<String>,
}

impl Environment {
    /// Reads it. The caller must have one thread.
    ///
    /// # Errors
    /// When the first process is gone.
    pub fn read(record: &Record, init: i32, moment: &Moment, proc: &mut Proc) -> Result<Self, Failure> {
        let release = nix::sys::utsname::uname().doing(|| "uname(2)")?.release().to_string_lossy().into_owned();
        let loopback =
            record.shares(NamespaceKind::Net) || inside(init, &[NET], || loopback_is_up().doing(|| "looking at lo"))?;
        let (clocks, names) = (moment.inside(init, proc)?, uts::names(init)?);
        Ok(Environment { clocks, names, loopback, release, flags: cpu::flags()? })
    }
}

/// The manifest for these processes, without its list of paths. `host` gives a process's host pid.
///
/// # Errors
/// When the vDSO cannot be read.
pub fn manifest(
    record: &Record,
    environment: Environment,
    processes: &BTreeMap<Pid, ProcessImage>,
    host: impl Fn(Pid) -> Option<i32>,
) -> Result<Manifest, Failure> {
    let thread = processes.values().flat_map(|process| process.threads.values()).next();
    let xfeatures = thread.map_or(0, |thread| thread.fpu.xstate.word(XCR0));
    let vdso = vdso(processes, host)?;
    Ok(Manifest {
        format: FORMAT_VERSION,
        generator: concat!("crfs ", env!("CARGO_PKG_VERSION")).to_owned(),
        name: record.name.clone(),
        architecture: "x86_64".to_owned(),
        page_size: PAGE_SIZE,
        kernel: Kernel {
            release: environment.release,
            vdso: Hex(checksum(&vdso)),
            vdso_size: u64::try_from(vdso.len()).unwrap_or(0),
        },
        cpu: Cpu {
            xfeatures: Hex(xfeatures),
            xsave_size: u32::try_from(xstate_size()).unwrap_or(u32::MAX),
            flags: environment.flags,
        },
        clocks: environment.clocks,
        container: Container {
            root: record.root.as_ref().map(|root| Bytes(root.as_os_str().as_bytes().to_vec())),
            host_namespaces: record.host_namespaces.clone(),
            hostname: environment.names.hostname,
            domainname: environment.names.domainname,
            loopback: environment.loopback,
        },
        parent: None,
        paths: Vec::new(),
    })
}

/// The code of the vDSO, which is the same for all processes of a boot: that of the first process that has it, or our own where none
/// has (valgrind unmaps it).
fn vdso(processes: &BTreeMap<Pid, ProcessImage>, host: impl Fn(Pid) -> Option<i32>) -> Result<Vec<u8>, Failure> {
    for process in processes.values() {
        let segment = process.segments.iter().find(|segment| segment.backing == Backing::Vdso);
        if let (Some(segment), Some(host)) = (segment, host(process.process.pid)) {
            let mut code = vec![0; usize::try_from(segment.end.0 - segment.start.0).unwrap_or(0)];
            crfs_sys::memory::read(nix::unistd::Pid::from_raw(host), segment.start.0, &mut code)
                .doing(|| format!("manifest: reading the vDSO of process {}", process.process.pid))?;
            return Ok(code);
        }
    }
    host::vdso()
}
