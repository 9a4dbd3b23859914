//! What is counted within a key, as one small number, and sorted lists of such counts.

use larum_aggregate::histogram::{Bucket, NOT_MEASURED};
use larum_event::{Code, Histogram};
use serde::{Deserialize, Serialize};

/// A code and a latency bucket together: an event is counted once, in both. Below 2^18, so it packs well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub(crate) u32);

/// Bits of a slot that hold the bucket.
const BUCKET_BITS: u32 = 9;
/// Stands for [`NOT_MEASURED`] in these bits.
const UNMEASURED: u32 = (1 << BUCKET_BITS) - 1;
const _: () = assert!(larum_aggregate::histogram::BUCKETS < UNMEASURED as usize);

impl Slot {
    /// The slot of a code and a bucket.
    pub const fn of(code: u16, bucket: Bucket) -> Slot {
        let bucket = if bucket == NOT_MEASURED { UNMEASURED } else { bucket as u32 };
        Slot((code as u32) << BUCKET_BITS | bucket)
    }

    /// The code.
    pub fn code(self) -> Code {
        Code((self.0 >> BUCKET_BITS) as u16)
    }

    /// The histogram and the bucket in it, if the event was measured.
    pub fn bucket(self) -> Option<(Histogram, Bucket)> {
        let bucket = self.0 & UNMEASURED;
        self.code().histogram().filter(|_| bucket != UNMEASURED).map(|histogram| (histogram, bucket as Bucket))
    }

    /// The same code, not measured: where counts are kept and histograms are not.
    pub fn without_bucket(self) -> Slot {
        Slot(self.0 | UNMEASURED)
    }
}

/// What is counted, and how often.
pub type Count<K> = (K, u64);

/// Sorts and adds up equal keys.
pub fn add_up<K: Ord + Copy>(list: &mut Vec<Count<K>>) {
    list.sort_unstable_by_key(|e| e.0);
    list.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        kept.1 += if same { next.1 } else { 0 };
        same
    });
}

/// Adds a sorted run to a sorted list; almost always at or near the list's end.
pub fn add_run<K: Ord + Copy>(list: &mut Vec<Count<K>>, run: impl Iterator<Item = Count<K>>) {
    let mut from = None;
    for (key, count) in run {
        if list.last().is_none_or(|last| last.0 < key) {
            make_room(list);
            list.push((key, count));
            continue;
        }
        // The place of the run's first key is looked for from the end, that of the others from the one before.
        let at = match from {
            Some(from) => from + list[from..].partition_point(|e| e.0 < key),
            None => place_from_end(list, |e| e.0 < key),
        };
        match list.get_mut(at) {
            Some(same) if same.0 == key => same.1 += count,
            _ => {
                make_room(list);
                list.insert(at, (key, count));
            }
        }
        from = Some(at);
    }
}

/// Grows by half: there are many lists, and doubling would waste more of their memory.
pub fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 2 + 4);
    }
}

/// The partition point of a sorted list, looked for in doubling steps from its end.
pub fn place_from_end<T>(list: &[T], is_before: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut high, mut step) = (list.len(), list.len(), 4);
    while low > 0 {
        low = low.saturating_sub(step);
        if is_before(&list[low]) {
            break;
        }
        (high, step) = (low, step * 2);
    }
    low + list[low..high].partition_point(is_before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn runs_add_up_as_a_map_does() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut list, mut map) = (Vec::new(), BTreeMap::new());
            for _ in 0..40 {
                let run: BTreeMap<u32, u64> = (0..rng.usize(..12)).map(|_| (rng.u32(..200), rng.u64(1..5))).collect();
                for (key, count) in &run {
                    *map.entry(*key).or_insert(0) += count;
                }
                add_run(&mut list, run.into_iter());
                assert!(list.iter().copied().eq(map.iter().map(|(k, n)| (*k, *n))), "seed {seed}");
            }
        }
    }

    #[test]
    fn slots_come_apart_again() {
        let slot = Slot::of(7, 9);
        assert_eq!((slot.code(), slot.bucket()), (Code(7), Code(7).histogram().map(|histogram| (histogram, 9))));
        assert_eq!((slot.without_bucket().code(), slot.without_bucket().bucket()), (Code(7), None));
        assert_eq!(Slot::of(7, NOT_MEASURED), slot.without_bucket());
    }
}
