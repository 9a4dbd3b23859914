//! The state directory opened and read back, and what of it other threads may look at.

use std::sync::{Arc, Mutex, RwLock};

use anyhow::Context as _;
use larum_aggregate::PartitionId;
use larum_alert::RuntimeAlerts;
use larum_fold::Registry;
use larum_store::{Store, StoreLimits};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::durable::Durable;
use crate::own::OwnMetrics;
use crate::shared::Shared;

/// What belongs to an epoch of the store; fixed with its first commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The Kafka cluster's id, where it says one.
    pub cluster: Option<String>,
    /// Hides hostile names, seeds look-ups.
    pub hash_key: (u64, u64),
    /// When the epoch began, Unix ns.
    pub began_ns: i64,
}

/// The state directory, opened and read back.
pub struct Opened {
    /// The log, open.
    pub store: Store,
    /// None before the first commit.
    pub identity: Option<Identity>,
    /// The durable state.
    pub durable: Arc<RwLock<Durable>>,
}

/// Opens the state directory; `reset` puts what is there aside first.
///
/// # Errors
/// It is in use, damaged, of another version, or the disk refuses; the message says what to do.
pub fn open(config: &Config, reset: bool) -> anyhow::Result<Opened> {
    if reset && let Some(aside) = Store::set_aside(&config.state)? {
        tracing::warn!(aside = %aside.display(), "a new epoch begins; the store before it was put aside");
    }
    let (store, recovered) = Store::open(&config.state, StoreLimits::default())?;
    if recovered.torn {
        tracing::warn!("the last commit was torn and is cut off; its records are read again");
    }
    let identity = recovered.identity.as_deref().map(serde_json::from_slice).transpose();
    let identity =
        identity.context("the store is damaged: its identity cannot be read; start anew with --reset-state")?;
    let durable = Durable::recover(recovered.snapshot.as_deref(), &recovered.commits, &config.alerts.catalogue)
        .context("the store cannot be read; use the version that wrote it, or start anew with --reset-state")?;
    Ok(Opened { store, identity, durable: Arc::new(RwLock::new(durable)) })
}

/// Offsets to be reached, by partition.
pub type Targets = Vec<(PartitionId, i64)>;

/// What other threads may look at while the engine runs.
#[derive(Clone)]
pub struct Handles {
    /// The durable state.
    pub durable: Arc<RwLock<Durable>>,
    /// Atomics.
    pub shared: Arc<Shared>,
    /// Own metrics.
    pub own: Arc<OwnMetrics>,
    /// Admission, once the engine has begun.
    pub registry: Arc<RwLock<Option<Arc<Registry>>>>,
    /// Alerts about Larum itself and the groups it watches.
    pub runtime_alerts: Arc<Mutex<RuntimeAlerts>>,
    /// Ends seen at start, once they are known.
    pub targets: Arc<RwLock<Option<Targets>>>,
}

impl Handles {
    /// Handles of a state that is not being written yet.
    ///
    /// # Errors
    /// Own metrics cannot be made.
    pub fn new(opened: &Opened) -> anyhow::Result<Self> {
        Ok(Handles {
            durable: opened.durable.clone(),
            shared: Arc::new(Shared::default()),
            own: Arc::new(OwnMetrics::new()?),
            registry: Arc::default(),
            runtime_alerts: Arc::default(),
            targets: Arc::default(),
        })
    }
}

/// Random numbers to hide names with.
///
/// # Errors
/// The system has none.
pub fn random_key() -> anyhow::Result<(u64, u64)> {
    let random = || getrandom::u64().map_err(|e| anyhow::anyhow!("no random numbers can be had: {e}"));
    Ok((random()?, random()?))
}
