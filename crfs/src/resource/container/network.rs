//! What a network namespace of the container's own holds beside the sockets that descriptors name.

use super::super::Findings;
use super::super::loopback::settle;
use super::super::proc::Proc;
use crate::failure::Failure;

/// Protocols whose sockets may outlive their descriptors, with the file that counts them and their line there.
const TCP: [(&str, &str, &str); 2] = [("tcp", "sockstat", "TCP:"), ("tcp6", "sockstat6", "TCP6:")];

const REMEDY: &str = "Remove it, or start the container in a network with nothing (`--network=none` of podman and docker) or in the host's \
     (`--network=host`, `crctl run --host-net`)";

/// Finds interfaces other than `lo`, addresses other than the loopback's, and sockets without a descriptor.
///
/// # Errors
/// When the first process is gone.
pub(super) fn survey(init: i32, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    for name in interfaces(proc.text(format_args!("{init}/net/dev"))?) {
        findings.block(
            "manifest",
            format!("the container's network has the interface {name}, which is not carried yet"),
            REMEDY,
        );
    }
    for address in addresses(proc.text(format_args!("{init}/net/fib_trie")).unwrap_or_default()) {
        findings.block(
            "manifest",
            format!("the container's network has the address {address}, which is not carried yet"),
            REMEDY,
        );
    }
    for connection in closing(init, proc) {
        findings.block(
            "af_inet_orphan_info",
            format!("{connection} is closed on this side, with data still to be sent"),
            "Wait until it has ended",
        );
    }
    Ok(())
}

/// Connections that nobody has a descriptor of any more and that have something left to send, in the network of a process (host pid).
fn closing(process: i32, proc: &mut Proc) -> Vec<String> {
    let mut found = Vec::new();
    for (protocol, file, line) in TCP {
        // Listing them walks a table of all the machine's connections, 10 ms even where the namespace has none: count first.
        if count(proc, process, file, line, "inuse").unwrap_or(0) == 0 {
            continue;
        }
        // A kernel without IPv6 has no tcp6. Those that have just been closed are done in a moment.
        let ask = || proc.text(format_args!("{process}/net/{protocol}")).map(orphans);
        let addresses = settle(ask, Vec::is_empty).unwrap_or_default();
        found.extend(addresses.iter().map(|address| format!("a {protocol} connection of {address} (hexadecimal)")));
    }
    found
}

/// What the network namespace of a process (host pid) has that a new one has not, `lo` being up and sockets that descriptors name aside.
///
/// # Errors
/// When the process is gone.
pub(in crate::resource) fn held(process: i32, proc: &mut Proc) -> Result<Vec<String>, Failure> {
    let interfaces = interfaces(proc.text(format_args!("{process}/net/dev"))?);
    let mut held: Vec<String> = interfaces.into_iter().map(|name| format!("the interface {name}")).collect();
    let addresses = addresses(proc.text(format_args!("{process}/net/fib_trie")).unwrap_or_default());
    held.extend(addresses.into_iter().map(|address| format!("the address {address}")));
    let closing = closing(process, proc).into_iter();
    held.extend(
        closing.map(|connection| format!("{connection} that is closed on this side, with data still to be sent")),
    );
    Ok(held)
}

/// A number of /proc/net/sockstat: `TCP: inuse 0 orphan 0 tw 0 alloc 5 mem 1`. None where there is no such line.
fn count(proc: &mut Proc, init: i32, file: &str, line: &str, what: &str) -> Option<u64> {
    let text = proc.text(format_args!("{init}/net/{file}")).ok()?;
    counted(text, line, what)
}

fn counted(text: &str, line: &str, what: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|text| text.strip_prefix(line))?.split_ascii_whitespace();
    words.find(|word| *word == what)?;
    words.next()?.parse().ok()
}

/// The interfaces of /proc/net/dev but `lo`.
fn interfaces(text: &str) -> Vec<String> {
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    // Made by the kernel in every namespace where these drivers are loaded, and down.
    const FALLBACK: [&str; 9] = ["lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0"];
    names.filter(|name| !FALLBACK.contains(name) && *name != "ip6gre0").map(ToOwned::to_owned).collect()
}

/// The local addresses of /proc/net/fib_trie outside of 127.0.0.0/8; there is no such file without IPv4 routing.
fn addresses(text: &str) -> Vec<String> {
    let mut last = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim();
        } else if line.contains("host LOCAL") && !last.starts_with("127.") && !found.iter().any(|known| known == last) {
            found.push(last.to_owned());
        }
    }
    found
}

/// States of a connection that was closed and whose end, or data before it, is not acknowledged: FIN_WAIT1, LAST_ACK, CLOSING
/// (include/net/tcp_states.h, v6.18).
const ENDING: [&str; 3] = ["04", "09", "0B"];

/// Local addresses of connections that have no inode (nobody's descriptor leads to them) and something left to send. One that has
/// not, in FIN_WAIT2, is made again with its other end, and TIME_WAIT only waits for packets that a new network has not;
/// what waits to be accepted is told with the socket that listens.
fn orphans(text: &str) -> Vec<String> {
    let ending = |line: &str| -> Option<String> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let orphan = *fields.get(9)? == "0" && ENDING.contains(fields.get(3)?);
        orphan.then(|| fields[1].to_owned())
    };
    text.lines().skip(1).filter_map(ending).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_fresh_network_has_not_is_told() {
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 0 0\n  sit0: 0 0\n  eth0: 1 2\n";
        assert_eq!(interfaces(dev), ["eth0"]);
    }

    #[test]
    fn sockets_are_counted_by_line_and_word() {
        let text = "sockets: used 9\nTCP: inuse 3 orphan 1 tw 2 alloc 5 mem 1\nUDP: inuse 7 mem 4\n";
        assert_eq!((counted(text, "TCP:", "inuse"), counted(text, "TCP:", "tw")), (Some(3), Some(2)));
        assert_eq!((counted(text, "TCP6:", "inuse"), counted(text, "UDP:", "tw")), (None, None));
    }

    #[test]
    fn addresses_beside_the_loopback_are_told_once() {
        let trie = "Main:\n  +-- 0.0.0.0/0 2 0 2\n     |-- 10.1.2.0\n        /24 link UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\n\
            Local:\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(addresses(trie), ["10.1.2.3"]);
    }

    #[test]
    fn connections_without_an_owner_that_have_data_are_orphans() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
            1: 0100007F:1F90 0100007F:D431 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0\n\
            2: 0100007F:1F91 0100007F:D431 04 00000001:00000000 03:00001770 00000000     0        0 0 3 0\n";
        assert_eq!(orphans(tcp), ["0100007F:1F91"]);
    }
}
