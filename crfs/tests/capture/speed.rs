//! How long a capture takes, printed and held against a generous bound: the machine of a test is shared.

use super::world::World;

fn total(report: &crfs::worker::Report) -> u64 {
    report.timings.iter().map(|timing| timing.us).sum()
}

fn show(what: &str, report: &crfs::worker::Report) {
    let parts: Vec<String> = report.timings.iter().map(|timing| format!("{} {}", timing.what, timing.us)).collect();
    println!("{what}: {} us ({})", total(report), parts.join(", "));
}

#[test]
fn one_process_and_a_thousand_threads() {
    let one = World::start("one", &["/bin/sh", "-c", "echo ready; exec sleep 1000"]);
    let many = World::python(
        "thousand",
        "
threading.stack_size(65536)
for i in range(999): threading.Thread(target=libc.pause, daemon=True).start()
ready()
libc.pause()
",
    )
    .at_rest();
    for (what, world, threads) in [("one process", &one, 1), ("a thousand threads", &many, 1000)] {
        let mut best = u64::MAX;
        for _ in 0..5 {
            let report = world.try_capture(false);
            assert_eq!((&report.failure, &report.blockers[..]), (&None, &[][..]));
            show(what, &report);
            best = best.min(total(&report));
            world.thaw();
        }
        assert_eq!(world.capture().process(1).threads.len(), threads);
        assert!(best < 2_000_000, "{what}: {best} us");
    }
}
