//! Sorted lists.

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

/// The same, looked for in doubling steps from `from` on; everything before `from` is before.
pub fn place_from<T>(list: &[T], from: usize, is_before: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut step) = (from, 1);
    while list.get(low + step - 1).is_some_and(&is_before) {
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(list.len());
    low + list[low..high].partition_point(is_before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_partition_points() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..2_000 {
            let mut list: Vec<u32> = (0..rng.usize(..60)).map(|_| rng.u32(..100)).collect();
            list.sort_unstable();
            let wanted = rng.u32(..110);
            let place = list.partition_point(|n| *n < wanted);
            assert_eq!(place_from_end(&list, |n| *n < wanted), place);
            assert_eq!(place_from(&list, rng.usize(..=place), |n| *n < wanted), place);
        }
    }
}
