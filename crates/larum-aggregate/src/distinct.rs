//! Distinct accounts and sources: what the fold notes of each, and how that becomes the mergeable sketches of a Delta.
//!
//! A set of hashes is kept as it is while it is small, and beyond [`FEW_MAX`] as 256 registers (HyperLogLog). Which of the
//! two, and what is in it, depends on the set alone: merging is exact, in any order.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::delta::{KeyId, SourceId};

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Distinct {
    /// Who: accounts that log in.
    Accounts,
    /// From where: addresses.
    Sources,
}

/// Hashes up to which a set is kept as it is.
pub const FEW_MAX: usize = 64;
/// Bits of a hash that choose the register.
const INDEX_BITS: u32 = 8;
/// Registers beyond that.
const REGISTERS: usize = 1 << INDEX_BITS;
/// What a register holds at most: the leading zeros of the other bits, plus one.
const RANK_MAX: u8 = (32 - INDEX_BITS + 1) as u8;

/// One account or source that was seen, 16 bytes: packed so that one comparison sorts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting(
    /// tick 32 | pane 31 | key 32 | what 1 | hash 32, highest first.
    u128,
);

impl Sighting {
    /// Seen by a record of `tick`, in `pane`.
    #[inline]
    pub fn new(tick: u32, pane: u32, key: KeyId, what: Distinct, hash: u32) -> Sighting {
        let place = u128::from(tick) << 64 | u128::from(pane) << 33 | u128::from(key.0) << 1 | what as u128;
        Sighting(place << 32 | u128::from(hash))
    }

    /// Tick and pane together.
    fn group(self) -> u64 {
        (self.0 >> 65) as u64
    }

    /// Tick, pane and key together.
    fn row(self) -> u128 {
        self.0 >> 33
    }

    fn is_account(&self) -> bool {
        self.0 >> 32 & 1 == Distinct::Accounts as u128
    }
}

/// HyperLogLog registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers([u8; REGISTERS]);

impl Default for Registers {
    fn default() -> Self {
        Registers([0; REGISTERS])
    }
}

impl Serialize for Registers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Registers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let registers = Box::<[u8]>::deserialize(deserializer)?;
        let count = registers.len();
        let registers = registers.as_ref().try_into().map_err(|_| D::Error::invalid_length(count, &"256 registers"))?;
        Ok(Registers(registers))
    }
}

/// A set in a [`SightingGroup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// So many of the group's hashes.
    Few(u8),
    /// More than [`FEW_MAX`].
    Many(Box<Registers>),
}

/// What one key saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightingRow {
    /// The key.
    pub key: KeyId,
    /// Accounts.
    pub accounts: Form,
    /// Sources.
    pub sources: Form,
}

/// What a tick of a source saw in one pane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightingGroup {
    /// The source.
    pub source: SourceId,
    /// The tick.
    pub tick: u32,
    /// The pane.
    pub pane: u32,
    /// By key.
    pub rows: Vec<SightingRow>,
    /// Of the small sets, in the order of the rows; each set sorted.
    pub hashes: Vec<u32>,
}

/// A set of hashes.
#[derive(Clone, Copy, Debug)]
pub enum Sketch<'g> {
    /// All of them, sorted, each once.
    Few(&'g [u32]),
    /// More than [`FEW_MAX`].
    Many(&'g Registers),
}

impl SightingGroup {
    fn add(&mut self, same_row: &[Sighting]) {
        let sources_from = same_row.partition_point(Sighting::is_account);
        let (accounts, sources) = same_row.split_at(sources_from);
        let key = KeyId((same_row[0].0 >> 33) as u32);
        let row = SightingRow { key, accounts: self.form(accounts), sources: self.form(sources) };
        self.rows.push(row);
    }

    fn form(&mut self, set: &[Sighting]) -> Form {
        let hashes = set.iter().map(|s| s.0 as u32);
        if set.len() > FEW_MAX {
            return Form::Many(Registers::of(hashes).into());
        }
        self.hashes.extend(hashes);
        Form::Few(set.len() as u8)
    }

    /// Its sets that are not empty, by key.
    pub fn sets(&self) -> impl Iterator<Item = (KeyId, Distinct, Sketch<'_>)> {
        let mut rest = self.hashes.as_slice();
        let forms = |row: &'_ SightingRow| [(Distinct::Accounts, row.key), (Distinct::Sources, row.key)];
        let sets = self.rows.iter().flat_map(move |row| forms(row).into_iter().zip([&row.accounts, &row.sources]));
        sets.filter_map(move |((what, key), form)| match form {
            Form::Few(0) => None,
            Form::Few(count) => {
                let (hashes, after) = rest.split_at_checked(usize::from(*count))?;
                rest = after;
                Some((key, what, Sketch::Few(hashes)))
            }
            Form::Many(registers) => Some((key, what, Sketch::Many(registers))),
        })
    }
}

/// Sorts and joins the `sightings` of a source, in whatever order they came from however many workers. They are left
/// empty, their memory to be used again.
pub fn seal_sightings(source: SourceId, sightings: &mut Vec<Sighting>) -> Vec<SightingGroup> {
    sightings.sort_unstable();
    sightings.dedup();
    let mut groups = Vec::new();
    for same_group in sightings.chunk_by(|a, b| a.group() == b.group()) {
        let (tick, pane) = ((same_group[0].group() >> 31) as u32, same_group[0].group() as u32 & (u32::MAX >> 1));
        let mut group = SightingGroup { source, tick, pane, rows: Vec::new(), hashes: Vec::new() };
        group.hashes.reserve(same_group.len());
        same_group.chunk_by(|a, b| a.row() == b.row()).for_each(|same_row| group.add(same_row));
        groups.push(group);
    }
    sightings.clear();
    groups
}

impl Registers {
    /// Of hashes, in any order.
    pub fn of(hashes: impl Iterator<Item = u32>) -> Registers {
        let mut registers = Registers::default();
        hashes.for_each(|hash| registers.add(hash));
        registers
    }

    /// Adds a hash.
    pub fn add(&mut self, hash: u32) {
        let rank = ((hash << INDEX_BITS).leading_zeros() as u8 + 1).min(RANK_MAX);
        if let Some(register) = self.0.get_mut((hash >> (32 - INDEX_BITS)) as usize) {
            *register = (*register).max(rank);
        }
    }

    /// A bit of all memory that they take.
    pub fn some(&self) -> u32 {
        self.0.iter().step_by(64).fold(0, |bits, register| bits | u32::from(*register))
    }

    /// Adds all that another holds.
    pub fn merge(&mut self, other: &Registers) {
        for (register, other) in self.0.iter_mut().zip(&other.0) {
            *register = (*register).max(*other);
        }
    }

    /// How many distinct hashes were added, about: standard error 6.5 %. Ertl's estimator, which needs no correction at
    /// either end (arXiv:1702.01284, algorithm 6).
    pub fn estimate(&self) -> f64 {
        // Four lists, because neighbours are alike: a count need not wait for the one before.
        let mut lists = [[0_u32; RANK_MAX as usize + 1]; 4];
        for registers in self.0.as_chunks::<4>().0 {
            for (counts, register) in lists.iter_mut().zip(registers) {
                counts[usize::from((*register).min(RANK_MAX))] += 1;
            }
        }
        let mut counts = [0; RANK_MAX as usize + 1];
        lists.iter().for_each(|list| counts.iter_mut().zip(list).for_each(|(count, n)| *count += n));
        let m = REGISTERS as f64;
        let mut z = m * tau(1.0 - f64::from(counts[usize::from(RANK_MAX)]) / m);
        for count in counts[1..usize::from(RANK_MAX)].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += m * sigma(f64::from(counts[0]) / m);
        m * m / (2.0 * std::f64::consts::LN_2 * z)
    }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_packing() {
        let (key, pane) = (KeyId(u32::MAX), u32::MAX >> 1);
        let sighting = Sighting::new(u32::MAX, pane, key, Distinct::Sources, 7);
        let account = Sighting::new(u32::MAX, pane, key, Distinct::Accounts, 9);
        let mut sightings =
            vec![sighting, Sighting::new(5, 3, KeyId(0), Distinct::Accounts, u32::MAX), account, sighting];
        sightings.extend((0..70).map(|hash| Sighting::new(5, 3, KeyId(1), Distinct::Sources, hash)));
        let groups = seal_sightings(SourceId(2), &mut sightings);
        let places: Vec<_> = groups.iter().map(|g| (g.tick, g.pane, g.rows.len())).collect();
        assert_eq!(places, [(5, 3, 2), (u32::MAX, pane, 1)]);
        let sets = |group: &SightingGroup| -> Vec<(KeyId, Distinct, Vec<u32>)> {
            let hashes = |sketch| if let Sketch::Few(hashes) = sketch { hashes.to_vec() } else { Vec::new() };
            group.sets().map(|(key, what, sketch)| (key, what, hashes(sketch))).collect()
        };
        let few = (KeyId(0), Distinct::Accounts, vec![u32::MAX]);
        assert_eq!(sets(&groups[0]), [few, (KeyId(1), Distinct::Sources, vec![])]);
        assert_eq!(sets(&groups[1]), [(key, Distinct::Accounts, vec![9]), (key, Distinct::Sources, vec![7])]);
    }

    /// 40 sets of each size: the mean error is small, and none is beyond four standard errors.
    #[test]
    fn estimates_keep_their_error() {
        let mut rng = fastrand::Rng::with_seed(11);
        for size in [65_u32, 200, 700, 3_000, 20_000, 300_000] {
            let mut errors = Vec::new();
            for _ in 0..40 {
                let hashes: Vec<u32> = (0..size).map(|_| rng.u32(..)).collect();
                errors.push(Registers::of(hashes.into_iter()).estimate() / f64::from(size) - 1.0);
            }
            let (mean, worst) = (errors.iter().sum::<f64>() / 40.0, errors.iter().fold(0.0_f64, |w, e| w.max(e.abs())));
            assert!(mean.abs() < 0.03 && worst < 0.26, "{size}: mean {mean}, worst {worst}");
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_numbers() {
        assert_eq!(Registers::of(std::iter::empty()).estimate(), 0.0);
        let full = Registers([RANK_MAX; REGISTERS]);
        assert!(full.estimate() > 1e9);
        // What was not written by this program is no reason to fail.
        let mut strange = Registers([255; REGISTERS]);
        strange.add(u32::MAX);
        strange.merge(&full);
        assert!(strange.estimate() >= 0.0);
    }

    #[test]
    fn order_of_hashes_does_not_matter() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut hashes: Vec<u32> = (0..5_000).map(|_| rng.u32(..)).collect();
        let whole = Registers::of(hashes.iter().copied());
        rng.shuffle(&mut hashes);
        let mut merged = Registers::of(std::iter::empty());
        hashes.chunks(77).for_each(|part| merged.merge(&Registers::of(part.iter().copied())));
        assert_eq!(merged, whole);
    }
}
