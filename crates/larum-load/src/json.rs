//! JSON written byte by byte into one buffer that is reused: keys, plain texts, numbers.

/// Opens a member of the object being written: `key!(json, "tenant")`. Comma, quotes and colon are one constant.
macro_rules! key {
    ($json:expr, $name:literal) => {
        $json.key(concat!(",\"", $name, "\":").as_bytes())
    };
}
pub(crate) use key;

/// An object being written.
#[derive(Debug, Default)]
pub struct Json {
    out: Vec<u8>,
    /// Write blanks between tokens, as some producers do.
    blanks: bool,
    /// The object has no member yet.
    bare: bool,
}

impl Json {
    /// What was written.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Puts other bytes in place of what was written.
    pub fn replace(&mut self, bytes: &[u8]) {
        self.out.clear();
        self.out.extend_from_slice(bytes);
    }

    /// Forgets what was written from byte `cut` on.
    pub fn truncate(&mut self, cut: usize) {
        self.out.truncate(cut);
    }

    /// Starts a record.
    #[inline]
    pub fn begin(&mut self, blanks: bool) {
        self.out.clear();
        self.blanks = blanks;
        self.open();
    }

    /// Opens an object, the record's own or a member's.
    #[inline]
    pub fn open(&mut self) {
        self.out.push(b'{');
        self.bare = true;
    }

    /// Closes the object that was opened last.
    #[inline]
    pub fn close(&mut self) {
        if self.blanks {
            self.out.push(b' ');
        }
        self.out.push(b'}');
        self.bare = false;
    }

    /// Opens a member; see the macro `key`. Inlined always: the copy of a constant is a few moves, not a call.
    #[inline(always)]
    pub fn key(&mut self, comma_and_key: &[u8]) {
        if self.bare | self.blanks {
            return self.key_of_its_own(comma_and_key);
        }
        self.out.extend_from_slice(comma_and_key);
    }

    /// A member without a comma or with blanks.
    #[inline(never)]
    fn key_of_its_own(&mut self, comma_and_key: &[u8]) {
        if !self.bare {
            self.out.push(b',');
        }
        if self.blanks {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(&comma_and_key[1..]);
        if self.blanks {
            self.out.push(b' ');
        }
        self.bare = false;
    }

    /// A piece of JSON as it is.
    #[inline]
    pub fn raw(&mut self, piece: &[u8]) {
        self.out.extend_from_slice(piece);
    }

    /// A string that needs no escapes, or has them already.
    #[inline]
    pub fn text(&mut self, text: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    /// An integer; also a part of a text.
    #[inline]
    pub fn number(&mut self, mut value: u64) {
        let mut digits = [b'0'; 20];
        let mut at = digits.len() - 1;
        while value > 9 {
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            at -= 1;
        }
        digits[at] = b'0' + value as u8;
        self.out.extend_from_slice(&digits[at..]);
    }

    /// A number of 1/10,000, cut to so many decimals, 1 to 4.
    #[inline]
    pub fn decimal_e4(&mut self, value_e4: u64, decimals: usize) {
        self.number(value_e4 / 10_000);
        let mut rest = value_e4 % 10_000;
        let mut fraction = [b'.'; 5];
        for digit in fraction[1..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.out.extend_from_slice(&fraction[..=decimals]);
    }

    /// The last `digits` hex digits of a number, 1 to 16; a part of a text.
    #[inline]
    pub fn hex(&mut self, value: u64, digits: usize) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 16];
        for (at, digit) in text.iter_mut().enumerate() {
            *digit = DIGITS[(value >> (60 - 4 * at) & 15) as usize];
        }
        self.out.extend_from_slice(&text[16 - digits..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_serde_reads() {
        for blanks in [false, true] {
            let mut json = Json::default();
            json.begin(blanks);
            key!(json, "a");
            json.open();
            key!(json, "b");
            json.number(0);
            key!(json, "c");
            json.number(u64::MAX);
            json.close();
            key!(json, "d");
            json.decimal_e4(1_234_056, 3);
            key!(json, "e");
            json.text("x");
            key!(json, "f");
            json.raw(b"\"");
            json.hex(0xab_cdef, 8);
            json.raw(b"\"");
            json.close();
            let read: serde_json::Value = serde_json::from_slice(json.bytes()).unwrap();
            let want = r#"{"a":{"b":0,"c":18446744073709551615},"d":123.405,"e":"x","f":"00abcdef"}"#;
            assert_eq!(read.to_string(), want);
            assert_eq!(json.bytes() == want.as_bytes(), !blanks);
        }
    }
}
