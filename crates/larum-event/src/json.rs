//! Strict JSON scanning (RFC 8259) over bytes that are already known to be UTF-8: positions, no values, no recursion.

use wide::u8x16;

/// The text is not JSON. Where does not matter: the whole record goes to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

/// A range of the record, or of the scratch: 32-bit start and end in one number, so that it travels in a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text(u64);

impl Text {
    /// Set in the start of a range of the scratch; records are far smaller.
    const UNESCAPED: u64 = 1 << 31;

    /// Bytes `start..end` of the record.
    #[inline(always)]
    fn raw(start: usize, end: usize) -> Text {
        Text(start as u64 | (end as u64) << 32)
    }

    /// Bytes `start..end` of the scratch: a string's content, once its escapes were read.
    fn unescaped(start: usize, end: usize) -> Text {
        Text(Self::raw(start, end).0 | Self::UNESCAPED)
    }

    #[inline(always)]
    fn range(self) -> (usize, usize) {
        (((self.0 & !Self::UNESCAPED) as u32) as usize, (self.0 >> 32) as usize)
    }

    /// Its size, bytes.
    #[inline(always)]
    pub fn len(self) -> usize {
        let (start, end) = self.range();
        end - start
    }

    /// What it is a range of, and the range.
    #[inline(always)]
    pub fn of<'a>(self, record: &'a str, scratch: &'a str) -> (&'a str, usize, usize) {
        let (start, end) = self.range();
        (if self.0 & Self::UNESCAPED == 0 { record } else { scratch }, start, end)
    }
}

/// What stands at a value's place, as far as the contract cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(Text),
    /// A number.
    Number(Text),
    /// A number without sign and exponent: its digits (fewer than 2^50) and how many of them stand behind the point (up
    /// to 6; 0 if there is no point).
    Short(u64, usize),
    /// `null`.
    Null,
    /// `true`, `false`, an array or an object.
    Other,
}

/// Deepest nesting taken; the event itself is level 1.
pub const DEPTH_MAX: usize = 32;

/// Where strings can end or go wrong: one bit per byte that is a quote, a backslash or a control character.
///
/// Made in one pass of 16 bytes at a time; finding the end of a string is then a look at a bit.
#[derive(Debug, Default)]
pub struct Marks(Vec<u64>);

impl Marks {
    /// Marks a record anew.
    #[inline]
    pub fn mark(&mut self, bytes: &[u8]) {
        self.0.clear();
        let (blocks, rest) = bytes.as_chunks::<64>();
        self.0.extend(blocks.iter().map(Self::block));
        if !rest.is_empty() {
            // Blanks fill up: they mark nothing.
            let mut block = [b' '; 64];
            block[..rest.len()].copy_from_slice(rest);
            self.0.push(Self::block(&block));
        }
        // So that the last word has one after it.
        self.0.push(0);
    }

    #[inline]
    fn block(block: &[u8; 64]) -> u64 {
        let (quote, backslash, last_control) = (u8x16::splat(b'"'), u8x16::splat(b'\\'), u8x16::splat(0x1f));
        let (sixteens, _) = block.as_chunks::<16>();
        let mut marks = 0;
        for (at, sixteen) in sixteens.iter().enumerate() {
            let bytes = u8x16::new(*sixteen);
            let control = bytes.min(last_control).simd_eq(bytes);
            let special = bytes.simd_eq(quote) | bytes.simd_eq(backslash) | control;
            marks |= u64::from(special.to_bitmask() & 0xffff) << (16 * at);
        }
        marks
    }

    /// The first marked place at or after `at`; `end` if there is none.
    #[inline]
    fn next(&self, at: usize, end: usize) -> usize {
        // The 64 places from `at` on, out of two words: most strings end within them, so there is nothing to foretell.
        let (word, shift) = (at / 64, at % 64);
        let low = self.0.get(word).map_or(0, |marks| marks >> shift);
        let high = self.0.get(word + 1).map_or(0, |marks| (marks << 1) << (63 - shift));
        let window = low | high;
        if window != 0 {
            return at + window.trailing_zeros() as usize;
        }
        let later = self.0.iter().enumerate().skip(word + 1).find(|(_, marks)| **marks != 0);
        later.map_or(end, |(word, marks)| word * 64 + marks.trailing_zeros() as usize)
    }
}

/// A position in a record, and what was noticed on the way.
pub struct Scanner<'r> {
    bytes: &'r [u8],
    marks: &'r Marks,
    at: usize,
    /// Nesting went over [`DEPTH_MAX`].
    pub too_deep: bool,
}

impl<'r> Scanner<'r> {
    /// Starts at the beginning of `bytes`; puts their marks into `marks`.
    #[inline]
    pub fn new(bytes: &'r [u8], marks: &'r mut Marks) -> Self {
        marks.mark(bytes);
        Scanner { bytes, marks, at: 0, too_deep: false }
    }

    /// The byte here, 0 at the end (0 is never valid outside a string, and there it is refused).
    #[inline]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Passes blanks.
    #[inline]
    pub fn blanks(&mut self) {
        if self.peek() > b' ' {
            return;
        }
        while matches!(self.peek(), b' ' | b'\n' | b'\t' | b'\r') {
            self.at += 1;
        }
    }

    /// How far it has come, bytes.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// What is left.
    #[inline]
    pub fn rest(&self) -> &'r [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// What was passed since it was at `begin`.
    pub fn since(&self, begin: usize) -> Option<&'r [u8]> {
        self.bytes.get(begin..self.at)
    }

    /// Passes `len` bytes.
    #[inline]
    pub fn pass(&mut self, len: usize) {
        self.at += len;
    }

    /// Passes blanks up to the end of the record, where it has to be.
    #[inline]
    pub fn end(&mut self) -> Result<(), NotJson> {
        self.blanks();
        if self.at >= self.bytes.len() { Ok(()) } else { Err(NotJson) }
    }

    /// Passes `byte` if it stands here.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        // A branch and no sum: what comes next need not wait for the byte.
        if self.peek() != byte {
            return false;
        }
        self.at += 1;
        true
    }

    /// Passes `byte`, which has to stand here.
    #[inline]
    pub fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.take(byte) { Ok(()) } else { Err(NotJson) }
    }

    /// Passes a string's plain characters up to a quote, a backslash or a control character.
    #[inline]
    fn plain(&mut self) {
        self.at = self.marks.next(self.at, self.bytes.len());
    }

    /// Reads the string that begins here; its content goes to `scratch` only where it holds escapes.
    #[inline]
    pub fn string(&mut self, record: &str, scratch: &mut String) -> Result<Text, NotJson> {
        self.expect(b'"')?;
        self.rest_of_string(record, scratch)
    }

    /// Reads the string whose opening quote was passed.
    #[inline(always)]
    pub fn rest_of_string(&mut self, record: &str, scratch: &mut String) -> Result<Text, NotJson> {
        let start = self.at;
        self.plain();
        if self.take(b'"') {
            return Ok(Text::raw(start, self.at - 1));
        }
        self.escaped_string(start, record, scratch)
    }

    #[cold]
    fn escaped_string(&mut self, start: usize, record: &str, scratch: &mut String) -> Result<Text, NotJson> {
        let begin = scratch.len();
        let mut from = start;
        loop {
            scratch.push_str(record.get(from..self.at).ok_or(NotJson)?);
            if self.take(b'"') {
                return Ok(Text::unescaped(begin, scratch.len()));
            }
            scratch.push(self.escape()?);
            from = self.at;
            self.plain();
        }
    }

    /// Passes the string that begins here.
    #[inline]
    fn skip_string(&mut self) -> Result<(), NotJson> {
        self.expect(b'"')?;
        self.skip_rest_of_string()
    }

    /// Passes the string whose opening quote was passed.
    #[inline]
    pub fn skip_rest_of_string(&mut self) -> Result<(), NotJson> {
        loop {
            self.plain();
            if self.take(b'"') {
                return Ok(());
            }
            self.escape()?;
        }
    }

    /// Reads one escape. Half a surrogate pair stands for no character, so it is refused.
    fn escape(&mut self) -> Result<char, NotJson> {
        self.expect(b'\\')?;
        let kind = self.peek();
        self.at += 1;
        Ok(match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                if !(0xD800..0xDC00).contains(&first) {
                    return char::from_u32(first).ok_or(NotJson);
                }
                self.expect(b'\\')?;
                self.expect(b'u')?;
                let second = self.hex4()?;
                if !(0xDC00..0xE000).contains(&second) {
                    return Err(NotJson);
                }
                char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or(NotJson)?
            }
            _ => return Err(NotJson),
        })
    }

    fn hex4(&mut self) -> Result<u32, NotJson> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(NotJson)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, b| Ok(value << 4 | char::from(*b).to_digit(16).ok_or(NotJson)?))
    }

    #[inline]
    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(NotJson) } else { Ok(()) }
    }

    /// Passes the number that begins here; gives its range.
    #[inline]
    pub fn number(&mut self) -> Result<Text, NotJson> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.peek() | 0x20 == b'e' {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Text::raw(start, self.at))
    }

    /// The number that begins here, read at once if it is short, as numbers usually are.
    #[inline(always)]
    pub fn short_number(&mut self) -> Result<Value, NotJson> {
        if let Some((digits, decimals, len)) = self.rest().first_chunk().and_then(short) {
            self.at += len;
            return Ok(Value::Short(digits, decimals));
        }
        self.number().map(Value::Number)
    }

    fn literal(&mut self, text: &[u8]) -> Result<(), NotJson> {
        if !self.bytes[self.at..].starts_with(text) {
            return Err(NotJson);
        }
        self.at += text.len();
        Ok(())
    }

    /// Reads the value here; containers are passed whole. `depth` is the level of what holds the value.
    #[inline]
    pub fn value(
        &mut self,
        depth: usize,
        record: &str,
        scratch: &mut String,
        stack: &mut Vec<u8>,
    ) -> Result<Value, NotJson> {
        match self.peek() {
            b'"' => self.string(record, scratch).map(Value::Text),
            b'-' | b'0'..=b'9' => self.number().map(Value::Number),
            b'n' => self.literal(b"null").map(|()| Value::Null),
            _ => self.skip(depth, stack).map(|()| Value::Other),
        }
    }

    /// Passes the value here, whatever it is, without recursion. `depth` is the level of what holds the value.
    pub fn skip(&mut self, depth: usize, stack: &mut Vec<u8>) -> Result<(), NotJson> {
        stack.clear();
        loop {
            let opened = match self.peek() {
                b'"' => self.skip_string().map(|()| false)?,
                b'-' | b'0'..=b'9' => self.number().map(|_| false)?,
                b't' => self.literal(b"true").map(|()| false)?,
                b'f' => self.literal(b"false").map(|()| false)?,
                b'n' => self.literal(b"null").map(|()| false)?,
                b'{' => self.open(b'}', depth, stack)?,
                b'[' => self.open(b']', depth, stack)?,
                _ => return Err(NotJson),
            };
            if opened {
                continue;
            }
            loop {
                let Some(close) = stack.last().copied() else { return Ok(()) };
                self.blanks();
                if self.take(b',') {
                    self.blanks();
                    if close == b'}' {
                        self.skip_key()?;
                    }
                    break;
                }
                self.expect(close)?;
                stack.pop();
            }
        }
    }

    /// Enters a container; true when a value follows, false when it was empty and is closed again.
    fn open(&mut self, close: u8, depth: usize, stack: &mut Vec<u8>) -> Result<bool, NotJson> {
        self.at += 1;
        self.too_deep |= depth + stack.len() + 1 > DEPTH_MAX;
        self.blanks();
        if self.take(close) {
            return Ok(false);
        }
        stack.push(close);
        if close == b'}' {
            self.skip_key()?;
        }
        Ok(true)
    }

    fn skip_key(&mut self) -> Result<(), NotJson> {
        self.skip_string()?;
        self.colon()
    }

    /// The two bytes here.
    #[inline]
    fn pair(&self) -> Option<[u8; 2]> {
        self.bytes.get(self.at..)?.first_chunk::<2>().copied()
    }

    /// Passes a colon with the blanks around it.
    #[inline]
    pub fn colon(&mut self) -> Result<(), NotJson> {
        if let Some([b':', next]) = self.pair()
            && next > b' '
        {
            self.at += 1;
            return Ok(());
        }
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Ok(())
    }
}

/// Digits, decimals and length of the number at the beginning, if it is short and its end can be seen.
#[inline(always)]
fn short(bytes: &[u8; 16]) -> Option<(u64, usize, usize)> {
    let (mut digits, mut point, mut len) = (0, None, 0);
    for byte in bytes {
        match byte {
            b'0'..=b'9' => digits = digits * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(len),
            _ => break,
        }
        len += 1;
    }
    let int_len = point.unwrap_or(len);
    let decimals = point.map_or(0, |at| len - at - 1);
    // What is no number at all, or a long one, or one with an exponent, is for the general way to tell.
    let is_plain =
        int_len > 0 && (bytes[0] != b'0' || int_len == 1) && (point.is_none() || (1..=6).contains(&decimals));
    let is_ended = len < bytes.len() && !matches!(bytes[len], b'.' | b'e' | b'E');
    (is_plain && is_ended).then_some((digits, decimals, len))
}
