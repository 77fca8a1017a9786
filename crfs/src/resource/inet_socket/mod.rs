//! TCP and UDP sockets.
//!
//! **What it is.** An end of a connection (TCP), or a place that datagrams are sent to (UDP), with an address of IP version 4 or 6.
//!
//! **Where the kernel keeps it.** `struct inet_sock`, `struct tcp_sock`: <https://elixir.bootlin.com/linux/v6.18/source/include/linux/tcp.h>.
//!
//! **How it is read.** By questions to a duplicate: addresses, TCP_INFO, options; what was received is looked at with MSG_PEEK. The
//! container's tasks stand still, so what is under way on the loopback interface arrives and is acknowledged within a moment, which
//! is waited for. What does not, because the receiver's window is closed, is read from the sender's queue under TCP_REPAIR, the
//! one question that changes the socket while it is asked.
//!
//! **How it is made again.** Listening sockets first. Both ends of a connection are made under TCP_REPAIR, with sequence numbers that fit
//! each other (nobody sees them), and what they have received is put into their queues; then they leave that state, what had not
//! arrived is sent as any data, and what was shut down is shut down. A connection whose other end was closed gets one that is
//! closed at once. One that waits to be accepted is made with connect(2), and its client sends again what kernel memory tells has
//! arrived at the end that nobody has yet.
//!
//! **What is refused.** Connections to the outside; those that are being opened at the moment of the freeze; those that nobody holds and that
//! have not told their end, because the other has no room (`resource/container/network.rs`); a connection that waits to be accepted and whose client is outside; urgent data; errors that the program has not been told yet; protocols other than TCP and UDP.

mod capture;
mod pending;
mod restore;
mod tcp;
mod waiting;

pub(super) use capture::{capture, is_one};
pub(super) use restore::restore;
