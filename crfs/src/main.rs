//! The server: shows the containers of this host as files.

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use crfs::fuse::{self, Monitor, MountState, ServerLock};
use crfs::registry::{Registry, Server, write_json};
use crfs::tree::{Host, Tree};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What the process in front starts the one in the background under, with its word on standard output.
const BACKGROUND: &str = "CRFS_BACKGROUND";
/// Calibrates, in a process of its own: it traces children, which a server must not.
const CALIBRATE: &str = "CRFS_CALIBRATE";
/// What the background process says once the mount answers.
const READY: &str = "ready";
/// How long open files may keep the server after it was told to end.
const LINGER: Duration = Duration::from_secs(1);

/// Shows running programs as files: freeze a container with `crctl freeze`, copy its directory out to take a checkpoint, and copy it
/// back in to restore.
///
/// Exit status: 0 when the mount stands (with -f: when it was unmounted), 1 with one sentence that says why not, 2 for a command
/// line that is not understood.
#[derive(Parser, Debug)]
#[command(
    name = "crfs",
    version,
    after_help = "Example:\n  crfs /mnt/crfs\n  crctl run demo -- python3 counter.py\n  crctl freeze demo\n  cp -r /mnt/crfs/demo backup/\n\nEnd it with `umount /mnt/crfs`: the containers go on, and a new server shows them again."
)]
struct Options {
    /// An existing directory.
    mountpoint: PathBuf,
    /// Stay in the foreground.
    #[arg(short = 'f', long)]
    foreground: bool,
    /// Let other users in, as far as the modes of the files allow (they are 0600 and 0700 until changed).
    #[arg(long)]
    allow_other: bool,
    /// Tell on standard error what is done; twice: in detail.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

fn main() -> ExitCode {
    // A worker is started with the server's signal mask, and what it builds would have it too. Nothing is lost if this fails.
    let _ = SigSet::all().thread_unblock();
    crfs::worker::exit_if_worker();
    crfs::console::exit_if_holder();
    if std::env::var_os(CALIBRATE).is_some() {
        return calibrate();
    }
    let options = Options::parse();
    let background = std::env::var_os(BACKGROUND).is_some();
    let result = if options.foreground || background { serve(&options, background) } else { detach(&options) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the server in the background and waits for its word. Its errors are ours.
fn detach(options: &Options) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.arg0("crfs").args(std::env::args_os().skip(1)).env(BACKGROUND, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting the server in the background")?;
    let mut word = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut word).context("waiting for the server in the background")?;
    }
    if word.trim_end() == READY {
        return Ok(());
    }
    let status = child.wait().context("waiting for the server in the background")?;
    if status.code() == Some(1) {
        // It has said why.
        std::process::exit(1);
    }
    bail!("{}: the server in the background ended ({status})", options.mountpoint.display());
}

/// Serves until unmounted or told to end.
fn serve(options: &Options, background: bool) -> anyhow::Result<()> {
    log(options.verbose);
    // Before any thread is started, so that all of them leave these signals to the one that waits for them.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;

    let registry = Registry::from_environment();
    fuse::check_privilege()?;
    let _lock = ServerLock::take(&registry)?;
    fuse::check_machine(&registry)?;
    let mountpoint = prepare(&options.mountpoint)?;
    calibrate_apart(&registry)?;

    let tree = Tree::new(registry.clone(), Host(registry.clone()));
    let mounted = fuse::mount(tree, &mountpoint, options.allow_other)?;
    std::fs::metadata(&mountpoint).with_context(|| format!("{}: the mount does not answer", mountpoint.display()))?;
    let server = Server { pid: std::process::id().cast_signed(), mountpoint: mountpoint.clone() };
    write_json(&registry.server_file(), &server)?;
    let looked_at = std::sync::Arc::clone(mounted.tree());
    let monitor = Monitor::start(registry.clone(), move || looked_at.look_again()).context("starting the monitor")?;
    tracing::info!("{}: mounted, serving {}", mountpoint.display(), registry.run_dir().display());
    if background {
        leave_terminal(options.verbose > 0)?;
    }
    let tree = std::sync::Arc::clone(mounted.tree());
    unmount_on_signal(signals, mountpoint.clone(), tree, registry.server_file())?;

    let ended = mounted.wait();
    // The next server writes its own.
    let _ = std::fs::remove_file(registry.server_file());
    drop(monitor);
    tracing::info!("{}: unmounted", mountpoint.display());
    Ok(ended?)
}

fn log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).init();
}

/// The mount point as an absolute path, cleared of what a dead server left.
fn prepare(mountpoint: &Path) -> anyhow::Result<PathBuf> {
    match fuse::mount_state(mountpoint)? {
        MountState::Free => {}
        MountState::Served => {
            bail!(
                "{0}: another server is mounted here; unmount it with `umount {0}`, or mount elsewhere",
                mountpoint.display()
            )
        }
        MountState::Stale => {
            fuse::take_over(mountpoint)?;
            eprintln!("crfs: {}: took over from a server that had died", mountpoint.display());
        }
    }
    std::fs::canonicalize(mountpoint).with_context(|| format!("{}: finding the directory", mountpoint.display()))
}

/// Says that the mount answers, and lets go of the terminal and the directory.
fn leave_terminal(keep_errors: bool) -> anyhow::Result<()> {
    nix::unistd::setsid().context("leaving the session")?;
    std::env::set_current_dir("/").context("changing to the root directory")?;
    let mut output = std::io::stdout();
    writeln!(output, "{READY}").and_then(|()| output.flush()).context("telling that the mount answers")?;
    let null = File::options().read(true).write(true).open("/dev/null").context("opening /dev/null")?;
    nix::unistd::dup2_stdout(&null).context("letting go of standard output")?;
    if !keep_errors {
        nix::unistd::dup2_stderr(&null).context("letting go of standard error")?;
    }
    Ok(())
}

/// On SIGTERM and the like: whoever waits for us is answered, and the mount goes away even while it is in use.
fn unmount_on_signal(
    signals: SigSet,
    mountpoint: PathBuf,
    tree: std::sync::Arc<Tree>,
    server_file: PathBuf,
) -> anyhow::Result<()> {
    let wait = move || {
        let Ok(signal) = signals.wait() else { return };
        tracing::info!("{signal}: unmounting {}", mountpoint.display());
        tree.close();
        if let Err(failure) = fuse::take_over(&mountpoint) {
            tracing::warn!("{failure}");
        }
        // Open files hold a detached mount: the session goes on until they are closed, but not for ever.
        let end = Instant::now() + LINGER;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_file(server_file);
        std::process::exit(0);
    };
    std::thread::Builder::new().name("crfs-signals".to_owned()).spawn(wait).context("starting the signal thread")?;
    Ok(())
}

/// Has another process of this program calibrate the reader of kernel state.
fn calibrate_apart(registry: &Registry) -> anyhow::Result<()> {
    let begun = Instant::now();
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.arg0("crfs-calibrate").env(CALIBRATE, registry.kstate_file()).env_remove(BACKGROUND);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the calibration")?;
    let mut reason = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut reason).context("waiting for the calibration")?;
    }
    let status = child.wait().context("waiting for the calibration")?;
    tracing::debug!("calibration: {status} after {:?}", begun.elapsed());
    match (status.success(), reason.trim_end()) {
        (true, _) => Ok(()),
        (false, "") => Err(anyhow!("reading kernel state: the calibration ended ({status})")),
        (false, reason) => Err(anyhow!("reading kernel state: {reason}")),
    }
}

/// What [`calibrate_apart`] starts. Says on standard output why it failed.
fn calibrate() -> ExitCode {
    let cache = std::env::var_os(CALIBRATE).map(PathBuf::from);
    match crfs_kstate::KernelState::open_calibrated(cache.as_deref()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}
