//! The components of a processor's extended state: where each lies in the areas of XSAVE.
//!
//! Source: Intel SDM, volume 1, 13.2 and 13.4; CPUID leaf 0xd.

/// What CPUID says of one component, which has the number of its bit in XCR0 or IA32_XSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// Its bytes; 0 where the processor has none of that number.
    pub size: u32,
    /// Where it lies in an area of the standard format, in bytes; 0 for one that only the kernel uses.
    pub offset: u32,
    /// Whether it begins at a multiple of 64 bytes in an area of the compacted format.
    pub aligned: bool,
}

/// The component of that number, from 2: the first two are the x87 and SSE registers in the area's first 512 bytes.
///
/// A virtual machine's host answers, which may take tens of microseconds.
#[must_use]
pub fn component(number: u32) -> Component {
    // SAFETY: every x86-64 processor has CPUID, and one without this leaf answers for its last. Newer compilers know this.
    #[allow(unused_unsafe)]
    let leaf = unsafe { std::arch::x86_64::__cpuid_count(0xd, number) };
    Component { size: leaf.eax, offset: leaf.ebx, aligned: leaf.ecx & 2 != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_lie_behind_the_header() {
        let known = (2..63).map(component).filter(|component| component.size != 0 && component.offset != 0);
        for component in known {
            assert!(component.offset >= 576 && component.offset + component.size <= 1 << 16, "{component:?}");
        }
        let nobody = component(62);
        assert_eq!((nobody.size, nobody.offset), (0, 0));
    }
}
