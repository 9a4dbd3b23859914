//! STORE: a commit of 5 MB in the store, over a bare append with fsync of the same bytes; write amplification; recovery.

use std::io::Write as _;

use larum_benches::{median, time};
use larum_store::{Store, StoreLimits};

const COMMIT_BYTES: usize = 5_000_000;
const COMMITS: usize = 120;

/// Bytes that this process has handed to the disk.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    line.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in("target")?;
    let blob: Vec<u8> = (0..COMMIT_BYTES).map(|i| (i * 2_654_435_761) as u8).collect();
    let (mut store, _) = Store::open(&dir.path().join("store"), StoreLimits::default())?;
    let mut plain = std::fs::File::create(dir.path().join("plain"))?;
    let (mut floors, mut figures) = (Vec::new(), Vec::new());
    let mut store_written = 0;
    for _ in 0..COMMITS {
        let (floor, done) = time(|| plain.write_all(&blob).and_then(|()| plain.sync_data()));
        done?;
        let before = written();
        let (figure, done) = time(|| store.append(&blob, b"bench"));
        done?;
        store_written += written() - before;
        if store.wants_snapshot() {
            store.begin_snapshot(blob.clone());
        }
        floors.push(floor.as_secs_f64() * 1e3);
        figures.push(figure.as_secs_f64() * 1e3);
    }
    let p99 = |figures: &[f64]| {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() * 99 / 100]
    };
    println!("bare append + fsync of 5 MB: {:.1} ms median, {:.1} ms 99 %", median(&floors), p99(&floors));
    println!("commit of 5 MB:              {:.1} ms median, {:.1} ms 99 %", median(&figures), p99(&figures));
    println!(
        "bytes written per byte committed, snapshots included: {:.2}",
        store_written as f64 / (COMMITS * COMMIT_BYTES) as f64
    );
    println!("on disk: {} MB", Store::size_bytes(&dir.path().join("store")) >> 20);
    drop(store);
    let (recovery, opened) = time(|| Store::open(&dir.path().join("store"), StoreLimits::default()));
    let (_, recovered) = opened?;
    println!("recovery of {} commits and a snapshot: {:.2} s", recovered.commits.len(), recovery.as_secs_f64());
    println!("STORE {:.2}", median(&figures) / median(&floors));
    Ok(())
}
