//! Type-state ptrace, the injector and remote memory.
//!
//! [`Tracee`] is a handle on one traced task whose type says whether it runs or stands: only a stopped one has registers, and
//! letting it run consumes the handle. [`stop_all`] stops many at once. An [`Injector`] makes a stopped tracee run [`Batch`]es of
//! system calls; [`stub`] makes the empty process to begin with.
//!
//! ptrace(2) belongs to a thread: all calls for one tracee must come from the thread that seized it.

mod address;
mod batch;
mod code;
mod cpu;
mod error;
mod group_stop;
mod injector;
mod scratch;
mod single;
mod spawn;
mod stop;
mod stop_all;
pub mod stub;
mod tracee;
mod vfork;

pub use crfs_sys::HostPid;
pub use crfs_sys::ptrace::{Rseq, SigInfo, SockFilter, UserRegs};

pub use address::RemoteAddress;
pub use batch::{Arg, Batch, CallId, DataRef};
pub use cpu::OneCpu;
pub use error::{Error, InjectError};
pub use injector::{HeldSignal, Injector, Outcome};
pub use scratch::{Gadget, Scratch};
pub use spawn::Spawn;
pub use stop::{Exit, Stop};
pub use stop_all::{StopAll, stop_all};
pub use tracee::{Running, SeccompFilter, SeizeOptions, Stopped, Tracee, Waited};
pub use vfork::{Vforked, end_thread};
