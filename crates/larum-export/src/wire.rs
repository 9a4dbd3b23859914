//! Protobuf's wire form, as far as it is written here by hand.

/// A number in groups of seven bits.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`varint`] takes.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A signed number with its sign in the lowest bit.
pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// A field of varint form.
pub fn field_varint(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// A field of eight bytes.
pub fn field_fixed(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A floating-point field.
pub fn field_double(out: &mut Vec<u8>, field: u64, value: f64) {
    field_fixed(out, field, value.to_bits());
}

/// A field of bytes, a text or a message.
pub fn field_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    field_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// What stands before the bytes of such a field.
pub fn field_head(out: &mut Vec<u8>, field: u64, len: usize) {
    varint(out, field << 3 | 2);
    varint(out, len as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
            }
        }
    }
}
