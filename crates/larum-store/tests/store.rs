//! The store on a real file: recovery, snapshots, torn tails, corruption, locking.
// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use larum_store::{Builder, Store, StoreError, StoreLimits, configure};
use redb::TableDefinition;

const LOG: TableDefinition<'static, (u64, u32), &[u8]> = TableDefinition::new("log");

fn open(dir: &Path) -> (Store, larum_store::Recovered) {
    Store::open(dir, StoreLimits::default()).unwrap()
}

fn blob(seq: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i as u64 * 31 + seq) as u8).collect()
}

/// Damages the stored bytes of a commit behind the store's back.
fn damage(dir: &Path, seq: u64) {
    let db = configure(&mut Builder::new()).open(dir.join("larum.redb")).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut log = txn.open_table(LOG).unwrap();
        let mut bytes = log.get((seq, 0)).unwrap().unwrap().value().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        log.insert((seq, 0), bytes.as_slice()).unwrap();
    }
    txn.commit().unwrap();
}

use redb::ReadableTable;

#[test]
fn commits_come_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, recovered) = open(dir.path());
    assert!(recovered.commits.is_empty() && recovered.identity.is_none());
    for seq in 1..=5 {
        assert_eq!(store.append(&blob(seq, 300_000 * seq as usize), b"me").unwrap(), seq);
    }
    drop(store);
    let (store, recovered) = open(dir.path());
    assert_eq!(store.last_seq(), 5);
    assert_eq!(recovered.identity.as_deref(), Some(b"me".as_slice()));
    let want: Vec<_> = (1..=5).map(|seq| blob(seq, 300_000 * seq as usize)).collect();
    assert!(recovered.commits == want && !recovered.torn);
}

#[test]
fn a_snapshot_replaces_the_commits_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let limits = StoreLimits { log_bytes_max: 1000, snapshot_chunks_per_commit: 2 };
    let (mut store, _) = Store::open(dir.path(), limits).unwrap();
    let state = blob(0, 1_000_000);
    store.append(&blob(1, 2000), b"").unwrap();
    assert!(store.wants_snapshot());
    store.begin_snapshot(state.clone());
    store.append(&blob(2, 10), b"").unwrap();
    drop(store);
    let (mut store, recovered) = Store::open(dir.path(), limits).unwrap();
    assert!(recovered.snapshot.is_none(), "half a snapshot is none");
    assert_eq!(recovered.commits.len(), 2);
    store.begin_snapshot(state.clone());
    for seq in 3..=5 {
        store.append(&blob(seq, 10), b"").unwrap();
    }
    drop(store);
    let (_, recovered) = Store::open(dir.path(), limits).unwrap();
    assert!(recovered.snapshot == Some(state));
    assert_eq!(recovered.commits, [blob(3, 10), blob(4, 10), blob(5, 10)]);
}

#[test]
fn a_damaged_last_commit_is_cut_and_damage_before_it_is_loud() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    for seq in 1..=3 {
        store.append(&blob(seq, 100), b"").unwrap();
    }
    drop(store);
    damage(dir.path(), 3);
    let (mut store, recovered) = open(dir.path());
    assert!(recovered.torn);
    assert_eq!((recovered.commits.len(), store.last_seq()), (2, 2));
    assert_eq!(store.append(&blob(9, 100), b"").unwrap(), 3);
    drop(store);
    damage(dir.path(), 2);
    let Err(error) = Store::open(dir.path(), StoreLimits::default()) else { panic!("opened") };
    assert!(matches!(error, StoreError::Corrupt(_)) && error.to_string().contains("--reset-state"), "{error}");
    let aside = Store::set_aside(dir.path()).unwrap().unwrap();
    assert!(aside.exists());
    assert_eq!(open(dir.path()).0.last_seq(), 0);
}

/// Bytes flipped anywhere in the file: everything comes back, or a prefix, or a clear error; never other data, no panic.
#[test]
fn flipped_bytes_never_give_other_data() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let want: Vec<_> = (1..=20).map(|seq| blob(seq, 5_000)).collect();
    for commit in &want {
        store.append(commit, b"id").unwrap();
    }
    drop(store);
    let file = dir.path().join("larum.redb");
    let good = std::fs::read(&file).unwrap();
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut whole, mut refused) = (0, 0);
    for round in 0..150 {
        let mut bad = good.clone();
        let at = if round % 3 == 0 { rng.usize(..4096) } else { rng.usize(..bad.len()) };
        bad[at] ^= 1 << rng.u8(..8);
        std::fs::write(&file, bad).unwrap();
        match Store::open(dir.path(), StoreLimits::default()) {
            Ok((_, recovered)) => {
                assert!(want.starts_with(&recovered.commits), "byte {at}");
                whole += usize::from(recovered.commits.len() == want.len());
            }
            Err(error) => {
                assert!(!matches!(error, StoreError::Locked(_)), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    println!("whole {whole}, refused {refused}");
    assert!(whole > 0 && refused > 0);
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path());
    let Err(error) = Store::open(dir.path(), StoreLimits::default()) else { panic!("opened twice") };
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}
