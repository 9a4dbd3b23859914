//! What goes to a collector: metrics, one cut of the state every interval and a last one at the end; changes of the
//! platform as log records; spans.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use larum_export::otlp::{Client, Queue, Telemetry};

use crate::clock::now_ns;
use crate::config::OtlpConfig;
use crate::pages::LarumPages;
use crate::tell::Teller;

/// The pushes of a running engine.
pub struct Pushes {
    pages: Arc<LarumPages>,
    client: Arc<Client>,
    queue: Arc<Queue>,
    telemetry: Arc<Telemetry>,
}

/// Time between looks at what changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Pushes {
    /// Starts them. Call within a runtime.
    ///
    /// # Errors
    /// A file that the link names cannot be used.
    pub fn start(config: &OtlpConfig, pages: Arc<LarumPages>, telemetry: Arc<Telemetry>) -> Result<Pushes, String> {
        let (client, queue) = (Arc::new(config.link.client()?), Arc::new(Queue::default()));
        let pushes = Pushes { pages, client, queue, telemetry };
        let (client, queue) = (pushes.client.clone(), pushes.queue.clone());
        tokio::spawn(async move { queue.deliver(&client).await });
        let (pages, queue, interval) = (pushes.pages.clone(), pushes.queue.clone(), config.interval);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                push(&pages, &queue).await;
            }
        });
        tokio::spawn(tell(pushes.pages.clone(), pushes.telemetry.clone()));
        Ok(pushes)
    }

    /// A last one; gives up nothing by itself, so give it a deadline.
    pub async fn finish(self) {
        push(&self.pages, &self.queue).await;
        self.queue.drain(&self.client).await;
        // It waits in a thread of its own.
        let _ = tokio::task::spawn_blocking(move || self.telemetry.finish()).await;
    }
}

/// Tells of changes and of what becomes of alerts as they become visible, until the runtime ends.
async fn tell(pages: Arc<LarumPages>, telemetry: Arc<Telemetry>) {
    let durable = || pages.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
    let mut teller = {
        let durable = durable();
        Teller::new(&durable.view, &durable.alerts)
    };
    loop {
        let news = {
            let (durable, now_ns) = (durable(), now_ns());
            let mut news = teller.news(&durable.view, now_ns);
            news.extend(teller.transitions(&durable.alerts, &pages.catalogue, now_ns));
            news
        };
        news.into_iter().for_each(|told| telemetry.tell(told));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn push(pages: &Arc<LarumPages>, queue: &Arc<Queue>) {
    let (pages, for_writing) = (pages.clone(), queue.clone());
    match tokio::task::spawn_blocking(move || pages.push(&for_writing)).await {
        Ok(requests) => queue.push(requests),
        Err(error) => tracing::error!(%error, "a push could not be written"),
    }
}
