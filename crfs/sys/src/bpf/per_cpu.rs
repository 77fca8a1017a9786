//! Where the processors have their copies of a variable.
//!
//! A pointer to a variable that each processor has for itself is no address: an offset must be added that differs by processor and that
//! nothing tells. An array of ours has both, the pointer (`bpf_array.pptrs`) and, by `bpf_map_lookup_percpu_elem` (Linux 5.19), the
//! addresses.
//!
//! Source: bpf-helpers(7), kernel/bpf/arraymap.c, v6.18.

use super::program::locate;
use super::{AT_ADDRESS, AT_FINAL, BPF_MAP_CREATE, HEADER, KernelReader, MapCreate, bpf_fd, get, load_program, put};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;

/// An array of one element, and where each processor has its copy of that.
#[derive(Debug)]
pub struct PerCpu {
    array: OwnedFd,
    addresses: Vec<u64>,
}

impl PerCpu {
    /// The array: its `struct bpf_array` is the private data of the file.
    #[must_use]
    pub fn array(&self) -> BorrowedFd<'_> {
        self.array.as_fd()
    }

    /// The copies in the kernel's memory, by the number of the processor.
    #[must_use]
    pub fn addresses(&self) -> &[u64] {
        &self.addresses
    }
}

impl KernelReader {
    /// Makes the array, and asks where its copies are.
    ///
    /// # Errors
    /// `EINVAL` before Linux 5.19.
    pub fn per_cpu(&self) -> io::Result<PerCpu> {
        let create = MapCreate {
            map_type: BPF_MAP_TYPE_PERCPU_ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            ..MapCreate::default()
        };
        // SAFETY: `create` is a plain-data attribute without pointers.
        let array = unsafe { bpf_fd(BPF_MAP_CREATE, &create) }?;
        let program = load_program(&locate(self.array.as_raw_fd(), array.as_raw_fd()))?;
        let mut addresses = Vec::new();
        loop {
            let mut header = [0; HEADER];
            put(&mut header, AT_ADDRESS, addresses.len() as u64);
            self.exchange(&program, &mut header)?;
            match get(&header, AT_FINAL) {
                // There is no such processor.
                0 => return Ok(PerCpu { array, addresses }),
                address => addresses.push(address),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_has_a_copy() {
        let reader = KernelReader::load().expect("root on a kernel with BPF");
        let found = reader.per_cpu().expect("Linux 5.19");
        let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("sysfs");
        let last: usize = possible.trim().rsplit(['-', ',']).next().expect("one").parse().expect("a number");
        assert_eq!(found.addresses().len(), last + 1);
        let mut word = [1; 8];
        for &address in found.addresses() {
            reader.read(address, &[0], &mut word).expect("kernel memory");
            assert_eq!(word, [0; 8]);
        }
    }
}
