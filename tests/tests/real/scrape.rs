//! A scrape, parsed by a reader of its own: text format 0.0.4 to samples.

use std::collections::BTreeMap;

/// Samples of one scrape by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    pub samples: BTreeMap<String, BTreeMap<Vec<(String, String)>, f64>>,
    /// Types by family.
    pub types: BTreeMap<String, String>,
}

impl Scrape {
    /// Parses; anything odd is an error.
    pub fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(scrape.types.insert(name.into(), kind.into()).is_none(), "{name} has two types");
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = parse_labels(labels.strip_suffix('}').unwrap());
            let before = scrape.samples.entry(name.into()).or_default().insert(labels, value.parse().unwrap());
            assert!(before.is_none(), "{series} is there twice");
        }
        scrape
    }

    /// Samples of a name.
    pub fn of(&self, name: &str) -> impl Iterator<Item = (&Vec<(String, String)>, f64)> {
        self.samples.get(name).into_iter().flatten().map(|(labels, value)| (labels, *value))
    }

    /// The only sample of a name with these labels among its own.
    pub fn value(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let fits = |labels: &[(String, String)]| {
            wanted.iter().all(|(n, v)| labels.iter().any(|(name, value)| name == n && value == v))
        };
        let mut found = self.of(name).filter(|(labels, _)| fits(labels)).map(|(_, value)| value);
        let value = found.next();
        assert!(found.next().is_none(), "{name}{wanted:?} is not unique");
        value
    }

    /// Where what it shows ends in a partition.
    pub fn next_offset(&self, partition: i32) -> Option<i64> {
        self.value("larum_pipeline_next_offset", &[("partition", &partition.to_string())]).map(|v| v as i64)
    }

    /// The tick it shows.
    pub fn tick(&self) -> Option<i64> {
        self.value("larum_pipeline_tick_seconds", &[]).map(|v| v as i64)
    }
}

/// A label by name.
pub fn label<'l>(labels: &'l [(String, String)], name: &str) -> &'l str {
    labels.iter().find(|l| l.0 == name).map_or("", |l| &l.1)
}

fn parse_labels(mut text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        let (mut value, mut end, mut escaped) = (String::new(), None, false);
        for (at, c) in rest.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                c if escaped => value.push(c),
                '\\' => {}
                '"' => {
                    end = Some(at);
                    break;
                }
                c => value.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        labels.push((name.to_string(), value));
        let rest = &rest[end.unwrap() + 1..];
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}
