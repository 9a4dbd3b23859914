//! The strict single-pass reader: bytes to a borrowed [`AuthEvent`], or to the first [`Reject`] that applies.
//!
//! One pass over the record notes every fault it meets and goes on, because a fault that comes later in the record may
//! come earlier in the order of reasons.

use crate::event::{AuthEvent, RawEvent};
use crate::json::{Marks, NotJson, Scanner};
use crate::layout::Layout;
use crate::reader::Reader;
use crate::reject::Reject;
use crate::time::Minute;

/// How many events a record of a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Records {
    /// One JSON object.
    #[default]
    One,
    /// A JSON array of objects.
    Array,
    /// Newline-delimited JSON objects; blank lines are passed over.
    Lines,
}

/// Bounds of decoding.
///
/// Records are addressed by 32-bit positions: the limit may not exceed 1 GiB, far above what a broker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Larger records are refused as `too_large`.
    pub record_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { record_bytes_max: 64 * 1024 }
    }
}

/// Decodes records; owns the buffers that are reused from record to record, so it allocates only while they grow.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: Limits,
    marks: Marks,
    minute: Minute,
    layout: Layout,
    raw: RawEvent,
    scratch: String,
    stack: Vec<u8>,
}

impl Decoder {
    /// A decoder with the given bounds.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { record_bytes_max: limits.record_bytes_max.min(1 << 30) };
        Decoder { limits, ..Decoder::default() }
    }

    /// Decodes a record that holds one event.
    ///
    /// # Errors
    /// The first reason that applies.
    #[inline]
    pub fn decode<'a>(&'a mut self, record: &'a [u8]) -> Result<AuthEvent<'a>, Reject> {
        let record = self.text(record)?;
        self.decode_text(record)
    }

    /// Decodes a record of any sort and shows `visit` each event in order; gives their number.
    ///
    /// A record is taken or refused whole: on `Err`, forget what was shown.
    ///
    /// # Errors
    /// `not_json` where the record as a whole is none, else the first bad event's reason.
    pub fn decode_each(
        &mut self,
        record: &[u8],
        records: Records,
        mut visit: impl FnMut(&AuthEvent<'_>),
    ) -> Result<usize, Reject> {
        let record = self.text(record)?;
        match records {
            Records::One => self.decode_text(record).map(|event| visit(&event)).map(|()| 1),
            Records::Array => self.decode_array(record, visit),
            Records::Lines => {
                let mut events = 0;
                for line in record.split('\n').filter(|line| !is_blank(line)) {
                    visit(&self.decode_text(line)?);
                    events += 1;
                }
                Ok(events)
            }
        }
    }

    /// The record as text, once size, emptiness and UTF-8 are checked.
    #[inline]
    fn text<'a>(&self, record: &'a [u8]) -> Result<&'a str, Reject> {
        if record.len() > self.limits.record_bytes_max {
            return Err(Reject::TooLarge);
        }
        if record.iter().all(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r')) {
            return Err(Reject::Empty);
        }
        std::str::from_utf8(record).map_err(|_| Reject::NotUtf8)
    }

    fn decode_text<'a>(&'a mut self, record: &'a str) -> Result<AuthEvent<'a>, Reject> {
        let Decoder { marks, minute, layout, raw, scratch, stack, .. } = self;
        let scanner = Scanner::new(record.as_bytes(), marks);
        let mut reader = Reader { record, scanner, scratch, stack, minute, layout };
        reader.scanner.blanks();
        reader.read(raw).map_err(|NotJson| Reject::NotJson)?;
        reader.scanner.end().map_err(|NotJson| Reject::NotJson)?;
        self.raw.finish(record, &self.scratch)
    }

    fn decode_array(&mut self, record: &str, mut visit: impl FnMut(&AuthEvent<'_>)) -> Result<usize, Reject> {
        let Decoder { marks, minute, layout, raw, scratch, stack, .. } = self;
        let scanner = Scanner::new(record.as_bytes(), marks);
        let mut reader = Reader { record, scanner, scratch, stack, minute, layout };
        reader.scanner.blanks();
        let is_array = reader.scanner.take(b'[');
        let (mut events, mut first_bad) = (0, None);
        let mut read = || -> Result<(), NotJson> {
            if !is_array {
                reader.scanner.skip(0, reader.stack)?;
                return reader.scanner.end();
            }
            reader.scanner.blanks();
            while events > 0 || !reader.scanner.take(b']') {
                reader.scanner.blanks();
                reader.read(raw)?;
                events += 1;
                match raw.finish(record, reader.scratch) {
                    Ok(event) => visit(&event),
                    Err(reject) => first_bad = first_bad.or(Some(reject)),
                }
                reader.scanner.blanks();
                if reader.scanner.take(b']') {
                    break;
                }
                reader.scanner.expect(b',')?;
            }
            reader.scanner.end()
        };
        read().map_err(|NotJson| Reject::NotJson)?;
        match first_bad {
            Some(reject) => Err(reject),
            None if !is_array => Err(Reject::NotAnObject),
            None if events == 0 => Err(Reject::Empty),
            None => Ok(events),
        }
    }
}

fn is_blank(line: &str) -> bool {
    line.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\r'))
}
