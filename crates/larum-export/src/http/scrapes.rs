//! Scrapes: written one at a time, shared by those who ask at the same moment, few in memory at once.

use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::peers::Peers;
use super::{Pages, Wanted};
use crate::page::Page;

/// Most scrapes in memory, those being sent included.
const IN_MEMORY_MAX: usize = 4;
/// A scrape serves whoever asks within so many times the time that writing it took, so that a flood of requests costs an
/// eighth of a core at most.
const SHARED_FOR: u32 = 8;
/// But no longer than this.
const SHARED_FOR_MAX: Duration = Duration::from_secs(1);
/// Wait for memory before somebody else has to leave, and how often.
const WAIT: Duration = Duration::from_millis(100);
const WAITS_MAX: u32 = 50;

/// What one scrape answers.
pub struct Scrape {
    /// Its bytes, packed if that was wanted.
    pub page: Page,
    wanted: Wanted,
    fresh_until: Instant,
    _room: OwnedSemaphorePermit,
}

/// Writes scrapes.
pub struct Scrapes {
    pages: Arc<dyn Pages>,
    peers: Arc<Peers>,
    /// One is written at a time: scrapers share what reading the state costs.
    turn: tokio::sync::Mutex<()>,
    room: Arc<Semaphore>,
    fresh: Mutex<Vec<Arc<Scrape>>>,
}

impl Scrapes {
    /// Of these pages; where memory is short, those of `peers` who do not read leave.
    pub fn new(pages: Arc<dyn Pages>, peers: Arc<Peers>) -> Arc<Scrapes> {
        let room = Arc::new(Semaphore::new(IN_MEMORY_MAX));
        Arc::new(Scrapes { pages, peers, turn: tokio::sync::Mutex::default(), room, fresh: Mutex::default() })
    }

    /// The scrapes that are still fresh; others go.
    fn fresh(&self) -> MutexGuard<'_, Vec<Arc<Scrape>>> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.retain(|scrape| scrape.fresh_until > Instant::now());
        fresh
    }

    /// A scrape that is still fresh.
    fn shared(&self, wanted: Wanted) -> Option<Arc<Scrape>> {
        self.fresh().iter().find(|scrape| scrape.wanted == wanted).cloned()
    }

    /// Room for one more; who stalls makes it, and what is fresh no more.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        for _ in 0..WAITS_MAX {
            drop(self.fresh());
            if self.room.available_permits() == 0 {
                self.peers.send_away_a_stalled_reader();
            }
            if let Ok(permit) = timeout(WAIT, self.room.clone().acquire_owned()).await {
                return permit.ok();
            }
        }
        None
    }

    /// The scrape of this moment; `Err` says why there is none.
    pub async fn get(self: &Arc<Self>, wanted: Wanted) -> Result<Arc<Scrape>, String> {
        if let Some(scrape) = self.shared(wanted) {
            return Ok(scrape);
        }
        // In a task of its own: a client that goes away does not make room for another to have it done again.
        let scrapes = self.clone();
        let writing = tokio::spawn(async move {
            let _turn = scrapes.turn.lock().await;
            if let Some(scrape) = scrapes.shared(wanted) {
                return Ok(scrape);
            }
            let busy = || "too many scrapes are being read slowly; try again".to_string();
            let room = scrapes.room().await.ok_or_else(busy)?;
            let (pages, began) = (scrapes.pages.clone(), Instant::now());
            let written = tokio::task::spawn_blocking(move || write(&*pages, wanted)).await;
            let page = written.map_err(|error| format!("the scrape failed: {error}"))?;
            let shared_for = (began.elapsed() * SHARED_FOR).min(SHARED_FOR_MAX);
            let scrape = Arc::new(Scrape { page, wanted, fresh_until: began + shared_for, _room: room });
            scrapes.fresh().push(scrape.clone());
            Ok(scrape)
        });
        writing.await.map_err(|error| format!("the scrape failed: {error}"))?
    }
}

/// One scrape, packed if it is asked for: over a network its size costs more than packing it fast.
fn write(pages: &dyn Pages, wanted: Wanted) -> Page {
    let page = pages.metrics(wanted.format);
    if !wanted.gzip {
        return page;
    }
    let mut packed = GzEncoder::new(Vec::with_capacity(page.len() / 8), Compression::fast());
    // Writing to memory does not fail.
    let written = page.parts().iter().try_for_each(|part| packed.write_all(part)).and_then(|()| packed.finish());
    written.unwrap_or_else(|error| unreachable!("memory refuses nothing: {error}")).into()
}
