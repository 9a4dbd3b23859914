//! `larum run`: the endpoint, the engine, and an orderly end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use larum_export::http;
use larum_export::http::guard::Guard;
use larum_export::otlp::Telemetry;
use tokio::time::timeout_at;

use crate::config::{Config, OtlpConfig, web};
use crate::engine;
use crate::logging::{self, LogFormat};
use crate::notify::Notifier;
use crate::pages::{LarumPages, Writers};
use crate::push::Pushes;
use crate::reload;
use crate::state::{self, Handles, Opened};

/// An orderly end takes no longer than this.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A running engine with its endpoint.
pub struct Running {
    /// What other threads may look at.
    pub handles: Handles,
    pushes: Option<Pushes>,
    stop: Arc<AtomicBool>,
    ended: tokio::sync::oneshot::Receiver<anyhow::Result<()>>,
}

/// Binds the endpoint and starts the engine in a thread of its own.
///
/// # Errors
/// The address is taken, or a thread cannot be started.
pub async fn start(config: Arc<Config>, opened: Opened, telemetry: Option<Arc<Telemetry>>) -> anyhow::Result<Running> {
    let handles = Handles::new(&opened)?;
    let (settings, rules) = web::load(config.web_config.as_deref()).map_err(|problems| {
        let why: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the web configuration cannot be used: {}", why.join("; "))
    })?;
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("{} cannot be listened on; choose another --listen", config.listen))?;
    let pages = LarumPages {
        handles: handles.clone(),
        windows: config.windows.clone(),
        series_max: config.series_max,
        exposure: Mutex::default(),
        shown: Mutex::default(),
        catalogue: config.alerts.catalogue.clone(),
        writers: config.otlp.as_ref().map_or_else(Writers::default, |otlp| Writers::with_otlp(&otlp.instance)),
    };
    let pages = Arc::new(pages);
    let guard = Guard::new(rules);
    tokio::spawn(http::serve(listener, pages.clone(), guard.clone()));
    let pushes =
        config.otlp.as_ref().zip(telemetry).map(|(otlp, telemetry)| Pushes::start(otlp, pages.clone(), telemetry));
    let pushes = pushes.transpose().map_err(|why| anyhow::anyhow!("metrics cannot be pushed: {why}"))?;
    if let Some(path) = config.web_config.clone() {
        tokio::spawn(reload::watch(path, settings, guard));
    }
    let stop = Arc::new(AtomicBool::new(false));
    Notifier::start(config.clone(), pages, stop.clone())?;
    let (ending, ended) = tokio::sync::oneshot::channel();
    let (for_engine, asked_to_stop) = (handles.clone(), stop.clone());
    std::thread::Builder::new()
        .name("committer".to_string())
        .spawn(move || {
            let result = engine::run(config, opened, for_engine, &asked_to_stop);
            // Nobody waits for it any more only when the process is ending anyway.
            let _ = ending.send(result);
        })
        .context("the engine's thread cannot be started")?;
    Ok(Running { handles, pushes, stop, ended })
}

impl Running {
    /// Waits until the engine ends by itself.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.ended).await.context("the engine died")?
    }

    /// Last commit, then the end.
    ///
    /// # Errors
    /// The engine failed, or did not end in time.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + STOP_WITHIN;
        timeout_at(deadline, self.ended()).await.context("the last commit did not end in time")??;
        if let Some(pushes) = self.pushes.take()
            && timeout_at(deadline, pushes.finish()).await.is_err()
        {
            tracing::warn!("the collector did not take the last push in time");
        }
        Ok(())
    }
}

fn telemetry(otlp: &OtlpConfig) -> anyhow::Result<Telemetry> {
    let telemetry = otlp
        .link
        .client()
        .and_then(|client| Telemetry::new(&client, env!("CARGO_PKG_VERSION"), &otlp.instance, otlp.trace_share));
    telemetry.map_err(|why| anyhow::anyhow!("traces and log records cannot be sent: {why}"))
}

/// Runs until SIGTERM or SIGINT, then ends in order.
///
/// # Errors
/// Something that going on cannot mend; the message says what to do.
pub async fn run(config: Config, reset_state: bool, log_format: LogFormat) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let config = Arc::new(config);
    let telemetry = config.otlp.as_ref().map(telemetry).transpose()?.map(Arc::new);
    logging::start(log_format, telemetry.as_deref());
    let opened = state::open(&config, reset_state)?;
    let mut running = start(config.clone(), opened, telemetry).await?;
    tracing::info!(listen = %config.listen, state = %config.state.display(), "serving /metrics");
    tokio::select! {
        result = running.ended() => return result,
        _ = terminate.recv() => tracing::info!("SIGTERM: one last commit"),
        _ = interrupt.recv() => tracing::info!("SIGINT: one last commit"),
    }
    running.stop().await?;
    tracing::info!("stopped");
    Ok(())
}
