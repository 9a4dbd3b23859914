//! Pushes metrics to a collector: one cut of the state every interval, and a last one at the end.

use std::sync::Arc;

use larum_export::otlp::{Client, Queue};

use crate::config::OtlpConfig;
use crate::pages::LarumPages;

/// The pushes of a running engine.
pub struct Pushes {
    pages: Arc<LarumPages>,
    client: Arc<Client>,
    queue: Arc<Queue>,
}

impl Pushes {
    /// Starts them. Call within a runtime.
    ///
    /// # Errors
    /// A file that the link names cannot be used.
    pub fn start(config: &OtlpConfig, pages: Arc<LarumPages>) -> Result<Pushes, String> {
        let (client, queue) = (Arc::new(config.link.client()?), Arc::new(Queue::default()));
        let pushes = Pushes { pages, client, queue };
        let (client, queue) = (pushes.client.clone(), pushes.queue.clone());
        tokio::spawn(async move { queue.deliver(&client).await });
        let (pages, queue, interval) = (pushes.pages.clone(), pushes.queue.clone(), config.interval);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                push(&pages, &queue).await;
            }
        });
        Ok(pushes)
    }

    /// A last one; gives up nothing by itself, so give it a deadline.
    pub async fn finish(self) {
        push(&self.pages, &self.queue).await;
        self.queue.drain(&self.client).await;
    }
}

async fn push(pages: &Arc<LarumPages>, queue: &Arc<Queue>) {
    let (pages, for_writing) = (pages.clone(), queue.clone());
    match tokio::task::spawn_blocking(move || pages.push(&for_writing)).await {
        Ok(requests) => queue.push(requests),
        Err(error) => tracing::error!(%error, "a push could not be written"),
    }
}
