//! JSON Schema of the configuration file: what the reading code asks for, described by the comments of the reference file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::node::{Node, Value as Yaml, parse};
use super::reader::Reader;
use super::{Overrides, read};

/// The reference file.
const REFERENCE: &str = include_str!("../../../../config/larum.yaml");
/// Each list with one entry: what is in it is asked for only if there is one.
const ONE_OF_EACH: &str = "sources: [{audit: {queues: [{}]}}]\nwatched_groups: [{}]\n";

/// The schema, as `config/larum.schema.json` holds it.
///
/// # Errors
/// The reference file is no YAML, which a test would have shown.
pub fn schema() -> Result<Value, super::Problem> {
    let root = parse(ONE_OF_EACH)?;
    let mut reader = Reader::new(root.as_ref());
    // What is missing in the sample does not matter: only what is asked for does.
    read(&mut reader, &Overrides::default());
    let mut schema = reader.schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Configuration of Larum");
    let mut comments = BTreeMap::new();
    let lines: Vec<&str> = REFERENCE.lines().collect();
    if let Some(root) = parse(REFERENCE)? {
        collect(&root, "", &lines, &mut comments);
    }
    describe(&mut schema, "", &comments);
    Ok(schema)
}

/// The comment right above each key, by path; lists add nothing to the path.
fn collect(node: &Node, path: &str, lines: &[&str], comments: &mut BTreeMap<String, String>) {
    match &node.value {
        Yaml::Scalar(_) => {}
        Yaml::List(items) => items.iter().for_each(|item| collect(item, path, lines, comments)),
        Yaml::Map(members) => {
            for (key, line, value) in members {
                let path = format!("{path}/{key}");
                let above = lines[..line - 1].iter().rev().map(|line| line.trim());
                let mut comment: Vec<&str> = above.map_while(|line| line.strip_prefix('#')).collect();
                comment.reverse();
                // An example is no description.
                let text: Vec<&str> =
                    comment.into_iter().take_while(|line| !line.starts_with("  ")).map(str::trim).collect();
                if !text.is_empty() {
                    comments.insert(path.clone(), text.join(" "));
                }
                collect(value, &path, lines, comments);
            }
        }
    }
}

fn describe(schema: &mut Value, path: &str, comments: &BTreeMap<String, String>) {
    if let Some(items) = schema.get_mut("items") {
        describe(items, path, comments);
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (key, shape) in properties {
        let path = format!("{path}/{key}");
        if let Some(comment) = comments.get(&path) {
            shape["description"] = json!(comment);
        }
        describe(shape, &path, comments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/larum.schema.json");
        let text = serde_json::to_string_pretty(&schema().unwrap()).unwrap() + "\n";
        if std::env::var_os("LARUM_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            file == text,
            "config/larum.schema.json is not current: run with LARUM_BLESS=1 and look at the difference"
        );
    }

    /// Every key of the reference file has its place in the schema, and every key of the schema is in the reference file
    /// or one of its examples.
    #[test]
    fn the_reference_file_and_the_schema_know_the_same_keys() {
        fn keys_of(schema: &Value, keys: &mut Vec<String>) {
            if let Some(items) = schema.get("items") {
                keys_of(items, keys);
            }
            for (key, shape) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                // Options of the client are the client's.
                if key != "client_options" {
                    keys_of(shape, keys);
                }
                keys.push(key.clone());
            }
        }
        let mut keys = Vec::new();
        keys_of(&schema().unwrap(), &mut keys);
        for key in keys {
            assert!(REFERENCE.contains(&format!("{key}:")), "{key} is not in the reference file");
        }
        let config = super::super::Config::resolve(REFERENCE, &Overrides::default());
        assert!(config.is_ok(), "{:?}", config.err());
    }
}
