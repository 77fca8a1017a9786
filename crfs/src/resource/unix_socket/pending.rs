//! What was sent over connections that wait to be accepted, which only kernel memory tells.

use super::capture::All;
use super::diag::Diag;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::socket::capture::Socket;
use crfs_kstate::{PendingUnix, Sender, SentMessage};
use crfs_sys::socket_queue::Credentials;
use image_format::FileId;
use image_format::socket::{SocketCredentials, SocketStyle, UnixListening, UnixMessage, UnixPending};
use std::os::fd::AsRawFd;

impl All<'_> {
    /// A listening socket, and the bytes that wait in its connections.
    pub(super) fn listening(
        &self,
        socket: &Socket<'_>,
        style: SocketStyle,
        diag: &Diag,
        what: &str,
    ) -> Result<(UnixListening, Vec<u8>), Refusal> {
        let mut listening = UnixListening { backlog: diag.backlog, pending: Vec::new() };
        let mut bytes = Vec::new();
        let clients = diag.pending.iter().map(|&inode| match self.by_inode.get(&u64::from(inode)) {
            // It was closed.
            None if inode == 0 => Ok(None),
            None => Err(refuse(format!(
                "{what} has a connection that waits to be accepted and whose client is outside the container"
            ))),
            client => Ok(client.copied()),
        });
        let clients = clients.collect::<Result<Vec<Option<FileId>>, Refusal>>()?;
        let Some(kernel) = self.context.kernel.filter(|_| !clients.is_empty()) else { return Ok((listening, bytes)) };
        let connections = kernel.pending_unix(socket.ask().as_raw_fd()).map_err(|why| {
            refuse(format!(
                "{what} has a connection that waits to be accepted, and what it holds cannot be told here: {why}"
            ))
        })?;
        if connections.len() != clients.len() {
            return Err(refuse(format!(
                "{what} has connections that wait to be accepted and change although it is frozen"
            )));
        }
        for (client, connection) in clients.into_iter().zip(connections) {
            listening.pending.push(self.pending(client, connection, style, what, &mut bytes)?);
        }
        Ok((listening, bytes))
    }

    fn pending(
        &self,
        client: Option<FileId>,
        connection: PendingUnix,
        style: SocketStyle,
        what: &str,
        bytes: &mut Vec<u8>,
    ) -> Result<UnixPending, Refusal> {
        if connection.has_urgent {
            return Err(refuse(format!(
                "{what} has a connection that waits to be accepted and holds urgent data (MSG_OOB)"
            )));
        }
        if client.is_none() && connection.is_named {
            return Err(refuse(format!(
                "{what} has a connection that waits to be accepted and whose client had a name and is gone"
            )));
        }
        let mut messages = connection.messages;
        if style == SocketStyle::Stream {
            join(&mut messages);
        }
        let mut queued = Vec::with_capacity(messages.len());
        for message in messages {
            bytes.extend_from_slice(&message.data);
            let files = message.files.iter().map(|&file| (self.context.description)(file));
            let files = files.collect::<Option<Vec<FileId>>>().ok_or_else(|| {
                refuse(format!(
                    "{what} has a connection that waits to be accepted and holds a descriptor of what no process has open"
                ))
            })?;
            queued.push(UnixMessage {
                length: message.data.len() as u64,
                from: None,
                credentials: message.sender.map(|sender| self.identity(sender)),
                files,
            });
        }
        Ok(UnixPending { client, connected: self.identity(connection.client), queued })
    }

    fn identity(&self, Sender { pid, uid, gid }: Sender) -> SocketCredentials {
        self.credentials(Credentials { pid, uid, gid })
    }
}

/// Into how many pieces the kernel divides what one call sends is its own affair; what comes with a descriptor begins with it.
fn join(messages: &mut Vec<SentMessage>) {
    messages.dedup_by(|next, before| {
        let alike = next.sender == before.sender && next.files.is_empty() && before.files.is_empty();
        if alike {
            before.data.append(&mut next.data);
        }
        alike
    });
}

fn refuse(reason: String) -> Refusal {
    Refusal::new(reason, "Try again when the program has accepted its connections.")
}
