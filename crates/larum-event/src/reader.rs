//! The strict reader: one pass over an event, every value checked as it comes, faults noted in their order.

use crate::event::RawEvent;
use crate::hex;
use crate::json::{NotJson, Scanner, Text, Value};
use crate::keys::{Key, Scope};
use crate::layout::{Layout, Place, Step};
use crate::number::{LATENCY_SCALE, Scaled, integer, latency_ns};
use crate::reject::Reject;
use crate::time::{EPOCH_SCALE, Minute, epoch_ns};
use crate::vocabulary::{ActorType, Hop, Kind, Op, Outcome, Reason};
use crate::words::{self, Words};

/// Largest `count`.
const COUNT_MAX: u64 = 1_000_000;

/// Whether a value keeps to the contract.
type Kept = Result<(), Reject>;

/// Keeps a value that could be read.
#[inline(always)]
fn keep<T>(place: &mut T, value: Option<T>, reject: Reject) -> Kept {
    match value {
        Some(value) => {
            *place = value;
            Ok(())
        }
        None => Err(reject),
    }
}

/// The parts that reading needs at hand, borrowed together.
pub struct Reader<'r, 's> {
    /// The record.
    pub record: &'r str,
    /// Where it is being read.
    pub scanner: Scanner<'r>,
    /// Takes texts that held escapes.
    pub scratch: &'s mut String,
    /// Takes what is open while an unknown value is passed.
    pub stack: &'s mut Vec<u8>,
    /// The minute that was read last.
    pub minute: &'s mut Minute,
    /// What was learnt from the records before.
    pub layout: &'s mut Layout,
}

impl Reader<'_, '_> {
    /// Reads the value that begins here as an event; leaves the scanner behind it.
    #[inline]
    pub fn read(&mut self, raw: &mut RawEvent) -> Result<(), NotJson> {
        raw.clear();
        self.scratch.clear();
        self.scanner.too_deep = false;
        if self.scanner.peek() == b'{' {
            self.members(raw)?;
        } else {
            self.scanner.skip(0, self.stack)?;
            raw.note(Reject::NotAnObject);
        }
        if self.scanner.too_deep {
            raw.note(Reject::TooDeep);
        }
        Ok(())
    }

    /// Reads the event that begins here: steps and values in turn, each step foreseen if it can be.
    fn members(&mut self, raw: &mut RawEvent) -> Result<(), NotJson> {
        let mut place = Place::BEGIN;
        let mut scope = Scope::Event;
        loop {
            let step = match self.layout.foresee(place, self.scanner.rest()) {
                Some((next, step, len)) => {
                    place = next;
                    self.scanner.pass(len);
                    step
                }
                None => {
                    let begin = self.scanner.at();
                    let (step, is_plain) = self.step(place == Place::BEGIN, scope, raw)?;
                    let bytes = if is_plain { self.scanner.since(begin) } else { None };
                    place = bytes.map_or(Place::LOST, |bytes| self.layout.learn(place, bytes, step));
                    step
                }
            };
            if raw.seen & step.keys != 0 {
                raw.note(Reject::DuplicateKey);
            }
            raw.seen |= step.keys;
            scope = step.scope;
            if step.key == Key::End {
                return Ok(());
            }
            self.member(step, raw)?;
        }
    }

    /// Reads on from a value, or from the event's beginning, to the next value or the event's end: also says whether
    /// the bytes mean the same wherever they stand in `scope`.
    #[inline(never)]
    fn step(&mut self, begins: bool, mut scope: Scope, raw: &mut RawEvent) -> Result<(Step, bool), NotJson> {
        let (mut keys, mut is_plain) = (0, true);
        let mut opened = begins && self.scanner.take(b'{');
        let key = loop {
            self.scanner.blanks();
            let another = if opened { self.scanner.peek() != b'}' } else { self.scanner.take(b',') };
            if !another {
                self.scanner.expect(b'}')?;
                is_plain &= !opened;
                if scope == Scope::Event {
                    break Key::End;
                }
                (scope, opened) = (Scope::Event, false);
                continue;
            }
            self.scanner.blanks();
            let name = self.scanner.string(self.record, self.scratch)?;
            self.scanner.colon()?;
            let Some(key) = self.words(name).and_then(|words| Key::of(scope, words)) else { break Key::Unknown };
            if keys & key.bit() != 0 {
                raw.note(Reject::DuplicateKey);
                is_plain = false;
            }
            keys |= key.bit();
            let Some(inner) = key.opens() else { break key };
            opened = self.scanner.take(b'{');
            if !opened {
                is_plain = false;
                break key;
            }
            scope = inner;
        };
        let is_text = key != Key::End && self.scanner.take(b'"');
        Ok((Step { keys, key, is_text, scope }, is_plain))
    }

    /// Passes the value here, whatever it is.
    fn skip(&mut self, step: Step) -> Result<(), NotJson> {
        if step.is_text {
            return self.scanner.skip_rest_of_string();
        }
        self.scanner.blanks();
        self.scanner.skip(step.scope.depth(), self.stack)
    }

    /// Reads the value here: one jump by key, then what is usual there.
    #[inline(always)]
    fn member(&mut self, step: Step, raw: &mut RawEvent) -> Result<(), NotJson> {
        let kept = match step.key {
            Key::Time => keep(&mut raw.time_ns, self.time(step)?, Reject::BadTime),
            Key::Kind => keep(&mut raw.kind, self.word(step)?.and_then(Kind::from_words), Reject::UnknownKind),
            Key::Outcome => keep(&mut raw.outcome, self.word(step)?.and_then(Outcome::from_words), Reject::BadOutcome),
            Key::Op => match self.value(step)? {
                Value::Text(text) => {
                    raw.op = self.words(text).and_then(Op::from_words);
                    Ok(())
                }
                _ => Err(Reject::BadField),
            },
            Key::Reason => match self.value(step)? {
                Value::Text(text) => {
                    raw.reason = Reason::of(self.words(text));
                    Ok(())
                }
                Value::Null => {
                    raw.reason = Reason::None;
                    Ok(())
                }
                _ => Err(Reject::BadField),
            },
            Key::LatencyMs => match self.value(step)? {
                Value::Null => {
                    raw.latency_ns = None;
                    Ok(())
                }
                value => {
                    raw.latency_ns = self.scaled(value, LATENCY_SCALE).and_then(latency_ns);
                    raw.latency_ns.map(drop).ok_or(Reject::BadLatency)
                }
            },
            Key::V => self.integer(step, 1, 1)?.map(drop).ok_or(Reject::UnknownVersion),
            Key::TraceId => self.hex::<32>(step, raw)?,
            Key::SpanId => self.hex::<16>(step, raw)?,
            Key::ActorType => {
                keep(&mut raw.actor_type, self.word(step)?.and_then(ActorType::from_words), Reject::BadField)
            }
            Key::SourceAsn => {
                let asn = self.integer(step, 0, u64::from(u32::MAX))?;
                keep(&mut raw.source_asn, asn.map(|asn| asn as u32), Reject::BadField)
            }
            Key::Count | Key::Epoch | Key::Seq | Key::EnqueuedTime | Key::Hop | Key::ParentSpanId => {
                self.rare(step, raw)?
            }
            Key::Actor | Key::Source | Key::Permission | Key::Change => {
                self.skip(step)?;
                Err(Reject::BadField)
            }
            Key::Unknown | Key::End => {
                self.skip(step)?;
                Ok(())
            }
            _ => self.plain_text(step, raw)?,
        };
        if let Err(reject) = kept {
            raw.note(reject);
        }
        Ok(())
    }

    /// The keys that are seldom there.
    fn rare(&mut self, step: Step, raw: &mut RawEvent) -> Result<Kept, NotJson> {
        let bad = Reject::BadField;
        Ok(match step.key {
            Key::Count => {
                let count = self.integer(step, 1, COUNT_MAX)?;
                keep(&mut raw.count, count.map(|count| count as u32), bad)
            }
            Key::Epoch => keep(&mut raw.epoch, self.integer(step, 0, i64::MAX as u64)?, bad),
            Key::Seq => keep(&mut raw.seq, self.integer(step, 0, i64::MAX as u64)?, bad),
            Key::EnqueuedTime => keep(&mut raw.enqueued_time_ns, self.time(step)?, bad),
            Key::Hop => keep(&mut raw.hop, self.word(step)?.and_then(Hop::from_words), bad),
            _ => self.hex::<16>(step, raw)?,
        })
    }

    #[inline(always)]
    fn plain_text(&mut self, step: Step, raw: &mut RawEvent) -> Result<Kept, NotJson> {
        let (least, most, reject) = step.key.text_limits();
        Ok(match self.value(step)? {
            Value::Text(text) if (least..=most).contains(&text.len()) => {
                raw.texts[step.key as usize] = text;
                Ok(())
            }
            _ => Err(reject),
        })
    }

    /// The value here.
    #[inline(always)]
    fn value(&mut self, step: Step) -> Result<Value, NotJson> {
        if step.is_text {
            return self.scanner.rest_of_string(self.record, self.scratch).map(Value::Text);
        }
        match self.scanner.peek() {
            b'0'..=b'9' => self.scanner.short_number(),
            _ => self.unusual_value(step),
        }
    }

    #[inline(never)]
    fn unusual_value(&mut self, step: Step) -> Result<Value, NotJson> {
        self.scanner.blanks();
        self.scanner.value(step.scope.depth(), self.record, self.scratch, self.stack)
    }

    /// A text's words; none if it is longer than any of the contract's.
    #[inline(always)]
    fn words(&self, text: Text) -> Option<Words> {
        let (of, start, end) = text.of(self.record, self.scratch);
        words::of(of.as_bytes(), start, end)
    }

    #[inline]
    fn bytes(&self, text: Text) -> &[u8] {
        let (of, start, end) = text.of(self.record, self.scratch);
        &of.as_bytes()[start..end]
    }

    /// A number times 10^`scale`, which is 6 or more.
    #[inline]
    fn scaled(&self, value: Value, scale: usize) -> Option<Scaled> {
        match value {
            Value::Short(digits, decimals) => Some(Scaled::of(digits, decimals, scale)),
            Value::Number(number) => Some(Scaled::read(self.bytes(number), scale)),
            _ => None,
        }
    }

    #[inline]
    fn integer(&mut self, step: Step, min: u64, max: u64) -> Result<Option<u64>, NotJson> {
        Ok(match self.value(step)? {
            Value::Short(digits, 0) => Some(digits).filter(|digits| (min..=max).contains(digits)),
            Value::Number(number) => integer(self.bytes(number), min, max),
            _ => None,
        })
    }

    #[inline]
    fn time(&mut self, step: Step) -> Result<Option<i64>, NotJson> {
        Ok(match self.value(step)? {
            Value::Text(text) => {
                let (of, start, end) = text.of(self.record, self.scratch);
                self.minute.parse_rfc3339_ns(&of.as_bytes()[start..end])
            }
            value => self.scaled(value, EPOCH_SCALE).and_then(epoch_ns),
        })
    }

    /// The words of the text here; none if it is no text, or longer than any of the contract's.
    #[inline(always)]
    fn word(&mut self, step: Step) -> Result<Option<Words>, NotJson> {
        Ok(match self.value(step)? {
            Value::Text(text) => self.words(text),
            _ => None,
        })
    }

    /// Keeps a text of `DIGITS` hex digits as it is: few are ever asked for.
    #[inline(always)]
    fn hex<const DIGITS: usize>(&mut self, step: Step, raw: &mut RawEvent) -> Result<Kept, NotJson> {
        Ok(match self.value(step)? {
            Value::Text(text)
                if self.bytes(text).first_chunk::<DIGITS>().is_some_and(hex::is_hex) && text.len() == DIGITS =>
            {
                raw.texts[step.key as usize] = text;
                Ok(())
            }
            _ => Err(Reject::BadField),
        })
    }
}
