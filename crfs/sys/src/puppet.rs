//! A child that does nothing but a list of system calls: a task whose kernel state is known exactly.
//!
//! It is forked with a raw clone(2), runs the list in the order given, writes each result to memory that it shares with its parent, and
//! ends. It never returns into the program it was forked from: no allocator, no lock, no handler of the parent is used, so
//! the parent may have other threads. What the calls do to the child's memory, signals or credentials is the child's own affair.
//!
//! Source: clone(2), getitimer(2), signal-safety(7).

use std::hint::black_box;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// Bytes of the shared memory that [`Stage::place`] hands out.
const SPACE: usize = 16 * 1024;
/// The longest list of steps.
pub const MAX_STEPS: usize = 96;

/// An argument of a call.
#[derive(Debug, Clone, Copy)]
pub enum Arg {
    /// This number (or an address that [`Stage::place`] returned).
    Value(u64),
    /// What an earlier step returned, plus a number.
    Result {
        /// The earlier step, counted from 0.
        step: usize,
        /// Added to its result.
        plus: u64,
    },
    /// The word that then stands at an address that [`Stage::place`] returned: what an earlier call wrote there. 0 for any other address.
    Word(u64),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

/// What the child does next.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A system call; its result (or minus errno) is kept.
    Call {
        /// The number, `libc::SYS_*`.
        number: libc::c_long,
        /// Up to six arguments.
        args: [Arg; 6],
    },
    /// Uses the processor until ITIMER_VIRTUAL has moved, then until ITIMER_PROF has moved further than it: with tick accounting
    /// the kernel's cpu times are 0 until a tick has hit. Both timers must run, with the same value. Gives up after 80 ms of processor time.
    /// Result: 0, or -ETIME.
    BurnTicks,
}

impl Step {
    /// A call with its arguments, the missing ones 0.
    #[must_use]
    pub fn call<const N: usize>(number: libc::c_long, args: [u64; N]) -> Self {
        Self::call_with(number, args.map(Arg::Value))
    }

    /// As [`Step::call`], with arguments that may refer to earlier results. Those after the sixth are ignored.
    #[must_use]
    pub fn call_with<const N: usize>(number: libc::c_long, args: [Arg; N]) -> Self {
        let mut all = [Arg::Value(0); 6];
        for (to, from) in all.iter_mut().zip(args) {
            *to = from;
        }
        Self::Call { number, args: all }
    }
}

#[repr(C)]
struct Shared {
    begun: AtomicUsize,
    results: [AtomicI64; MAX_STEPS],
    itimers: [[i64; 4]; 2],
    child_tid: i32,
    space: Space,
}

/// What the calls point to has the alignment that any structure of the kernel may want.
#[repr(C, align(16))]
struct Space([u8; SPACE]);

/// Memory that parent and child share, and the data that the calls will point to.
#[derive(Debug)]
pub struct Stage {
    shared: NonNull<Shared>,
    used: usize,
}

impl Stage {
    /// Maps the shared memory.
    ///
    /// # Errors
    /// The errno of mmap(2).
    pub fn new() -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address the kernel chooses; zeros are valid for every field of Shared.
        let area = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if area == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let shared = NonNull::new(area.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        Ok(Self { shared, used: 0 })
    }

    /// Copies bytes to the shared memory, aligned to 16, and returns the address that is valid in parent and child.
    ///
    /// # Errors
    /// ENOMEM when the 16 KiB are used up.
    pub fn place(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.used.next_multiple_of(16);
        let end = at + bytes.len();
        if end > SPACE {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.used = end;
        // SAFETY: at..end lies within the space, which nobody else accesses before fork; the source is another object.
        let address = unsafe {
            let to = (&raw mut (*self.shared.as_ptr()).space).cast::<u8>().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            to
        };
        Ok(address as u64)
    }

    /// Forks the child.
    ///
    /// It is killed and reaped when the [`Puppet`] is dropped. `exit_signal` is what its parent gets when it ends (0: none). With
    /// `set_child_tid` the kernel is told to write its tid into the shared memory, see [`Puppet::child_tid_address`].
    ///
    /// # Errors
    /// E2BIG for more than [`MAX_STEPS`] steps, or the errno of clone(2).
    pub fn fork(self, exit_signal: i32, set_child_tid: bool, steps: &[Step]) -> io::Result<Puppet> {
        if steps.len() > MAX_STEPS {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let flags = i64::from(exit_signal) | if set_child_tid { i64::from(libc::CLONE_CHILD_SETTID) } else { 0 };
        // SAFETY: a fork (no CLONE_VM): the child has its own copy of all memory but the shared area, and `perform` neither
        // returns nor touches anything of the parent's but that area and `steps`.
        let pid = unsafe {
            let child_tid = &raw mut (*self.shared.as_ptr()).child_tid;
            libc::syscall(libc::SYS_clone, flags, 0i64, 0i64, child_tid, 0i64)
        };
        match i32::try_from(pid) {
            Ok(0) => perform(self.shared, steps),
            Ok(pid) if pid > 0 => Ok(Puppet { stage: self, pid: Pid::from_raw(pid), steps: steps.len() }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; addresses given out are plain numbers.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}

/// The child. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Puppet {
    stage: Stage,
    pid: Pid,
    steps: usize,
}

impl Puppet {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How many steps it has begun: the one before that number is under way, or done.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun_cell().load(Ordering::Acquire)
    }

    fn begun_cell(&self) -> &AtomicUsize {
        // SAFETY: the mapping lives as long as the stage, and this field is only ever accessed as an atomic.
        unsafe { &(*self.stage.shared.as_ptr()).begun }
    }

    /// What a step returned: a result, or minus errno. None while it has not returned.
    #[must_use]
    pub fn result(&self, step: usize) -> Option<i64> {
        // The next step begins when this one has returned.
        if step >= self.steps || self.begun() <= step + 1 {
            return None;
        }
        // SAFETY: as in `begun_cell`.
        let results = unsafe { &(*self.stage.shared.as_ptr()).results };
        results.get(step).map(|result| result.load(Ordering::Acquire))
    }

    /// Where the kernel was told to write the child's tid.
    #[must_use]
    pub fn child_tid_address(&self) -> u64 {
        // SAFETY: only the address is taken.
        unsafe { &raw const (*self.stage.shared.as_ptr()).child_tid as u64 }
    }

    /// Copies what stands now at an address that [`Stage::place`] returned. Meaningful once the step that writes there has returned.
    ///
    /// # Errors
    /// EFAULT for a range outside what was placed.
    pub fn read(&self, address: u64, buf: &mut [u8]) -> io::Result<()> {
        // SAFETY: only the address is taken.
        let space = unsafe { (&raw const (*self.stage.shared.as_ptr()).space).cast::<u8>() };
        let at = address.checked_sub(space as u64).and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| Some((at, at.checked_add(buf.len())?))) {
            Some((at, end)) if end <= self.stage.used => {
                // SAFETY: within the space; the child may write there at the same time, and any bytes are a valid outcome.
                unsafe { std::ptr::copy_nonoverlapping(space.add(at), buf.as_mut_ptr(), buf.len()) };
                Ok(())
            }
            _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // SAFETY: plain numbers; the pid is our child's and not yet reaped, so it cannot be somebody else's.
        unsafe { libc::kill(self.pid.as_raw(), libc::SIGKILL) };
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let mut status = 0;
            // SAFETY: a pointer to a local.
            let reaped = unsafe { libc::waitpid(self.pid.as_raw(), &raw mut status, libc::__WALL | libc::WNOHANG) };
            let ended = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
            // Before the end there may be reports of stops, when it is traced. An error: somebody else has reaped it.
            if reaped < 0 || (reaped > 0 && ended) || Instant::now() > deadline {
                break;
            }
            if reaped == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
}

/// One system call without the C library, which would write errno. Result or minus errno.
fn raw_call(number: i64, args: [u64; 6]) -> i64 {
    let result;
    // SAFETY: runs only in the child, whose memory belongs to nobody else, and which never goes back to the parent's code.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// The child's whole life.
fn perform(shared: NonNull<Shared>, steps: &[Step]) -> ! {
    let shared = shared.as_ptr();
    // SAFETY: both fields are only ever accessed as atomics, by parent and child.
    let (begun, results) = unsafe { (&(*shared).begun, &(*shared).results) };
    for (number, step) in steps.iter().enumerate() {
        begun.store(number + 1, Ordering::Release);
        let result = match step {
            Step::Call { number, args } => raw_call(
                *number,
                args.map(|arg| match arg {
                    Arg::Value(value) => value,
                    Arg::Result { step, plus } => results
                        .get(step)
                        .map_or(0, |result| result.load(Ordering::Relaxed))
                        .cast_unsigned()
                        .wrapping_add(plus),
                    Arg::Word(address) => placed_word(shared, address),
                }),
            ),
            // SAFETY: only the address is taken; the parent never accesses the field.
            Step::BurnTicks => burn_ticks(unsafe { &raw mut (*shared).itimers }),
        };
        if let Some(cell) = results.get(number) {
            cell.store(result, Ordering::Release);
        }
    }
    begun.store(steps.len() + 1, Ordering::Release);
    loop {
        raw_call(libc::SYS_exit_group, [0; 6]);
    }
}

/// See [`Arg::Word`].
fn placed_word(shared: *mut Shared, address: u64) -> u64 {
    // SAFETY: only the address is taken.
    let space = unsafe { (&raw const (*shared).space).cast::<u8>() };
    match address.checked_sub(space as u64).and_then(|at| usize::try_from(at).ok()) {
        // SAFETY: eight bytes within the space, of any alignment; any bytes are a valid outcome.
        Some(at) if at <= SPACE - 8 => unsafe { space.add(at).cast::<u64>().read_unaligned() },
        _ => 0,
    }
}

/// See [`Step::BurnTicks`].
fn burn_ticks(itimers: *mut [[i64; 4]; 2]) -> i64 {
    const BUDGET_NS: i64 = 80_000_000;
    let address = itimers as u64;
    // Microseconds that remain: (virtual, prof).
    let remaining = || {
        raw_call(libc::SYS_getitimer, [1, address, 0, 0, 0, 0]);
        raw_call(libc::SYS_getitimer, [2, address + 32, 0, 0, 0, 0]);
        // SAFETY: the shared area, which the kernel has just filled.
        let [[_, _, vs, vu], [_, _, ps, pu]] = unsafe { itimers.read_volatile() };
        (vs.wrapping_mul(1_000_000).wrapping_add(vu), ps.wrapping_mul(1_000_000).wrapping_add(pu))
    };
    let used = || {
        raw_call(libc::SYS_clock_gettime, [2, address, 0, 0, 0, 0]);
        // SAFETY: as above.
        let [[seconds, nanos, ..], _] = unsafe { itimers.read_volatile() };
        seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
    };
    let start = used();
    let (first, _) = remaining();
    let mut count = 0u64;
    loop {
        for _ in 0..100_000 {
            count = black_box(count.wrapping_add(1));
        }
        if remaining().0 < first {
            break;
        }
        if used().wrapping_sub(start) > BUDGET_NS {
            return -i64::from(libc::ETIME);
        }
    }
    loop {
        for _ in 0..200 {
            raw_call(libc::SYS_clock_gettime, [2, address, 0, 0, 0, 0]);
        }
        let (virt, prof) = remaining();
        if prof < virt {
            return 0;
        }
        if used().wrapping_sub(start) > BUDGET_NS {
            return -i64::from(libc::ETIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for_end(puppet: &Puppet, steps: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while puppet.begun() <= steps {
            assert!(Instant::now() < deadline, "only {} steps begun", puppet.begun());
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    #[test]
    fn runs_the_calls_and_keeps_their_results() {
        let mut stage = Stage::new().expect("memory");
        let ends = stage.place(&[0; 8]).expect("space");
        let text = stage.place(b"hello").expect("space");
        let back = stage.place(&[0; 5]).expect("space");
        let steps = [
            Step::call(libc::SYS_getpid, []),
            Step::call(libc::SYS_close_range, [3, u64::from(u32::MAX), 0]),
            Step::call(libc::SYS_pipe2, [ends, 0]),
            Step::call(libc::SYS_write, [4, text, 5]),
            Step::call_with(libc::SYS_read, [3.into(), back.into(), Arg::Result { step: 3, plus: 0 }]),
            Step::call(libc::SYS_close, [99]),
        ];
        let puppet = stage.fork(0, true, &steps).expect("fork");
        wait_for_end(&puppet, steps.len());
        let results: Vec<_> = (0..steps.len()).map(|step| puppet.result(step)).collect();
        let pid = i64::from(puppet.pid().as_raw());
        assert_eq!(results, [Some(pid), Some(0), Some(0), Some(5), Some(5), Some(-i64::from(libc::EBADF))]);
        let mut got = [0; 5];
        puppet.read(back, &mut got).expect("placed");
        assert_eq!(&got, b"hello");
        assert!(puppet.read(back + 8, &mut got).is_err(), "beyond what was placed");
    }

    #[test]
    fn burns_until_both_cpu_timers_moved() {
        let mut stage = Stage::new().expect("memory");
        let value: Vec<u8> = [0i64, 0, 1000, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let at = stage.place(&value).expect("space");
        let left: Vec<u64> = (0..3).map(|_| stage.place(&[0; 32]).expect("space")).collect();
        let steps = [
            Step::call(libc::SYS_setitimer, [1, at]),
            Step::call(libc::SYS_setitimer, [2, at]),
            Step::call(libc::SYS_getitimer, [1, left[0]]),
            Step::BurnTicks,
            Step::call(libc::SYS_getitimer, [1, left[1]]),
            Step::call(libc::SYS_getitimer, [2, left[2]]),
        ];
        let puppet = stage.fork(libc::SIGCHLD, false, &steps).expect("fork");
        wait_for_end(&puppet, steps.len());
        assert_eq!(puppet.result(3), Some(0));
        let micros = |address| {
            let mut now = [0; 32];
            puppet.read(address, &mut now).expect("placed");
            let word = |at: usize| u64::from_ne_bytes(now[at..at + 8].try_into().expect("eight bytes"));
            word(16) * 1_000_000 + word(24)
        };
        let [before, virt, prof] = [left[0], left[1], left[2]].map(micros);
        assert!(virt < before && prof < virt, "virtual {before} then {virt}, prof {prof}");
    }

    #[test]
    fn is_reaped_when_dropped() {
        let steps = [Step::call(libc::SYS_pause, [])];
        let puppet = Stage::new().expect("memory").fork(0, false, &steps).expect("fork");
        let pid = puppet.pid();
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        drop(puppet);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "neither running nor a zombie");
    }
}
