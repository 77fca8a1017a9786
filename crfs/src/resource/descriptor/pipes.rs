//! Pipes, with and without names: their ends are found one by one, and captured together.

use super::capture::{Draft, Pass, Whose};
use super::gather::Description;
use super::holders::{Kernel, pipes_held_by_others};
use super::refused::Refusal;
use super::seen::Seen;
use crate::failure::Failure;
use crate::resource::pipe;
use image_format::Bytes;
use image_format::files::{Fifo, FileKind, Pipe};
use std::collections::{HashMap, HashSet};

impl Pass<'_> {
    /// Puts the ends of each pipe together, in the order in which the pipes were met.
    pub(super) fn pipes(&mut self, whose: Whose<'_>) -> Result<(), Failure> {
        let table = self.table;
        let mut order = Vec::new();
        let mut groups: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
        for (index, Description { seen, .. }) in table.descriptions.iter().enumerate() {
            if pipe::is_end(seen) {
                let group = groups.entry(seen.inode()).or_default();
                if group.is_empty() {
                    order.push(seen.inode());
                }
                group.push(index);
            }
        }
        let seen = |index: usize| &table.descriptions[index].seen;
        // Without the kernel only /proc tells who else holds one, and of those without a name only.
        let unnamed = order.iter().filter(|inode| pipe::is_unnamed(seen(groups[*inode][0])));
        let outside = match self.kernel {
            Some(_) => HashSet::new(),
            None => pipes_held_by_others(
                &unnamed.map(|&(_, inode)| inode).collect(),
                &whose.processes.iter().map(|&(_, host)| host).collect(),
            ),
        };
        let mut scratch = pipe::Scratch::default();
        let mut number = 0u32;
        for inode in order {
            let group = &groups[&inode];
            if group.iter().any(|&index| matches!(self.drafts[index], Draft::Refused)) {
                // Named already.
                group.iter().for_each(|&index| self.drafts[index] = Draft::Refused);
                continue;
            }
            let ends: Vec<&Seen> = group.iter().map(|&index| seen(index)).collect();
            let first = &table.descriptions[group[0]];
            match self.contents(first, &ends, outside.contains(&inode.1), &mut scratch)? {
                Ok(pipe::Contents { capacity, queued, packets }) => {
                    number += 1;
                    let record = Pipe { pipe: number, capacity, queued: queued.len() as u64, packets };
                    for &index in group {
                        self.drafts[index] = Draft::Done(self.end(index, &ends, record.clone())?);
                    }
                    self.out.pipes.insert(number, queued);
                }
                Err(refusal) => match self.pipe_outside(group, whose) {
                    Some(kinds) => {
                        for (&index, kind) in group.iter().zip(kinds) {
                            self.drafts[index] = Draft::Done(kind);
                        }
                    }
                    None => {
                        for &index in group {
                            self.drafts[index] = Draft::Refused;
                        }
                        self.refuse(ends[0].holder, refusal);
                    }
                },
            }
        }
        Ok(())
    }

    /// The record of one end of a pipe; `ends` are all of them.
    fn end(&self, index: usize, ends: &[&Seen], pipe: Pipe) -> Result<FileKind, Failure> {
        let Draft::Pipe { path: Some(path) } = &self.drafts[index] else { return Ok(FileKind::Pipe(pipe)) };
        let seen = &self.table.descriptions[index].seen;
        let awaits_writer = self.kernel.is_some() && !ends.iter().any(|end| end.writable()) && pipe::is_silent(seen)?;
        Ok(FileKind::Fifo(Fifo { path: Bytes::clone(path), awaits_writer, pipe }))
    }

    /// What is in a pipe; nothing is read from one whose processes run. `outside`: a process that is not the container's was seen with
    /// an end of it.
    fn contents(
        &self,
        first: &Description,
        ends: &[&Seen],
        outside: bool,
        scratch: &mut pipe::Scratch,
    ) -> Result<Result<pipe::Contents, Refusal>, Failure> {
        if outside {
            return Ok(Err(pipe::held_outside(ends[0])));
        }
        let Some(kernel) = self.kernel else { return Ok(Ok(pipe::Contents::default())) };
        match other_ends(kernel, first, ends) {
            Some(refusal) => Ok(Err(refusal)),
            None => pipe::capture(ends, scratch),
        }
    }
}

/// Whether an end of the pipe is outside, from the counts of the whole system.
fn other_ends(kernel: &Kernel<'_>, first: &Description, ends: &[&Seen]) -> Option<Refusal> {
    match kernel.pipe_ends(first) {
        Ok(counts) => pipe::check_ends(ends, counts),
        Err(reason) => Some(Refusal::new(
            format!("{}: whether its other end is outside the container cannot be told: {reason}", ends[0].name()),
            "Run the program without pipes, or on a kernel whose memory layout is known.",
        )),
    }
}
