//! YAML text to a tree that knows its lines.

use saphyr_parser::{Event, Parser, Span};

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None` when it is about the whole or the command line.
    pub line: Option<usize>,
    /// What is wrong, and the mend.
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    pub line: usize,
    pub value: Value,
}

/// What a value is; scalars stay texts, because what they mean depends on the key.
#[derive(Clone, Debug)]
pub enum Value {
    Scalar(String),
    List(Vec<Node>),
    /// Keys with their lines, in order; a key may come twice.
    Map(Vec<(String, usize, Node)>),
}

/// Deepest nesting taken.
const DEPTH_MAX: usize = 16;

/// Reads one document; `None` when the text holds nothing.
pub fn parse(text: &str) -> Result<Option<Node>, Problem> {
    let mut events = Events { parser: Parser::new_from_str(text) };
    loop {
        match events.next()? {
            (Event::StreamEnd, _) => return Ok(None),
            (Event::StreamStart | Event::DocumentStart(_), _) => {}
            (event, span) => return events.node(event, span, 0).map(Some),
        }
    }
}

struct Events<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
}

fn wrong<T>(line: usize, text: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { line: Some(line), text: text.into() })
}

impl<'t> Events<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => wrong(error.marker().line(), format!("this is not YAML: {}", error.info())),
            None => wrong(0, "this is not YAML: it ends too early"),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        let line = span.start.line();
        if depth > DEPTH_MAX {
            return wrong(line, format!("nested deeper than {DEPTH_MAX}"));
        }
        let value = match event {
            Event::Scalar(text, ..) => Value::Scalar(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(items),
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut members = Vec::new();
                loop {
                    let (key, span) = match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(members),
                        (Event::Scalar(key, ..), span) => (key.into_owned(), span),
                        (_, span) => return wrong(span.start.line(), "a key must be a plain text"),
                    };
                    let (event, value_span) = self.next()?;
                    members.push((key, span.start.line(), self.node(event, value_span, depth + 1)?));
                }
            }
            Event::Alias(_) => return wrong(line, "aliases (*name) are not taken; write the value out"),
            _ => return wrong(line, "a value is missing"),
        };
        Ok(Node { line, value })
    }
}
