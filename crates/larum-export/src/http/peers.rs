//! Who is connected: a cap, and who has to leave for others when it is reached.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most connections at a time.
const PEERS_MAX: usize = 512;
/// Who took nothing for so long may have to leave, ms.
const STALLED_MS: u64 = 1000;

/// The connections.
pub struct Peers {
    began: Instant,
    all: Mutex<HashMap<u64, Arc<Peer>>>,
    next: AtomicU64,
}

/// One connection.
#[derive(Default)]
pub struct Peer {
    /// When it last took something, ms since the endpoint began.
    progressed_ms: AtomicU64,
    /// It is being sent a page.
    pub is_served: AtomicBool,
    /// A request's head has begun to arrive.
    pub mid_request: AtomicBool,
    leave: Notify,
}

impl Peer {
    /// Waits until the connection has to make room.
    pub async fn told_to_leave(&self) {
        self.leave.notified().await;
    }
}

/// A connection's place; free again when this is dropped.
pub struct Place {
    peers: Arc<Peers>,
    id: u64,
    /// Whose it is.
    pub peer: Arc<Peer>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peers.lock().remove(&self.id);
    }
}

impl Peers {
    /// Nobody yet.
    pub fn new() -> Arc<Peers> {
        Arc::new(Peers { began: Instant::now(), all: Mutex::default(), next: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// A place for one more; `None` when all are taken by connections that get on.
    pub fn admit(self: &Arc<Self>) -> Option<Place> {
        let is_full = self.lock().len() >= PEERS_MAX;
        if is_full && !self.send_away(|_| true) {
            return None;
        }
        let (id, peer) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Peer::default()));
        peer.progressed_ms.store(self.now_ms(), Ordering::Relaxed);
        self.lock().insert(id, peer.clone());
        Some(Place { peers: self.clone(), id, peer })
    }

    /// Ends the connection that took a page's bytes least recently, if that is a while ago: pages that nobody reads take
    /// memory that others need.
    pub fn send_away_a_stalled_reader(&self) -> bool {
        self.send_away(|peer| peer.is_served.load(Ordering::Relaxed))
    }

    fn send_away(&self, which: impl Fn(&Peer) -> bool) -> bool {
        let (mut all, now_ms) = (self.lock(), self.now_ms());
        let progressed_ms = |peer: &Peer| peer.progressed_ms.load(Ordering::Relaxed);
        let slowest = all.iter().filter(|(_, peer)| which(peer)).min_by_key(|(_, peer)| progressed_ms(peer));
        let Some((id, peer)) = slowest.filter(|(_, peer)| progressed_ms(peer) + STALLED_MS <= now_ms) else {
            return false;
        };
        peer.leave.notify_one();
        let id = *id;
        all.remove(&id).is_some()
    }
}

/// A stream that tells its peer's progress.
pub struct Watched<S> {
    stream: S,
    peers: Arc<Peers>,
    peer: Arc<Peer>,
}

impl<S> Watched<S> {
    /// Watches `stream` for the one who has `place`.
    pub fn new(stream: S, place: &Place) -> Self {
        Watched { stream, peers: place.peers.clone(), peer: place.peer.clone() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, to);
        if to.filled().len() > before {
            self.peer.mid_request.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.peer.progressed_ms.store(self.peers.now_ms(), Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_slowest_leaves_when_all_places_are_taken() {
        let peers = Peers::new();
        let mut places: Vec<Place> = Vec::new();
        for at in 0..PEERS_MAX {
            places.push(peers.admit().unwrap());
            if at == 0 {
                tokio::time::advance(Duration::from_millis(10)).await;
            }
        }
        assert!(peers.admit().is_none(), "all of them are new");
        tokio::time::advance(Duration::from_millis(STALLED_MS)).await;
        let late = peers.admit().unwrap();
        places[0].peer.told_to_leave().await;
        assert_eq!(peers.lock().len(), PEERS_MAX);
        assert!(!peers.send_away_a_stalled_reader(), "nobody is being sent a page");
        places[5].peer.is_served.store(true, Ordering::Relaxed);
        assert!(peers.send_away_a_stalled_reader());
        places[5].peer.told_to_leave().await;
        drop((late, places));
        assert!(peers.lock().is_empty());
    }
}
