//! The command line.

use clap::{Args, Parser, Subcommand};
use crfs::external::External;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLE: &str = "\
Example:
  crfs /mnt/crfs                        mount the tree
  crctl run vs1 -- python3 counter.py   start a container
  crctl freeze vs1                      stop it; its state stands in /mnt/crfs/vs1
  cp -r /mnt/crfs/vs1 backup/           take a checkpoint
  crctl kill vs1                        end it (or: crctl thaw vs1, and it goes on)
  cp -r backup/vs1 /mnt/crfs/           bring it back, frozen
  crctl thaw vs1                        and it goes on from where it was";

/// Runs programs in containers that can be frozen, copied as files, and brought back.
#[derive(Debug, Parser)]
#[command(version, after_help = after_help(), max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON for programs in the place of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn after_help() -> String {
    format!("{EXAMPLE}\n\n{}", crate::exit::TABLE)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a program in a new container.
    ///
    /// It gets pid, mount, host name, ipc, network, cgroup and time namespaces of its own, and keeps your environment,
    /// working directory, umask and limits. Its input is /dev/null; its output goes to the log (crctl logs NAME). The
    /// command returns when the program has been executed. With -t it has a terminal of its own, and with -i too you are
    /// attached to it at once: see crctl attach.
    #[command(
        after_help = "Example:\n  crctl run vs1 -- python3 counter.py\n  crctl run -it vs1 -- bash\n  crctl run web --root /srv/debian --hostname web -- /usr/sbin/nginx"
    )]
    Run(Run),
    /// Take in what runs already: a process and all that descend from it, or all that is in a cgroup.
    ///
    /// The processes are moved into a cgroup of ours and run on; nothing else of them changes. What has left the tree by becoming a
    /// daemon is none of it. A restore puts them where they lived: namespaces they shared with the host they share again, under the
    /// same pids while those are free, otherwise in a pid namespace of their own.
    #[command(
        after_help = "Example:\n  setsid python3 counter.py </dev/null >out 2>&1 & crctl add vs1 --pid $!\n  crctl add web --cgroup /sys/fs/cgroup/system.slice/web.service"
    )]
    Add(Add),
    /// Run a command inside a container that runs, and exit with its status.
    ///
    /// It joins the container's namespaces, root and cgroup as a child of its first process, so that it is frozen, checkpointed and
    /// killed with the rest. It has your input and output, environment, umask and limits, and your working directory where the
    /// container has it. While it runs, what of its input and output leads outside (a terminal, a pipe) keeps the container from being
    /// checkpointed. Signals that end a program are passed on to it.
    #[command(
        after_help = "Example:\n  crctl exec vs1 -- ps aux\n  crctl exec -d vs1 -- python3 worker.py\n\nIt exits with the status of the command, or 128 and the number of the signal that ended it; 126 and 127 as crctl run."
    )]
    Exec(Exec),
    /// List the containers: name, state, processes, memory, age, command.
    #[command(after_help = "Example:\n  crctl ls --json | jq -r '.[] | select(.state == \"frozen\").name'")]
    Ls,
    /// Tell what a container is doing and how its last operation went; without a name, how crfs itself is.
    #[command(after_help = "Example:\n  crctl status vs1")]
    Status {
        /// The container.
        name: Option<String>,
    },
    /// Stop a running container, so that its state stands as files under the mount point.
    ///
    /// If it holds anything that a checkpoint cannot carry, all of that is listed and the container runs on.
    #[command(after_help = "Example:\n  crctl freeze vs1 && cp -r /mnt/crfs/vs1 backup/")]
    Freeze(Freeze),
    /// Let a frozen container run again. Works without the server.
    #[command(after_help = "Example:\n  crctl thaw vs1")]
    Thaw {
        /// The container.
        name: String,
    },
    /// Kill all processes of a container, running or frozen. Works without the server.
    #[command(after_help = "Example:\n  crctl kill vs1 && cp -r backup/vs1 /mnt/crfs/")]
    Kill {
        /// The container.
        name: String,
    },
    /// Forget a container that has no processes: one that exited, or files that were copied in and not built.
    #[command(after_help = "Example:\n  crctl kill vs1 && crctl rm vs1")]
    Rm {
        /// The container.
        name: String,
    },
    /// Connect your terminal to the terminal of a container that was started with `crctl run -t`.
    ///
    /// ctrl-p ctrl-q detaches, and the program goes on; any number may be attached at once. When the program ends, the exit
    /// code is the program's own (128 and the signal's number when a signal ended it). What is typed while the container is
    /// frozen waits. Works without the server.
    #[command(after_help = "Example:\n  crctl attach vs1")]
    Attach {
        /// The container.
        name: String,
    },
    /// Print what the programs of a container wrote to their standard output and error.
    #[command(after_help = "Example:\n  crctl logs -f vs1")]
    Logs(Logs),
    /// Take a checkpoint: the tree that `cp -r` makes of the mount, without the mount, by several threads.
    ///
    /// A running container is frozen for it and thawed again. DIRECTORY is the copy; where it exists already, the copy is made in it,
    /// under the container's name, as with cp. Nothing half-made ever stands under the final name.
    #[command(
        after_help = "Example:\n  crctl checkpoint vs1 backup/vs1\n  crctl checkpoint --leave-frozen vs1 backup/ && crctl kill vs1"
    )]
    Checkpoint(Checkpoint),
    /// Bring a checkpoint back from a directory, frozen, without copying it first.
    #[command(after_help = "Example:\n  crctl restore backup/vs1 --run\n  crctl restore backup/vs1 --name vs2")]
    Restore(Restore),
    /// Write a checkpoint as one stream to standard output; made for pipes, and read again by unpack.
    #[command(after_help = "Example:\n  crctl pack backup/vs1 | zstd | ssh host 'zstd -d | crctl unpack vs1'")]
    Pack {
        /// A frozen container, or the directory of a checkpoint.
        what: PathBuf,
    },
    /// Read a packed stream from standard input into a new directory.
    #[command(after_help = "Example:\n  zstd -d < vs1.crfs.zst | crctl unpack backup/vs1")]
    Unpack {
        /// The directory to make.
        directory: PathBuf,
    },
    /// Make a checkpoint of today's format of one that an older crfs took, which stays as it is.
    #[command(
        after_help = "Example:\n  crctl convert backup/vs1 backup/vs1.new && crctl restore backup/vs1.new --name vs1"
    )]
    Convert {
        /// The directory of the older checkpoint.
        directory: PathBuf,
        /// The directory to make.
        new: PathBuf,
    },
    /// Tell whether a checkpoint is sound and this host could restore it, all findings at once.
    #[command(after_help = "Example:\n  crctl verify backup/vs1 && crctl restore backup/vs1")]
    Verify {
        /// The directory of a checkpoint, or a frozen container.
        what: PathBuf,
    },
    /// Show what a checkpoint holds: where it was taken, its processes with memory, threads and descriptors, its files.
    #[command(after_help = "Example:\n  crctl inspect backup/vs1\n  crctl inspect --json vs1 | jq '.processes[].name'")]
    Inspect {
        /// The directory of a checkpoint, or a frozen container.
        what: PathBuf,
    },
    /// Tell what differs between two checkpoints: processes, threads, descriptors, mappings, pages.
    ///
    /// The exit code is 0 when nothing does and 1 otherwise, as with diff.
    #[command(after_help = "Example:\n  crctl diff backup/monday backup/tuesday")]
    Diff {
        /// The earlier one: a directory, or a frozen container.
        one: PathBuf,
        /// The later one.
        other: PathBuf,
    },
    /// Show a process's memory: mappings with size, protection and how much of each is stored; search it; write a part of it out.
    #[command(
        after_help = "Example:\n  crctl mem backup/vs1\n  crctl mem vs1 --pid 7 --find 'password='\n  crctl mem vs1 --dump 0x7ffd0000-0x7ffd2000 | xxd"
    )]
    Mem(Mem),
    /// Write an ELF core file of a process, for a debugger. A frozen container stays as it is.
    #[command(
        after_help = "Example:\n  crctl core vs1 7 && gdb -batch -ex 'thread apply all bt' /usr/bin/python3 core.vs1.7"
    )]
    Core {
        /// The directory of a checkpoint, or a frozen container.
        what: PathBuf,
        /// The process, by its pid in the container.
        #[arg(default_value_t = 1)]
        pid: u32,
        /// The file to make; `core.NAME.PID` if not given.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print what a restore of a copied checkpoint would do, step by step, without doing it.
    #[command(after_help = "Example:\n  crctl plan backup/vs1")]
    Plan {
        /// A copy of a container's directory.
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A name for it: letters, digits, `-`, `_` and `.`, at most 63.
    pub(crate) name: String,
    /// A directory that becomes its `/`: a fresh proc is mounted on its /proc, and the host's /dev on an empty /dev.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Share the host's network; otherwise it has a network of its own with `lo` alone.
    #[arg(long)]
    pub(crate) host_net: bool,
    /// Its host name; the container's name if not given.
    #[arg(long)]
    pub(crate) hostname: Option<OsString>,
    /// Give it a terminal of its own; `crctl attach` connects to it.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Attach to its terminal at once.
    #[arg(short, long, requires = "tty")]
    pub(crate) interactive: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// A name for it: letters, digits, `-`, `_` and `.`, at most 63.
    pub(crate) name: String,
    /// The process that the others descend from. Of a pid namespace of their own its first one.
    #[arg(long, required_unless_present = "cgroup", conflicts_with = "cgroup")]
    pub(crate) pid: Option<i32>,
    /// The directory of a cgroup (v2), whose processes are moved out of it. Its limits hold for them no longer.
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The container.
    pub(crate) name: String,
    /// Return when the command was executed. Its input is /dev/null, and its output goes to the log (crctl logs NAME).
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Freeze {
    /// The container.
    pub(crate) name: String,
    /// How many seconds its tasks may take to stop; then it runs on, and those that did not stop are named.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) deadline: Duration,
    /// Keep it frozen whatever it holds, for looking: what a checkpoint cannot carry is listed in the file `blockers`, and
    /// there is no `manifest`, so that no copy can pass for a checkpoint.
    #[arg(long)]
    pub(crate) inspect: bool,
    #[command(flatten)]
    pub(crate) outside: Outside,
}

#[derive(Debug, Args)]
pub(crate) struct Outside {
    /// What is outside of the container for good. `stdio`: pipes and files that its first process has as standard streams; a restore joins outputs to the log (`crctl logs`),
    /// and input to /dev/null. Or a Unix socket that programs inside are connected to (unix:PATH, or unix:@NAME for an abstract name). Their connections are no obstacle, and
    /// a restore connects anew. May be given several times.
    #[arg(long, value_name = "WHAT")]
    pub(crate) external: Vec<External>,
}

#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    /// The container, running or frozen.
    pub(crate) name: String,
    /// The directory to make, or one that exists to make it in.
    pub(crate) directory: PathBuf,
    /// How many seconds its tasks may take to stop.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) deadline: Duration,
    #[command(flatten)]
    pub(crate) outside: Outside,
    /// Do not let it run again afterwards.
    #[arg(long)]
    pub(crate) leave_frozen: bool,
    /// Wait until the copy is on the disk, so that a crash of the machine cannot lose it.
    #[arg(long)]
    pub(crate) sync: bool,
    /// Keep contents compressed (zstd): of memory, and of files that the checkpoint holds. All commands read such a copy as any other, and so does the mount when it is copied in.
    #[arg(long)]
    pub(crate) compress: bool,
    /// How to show progress on standard error; if not given, a bar on a terminal and nothing elsewhere.
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) progress: Option<Progress>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Progress {
    /// A bar with rate and time left.
    Bar,
    /// A JSON object a line, ten a second: bytes done and in all.
    Json,
    /// Nothing.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Mem {
    /// The directory of a checkpoint, or a frozen container.
    pub(crate) what: PathBuf,
    /// The process, by its pid in the container; all of them if not given.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print where these bytes stand in stored memory.
    #[arg(long, value_name = "TEXT")]
    pub(crate) find: Option<OsString>,
    /// Write the memory from one address up to another to standard output; needs --pid if there are several processes.
    #[arg(long, value_name = "START-END", value_parser = range, conflicts_with = "find")]
    pub(crate) dump: Option<(u64, u64)>,
}

/// Two hexadecimal addresses.
fn range(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let pair = text.split_once('-').and_then(|(start, end)| Some((number(start)?, number(end)?)));
    pair.filter(|(start, end)| start < end)
        .ok_or_else(|| String::from("two hexadecimal addresses, as in 0x7f0000000000-0x7f0000001000"))
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The directory of a checkpoint. It may be removed as soon as the command has returned.
    pub(crate) directory: PathBuf,
    /// The container's name; that of the directory if not given.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Let it run at once.
    #[arg(long)]
    pub(crate) run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The container.
    pub(crate) name: String,
    /// Go on printing what is added, until all its processes have ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| String::from("not a number of seconds"))?;
    // Capture is told in milliseconds, and nothing sensible lasts longer than a day.
    if !(0.001..=86400.0).contains(&number) {
        return Err(String::from("from 0.001 to 86400 seconds"));
    }
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_deadline_is_a_sensible_time() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
