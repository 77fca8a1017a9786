//! Every structure path of the kernel that this crate reads, by name: the one file to look at when a kernel changes.
//!
//! The names are looked up in the BTF of the running kernel, so offsets and configuration do not matter; a member that is renamed or
//! gets another meaning does. The kernel versions in the comments are from the headers; on 6.18 all of them
//! were seen to work, on others calibration decides. None is older than 5.14, the first kernel with the BPF program type we need.

use crate::btf::{Field, Kind};
use crate::feature::Feature;

/// What a path must turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A number, or a structure around one (atomic64_t, sigset_t), of so many bytes.
    Number(u32),
    /// A pointer.
    Pointer,
    /// A bit field of one bit.
    Bit,
    /// A place of at least so many bytes, whatever is in it.
    Place(u32),
}

impl Shape {
    pub(crate) fn fits(self, field: &Field) -> bool {
        match self {
            Self::Number(size) => {
                field.bits.is_none() && field.size == size && matches!(field.kind, Kind::Integer | Kind::Aggregate)
            }
            Self::Pointer => field.bits.is_none() && field.kind == Kind::Pointer,
            Self::Bit => matches!(field.bits, Some((_, 1))),
            Self::Place(size) => field.bits.is_none() && field.size >= size,
        }
    }
}

macro_rules! paths {
    ($($name:ident: $shape:expr, $($text:literal)|+;)*) => {
        /// A path, whatever it is called on this kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Path {
            $($name,)*
        }

        impl Path {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// What it is called, by kernel version, the newest first.
            pub(crate) fn names(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($text),+],)*
                }
            }

            pub(crate) fn shape(self) -> Shape {
                use Shape::{Bit, Number, Place, Pointer};
                match self {
                    $(Self::$name => $shape,)*
                }
            }
        }
    };
}

paths! {
    // The walk. 5.14 - 6.18.
    TaskPtraced: Place(16), "task_struct.ptraced";
    TaskPtraceEntry: Place(16), "task_struct.ptrace_entry";
    TaskPid: Number(4), "task_struct.pid";
    TaskTgid: Number(4), "task_struct.tgid";

    // Pointers that many features go through. 5.14 - 6.18.
    TaskSignal: Pointer, "task_struct.signal";
    TaskMm: Pointer, "task_struct.mm";
    TaskFiles: Pointer, "task_struct.files";
    TaskCred: Pointer, "task_struct.cred";

    // What a thread has for itself, and what it may share. 5.14 - 6.18; the shadow stack's features only where the kernel has them.
    TaskComm: Place(16), "task_struct.comm";
    TaskState: Number(4), "task_struct.__state";
    TaskFlags: Number(4), "task_struct.flags";
    TaskAtomicFlags: Number(8), "task_struct.atomic_flags";
    TaskPersonality: Number(4), "task_struct.personality";
    TaskSlack: Number(8), "task_struct.timer_slack_ns";
    TaskBlocked: Number(8), "task_struct.blocked";
    TaskPending: Number(8), "task_struct.pending.signal";
    TaskChildren: Place(16), "task_struct.children";
    TaskSeccompMode: Number(4), "task_struct.seccomp.mode";
    TaskRealCred: Pointer, "task_struct.real_cred";
    TaskFs: Pointer, "task_struct.fs";
    TaskNsproxy: Pointer, "task_struct.nsproxy";
    ShadowStack: Number(8), "task_struct.thread.features";
    LoginUid: Number(4), "task_struct.loginuid";
    ThreadPid: Pointer, "task_struct.thread_pid";
    PidLevel: Number(4), "pid.level";
    Upid: Place(16), "upid";
    UpidNumber: Number(4), "upid.nr";
    ThreadCount: Number(4), "signal_struct.nr_threads";
    FsUmask: Number(4), "fs_struct.umask";

    // Signals. 5.14 - 6.18.
    TaskSighand: Pointer, "task_struct.sighand";
    SighandAction: Place(64 * 32), "sighand_struct.action";
    Sigaction: Place(32), "k_sigaction";
    SigactionHandler: Pointer, "k_sigaction.sa.sa_handler";
    SigactionFlags: Number(8), "k_sigaction.sa.sa_flags";
    SigactionRestorer: Pointer, "k_sigaction.sa.sa_restorer";
    SigactionMask: Number(8), "k_sigaction.sa.sa_mask";
    AltstackSp: Number(8), "task_struct.sas_ss_sp";
    AltstackSize: Number(8), "task_struct.sas_ss_size";
    AltstackFlags: Number(4), "task_struct.sas_ss_flags";
    ExitSignal: Number(4), "task_struct.exit_signal";
    PdeathSignal: Number(4), "task_struct.pdeath_signal";
    SignalFlags: Number(4), "signal_struct.flags";
    GroupExitCode: Number(4), "signal_struct.group_exit_code";
    SetChildTid: Pointer, "task_struct.set_child_tid";
    ClearChildTid: Pointer, "task_struct.clear_child_tid";

    // Interrupted calls. 5.14 - 6.18.
    RestartFunction: Pointer, "task_struct.restart_block.fn";
    SleepClock: Number(4), "task_struct.restart_block.nanosleep.clockid";
    SleepType: Number(4), "task_struct.restart_block.nanosleep.type";
    SleepRmtp: Pointer, "task_struct.restart_block.nanosleep.rmtp";
    SleepExpires: Number(8), "task_struct.restart_block.nanosleep.expires";
    PollFds: Pointer, "task_struct.restart_block.poll.ufds";
    PollCount: Number(4), "task_struct.restart_block.poll.nfds";
    PollHasTimeout: Number(4), "task_struct.restart_block.poll.has_timeout";
    PollSeconds: Number(8), "task_struct.restart_block.poll.tv_sec";
    PollNanos: Number(8), "task_struct.restart_block.poll.tv_nsec";
    FutexAddress: Pointer, "task_struct.restart_block.futex.uaddr";
    FutexValue: Number(4), "task_struct.restart_block.futex.val";
    FutexFlags: Number(4), "task_struct.restart_block.futex.flags";
    FutexBitset: Number(4), "task_struct.restart_block.futex.bitset";
    FutexTime: Number(8), "task_struct.restart_block.futex.time";
    FutexAddress2: Pointer, "task_struct.restart_block.futex.uaddr2";

    // Timers. 5.14 - 6.18; `state` is called `is_queued` in kernels after 6.18, with the same bit for "enqueued".
    RealExpires: Number(8), "signal_struct.real_timer.node.expires";
    RealState: Number(1), "signal_struct.real_timer.is_queued" | "signal_struct.real_timer.state";
    RealInterval: Number(8), "signal_struct.it_real_incr";
    // Indexed by CPUCLOCK_PROF (0) and CPUCLOCK_VIRT (1).
    ProfExpires: Number(8), "signal_struct.it[0].expires";
    ProfInterval: Number(8), "signal_struct.it[0].incr";
    VirtualExpires: Number(8), "signal_struct.it[1].expires";
    VirtualInterval: Number(8), "signal_struct.it[1].incr";
    CpuUser: Number(8), "signal_struct.cputimer.cputime_atomic.utime";
    CpuSystem: Number(8), "signal_struct.cputimer.cputime_atomic.stime";
    // A list_head (16 bytes) at first, a hlist_head (8 bytes) since 6.12: the size tells.
    PosixTimers: Place(8), "signal_struct.posix_timers";

    // POSIX timers, 6.13 - 6.18: the list is a hlist since 6.12, `it_status` says it all since 6.13.
    TimerNode: Place(16), "k_itimer.list";
    TimerId: Number(4), "k_itimer.it_id";
    TimerClock: Number(4), "k_itimer.it_clock";
    TimerStatus: Number(4), "k_itimer.it_status";
    TimerOverrun: Number(8), "k_itimer.it_overrun_last";
    TimerInterval: Number(8), "k_itimer.it_interval";
    TimerExpires: Number(8), "k_itimer.it.real.timer.node.expires";
    TimerBase: Pointer, "k_itimer.it.real.timer.base";
    TimerBaseClock: Number(4), "hrtimer_clock_base.clockid";
    TimerCpuExpires: Number(8), "k_itimer.it.cpu.node.expires";
    TimerCpuPid: Pointer, "k_itimer.it.cpu.pid";

    // Ids, the host's first, and the task of a thread's. 5.14 - 6.18.
    PidNumbers: Place(0), "pid.numbers";
    PidTasks: Place(8), "pid.tasks";
    TaskPidLinks: Place(16), "task_struct.pid_links";

    // Timers on the kernel stacks of threads that wait. 6.9 - 6.18: the first kernel with a pidfs.
    InodePrivate: Pointer, "inode.i_private";
    TaskStack: Pointer, "task_struct.stack";
    TaskStackPointer: Number(8), "task_struct.thread.sp";
    SleeperTask: Pointer, "hrtimer_sleeper.task";
    SleeperExpires: Number(8), "hrtimer_sleeper.timer._softexpires";
    SleeperFunction: Pointer, "hrtimer_sleeper.timer.function";
    SleeperQueued: Number(1), "hrtimer_sleeper.timer.is_queued" | "hrtimer_sleeper.timer.state";
    SleeperBase: Pointer, "hrtimer_sleeper.timer.base";
    TimeoutTask: Pointer, "process_timer.task";
    TimeoutExpires: Number(8), "process_timer.timer.expires";
    TimeoutFunction: Pointer, "process_timer.timer.function";
    TimeoutQueued: Pointer, "process_timer.timer.entry.pprev";

    // System V semaphores. 5.14 - 6.18; `semadj` was a pointer before it became the array at the end.
    UndoList: Pointer, "task_struct.sysvsem.undo_list";
    UndoListHead: Place(16), "sem_undo_list.list_proc";
    UndoEntry: Place(16), "sem_undo.list_proc";
    UndoSemid: Number(4), "sem_undo.semid";
    UndoAdjust: Place(0), "sem_undo.semadj";

    // Address space. 5.14 - 6.18; `flags` is a number until 6.17, then a structure of one number.
    Ldt: Pointer, "mm_struct.context.ldt";
    LdtEntries: Pointer, "ldt_struct.entries";
    LdtCount: Number(4), "ldt_struct.nr_entries";
    AioTable: Pointer, "mm_struct.ioctx_table";
    AioCount: Number(4), "kioctx_table.nr";
    AioContexts: Place(0), "kioctx_table.table";
    AioId: Number(8), "kioctx.user_id";
    AioPlaces: Number(4), "kioctx.nr_events";
    AioFree: Number(4), "kioctx.reqs_available";
    AioCompleted: Number(4), "kioctx.completed_events";
    AioPerCpu: Pointer, "kioctx.cpu";
    AioCpuFree: Number(4), "kioctx_cpu.reqs_available";
    ArrayPerCpu: Place(0), "bpf_array.pptrs";

    // Rings of io_uring. 6.1 - 6.18; what is registered is counted in `io_rsrc_data` since 6.13.
    TaskIoUring: Pointer, "task_struct.io_uring";
    TaskCachedRequests: Number(4), "io_uring_task.cached_refs";
    TaskRequests: Number(8), "io_uring_task.inflight.count";
    TaskRequestsPerCpu: Pointer, "io_uring_task.inflight.counters";
    TaskRings: Place(128), "io_uring_task.registered_rings";
    RingFlags: Number(4), "io_ring_ctx.flags";
    RingSqEntries: Number(4), "io_ring_ctx.sq_entries";
    RingCqEntries: Number(4), "io_ring_ctx.cq_entries";
    RingSubmitted: Number(4), "io_ring_ctx.cached_sq_head";
    RingCompleted: Number(4), "io_ring_ctx.cached_cq_tail";
    RingFiles: Number(4), "io_ring_ctx.file_table.data.nr" | "io_ring_ctx.nr_user_files";
    RingBuffers: Number(4), "io_ring_ctx.buf_table.nr" | "io_ring_ctx.nr_user_bufs";
    RingBufferGroups: Pointer, "io_ring_ctx.io_bl_xa.xa_head";
    RingEventfd: Pointer, "io_ring_ctx.io_ev_fd";
    RingPersonalities: Pointer, "io_ring_ctx.personalities.xa_head";
    RingRestricted: Number(1), "io_ring_ctx.restrictions.registered";
    RingOverflow: Place(16), "io_ring_ctx.cq_overflow_list";
    RingIssuer: Pointer, "io_ring_ctx.submitter_task";
    StartCode: Number(8), "mm_struct.start_code";
    EndCode: Number(8), "mm_struct.end_code";
    StartData: Number(8), "mm_struct.start_data";
    EndData: Number(8), "mm_struct.end_data";
    StartBrk: Number(8), "mm_struct.start_brk";
    Brk: Number(8), "mm_struct.brk";
    StartStack: Number(8), "mm_struct.start_stack";
    ArgStart: Number(8), "mm_struct.arg_start";
    ArgEnd: Number(8), "mm_struct.arg_end";
    EnvStart: Number(8), "mm_struct.env_start";
    EnvEnd: Number(8), "mm_struct.env_end";
    MmFlags: Number(8), "mm_struct.flags";

    // The rest of a task. 5.14 - 6.18.
    IoBitmap: Pointer, "task_struct.thread.io_bitmap";
    IoLevel: Number(8), "task_struct.thread.iopl_emul";
    Securebits: Number(4), "cred.securebits";
    Subreaper: Bit, "signal_struct.is_child_subreaper";
    DispatchSelector: Pointer, "task_struct.syscall_dispatch.selector";
    DispatchOffset: Number(8), "task_struct.syscall_dispatch.offset";
    DispatchLength: Number(8), "task_struct.syscall_dispatch.len";
    SyscallWork: Number(8), "task_struct.thread_info.syscall_work";
    TlsArray: Place(24), "task_struct.thread.tls_array";

    // Registers, as they are while a task does not run. 5.16 - 6.18: `fpu` was a part of `thread` before it got behind the end of
    // task_struct in 6.16; `rseq` is a structure in kernels after 6.18.
    TaskSize: Place(1024), "task_struct";
    PtRegs: Place(21 * 8), "pt_regs";
    SelectorEs: Number(2), "task_struct.thread.es";
    SelectorDs: Number(2), "task_struct.thread.ds";
    SelectorFs: Number(2), "task_struct.thread.fsindex";
    SelectorGs: Number(2), "task_struct.thread.gsindex";
    FsBase: Number(8), "task_struct.thread.fsbase";
    GsBase: Number(8), "task_struct.thread.gsbase";
    FpuState: Pointer, "task_struct.thread.fpu.fpstate" | "fpu.fpstate";
    FpuSize: Number(4), "fpstate.size";
    FpuUserFeatures: Number(8), "fpstate.user_xfeatures";
    FpuRegisters: Place(576), "fpstate.regs";
    Pkru: Number(4), "task_struct.thread.pkru";
    Breakpoints: Place(32), "task_struct.thread.ptrace_bps";
    BreakpointAddress: Number(8), "perf_event.hw.info.address";
    DebugStatus: Number(8), "task_struct.thread.virtual_dr6";
    DebugControl: Number(8), "task_struct.thread.ptrace_dr7";
    SavedMask: Number(8), "task_struct.saved_sigmask";
    RestoresMask: Bit, "task_struct.restore_sigmask";
    TaskPendingList: Place(16), "task_struct.pending.list";
    SharedPendingList: Place(16), "signal_struct.shared_pending.list";
    SigqueueList: Place(16), "sigqueue.list";
    SigqueueInfo: Place(48), "sigqueue.info";
    RseqArea: Pointer, "task_struct.rseq.usrptr" | "task_struct.rseq";
    RseqLength: Number(4), "task_struct.rseq.len" | "task_struct.rseq_len";
    RseqSignature: Number(4), "task_struct.rseq.sig" | "task_struct.rseq_sig";

    // The threads of a process. 5.14 - 6.18.
    SignalThreads: Place(16), "signal_struct.thread_head";
    TaskThreadNode: Place(16), "task_struct.thread_node";
    TaskOnCpu: Number(4), "task_struct.on_cpu";

    // Flags whose bits are learned. 5.14 - 6.18.
    MmDefFlags: Number(8), "mm_struct.def_flags";
    ThreadInfoFlags: Number(8), "task_struct.thread_info.flags";

    // Security. 5.14 - 6.18.
    ThreadKeyring: Pointer, "cred.thread_keyring";
    ProcessKeyring: Pointer, "cred.process_keyring";
    SessionKeyring: Pointer, "cred.session_keyring";
    KeyringKeys: Number(8), "key.keys.nr_leaves_on_tree";
    CredSecurity: Pointer, "cred.security";

    // System call filters. 5.14 - 6.18.
    TaskSeccompFilter: Pointer, "task_struct.seccomp.filter";
    FilterPrev: Pointer, "seccomp_filter.prev";
    FilterNotif: Pointer, "seccomp_filter.notif";

    // Open files. 5.14 - 6.18.
    FilesFdt: Pointer, "files_struct.fdt";
    FdtMax: Number(4), "fdtable.max_fds";
    FdtFd: Pointer, "fdtable.fd";
    FdtCloexec: Pointer, "fdtable.close_on_exec";
    FileInode: Pointer, "file.f_inode";
    InodeMode: Number(2), "inode.i_mode";
    InodeLocks: Pointer, "inode.i_flctx";
    InodePipe: Pointer, "inode.i_pipe";
    PipeReaders: Number(4), "pipe_inode_info.readers";
    PipeWriters: Number(4), "pipe_inode_info.writers";

    // Terminals. 5.14 - 6.18; `next` shares its place with a list link.
    FilePrivate: Pointer, "file.private_data";
    TtyFileTty: Pointer, "tty_file_private.tty";
    TtyIndex: Number(4), "tty_struct.index";
    TtyDriverData: Pointer, "tty_struct.driver_data";
    TtyLink: Pointer, "tty_struct.link";
    TtyFlags: Number(8), "tty_struct.flags";
    TtyStopped: Number(1), "tty_struct.flow.stopped";
    TtyStoppedByCall: Number(1), "tty_struct.flow.tco_stopped";
    TtyDiscipline: Pointer, "tty_struct.disc_data";
    TtyPort: Pointer, "tty_struct.port";
    TtyPortHead: Pointer, "tty_port.buf.head";
    TtyBufferNext: Pointer, "tty_buffer.next";
    TtyBufferCommit: Number(4), "tty_buffer.commit";
    TtyBufferRead: Number(4), "tty_buffer.read";
    TtyBufferData: Place(0), "tty_buffer.data";
    NttyReadHead: Number(8), "n_tty_data.read_head";
    NttyReadTail: Number(8), "n_tty_data.read_tail";
    NttyReadBuf: Place(4096), "n_tty_data.read_buf";
    NttyReadFlags: Place(512), "n_tty_data.read_flags";
    DentrySuper: Pointer, "dentry.d_sb";
    SuperDevice: Number(4), "super_block.s_dev";

    // POSIX message queues. 5.14 - 6.18.
    QueueInode: Place(8), "mqueue_inode_info.vfs_inode";
    QueueTree: Pointer, "mqueue_inode_info.msg_tree.rb_node";
    QueueNotifyOwner: Pointer, "mqueue_inode_info.notify_owner";
    QueueNotifyExec: Number(4), "mqueue_inode_info.notify_self_exec_id";
    QueueNotifyKind: Number(4), "mqueue_inode_info.notify.sigev_notify";
    QueueNotifySignal: Number(4), "mqueue_inode_info.notify.sigev_signo";
    QueueNotifyValue: Number(8), "mqueue_inode_info.notify.sigev_value";
    QueueNotifySock: Pointer, "mqueue_inode_info.notify_sock";
    QueueNotifyCookie: Pointer, "mqueue_inode_info.notify_cookie";
    NodeLinks: Place(24), "posix_msg_tree_node.rb_node";
    NodeLeft: Pointer, "rb_node.rb_left";
    NodeRight: Pointer, "rb_node.rb_right";
    NodePriority: Number(4), "posix_msg_tree_node.priority";
    NodeMessages: Place(16), "posix_msg_tree_node.msg_list";
    Message: Place(48), "msg_msg";
    MessageEntry: Place(16), "msg_msg.m_list";
    MessageSize: Number(8), "msg_msg.m_ts";
    MessageNext: Pointer, "msg_msg.next";
    MessagePart: Place(8), "msg_msgseg";
    TaskExec: Number(8), "task_struct.self_exec_id";

    // NUMA policies, and the tree of mappings. 6.1 - 6.18; a kernel without CONFIG_NUMA has none.
    TaskMempolicy: Pointer, "task_struct.mempolicy";
    MappingTree: Pointer, "mm_struct.mm_mt.ma_root";
    RangePivots: Place(8), "maple_range_64.pivot";
    RangeSlots: Place(8), "maple_range_64.slot";
    AllocationPivots: Place(8), "maple_arange_64.pivot";
    AllocationSlots: Place(8), "maple_arange_64.slot";
    MappingStart: Number(8), "vm_area_struct.vm_start";
    MappingEnd: Number(8), "vm_area_struct.vm_end";
    MappingPage: Number(8), "vm_area_struct.vm_pgoff";
    MappingFile: Pointer, "vm_area_struct.vm_file";
    MappingPolicy: Pointer, "vm_area_struct.vm_policy";
    PolicyMode: Number(2), "mempolicy.mode";
    PolicyFlags: Number(2), "mempolicy.flags";
    PolicyNodes: Place(8), "mempolicy.nodes";
    PolicyHome: Number(4), "mempolicy.home_node";
    PolicyNamedNodes: Place(8), "mempolicy.w.user_nodemask";
    InodeSuper: Pointer, "inode.i_sb";
    SuperMagic: Number(8), "super_block.s_magic";
    ShmemInode: Place(8), "shmem_inode_info.vfs_inode";
    SharedPolicies: Pointer, "shmem_inode_info.policy.root.rb_node";
    SharedPolicyLinks: Place(24), "sp_node.nd";
    SharedPolicyFirst: Number(8), "sp_node.start";
    SharedPolicyEnd: Number(8), "sp_node.end";
    SharedPolicy: Pointer, "sp_node.policy";

    // inotify. 5.14 - 6.18.
    WatchNext: Number(4), "fsnotify_group.inotify_data.idr.idr_next";

    // fanotify. 5.14 - 6.18.
    GroupFlags: Number(4), "fsnotify_group.fanotify_data.flags";

    // What waits in sockets. 6.9 - 6.18: before that, a fragment is a bio_vec.
    SocketSock: Pointer, "socket.sk";
    SockQueue: Place(24), "sock.sk_receive_queue";
    SockPeerPid: Pointer, "sock.sk_peer_pid";
    SockPeerCred: Pointer, "sock.sk_peer_cred";
    CredEuid: Number(4), "cred.euid";
    CredEgid: Number(4), "cred.egid";
    SkbNext: Pointer, "sk_buff.next";
    SkbSock: Pointer, "sk_buff.sk";
    SkbControl: Place(48), "sk_buff.cb";
    SkbLength: Number(4), "sk_buff.len";
    SkbPaged: Number(4), "sk_buff.data_len";
    SkbHead: Pointer, "sk_buff.head";
    SkbData: Pointer, "sk_buff.data";
    SkbEnd: Number(4), "sk_buff.end";
    FragmentCount: Number(1), "skb_shared_info.nr_frags";
    Fragments: Place(16), "skb_shared_info.frags";
    Fragment: Place(16), "skb_frag";
    FragmentPage: Number(8), "skb_frag.netmem";
    FragmentLength: Number(4), "skb_frag.len";
    FragmentOffset: Number(4), "skb_frag.offset";
    Page: Place(64), "page";
    UnixPeer: Pointer, "unix_sock.peer";
    UnixAddress: Pointer, "unix_sock.addr";
    UnixUrgent: Pointer, "unix_sock.oob_skb";
    MessagePid: Pointer, "unix_skb_parms.pid";
    MessageUid: Number(4), "unix_skb_parms.uid";
    MessageGid: Number(4), "unix_skb_parms.gid";
    MessageFiles: Pointer, "unix_skb_parms.fp";
    CarriedCount: Number(2), "scm_fp_list.count";
    Carried: Place(8), "scm_fp_list.fp";
    SockFamily: Number(2), "sock.__sk_common.skc_family";
    SockState: Number(1), "sock.__sk_common.skc_state";
    SockError: Number(4), "sock.sk_err";
    SockNearPort: Number(2), "sock.__sk_common.skc_num";
    SockFarPort: Number(2), "sock.__sk_common.skc_dport";
    SockNear: Number(4), "sock.__sk_common.skc_rcv_saddr";
    SockFar: Number(4), "sock.__sk_common.skc_daddr";
    SockNear6: Place(16), "sock.__sk_common.skc_v6_rcv_saddr";
    SockFar6: Place(16), "sock.__sk_common.skc_v6_daddr";
    AcceptHead: Pointer, "inet_connection_sock.icsk_accept_queue.rskq_accept_head";
    RequestNext: Pointer, "request_sock.dl_next";
    RequestSock: Pointer, "request_sock.sk";
    TcpCopied: Number(4), "tcp_sock.copied_seq";
    TcpNext: Number(4), "tcp_sock.rcv_nxt";
    TcpUrgent: Number(2), "tcp_sock.urg_data";
    SegmentNumber: Number(4), "tcp_skb_cb.seq";
}

/// The enumerator that tells which bit of `SyscallWork` stands for syscall user dispatch. 5.11 - 6.18.
pub(crate) const DISPATCH_BIT: &str = "SYSCALL_WORK_BIT_SYSCALL_USER_DISPATCH";

/// What a feature reads.
pub(crate) struct Needs {
    /// Paths that others go through as well.
    pub(crate) through: &'static [Path],
    /// Paths of its own, which the fault hook moves.
    pub(crate) own: &'static [Path],
}

pub(crate) fn needs(feature: Feature) -> Needs {
    use Path as P;
    let (through, own): (&'static [Path], &'static [Path]) = match feature {
        Feature::Tracees => (&[], &[P::TaskPtraced, P::TaskPtraceEntry, P::TaskPid, P::TaskTgid]),
        Feature::ThreadRecord => (
            &[
                P::TaskPid,
                P::TaskSignal,
                P::TaskMm,
                P::TaskSighand,
                P::TaskFiles,
                P::PidLevel,
                P::PidNumbers,
                P::Upid,
                P::UpidNumber,
                P::TaskSeccompFilter,
                P::FsUmask,
            ],
            &[
                P::TaskState,
                P::TaskComm,
                P::TaskFlags,
                P::TaskAtomicFlags,
                P::TaskPersonality,
                P::TaskSlack,
                P::TaskBlocked,
                P::TaskPending,
                P::TaskChildren,
                P::TaskSeccompMode,
                P::TaskRealCred,
                P::TaskFs,
                P::TaskNsproxy,
                P::ThreadPid,
                P::ThreadCount,
            ],
        ),
        Feature::SignalActions => (
            &[
                P::TaskSighand,
                P::Sigaction,
                P::SigactionHandler,
                P::SigactionFlags,
                P::SigactionRestorer,
                P::SigactionMask,
            ],
            &[P::SighandAction],
        ),
        Feature::AlternateStack => (&[], &[P::AltstackSp, P::AltstackSize, P::AltstackFlags]),
        Feature::TidAddresses => (&[], &[P::SetChildTid, P::ClearChildTid]),
        Feature::ExitSignal => (&[], &[P::ExitSignal]),
        Feature::PdeathSignal => (&[], &[P::PdeathSignal]),
        Feature::JobControl => (&[P::TaskSignal], &[P::SignalFlags, P::GroupExitCode]),
        Feature::RestartKind => (&[], &[P::RestartFunction]),
        Feature::RestartNanosleep => (&[], &[P::SleepClock, P::SleepType, P::SleepRmtp, P::SleepExpires]),
        Feature::RestartPoll => (&[], &[P::PollFds, P::PollCount, P::PollHasTimeout, P::PollSeconds, P::PollNanos]),
        Feature::RestartFutex => {
            (&[], &[P::FutexAddress, P::FutexValue, P::FutexFlags, P::FutexBitset, P::FutexTime, P::FutexAddress2])
        }
        Feature::RealTimer => (&[P::TaskSignal], &[P::RealExpires, P::RealState, P::RealInterval]),
        Feature::CpuTimers => (
            &[P::TaskSignal],
            &[P::ProfExpires, P::ProfInterval, P::VirtualExpires, P::VirtualInterval, P::CpuUser, P::CpuSystem],
        ),
        Feature::PosixTimers => (
            &[P::TaskSignal, P::PosixTimers, P::TimerNode, P::TimerBaseClock, P::PidNumbers],
            &[
                P::TimerId,
                P::TimerClock,
                P::TimerStatus,
                P::TimerOverrun,
                P::TimerInterval,
                P::TimerExpires,
                P::TimerBase,
                P::TimerCpuExpires,
                P::TimerCpuPid,
            ],
        ),
        Feature::WaitEnd => (
            &[
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FileInode,
                P::InodePrivate,
                P::PidTasks,
                P::TaskPidLinks,
                P::TaskPid,
                P::TaskStack,
                P::TaskStackPointer,
                P::SleeperQueued,
                P::SleeperBase,
                P::TimerBaseClock,
            ],
            &[P::SleeperTask, P::SleeperExpires, P::SleeperFunction],
        ),
        Feature::SocketWaitEnd => (
            &[
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FileInode,
                P::InodePrivate,
                P::PidTasks,
                P::TaskPidLinks,
                P::TaskPid,
                P::TaskStack,
                P::TaskStackPointer,
                P::TimeoutQueued,
                P::TimeoutTask,
            ],
            // Were the task's place wrong as these are, all three would be found together.
            &[P::TimeoutExpires, P::TimeoutFunction],
        ),
        Feature::SemUndo => (&[P::UndoListHead, P::UndoEntry, P::UndoSemid, P::UndoAdjust], &[P::UndoList]),
        Feature::Ldt => (&[P::TaskMm, P::LdtEntries, P::LdtCount], &[P::Ldt]),
        Feature::Aio => (&[P::TaskMm, P::AioCount, P::AioContexts], &[P::AioTable]),
        Feature::AioRequests => (
            &[
                P::TaskMm,
                P::AioTable,
                P::AioCount,
                P::AioContexts,
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FilePrivate,
                P::ArrayPerCpu,
            ],
            &[P::AioId, P::AioPlaces, P::AioFree, P::AioCompleted, P::AioPerCpu, P::AioCpuFree],
        ),
        Feature::IoUringTask => (&[], &[P::TaskIoUring]),
        Feature::IoUring => (
            &[
                P::TaskIoUring,
                P::TaskPid,
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FilePrivate,
                P::ArrayPerCpu,
                P::RingFiles,
                P::RingBuffers,
                P::RingBufferGroups,
                P::RingEventfd,
                P::RingPersonalities,
                P::RingRestricted,
                P::TaskRings,
            ],
            &[
                P::TaskCachedRequests,
                P::TaskRequests,
                P::TaskRequestsPerCpu,
                P::RingFlags,
                P::RingSqEntries,
                P::RingCqEntries,
                P::RingSubmitted,
                P::RingCompleted,
                P::RingOverflow,
                P::RingIssuer,
            ],
        ),
        Feature::IoPermission => (&[], &[P::IoBitmap, P::IoLevel]),
        Feature::MemoryLayout => (
            &[P::TaskMm],
            &[
                P::StartCode,
                P::EndCode,
                P::StartData,
                P::EndData,
                P::StartBrk,
                P::Brk,
                P::StartStack,
                P::ArgStart,
                P::ArgEnd,
                P::EnvStart,
                P::EnvEnd,
            ],
        ),
        Feature::Dumpable => (&[P::TaskMm], &[P::MmFlags]),
        Feature::Securebits => (&[P::TaskCred], &[P::Securebits]),
        Feature::Subreaper => (&[P::TaskSignal], &[P::Subreaper]),
        Feature::SyscallDispatch => (&[], &[P::DispatchSelector, P::DispatchOffset, P::DispatchLength, P::SyscallWork]),
        Feature::TlsArray => (&[], &[P::TlsArray]),
        Feature::Threads => (
            &[
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FileInode,
                P::InodePrivate,
                P::PidTasks,
                P::TaskPidLinks,
                P::TaskPid,
                P::TaskTgid,
                P::TaskSignal,
            ],
            &[P::SignalThreads, P::TaskThreadNode, P::TaskOnCpu],
        ),
        Feature::Registers => (
            &[P::TaskStack, P::PtRegs],
            &[P::SelectorEs, P::SelectorDs, P::SelectorFs, P::SelectorGs, P::FsBase, P::GsBase],
        ),
        Feature::ExtendedRegisters => {
            (&[P::TaskSize], &[P::FpuState, P::FpuSize, P::FpuUserFeatures, P::FpuRegisters, P::Pkru])
        }
        Feature::DebugRegisters => (&[], &[P::Breakpoints, P::BreakpointAddress, P::DebugStatus, P::DebugControl]),
        Feature::SignalMask => (&[P::TaskBlocked, P::RestoresMask], &[P::SavedMask]),
        Feature::PendingSignals => {
            (&[P::TaskSignal, P::SigqueueList, P::SigqueueInfo], &[P::TaskPendingList, P::SharedPendingList])
        }
        Feature::Rseq => (&[], &[P::RseqArea, P::RseqLength, P::RseqSignature]),
        Feature::MemoryFlags => (&[P::TaskMm, P::MmFlags], &[P::MmDefFlags]),
        Feature::ThreadFlags => (&[], &[P::ThreadInfoFlags]),
        Feature::Keyrings => {
            (&[P::TaskCred, P::KeyringKeys], &[P::ThreadKeyring, P::ProcessKeyring, P::SessionKeyring])
        }
        Feature::Landlock => (&[P::TaskCred], &[P::CredSecurity]),
        Feature::Seccomp => (&[P::FilterPrev, P::FilterNotif], &[P::TaskSeccompFilter]),
        Feature::Files => (&[P::TaskFiles, P::FdtMax, P::FdtFd], &[P::FilesFdt, P::FdtCloexec]),
        Feature::FileLocks => (&[P::TaskFiles, P::FilesFdt, P::FdtMax, P::FdtFd, P::FileInode], &[P::InodeLocks]),
        Feature::PipeEnds => (
            &[P::TaskFiles, P::FilesFdt, P::FdtMax, P::FdtFd, P::FileInode, P::InodeMode, P::InodePipe],
            &[P::PipeReaders, P::PipeWriters],
        ),
        Feature::Terminals => (
            &[
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FilePrivate,
                P::TtyFileTty,
                P::TtyDriverData,
                P::TtyPort,
                P::TtyPortHead,
                P::TtyBufferNext,
                P::TtyBufferData,
                P::TtyBufferCommit,
                P::TtyBufferRead,
                P::TtyStopped,
                P::TtyStoppedByCall,
                P::NttyReadBuf,
                P::NttyReadFlags,
                P::DentrySuper,
                P::SuperDevice,
            ],
            &[P::TtyIndex, P::TtyLink, P::TtyFlags, P::TtyDiscipline, P::NttyReadHead, P::NttyReadTail],
        ),
        Feature::MessageQueues => (
            &[
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FileInode,
                P::FilePrivate,
                P::SocketSock,
                P::SkbData,
                P::QueueInode,
                P::NodeLinks,
                P::NodeLeft,
                P::NodeRight,
                P::Message,
                P::MessageEntry,
                P::MessageNext,
                P::MessagePart,
                P::PidNumbers,
                P::TaskExec,
            ],
            &[
                P::QueueTree,
                P::QueueNotifyOwner,
                P::QueueNotifyExec,
                P::QueueNotifyKind,
                P::QueueNotifySignal,
                P::QueueNotifyValue,
                P::QueueNotifySock,
                P::QueueNotifyCookie,
                P::NodePriority,
                P::NodeMessages,
                P::MessageSize,
            ],
        ),
        Feature::Numa => (
            &[P::TaskMm, P::FileInode, P::InodeSuper, P::SuperMagic, P::NodeLeft, P::NodeRight],
            &[
                P::TaskMempolicy,
                P::MappingTree,
                P::RangePivots,
                P::RangeSlots,
                P::AllocationPivots,
                P::AllocationSlots,
                P::MappingStart,
                P::MappingEnd,
                P::MappingPage,
                P::MappingFile,
                P::MappingPolicy,
                P::PolicyMode,
                P::PolicyFlags,
                P::PolicyNodes,
                P::PolicyHome,
                P::PolicyNamedNodes,
                P::ShmemInode,
                P::SharedPolicies,
                P::SharedPolicyLinks,
                P::SharedPolicyFirst,
                P::SharedPolicyEnd,
                P::SharedPolicy,
            ],
        ),
        Feature::Inotify => (&[P::TaskFiles, P::FilesFdt, P::FdtMax, P::FdtFd, P::FilePrivate], &[P::WatchNext]),
        Feature::Fanotify => (&[P::TaskFiles, P::FilesFdt, P::FdtMax, P::FdtFd, P::FilePrivate], &[P::GroupFlags]),
        Feature::PendingUnix => (
            &[
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FilePrivate,
                P::PidNumbers,
                P::CredEuid,
                P::CredEgid,
                P::SkbNext,
                P::SkbControl,
                P::SkbHead,
                P::SkbEnd,
                P::Fragment,
                P::Page,
                P::UnixAddress,
                P::UnixUrgent,
            ],
            &[
                P::SocketSock,
                P::SockQueue,
                P::SockPeerPid,
                P::SockPeerCred,
                P::SkbSock,
                P::SkbLength,
                P::SkbPaged,
                P::SkbData,
                P::FragmentCount,
                P::Fragments,
                P::FragmentPage,
                P::FragmentLength,
                P::FragmentOffset,
                P::UnixPeer,
                P::MessagePid,
                P::MessageUid,
                P::MessageGid,
                P::MessageFiles,
                P::CarriedCount,
                P::Carried,
            ],
        ),
        Feature::PendingTcp => (
            &[
                P::TaskFiles,
                P::FilesFdt,
                P::FdtMax,
                P::FdtFd,
                P::FilePrivate,
                P::SockFamily,
                P::SockState,
                P::SockError,
                P::SockNear6,
                P::SockFar6,
                P::SkbNext,
                P::SkbControl,
                P::SkbHead,
                P::SkbEnd,
                P::Fragment,
                P::Page,
                P::RequestNext,
                P::TcpUrgent,
            ],
            &[
                P::SocketSock,
                P::SockQueue,
                P::SockNearPort,
                P::SockFarPort,
                P::SockNear,
                P::SockFar,
                P::AcceptHead,
                P::RequestSock,
                P::SkbLength,
                P::SkbPaged,
                P::SkbData,
                P::FragmentCount,
                P::Fragments,
                P::FragmentPage,
                P::FragmentLength,
                P::FragmentOffset,
                P::TcpCopied,
                P::TcpNext,
                P::SegmentNumber,
            ],
        ),
    };
    Needs { through, own }
}
