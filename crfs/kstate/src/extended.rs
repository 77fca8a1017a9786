//! The extended state of a thread that does not run, as PTRACE_GETREGSET with NT_X86_XSTATE tells it of a stopped one.
//!
//! The kernel keeps what XSAVES wrote: the compacted format, in which components follow each other without gaps, and nothing of a component
//! that is in its initial state. A tracer is told the standard format. Which component lies where CPUID tells; it is kept with what calibration
//! found, since in a virtual machine every question costs.
//!
//! Source: arch/x86/kernel/fpu/xstate.c (`__copy_xstate_to_uabi_buf`), arch/x86/include/asm/fpu/types.h, v6.18; Intel SDM, volume 1, 13.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// x87, SSE and AVX, as bits of a set of components.
const FP: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;
/// The number of the component that holds PKRU, which the kernel keeps elsewhere.
const PKRU: u32 = 9;
/// In `xcomp_bv`: the area is compacted.
const COMPACTED: u64 = 1 << 63;
/// Where the parts of the first 512 bytes end (Intel SDM, volume 1, table 10-2), and of the header behind them.
const X87: usize = 24;
const MXCSR: usize = 32;
const ST: usize = 160;
const XMM: usize = 416;
/// The place that software may use: the kernel tells the components in it that a program can have.
const SOFTWARE: usize = 464;
const HEADER: usize = 512;
const EXTENDED: usize = 576;
/// The control word that x87 begins with, and MXCSR.
const INITIAL: [(usize, u16); 2] = [(0, 0x37f), (X87, 0x1f80)];
/// More than any processor has: 11 KiB with AMX.
const LARGEST: u32 = 1 << 16;

/// A component that this kernel uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Component {
    number: u32,
    size: u32,
    offset: u32,
    aligned: bool,
}

/// What holds for all threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtendedLayout {
    /// Bytes of an area in the standard format.
    size: u32,
    /// Components that programs can have.
    features: u64,
    mxcsr_mask: u32,
    components: Vec<Component>,
}

impl ExtendedLayout {
    /// Learns it from what a tracer was told of some thread, and from the processor.
    pub(crate) fn learn(told: &[u8]) -> Self {
        let components = (2..63).map(|number| (number, crfs_sys::xstate::component(number)));
        let components = components.filter(|(_, component)| component.size != 0);
        Self {
            size: u32::try_from(told.len()).unwrap_or(0),
            features: word(told, SOFTWARE),
            mxcsr_mask: (word(told, X87) >> 32) as u32,
            components: components
                .map(|(number, found)| Component {
                    number,
                    size: found.size,
                    offset: found.offset,
                    aligned: found.aligned,
                })
                .collect(),
        }
    }

    /// An area as a tracer is told it, from one that the kernel keeps, the components that its thread may use, and PKRU.
    fn standard(&self, kept: &[u8], may_use: u64, pkru: u32) -> Vec<u8> {
        let mut area = vec![0; self.size as usize];
        let has = word(kept, HEADER) & may_use;
        for (at, value) in INITIAL {
            put(&mut area, at, &value.to_ne_bytes());
        }
        put(&mut area, MXCSR - 4, &self.mxcsr_mask.to_ne_bytes());
        for (features, part) in [(FP, 0..X87), (SSE | AVX, X87..MXCSR), (FP, MXCSR..ST), (SSE, ST..XMM)] {
            if has & features != 0 {
                put(&mut area, part.start, kept.get(part).unwrap_or_default());
            }
        }
        put(&mut area, SOFTWARE, &self.features.to_ne_bytes());
        put(&mut area, HEADER, &has.to_ne_bytes());
        for (component, at) in self.places(word(kept, HEADER + 8)) {
            if has >> component.number & 1 == 0 {
                continue;
            }
            let to = component.offset as usize;
            if component.number == PKRU {
                put(&mut area, to, &pkru.to_ne_bytes());
            } else {
                put(&mut area, to, kept.get(at..at + component.size as usize).unwrap_or_default());
            }
        }
        area
    }

    /// The components with their places in an area that says this of its form.
    fn places(&self, form: u64) -> impl Iterator<Item = (&Component, usize)> {
        let mut next = EXTENDED;
        self.components.iter().filter_map(move |component| {
            if form & COMPACTED == 0 {
                return Some((component, component.offset as usize));
            }
            if form >> component.number & 1 == 0 {
                return None;
            }
            let at = if component.aligned { next.next_multiple_of(64) } else { next };
            next = at + component.size as usize;
            Some((component, at))
        })
    }
}

/// Copies as much as there is room for.
fn put(area: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in area.get_mut(at..).unwrap_or_default().iter_mut().zip(bytes) {
        *to = *from;
    }
}

impl KernelState {
    /// The extended state (x87, SSE, AVX, PKRU ...) in the standard format.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`]; [`Error::List`] for an area of a size that none has.
    pub fn extended_registers(&self, task: &Task) -> Result<Vec<u8>, Error> {
        let view = self.view(Feature::ExtendedRegisters, task)?;
        // Behind the end of task_struct, or a part of it.
        let state = match view.resolved(Path::FpuState)?.name {
            0 => view.u64(&[Path::FpuState])?,
            _ => {
                let size = u64::from(view.resolved(Path::TaskSize)?.field.size);
                view.u64_from(task.address().wrapping_add(size), &[Path::FpuState])?
            }
        };
        let size = view.u32_from(state, &[Path::FpuSize])?;
        if !(EXTENDED as u64..=LARGEST.into()).contains(&size.into()) {
            return Err(Error::List { tid: task.tid(), list: "fpstate" });
        }
        let mut kept = vec![0; size as usize];
        view.bytes_from(state, &[Path::FpuRegisters], &mut kept)?;
        let may_use = view.u64_from(state, &[Path::FpuUserFeatures])?;
        Ok(self.known.extended.standard(&kept, may_use, view.u32(&[Path::Pkru])?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> ExtendedLayout {
        let component = |number, size, offset, aligned| Component { number, size, offset, aligned };
        let components = vec![
            component(2, 64, 576, false),
            component(9, 8, 832, false),
            component(11, 16, 0, false),
            component(12, 32, 896, true),
        ];
        ExtendedLayout { size: 960, features: 0x1207, mxcsr_mask: 0x2_ffff, components }
    }

    #[test]
    fn what_is_in_its_initial_state_is_told_so() {
        let area = layout().standard(&[0xaa; 64], 0, 0);
        assert_eq!(area.len(), 960);
        assert_eq!((word(&area, 0), word(&area, X87)), (0x37f, 0x2_ffff << 32 | 0x1f80));
        assert_eq!((word(&area, SOFTWARE), word(&area, HEADER)), (0x1207, 0));
    }

    #[test]
    fn a_compacted_area_is_spread() {
        let mut kept = vec![0; 768];
        put(&mut kept, HEADER, &(1u64 << 9 | 1 << 11 | 1 << 12).to_ne_bytes());
        // Component 2 is left out; 11 is the kernel's own; 12 begins at a multiple of 64.
        put(&mut kept, HEADER + 8, &(COMPACTED | 1 << 9 | 1 << 11 | 1 << 12).to_ne_bytes());
        put(&mut kept, 576, &[9; 8]);
        put(&mut kept, 584, &[11; 16]);
        put(&mut kept, 640, &[12; 32]);
        let area = layout().standard(&kept, 0x1207, 0x5555);
        assert_eq!(word(&area, HEADER), 0x1200);
        assert_eq!((word(&area, 832), word(&area, 576)), (0x5555, 0));
        assert_eq!(area.get(896..928), Some(&[12; 32][..]));
        assert_eq!(word(&area, 928), 0);
    }

    #[test]
    fn an_area_in_the_standard_form_stays() {
        let mut kept = vec![0; 960];
        put(&mut kept, 0, &[1; 416]);
        put(&mut kept, HEADER, &7u64.to_ne_bytes());
        put(&mut kept, 576, &[2; 64]);
        let area = layout().standard(&kept, 0x207, 0);
        assert_eq!((area.get(..416), area.get(576..640)), (Some(&[1; 416][..]), Some(&[2; 64][..])));
        assert_eq!(area.get(640..), Some(&[0; 320][..]));
    }
}
