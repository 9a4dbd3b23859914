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

/// Trace id and span id of a W3C `traceparent` (`00-<32 digits>-<16 digits>-<2 digits>`, of a later version also with more
/// behind it); `None` for anything else, and for ids of zeros, which stand for none.
pub fn traceparent(text: &[u8]) -> Option<([u8; 16], [u8; 8])> {
    let (head, rest) = text.split_at_checked(55)?;
    let [b'-', b'-', b'-'] = [head[2], head[35], head[52]] else { return None };
    let ([version], [_flags]): ([u8; 1], [u8; 1]) = (bytes(&head[..2])?, bytes(&head[53..])?);
    let is_whole = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
    let (trace_id, span_id) = (bytes(&head[3..35])?, bytes(&head[36..52])?);
    (is_whole && version != 0xff && trace_id != [0; 16] && span_id != [0; 8]).then_some((trace_id, span_id))
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

    #[test]
    fn a_traceparent_is_read_as_w3c_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (trace_id, span_id) = traceparent(good.as_bytes()).unwrap();
        assert_eq!((trace_id[0], span_id[7]), (0x4b, 0xb7));
        assert!(traceparent(good.replacen("00", "cc", 1).as_bytes()).is_some());
        assert!(traceparent((good.replacen("00", "cc", 1) + "-what-the-future-brings").as_bytes()).is_some());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(traceparent(bad.as_bytes()), None, "{bad}");
        }
    }
}
