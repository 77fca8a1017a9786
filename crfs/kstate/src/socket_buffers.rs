//! Socket buffers: a queue of them, and the bytes of each.
//!
//! A buffer has bytes in one piece, and more in fragments of pages. Of a page the kernel keeps the address of its description
//! (`struct page`); the descriptions are one array, and so is the memory they stand for in the kernel's map of all of it. Both begin at
//! multiples of a gigabyte that differ at each boot (`kernel_randomize_memory` in arch/x86/mm/kaslr.c), so one number leads from a
//! description to its page. It is learned in calibration.
//!
//! Source: include/linux/skbuff.h, arch/x86/include/asm/page_64.h, Documentation/arch/x86/x86_64/mm.rst, v6.18.

use crate::error::Error;
use crate::paths::Path;
use crate::state::View;
use crate::tasks::word;

/// More buffers than one queue has: sysctl net.core.somaxconn and the memory of a socket are far below.
const MAX_BUFFERS: usize = 1 << 20;
/// More bytes than a buffer has: 17 fragments of up to 2^17 bytes, and what lies in one piece.
const MAX_LENGTH: u32 = 1 << 22;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// Both maps begin at multiples of it.
pub(crate) const GIGABYTE: u64 = 1 << 30;

fn changed(view: &View<'_>) -> Error {
    Error::List { tid: view.tid(), list: "sk_receive_queue" }
}

/// The buffers in the receive queue of a `struct sock`, first in first.
pub(crate) fn queue(view: &View<'_>, sock: u64) -> Result<Vec<u64>, Error> {
    let mut links = [0; 16];
    let head = view.bytes_from(sock, &[Path::SockQueue], &mut links)?;
    let (mut previous, mut at) = (head, word(&links, 0));
    let mut found = Vec::new();
    while at != head {
        // A buffer and the head of a queue begin alike: with the next and the one before.
        view.bytes_from(at, &[Path::SkbNext], &mut links)?;
        if word(&links, 8) != previous || found.len() >= MAX_BUFFERS {
            return Err(changed(view));
        }
        found.push(at);
        (previous, at) = (at, word(&links, 0));
    }
    Ok(found)
}

/// The bytes of a buffer. `direct_map` is what calibration has learned.
pub(crate) fn bytes(view: &View<'_>, buffer: u64, direct_map: u64) -> Result<Vec<u8>, Error> {
    let (length, linear) = lengths(view, buffer)?;
    let mut bytes = vec![0; length];
    let (first, mut rest) = bytes.split_at_mut(linear);
    view.bytes_at(view.u64_from(buffer, &[Path::SkbData])?, Path::SkbData, first)?;
    if rest.is_empty() {
        return Ok(bytes);
    }
    for (page, offset, length) in fragments(view, buffer)? {
        let (part, after) = rest.split_at_mut_checked(length).ok_or_else(|| changed(view))?;
        let at = mapped(view, page, direct_map)?.wrapping_add(offset);
        view.bytes_at(at, Path::FragmentPage, part)?;
        rest = after;
    }
    if rest.is_empty() { Ok(bytes) } else { Err(changed(view)) }
}

/// How many bytes a buffer has, and how many of them lie in one piece.
pub(crate) fn lengths(view: &View<'_>, buffer: u64) -> Result<(usize, usize), Error> {
    let length = view.u32_from(buffer, &[Path::SkbLength])?;
    let paged = view.u32_from(buffer, &[Path::SkbPaged])?;
    let linear = length.checked_sub(paged).filter(|_| length <= MAX_LENGTH).ok_or_else(|| changed(view))?;
    Ok((length as usize, linear as usize))
}

/// The fragments of a buffer: the address of a page's description, and offset and length of the bytes from that page on.
pub(crate) fn fragments(view: &View<'_>, buffer: u64) -> Result<Vec<(u64, u64, usize)>, Error> {
    let end = view.u32_from(buffer, &[Path::SkbEnd])?;
    let shared = view.u64_from(buffer, &[Path::SkbHead])?.wrapping_add(end.into());
    let mut count = [0];
    view.bytes_from(shared, &[Path::FragmentCount], &mut count)?;
    let first = shared.wrapping_add(view.offset(Path::Fragments)?);
    let size = u64::from(view.resolved(Path::Fragment)?.field.size);
    (0..u64::from(count[0]))
        .map(|number| {
            let fragment = first.wrapping_add(number * size);
            let page = view.u64_from(fragment, &[Path::FragmentPage])?;
            let offset = view.u32_from(fragment, &[Path::FragmentOffset])?;
            Ok((page, offset.into(), view.u32_from(fragment, &[Path::FragmentLength])? as usize))
        })
        .collect()
}

/// Where the page of a description is mapped.
pub(crate) fn mapped(view: &View<'_>, page: u64, direct_map: u64) -> Result<u64, Error> {
    let size = u64::from(view.resolved(Path::Page)?.field.size);
    // The lowest bit tells memory that is no page (NET_IOV). A description that is no power of two has no such number.
    if page & 1 != 0 || !size.is_power_of_two() {
        return Err(changed(view));
    }
    Ok(page.wrapping_mul(PAGE / size).wrapping_add(direct_map))
}
