//! Servers that people have, with their clients inside the container: all connections go on where they were.

use crfs_tests::world::{Method, PATIENCE, Program, World, python, wait_for};

/// Freezes once no connection is just being opened or closed, which is for the user to try again.
fn freeze(world: &World) {
    let mut said = String::new();
    let frozen = wait_for(PATIENCE, || {
        let outcome = world.crctl(["freeze", "vs1"]);
        said = outcome.to_string();
        assert!(outcome.success() || said.contains("Try again"), "{said}");
        outcome.success()
    });
    assert!(frozen, "{said}");
}

/// Twice, so that what was restored is checkpointed too.
fn goes_on(server: &str) {
    let world = World::new();
    let program = Program::script(&world, python(), "servers.py", &[server]);
    world.start("vs1", &program);
    for method in [Method::Cp, Method::Tar] {
        program.goes_on(25);
        freeze(&world);
        program.stands_still();
        let copy = world.copy_out("vs1", method);
        world.kill("vs1");
        world.restore(&copy, "vs1", method);
        world.thaw("vs1");
        program.goes_on(25);
    }
    program.passes();
}

#[test]
fn nginx() {
    goes_on("nginx");
}

#[test]
fn nginx_with_a_master() {
    goes_on("nginx-master");
}

#[test]
fn redis_over_tcp_and_unix_sockets() {
    goes_on("redis");
}

#[test]
fn memcached() {
    goes_on("memcached");
}

#[test]
fn postgresql() {
    goes_on("postgresql");
}

#[test]
fn postgresql_under_pgbench() {
    goes_on("pgbench");
}

#[test]
fn mariadb_with_io_uring() {
    goes_on("mariadb");
}

#[test]
fn node() {
    goes_on("node");
}

#[test]
fn node_cluster() {
    goes_on("node-cluster");
}

#[test]
fn python_asyncio() {
    goes_on("asyncio");
}
