//! Takes values out of the tree by name: notes every problem and goes on with the default, so that all show at once. What
//! is asked for is noted too: it is the schema.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, json};

use crate::config::node::{Node, Problem, Value};

/// Reads one map; the names asked for are the names known.
pub struct Reader<'n> {
    path: String,
    members: &'n [(String, usize, Node)],
    known: BTreeSet<&'static str>,
    problems: Vec<Problem>,
    /// Its key in the map around it, and whether it is one of a list there.
    place: (&'static str, bool),
    /// JSON Schema of what was asked for, by key.
    shapes: Map<String, serde_json::Value>,
    required: Vec<&'static str>,
}

impl<'n> Reader<'n> {
    /// Reads the root, which must be a map or nothing.
    pub fn new(root: Option<&'n Node>) -> Self {
        let mut reader = Reader {
            path: String::new(),
            members: &[],
            known: BTreeSet::new(),
            problems: Vec::new(),
            place: ("", false),
            shapes: Map::new(),
            required: Vec::new(),
        };
        match root {
            None => {}
            Some(Node { value: Value::Map(members), .. }) => reader.members = members,
            Some(node) => reader.problem(node.line, "the file must hold keys and values".into()),
        }
        reader
    }

    fn problem(&mut self, line: usize, text: String) {
        self.problems.push(Problem { line: Some(line), text });
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// Notes that the value of `key` is wrong: "`key` `text`".
    pub fn complain(&mut self, key: &'static str, text: &str) {
        // What is not there is missing from the map that begins here.
        let around = if self.path.is_empty() { None } else { self.members.first().map(|m| m.1) };
        let line = self.get(key).map(|n| n.line).or(around);
        let text = format!("{} {text}", self.name(key));
        self.problems.push(Problem { line, text });
    }

    /// Notes that what stands at `line` is wrong.
    pub fn complain_at(&mut self, line: usize, text: &str) {
        let text = format!("{}.{text}", self.path);
        self.problem(line, text);
    }

    /// Whether there is anything at `key`.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.get(key).is_some_and(|node| !matches!(&node.value, Value::Scalar(text) if text.is_empty()))
    }

    /// Keys that the caller judges, with lines and texts: (line, key, text).
    pub fn pairs(&mut self, key: &'static str) -> Vec<(usize, String, String)> {
        let members: &[_] = match self.get(key) {
            Some(Node { value: Value::Map(members), .. }) => members,
            Some(Node { value: Value::Scalar(text), .. }) if text.is_empty() => &[],
            None => &[],
            Some(node) => {
                self.problem(node.line, format!("{} takes keys and values", self.name(key)));
                &[]
            }
        };
        let mut pairs = Vec::new();
        for (name, line, node) in members {
            match &node.value {
                Value::Scalar(text) => pairs.push((*line, name.clone(), text.clone())),
                _ => self.problem(*line, format!("{}.{name} takes a single value", self.name(key))),
            }
        }
        pairs
    }

    /// Notes the shape of what is at `key`: JSON Schema.
    pub fn shape(&mut self, key: &'static str, shape: serde_json::Value) {
        self.shapes.insert(key.to_string(), shape);
    }

    /// JSON Schema of all that was asked for.
    pub fn schema(&self) -> serde_json::Value {
        let mut schema = json!({"type": ["object", "null"], "additionalProperties": false});
        schema["properties"] = self.shapes.clone().into();
        if !self.required.is_empty() {
            schema["required"] = json!(self.required);
        }
        schema
    }

    fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.insert(key);
        self.members.iter().find(|m| m.0 == key).map(|m| &m.2)
    }

    /// The scalar of `key`; YAML's empty value and `null` count as absent.
    fn scalar(&mut self, key: &'static str) -> Option<(&'n str, usize)> {
        match self.get(key)? {
            Node { value: Value::Scalar(text), .. } if matches!(text.as_str(), "" | "~" | "null") => None,
            Node { value: Value::Scalar(text), line } => Some((text, *line)),
            Node { line, .. } => {
                self.problem(*line, format!("{} takes a single value", self.name(key)));
                None
            }
        }
    }

    /// What `parse` makes of the text of `key`, or of `default`.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, line) = self.scalar(key).unwrap_or((default, 0));
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(line, format!("{} {why}", self.name(key)));
                parse(default).ok()
            }
        }
    }

    /// What `parse` makes of a flag's text.
    pub fn flag<T>(&mut self, flag: &str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problems.push(Problem { line: None, text: format!("{flag} {why}") });
                None
            }
        }
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, default: &str) -> String {
        self.shape(key, json!({"type": ["string", "null"], "default": default}));
        self.scalar(key).map_or(default, |s| s.0).to_string()
    }

    /// A text, if it is there.
    pub fn optional_text(&mut self, key: &'static str) -> Option<String> {
        self.shape(key, json!({"type": ["string", "null"]}));
        self.scalar(key).map(|s| s.0.to_string())
    }

    /// A text that must be there.
    pub fn required_text(&mut self, key: &'static str) -> String {
        self.shape(key, json!({"type": "string"}));
        self.required.push(key);
        match self.scalar(key) {
            Some((text, _)) => text.to_string(),
            None => {
                let line = self.members.first().map(|m| m.1);
                self.problems.push(Problem { line, text: format!("{} is missing", self.name(key)) });
                String::new()
            }
        }
    }

    /// A whole number in a range.
    pub fn number(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let bounds = json!({"type": "integer", "minimum": range.start(), "maximum": range.end()});
        // Written 10_000 it is a text to other readers of YAML.
        let shape = json!({"anyOf": [bounds, {"type": "string", "pattern": "^[0-9_]+$"}, {"type": "null"}]});
        self.shape(key, shape);
        let parse = |text: &str| {
            let value = text.replace('_', "").parse().ok().filter(|n| range.contains(n));
            value.ok_or_else(|| format!("takes a whole number from {} to {}, not {text}", range.start(), range.end()))
        };
        self.parsed(key, &default.to_string(), parse).unwrap_or(default)
    }

    /// A size in bytes: a number and `B`, `KiB`, `MiB` or `GiB`.
    pub fn bytes(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.shape(key, json!({"type": ["string", "null"], "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)$"}));
        let parse = |text: &str| {
            let value = with_unit(text, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)]);
            let bytes = value
                .ok_or_else(|| format!("takes a number and a unit (B, KiB, MiB, GiB), as in 64MiB, not {text}"))?;
            if range.contains(&bytes) {
                Ok(bytes)
            } else {
                Err(format!("must be from {} B to {} B, not {text}", range.start(), range.end()))
            }
        };
        self.parsed(key, &format!("{default}B"), parse).unwrap_or(default)
    }

    /// A duration: a number and `ms`, `s`, `m`, `h` or `d`.
    pub fn duration(&mut self, key: &'static str, default: &str, range: RangeInclusive<Duration>) -> Duration {
        let pattern = "^[0-9]+ *(ms|s|m|h|d)$";
        self.shape(key, json!({"type": ["string", "null"], "pattern": pattern, "default": default}));
        let parse = |text: &str| {
            let value = duration(text)?;
            let fits = range.contains(&value);
            if fits {
                Ok(value)
            } else {
                Err(format!("must be from {:?} to {:?}, not {text}", range.start(), range.end()))
            }
        };
        self.parsed(key, default, parse).unwrap_or_default()
    }

    /// One of a few words; the first is the default.
    pub fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> T {
        let mut all: Vec<_> = words.iter().map(|w| json!(w.0)).collect();
        all.push(json!(null));
        self.shape(key, json!({"enum": all, "default": words[0].0}));
        let parse = |text: &str| {
            let found = words.iter().find(|w| w.0 == text).map(|w| w.1);
            found.ok_or_else(|| {
                let all: Vec<&str> = words.iter().map(|w| w.0).collect();
                format!("takes {}, not {text}", all.join(" or "))
            })
        };
        self.parsed(key, words[0].0, parse).unwrap_or(words[0].1)
    }

    /// A list of texts; a single text is a list of one.
    pub fn texts(&mut self, key: &'static str) -> Vec<String> {
        self.shape(key, json!({"type": ["string", "array", "null"], "items": {"type": "string"}}));
        let Some(node) = self.get(key) else { return Vec::new() };
        match &node.value {
            Value::Scalar(text) => vec![text.clone()],
            Value::List(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match &item.value {
                        Value::Scalar(text) => texts.push(text.clone()),
                        _ => self.problem(item.line, format!("{} takes a list of texts", self.name(key))),
                    }
                }
                texts
            }
            Value::Map(_) => {
                self.problem(node.line, format!("{} takes a list of texts", self.name(key)));
                Vec::new()
            }
        }
    }

    fn child(&self, path: String, members: &'n [(String, usize, Node)], place: (&'static str, bool)) -> Reader<'n> {
        Reader { path, members, place, ..Reader::new(None) }
    }

    /// A nested map; hand it back with [`Reader::close`].
    pub fn map(&mut self, key: &'static str) -> Reader<'n> {
        let members: &[_] = match self.get(key) {
            None => &[],
            Some(Node { value: Value::Map(members), .. }) => members,
            Some(Node { value: Value::Scalar(text), .. }) if text.is_empty() => &[],
            Some(node) => {
                self.problem(node.line, format!("{} takes keys and values", self.name(key)));
                &[]
            }
        };
        self.child(self.name(key), members, (key, false))
    }

    /// A list of nested maps; hand each back with [`Reader::close`].
    pub fn list_of_maps(&mut self, key: &'static str) -> Vec<Reader<'n>> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.problem(node.line, format!("{} takes a list", self.name(key)));
            return Vec::new();
        };
        let mut readers = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let name = format!("{}[{at}]", self.name(key));
            match &item.value {
                Value::Map(members) => readers.push(self.child(name, members, (key, true))),
                _ => self.problem(item.line, format!("{name} takes keys and values")),
            }
        }
        readers
    }

    /// Ends a nested map: what was not asked for is not known.
    pub fn close(&mut self, child: Reader<'n>) {
        let (key, is_item) = child.place;
        let schema = child.schema();
        self.shape(key, if is_item { json!({"type": ["array", "null"], "items": schema}) } else { schema });
        self.problems.extend(child.finish());
    }

    /// Ends the reading; gives every problem in the order of lines.
    pub fn finish(mut self) -> Vec<Problem> {
        let mut seen = BTreeSet::new();
        for (key, line, _) in self.members {
            if !seen.insert(key.as_str()) {
                let text = format!("{} is there twice; the first would count", self.name(key));
                self.problems.push(Problem { line: Some(*line), text });
            }
            if !self.known.contains(key.as_str()) {
                let nearest = self.known.iter().max_by(|a, b| {
                    let likeness = |known: &str| strsim::jaro_winkler(known, key);
                    likeness(a).total_cmp(&likeness(b))
                });
                let hint = nearest.map_or(String::new(), |n| format!("; did you mean {n}?"));
                let text = format!("{} is not known{hint}", self.name(key));
                self.problems.push(Problem { line: Some(*line), text });
            }
        }
        self.problems.sort_by_key(|p| p.line.unwrap_or(0));
        self.problems
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (unit, factor) = units.iter().find(|u| text.ends_with(u.0))?;
    text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*factor)
}

/// A number and a unit to a duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    let value = with_unit(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]);
    value
        .map(Duration::from_millis)
        .ok_or_else(|| format!("takes a number and a unit (ms, s, m, h, d), as in 60s, not {text}"))
}
