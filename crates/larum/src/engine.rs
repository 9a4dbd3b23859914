//! The threads together: readers, committer (this one), watch, dead letters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use larum_aggregate::time::SECOND_NS;
use larum_aggregate::{DeadLetter, PartitionId, PartitionStart, SourceId};
use larum_fold::{DeadLetters, Registry, SourcePolicy, Worker};
use larum_kafka::{Consumer, GroupReader, Producer, Watcher, producer};
use larum_store::Store;

use crate::clock::now_ns;
use crate::config::{Config, SourceConfig, WhenFull};
use crate::dead_letters::Carrier;
use crate::durable::resume;
use crate::groups::GroupWatch;
use crate::keeper::{Committed, Keeper, Round};
use crate::logging::SPANS;
use crate::memory::{Needs, mib};
use crate::reader::{Control, NewPart, Reader, ReaderCut, ReaderSettings};
use crate::shared::{PartShared, SourceShared};
use crate::start::{Plan, PlanError, plan, source_ids};
use crate::state::{Handles, Identity, Opened, random_key};
use crate::watch::{Watch, show_lag};

/// Longest wait for an answer of the broker outside the readers.
const ASK: Duration = Duration::from_secs(1);
/// Wait before the broker is asked again at start, and before a refused commit is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// A reader that does not answer for so long is dead.
const READER_ANSWERS: Duration = Duration::from_secs(30);
/// Counted events in an open Delta beyond which a reader waits for its cut: 32 MiB.
pub const OPEN_ENTRIES_MAX: usize = 1 << 20;
/// Time between looks for slots to free, ns.
const RETIRE_EVERY_NS: i64 = 60 * SECOND_NS;
/// What a dead letter needs besides its bytes.
const LETTER_OVERHEAD_BYTES: usize = 4096;
/// What Kafka's topics take unless told otherwise.
const TOPIC_RECORD_BYTES: usize = 1_048_588;

struct ReaderHandle {
    control: Sender<Control>,
    parts: usize,
}

/// Letters on their way to the carrier.
type LetterSender = Sender<(DeadLetter, Arc<PartShared>)>;

/// The committer and what it needs.
struct Engine {
    config: Arc<Config>,
    handles: Handles,
    keeper: Keeper,
    readers: Vec<ReaderHandle>,
    sources: BTreeMap<SourceId, (Arc<SourceShared>, SourcePolicy)>,
    parts: Arc<RwLock<Vec<Arc<PartShared>>>>,
    letters: Option<LetterSender>,
    delivered: Receiver<(PartitionId, i64)>,
    found: Receiver<Result<Plan, PlanError>>,
    /// Letters whose commit is not durable yet.
    letters_held: Vec<DeadLetter>,
    retired_ns: i64,
    /// Dropping them ends the threads that watch groups.
    group_watches: Vec<Sender<()>>,
}

/// Reads, commits and shows until `stop`.
///
/// # Errors
/// Something that going on cannot mend; the message says what to do.
pub fn run(config: Arc<Config>, opened: Opened, handles: Handles, stop: &AtomicBool) -> anyhow::Result<()> {
    let stats = handles.shared.clients.clone();
    let watcher = Watcher::new(&config.kafka, stats, ASK)?;
    let Some((identity, first)) = begin(&config, &opened, &watcher, stop)? else { return Ok(()) };
    let (mut engine, watch_found, deliveries) = Engine::new(config, opened, handles, &identity)?;
    engine.commit(Round { new_sources: first.sources, new_partitions: first.partitions, ..Round::default() }, None)?;
    engine.spawn_carrier(deliveries)?;
    engine.spawn_readers()?;
    engine.spawn_watch(watcher, watch_found);
    engine.spawn_group_watches()?;
    engine.work(stop)
}

/// Asks the broker until it answers: who it is, and where everything begins. `None` when told to stop.
fn begin(
    config: &Config,
    opened: &Opened,
    watcher: &Watcher,
    stop: &AtomicBool,
) -> anyhow::Result<Option<(Identity, Plan)>> {
    let mut said = None;
    while !stop.load(Ordering::Relaxed) {
        watcher.serve();
        let cluster = watcher.cluster_id();
        if let (Some(Some(was)), Some(now)) = (opened.identity.as_ref().map(|i| &i.cluster), &cluster)
            && was != now
        {
            bail!(
                "the store in {} belongs to Kafka cluster {was}, but {} is cluster {now}: use another --state for it, \
                 or start a new epoch with --reset-state",
                config.state.display(),
                config.kafka.brokers
            );
        }
        let view = opened.durable.read().unwrap_or_else(PoisonError::into_inner).view.outline();
        let planned = cluster.is_some().then(|| plan(config, &view, watcher, now_ns()));
        let why = match planned {
            Some(Ok(plan)) => {
                let identity = match &opened.identity {
                    Some(identity) => identity.clone(),
                    None => Identity { cluster, hash_key: random_key()?, began_ns: now_ns() },
                };
                return Ok(Some((identity, plan)));
            }
            Some(Err(error @ PlanError::OtherTopic { .. })) => return Err(error.into()),
            Some(Err(error)) => error.to_string(),
            None => format!("no broker answers at {}", config.kafka.brokers),
        };
        if said.as_ref() != Some(&why) {
            tracing::warn!("{why}; asking until it does");
            said = Some(why);
        }
        std::thread::sleep(AGAIN);
    }
    Ok(None)
}

/// Ends of the channels that the other threads get.
type Found = Sender<Result<Plan, PlanError>>;
type Deliveries = (LetterSender, Receiver<(DeadLetter, Arc<PartShared>)>, Sender<(PartitionId, i64)>);

impl Engine {
    fn new(
        config: Arc<Config>,
        opened: Opened,
        handles: Handles,
        identity: &Identity,
    ) -> anyhow::Result<(Self, Found, Deliveries)> {
        let Opened { store, durable, .. } = opened;
        let registry = {
            let durable = durable.read().unwrap_or_else(PoisonError::into_inner);
            let names: Vec<_> = durable.view.names().cloned().collect();
            let keys: Vec<_> = durable.view.keys().map(|k| k.def).collect();
            let next = durable.view.next_ids();
            Arc::new(Registry::new(config.budgets.clone(), identity.hash_key, &names, &keys, next))
        };
        *handles.registry.write().unwrap_or_else(PoisonError::into_inner) = Some(registry.clone());
        let ids = source_ids(&config, &durable.read().unwrap_or_else(PoisonError::into_inner).view);
        let sources = config.sources.iter().zip(ids);
        let sources = sources.map(|(s, id)| (id, (Arc::new(SourceShared::new(id)), s.policy.clone()))).collect();
        let (found_sender, found) = bounded(1);
        let (delivered_sender, delivered) = unbounded();
        let (letter_sender, letter_receiver) = unbounded();
        let engine = Engine {
            keeper: Keeper::new(
                store,
                serde_json::to_vec(identity)?,
                durable,
                registry,
                config.alerts.catalogue.clone(),
                now_ns(),
            ),
            config,
            handles,
            readers: Vec::new(),
            sources,
            parts: Arc::default(),
            letters: None,
            delivered,
            found,
            letters_held: Vec::new(),
            retired_ns: now_ns(),
            group_watches: Vec::new(),
        };
        Ok((engine, found_sender, (letter_sender, letter_receiver, delivered_sender)))
    }

    fn spawn_carrier(&mut self, (sender, inbox, delivered): Deliveries) -> anyhow::Result<()> {
        let Some(topic) = &self.config.dead_letters.topic else {
            tracing::warn!("no dead-letter topic is configured: refused records are counted, their bytes are not kept");
            return Ok(());
        };
        let producer = Producer::new(&self.config.kafka, topic, self.handles.shared.clients.clone())?;
        let carrier = Carrier::new(producer, inbox, delivered, self.handles.own.clone());
        spawn("dead-letters", move || carrier.run())?;
        self.letters = Some(sender);
        Ok(())
    }

    fn spawn_readers(&mut self) -> anyhow::Result<()> {
        let config = &self.config;
        let dead_letters = match &config.dead_letters.topic {
            None => DeadLetters::Count,
            Some(topic) => {
                let takes = producer::record_bytes_max(&config.kafka, topic, ASK).unwrap_or(TOPIC_RECORD_BYTES);
                DeadLetters::Keep { record_bytes_max: takes.saturating_sub(LETTER_OVERHEAD_BYTES).max(1) }
            }
        };
        let Some(registry) = self.handles.registry.read().unwrap_or_else(PoisonError::into_inner).clone() else {
            bail!("readers before the registry");
        };
        let sources = self.sources.keys().map(|id| usize::from(id.0) + 1).max().unwrap_or(0);
        for number in 0..config.workers {
            let (control, commands) = unbounded();
            let consumer = Consumer::new(&config.kafka, config.workers, self.handles.shared.clients.clone())?;
            let settings = ReaderSettings {
                dead_letters,
                outbox_bytes_max: config.dead_letters.outbox_bytes_max,
                block: config.dead_letters.topic.is_some() && config.dead_letters.when_full == WhenFull::Block,
                open_entries_max: OPEN_ENTRIES_MAX,
            };
            let worker = Worker::new(registry.clone(), config.limits, sources);
            let reader = Reader::new(worker, consumer, commands, settings, self.handles.shared.clone());
            spawn(&format!("reader-{number}"), move || reader.run())?;
            self.readers.push(ReaderHandle { control, parts: 0 });
        }
        // Before anybody adds to it.
        let letters: Vec<DeadLetter> = {
            let durable = self.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
            self.handles.shared.outbox_bytes.store(durable.outbox.bytes(), Ordering::Relaxed);
            durable.outbox.letters().cloned().collect()
        };
        self.add_parts()?;
        self.carry(letters);
        Ok(())
    }

    /// Hands every partition that is durable and not read yet to the reader with the fewest.
    fn add_parts(&mut self) -> anyhow::Result<()> {
        let durable = self.handles.durable.clone();
        let durable = durable.read().unwrap_or_else(PoisonError::into_inner);
        for view in durable.view.partitions() {
            let start = &view.start;
            let known = self.parts.read().unwrap_or_else(PoisonError::into_inner).iter().any(|p| p.id == start.id);
            let name = durable.view.source(start.source).map(|s| &s.def.name);
            let of_source = self.config.sources.iter().find(|s| Some(&s.name) == name);
            let configured = of_source.is_some_and(|s| s.topics.contains(&start.topic));
            let Some((source, policy)) = self.sources.get(&start.source).filter(|_| !known && configured) else {
                continue;
            };
            let shared = Arc::new(PartShared::new(start.id, start.source, &start.topic, start.partition));
            source.add(shared.clone());
            self.parts.write().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
            let part = NewPart { shared, source: source.clone(), state: resume(view), policy: policy.clone() };
            let Some(reader) = self.readers.iter_mut().min_by_key(|r| r.parts) else { bail!("no reader") };
            reader.parts += 1;
            reader.control.send(Control::Add(Box::new(part))).context("a reader has ended")?;
        }
        Ok(())
    }

    /// Notes where the logs end, once every partition has an answer: reaching that is being ready.
    fn note_targets(&self, parts: &[Arc<PartShared>]) {
        let mut targets = self.handles.targets.write().unwrap_or_else(PoisonError::into_inner);
        if targets.is_none() && !parts.is_empty() {
            *targets = parts.iter().map(|part| part.end().map(|(end, _)| (part.id, end))).collect();
        }
    }

    fn spawn_watch(&self, watcher: Watcher, found: Found) {
        let watch = Watch {
            watcher,
            config: self.config.clone(),
            durable: self.handles.durable.clone(),
            parts: self.parts.clone(),
            own: self.handles.own.clone(),
            found,
        };
        if let Err(error) = spawn("watch", move || watch.run()) {
            tracing::error!(%error, "ends of logs are not watched");
        }
    }

    fn spawn_group_watches(&mut self) -> anyhow::Result<()> {
        let of_source = |s: &SourceConfig| s.topics.iter().map(|t| (t.clone(), s.name.clone())).collect::<Vec<_>>();
        let sources: BTreeMap<_, _> = self.config.sources.iter().flat_map(of_source).collect();
        for watched in &self.config.watched_groups {
            let stats = self.handles.shared.clients.clone();
            let reader = GroupReader::new(&self.config.kafka, &watched.group, stats, ASK)?;
            let (own, sources) = (self.handles.own.clone(), sources.clone());
            let watch = GroupWatch { reader, watched: watched.clone(), sources, own };
            let (open, closed) = bounded(0);
            spawn("group-watch", move || watch.run(&closed))?;
            self.group_watches.push(open);
        }
        Ok(())
    }

    /// The committer's loop.
    fn work(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut due_ns = now_ns();
        let mut shown_ns = 0;
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            let wait_ns = due_ns - now_ns();
            if wait_ns > 0 && !stopping {
                std::thread::sleep(Duration::from_nanos(wait_ns.min(20_000_000) as u64));
                continue;
            }
            due_ns = now_ns() + self.config.commit_interval.as_nanos() as i64;
            self.handles.shared.round_ns.store(now_ns(), Ordering::Relaxed);
            if self.keeper.is_stalled() {
                self.again()?;
            } else {
                self.round()?;
            }
            if stopping {
                if self.keeper.is_stalled() {
                    tracing::error!(
                        bytes = self.keeper.stalled_bytes(),
                        "stopping without a last commit, because the disk refuses; its records are read again"
                    );
                }
                return Ok(());
            }
            self.note_targets(&self.parts.read().unwrap_or_else(PoisonError::into_inner).clone());
            if now_ns() - shown_ns > SECOND_NS {
                shown_ns = now_ns();
                self.show();
            }
        }
    }

    /// Asks the readers for their Deltas and commits them.
    fn round(&mut self) -> anyhow::Result<()> {
        let _span = tracing::info_span!(target: SPANS, "commit").entered();
        let began_ns = now_ns();
        let mut round = Round { delivered: self.delivered.try_iter().collect(), ..Round::default() };
        match self.found.try_recv() {
            // Made before an earlier plan was durable: the next look finds what is still new.
            Ok(Ok(plan)) if self.knows_some_of(&plan) => {}
            Ok(Ok(plan)) => {
                tracing::info!(partitions = plan.partitions.len(), "new partitions begin");
                (round.new_sources, round.new_partitions) = (plan.sources, plan.partitions);
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {}
        }
        let forget = began_ns - self.retired_ns > RETIRE_EVERY_NS && {
            self.retired_ns = began_ns;
            self.keeper.announce_idle()
        };
        let mut newest_append_ns = None;
        for cut in self.cut(forget)? {
            newest_append_ns = newest_append_ns.max(cut.newest_append_ns);
            self.letters_held.extend(cut.cut.cut.dead_letters.iter().cloned());
            round.cuts.push(cut.cut);
        }
        round.now_ns = now_ns();
        let joined = !round.new_partitions.is_empty();
        self.commit(round, newest_append_ns)?;
        self.handles.own.commit_seconds.observe((now_ns() - began_ns) as f64 / SECOND_NS as f64);
        if joined && !self.keeper.is_stalled() {
            self.add_parts()?;
        }
        Ok(())
    }

    fn knows_some_of(&self, plan: &Plan) -> bool {
        let durable = self.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
        let place = |p: &PartitionStart| (p.source, p.topic.clone(), p.partition);
        let known = |new: &PartitionStart| {
            durable.view.partitions().any(|old| old.start.id == new.id || place(&old.start) == place(new))
        };
        plan.partitions.iter().any(known)
    }

    fn cut(&mut self, forget: bool) -> anyhow::Result<Vec<ReaderCut>> {
        let (reply, cuts) = bounded(self.readers.len());
        for reader in &self.readers {
            let spare = self.keeper.take_spare();
            let asked = reader.control.send(Control::Cut { forget, spare, reply: reply.clone() });
            asked.context("a reader has ended")?;
        }
        let one = |_| cuts.recv_timeout(READER_ANSWERS).context("a reader does not answer");
        (0..self.readers.len()).map(one).collect()
    }

    fn commit(&mut self, round: Round, newest_append_ns: Option<i64>) -> anyhow::Result<()> {
        let freed = self.delivered_bytes(&round.delivered);
        let result = self.keeper.commit(round);
        self.after(result, freed)?;
        if let (Some(append_ns), false) = (newest_append_ns, self.keeper.is_stalled()) {
            let seconds = (now_ns() - append_ns).max(0) as f64 / SECOND_NS as f64;
            self.handles.own.visible_seconds.observe(seconds);
        }
        Ok(())
    }

    fn delivered_bytes(&self, delivered: &[(PartitionId, i64)]) -> u64 {
        if delivered.is_empty() {
            return 0;
        }
        let durable = self.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
        delivered.iter().filter_map(|place| durable.outbox.bytes_of(place)).sum()
    }

    /// Tries a commit again that the disk refused.
    fn again(&mut self) -> anyhow::Result<()> {
        let result = self.keeper.retry();
        self.after(result, 0)?;
        if self.keeper.is_stalled() {
            std::thread::sleep(AGAIN);
        } else {
            self.add_parts()?;
        }
        Ok(())
    }

    fn after(&mut self, result: Result<Committed, larum_store::StoreError>, freed_bytes: u64) -> anyhow::Result<()> {
        let (own, shared) = (&self.handles.own, &self.handles.shared);
        let free = |bytes: u64| Some(bytes.saturating_sub(freed_bytes));
        // Always Some, so it cannot fail.
        let _ = shared.outbox_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        match result {
            Ok(committed) => {
                if shared.stalled.swap(false, Ordering::Relaxed) {
                    tracing::info!("commits go on");
                }
                own.store_stalled.set(0);
                if committed != Committed::Nothing {
                    own.commits.with_label_values(&["done"]).inc();
                    let letters = std::mem::take(&mut self.letters_held);
                    self.carry(letters);
                }
                for (id, (source, _)) in &self.sources {
                    source.set_clock(self.keeper.clock(*id).and_then(|c| c.clock_ns()));
                }
                for part in self.parts.read().unwrap_or_else(PoisonError::into_inner).iter() {
                    let clock = self.keeper.clock(part.source);
                    part.set_left_out(clock.is_some_and(|c| c.is_left_out(part.id)));
                }
                Ok(())
            }
            Err(error) if error.is_temporary() => {
                own.commits.with_label_values(&["refused"]).inc();
                own.store_stalled.set(1);
                if !shared.stalled.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "a commit was refused; reading pauses, what is committed stays served");
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn carry(&self, letters: Vec<DeadLetter>) {
        let Some(sender) = &self.letters else { return };
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        for letter in letters {
            let Some(part) = parts.iter().find(|p| p.id == letter.partition) else { continue };
            if sender.send((letter, part.clone())).is_err() {
                tracing::error!("the dead-letter thread has ended; letters stay in the outbox until the next start");
                return;
            }
        }
    }

    /// Gauges that nobody needs more often than once a second.
    fn show(&self) {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner).clone();
        let durable = self.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
        show_lag(&durable, &parts, &self.handles.own);
        self.look_at_memory(durable.view.size_bytes() as u64);
        let size = Store::size_bytes(&self.config.state);
        self.handles.own.store_bytes.set(i64::try_from(size).unwrap_or(i64::MAX));
    }
}

impl Engine {
    /// Closes admission while what was counted fills its part of the memory ceiling.
    fn look_at_memory(&self, counts_bytes: u64) {
        let max_bytes = Needs::of(&self.config).left_for_counts(self.config.memory_bytes_max);
        let own = &self.handles.own;
        own.counts_bytes.set(counts_bytes as f64);
        own.counts_bytes_max.set(max_bytes as f64);
        let registry = self.handles.registry.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(registry) = registry else { return };
        // It opens again well below, so that it does not swing.
        let reopen_bytes = max_bytes / 10 * 9;
        let closed = counts_bytes > if registry.is_closed() { reopen_bytes } else { max_bytes };
        if closed != registry.is_closed() {
            let (counts, max) = (mib(counts_bytes), mib(max_bytes));
            match closed {
                true => tracing::error!(
                    "memory is full: counts take {counts} of {max}; new names count under __other__ until windows let \
                     go of old ones; raise limits.memory"
                ),
                false => tracing::info!("counts take {counts} of {max}; new names are admitted again"),
            }
            registry.close(closed);
        }
        own.admission_closed.set(i64::from(closed));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_string());
    thread.spawn(work).with_context(|| format!("thread {name} cannot be started"))?;
    Ok(())
}
