//! Hex digits: whether a text is made of them, and the bytes that they stand for.

use wide::u8x16;

/// Whether all `DIGITS` bytes, a multiple of 16, are hex digits of either case.
#[inline(always)]
pub fn is_hex<const DIGITS: usize>(digits: &[u8; DIGITS]) -> bool {
    let (sixteens, _) = digits.as_chunks::<16>();
    sixteens.iter().all(|sixteen| {
        let bytes = u8x16::new(*sixteen);
        // Wrapping subtraction puts what is below a range above it.
        let digit = bytes - u8x16::splat(b'0');
        let letter = (bytes | u8x16::splat(0x20)) - u8x16::splat(b'a');
        let is_digit = digit.min(u8x16::splat(9)).simd_eq(digit);
        let is_letter = letter.min(u8x16::splat(5)).simd_eq(letter);
        (is_digit | is_letter).to_bitmask() & 0xffff == 0xffff
    })
}

/// The `N` bytes that 2`N` hex digits stand for; `None` for anything else.
pub fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_told_apart() {
        for byte in 0..=u8::MAX {
            for at in 0..16 {
                let mut digits = *b"0123456789abCDEF";
                digits[at] = byte;
                assert_eq!(is_hex(&digits), byte.is_ascii_hexdigit(), "{byte}");
                assert_eq!(bytes::<8>(&digits).is_some(), byte.is_ascii_hexdigit(), "{byte}");
            }
        }
        assert_eq!(bytes(b"00Ff10"), Some([0, 0xff, 0x10]));
        assert_eq!(bytes::<3>(b"00ff1"), None);
    }
}
