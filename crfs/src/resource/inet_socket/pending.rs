//! TCP connections that wait to be accepted: what has arrived on them only kernel memory tells.

use super::capture::{Asked, Point, World};
use super::tcp::{self, Info};
use crate::resource::descriptor::refused::Refusal;
use crate::resource::socket::address::plain;
use crate::resource::socket::capture::Socket;
use crfs_kstate::PendingTcp;
use image_format::FileId;
use image_format::socket::{ClosedClient, InetClient, InetListening, InetPending};
use std::collections::HashSet;
use std::net::SocketAddr;

impl World<'_> {
    /// The listening socket at which a connection waits to be accepted; where tasks run, the one that it leads to, which may have
    /// accepted it by the time of the freeze.
    pub(super) fn waits_at(&self, client: &Asked) -> Option<FileId> {
        if !self.frozen {
            return self.listener(client).map(|(socket, _)| socket.id);
        }
        let points = client.points()?;
        let knows = |pending: &PendingTcp| (plain(pending.far), plain(pending.near)) == points;
        let mut listeners = self.waiting.iter();
        listeners.find(|(_, waiting)| waiting.as_ref().is_ok_and(|all| all.iter().any(knows))).map(|(&id, _)| id)
    }

    /// Whether a connection is yet to come to where it waits, or the end of one whose client was closed.
    pub(super) fn is_connecting(&self) -> bool {
        let held: HashSet<(Point, Point)> = self.all.iter().filter_map(Asked::points).collect();
        let is_lost = |asked: &Asked| {
            let held = asked.points().is_none_or(|(local, remote)| held.contains(&(remote, local)));
            asked.is_in(tcp::ESTABLISHED) && !held && self.waits_at(asked).is_none() && self.listener(asked).is_some()
        };
        // Something arrives while it is read.
        let is_changing = self.waiting.values().any(Result::is_err);
        let mut waiting = self.waiting.values().flatten().flatten();
        is_changing || waiting.any(|connection| self.client(connection).is_none()) || self.all.iter().any(is_lost)
    }

    /// The listening socket that a connection leads to, by its address.
    pub(super) fn listener(&self, client: &Asked) -> Option<(&Socket<'_>, &Asked)> {
        let (_, (address, port)) = client.points()?;
        let fits = |listener: &Asked| {
            let local = listener.local.filter(|_| listener.is_in(tcp::LISTEN)).map(plain);
            local.is_some_and(|(own, at)| at == port && (own == address || own.is_unspecified()))
        };
        self.sockets.iter().zip(&self.all).find(|(_, asked)| fits(asked))
    }

    /// A listening socket, and the bytes that have arrived on the connections that wait there.
    pub(super) fn listening(&self, id: FileId, info: Info, what: &str) -> Result<(InetListening, Vec<u8>), Refusal> {
        let mut listening = InetListening { backlog: info.backlog, pending: Vec::new() };
        let mut bytes = Vec::new();
        let waiting = match self.waiting.get(&id) {
            None => return Ok((listening, bytes)),
            Some(Ok(waiting)) => waiting,
            Some(Err(why)) => {
                return Err(refuse(format!(
                    "{what} has a connection that waits to be accepted, and what it holds cannot be told here: {why}"
                )));
            }
        };
        for connection in waiting {
            if connection.failed || connection.has_urgent {
                return Err(refuse(format!(
                    "{what} has a connection that waits to be accepted and holds urgent data (MSG_OOB) or an error"
                )));
            }
            let client = self.client(connection).ok_or_else(|| {
                refuse(format!(
                    "{what} has a connection that waits to be accepted and whose client is outside the container, or being closed"
                ))
            })?;
            listening.pending.push(InetPending { client, received: connection.data.len() as u64 });
            bytes.extend_from_slice(&connection.data);
        }
        Ok((listening, bytes))
    }

    /// Who has connected. None: nobody of the container, as far as can be told.
    fn client(&self, connection: &PendingTcp) -> Option<InetClient> {
        let points = Some((plain(connection.far), plain(connection.near)));
        let open = self.sockets.iter().zip(&self.all).find(|(_, asked)| asked.is_stream() && asked.points() == points);
        if let Some((client, _)) = open {
            return Some(InetClient::Open(client.id));
        }
        // It has told its end; in a network of its own nobody outside can be that client.
        let closed = connection.state == tcp::CLOSE_WAIT && !self.host_network;
        let address = |address: SocketAddr| SocketAddr::from(plain(address));
        let client = ClosedClient { from: address(connection.far), to: address(connection.near) };
        closed.then_some(InetClient::Closed(client))
    }
}

fn refuse(reason: String) -> Refusal {
    Refusal::new(reason, "Try again when the program has accepted its connections.")
}
