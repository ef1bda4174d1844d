//! NDJSON: one JSON value a line; keys are the raw texts of the wanted values.

use std::fmt;

use anyhow::Error;
use memchr::memchr;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Batch, Fault, Wanted, missing_field, read_time};

pub(crate) struct Json {
    wanted: Wanted,
    tree: Vec<Node>,
    /// Bytes at the front of the next block that are known to hold no line end.
    searched: usize,
    first_line: bool,
    /// Scratch: a key without its insignificant space.
    compacted: Vec<Vec<u8>>,
}

impl Json {
    pub(crate) fn new(wanted: Wanted) -> Self {
        let mut tree = Vec::new();
        for (index, field) in wanted.fields().enumerate() {
            insert(&mut tree, &path_of(field), index);
        }
        let compacted = vec![Vec::new(); wanted.keys.len()];
        Json { wanted, tree, searched: 0, first_line: true, compacted }
    }

    pub(crate) fn start_source(&mut self) {
        self.searched = 0;
        self.first_line = true;
    }

    pub(crate) fn split(
        &mut self,
        block: &[u8],
        at_end: bool,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        while batch.used < block.len() {
            let start = batch.used;
            let from = start + self.searched;
            let (text_end, end) = match memchr(b'\n', &block[from..]) {
                Some(found) => (from + found, from + found + 1),
                None if at_end => (block.len(), block.len()),
                None => {
                    self.searched = block.len() - start;
                    return Ok(());
                }
            };
            self.searched = 0;
            self.line(&block[start..text_end], start..end, batch)
                .map_err(|error| Fault::new(start, error))?;
            batch.used = end;
            batch.lines += 1;
        }
        Ok(())
    }

    /// Adds the record of one line; a line of only white space is none.
    fn line(
        &mut self,
        line: &[u8],
        bytes: std::ops::Range<usize>,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.first_line => rest,
            _ => line,
        };
        self.first_line = false;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let text = std::str::from_utf8(line)
            .map_err(|error| Error::new(error).context("not valid UTF-8"))?;
        let mut found = vec![None; self.wanted.fields().count()];
        walk(text, &self.tree, &mut found).map_err(|error| not_json(&error))?;
        let absent = self.wanted.fields().zip(&found).find(|(_, value)| value.is_none());
        if let Some((field, _)) = absent {
            let key = missing_field(field, self.wanted.missing)?;
            batch.push(bytes, key);
            return Ok(());
        }
        if let (Some(wanted), Some(Some(raw))) = (&self.wanted.time, found.last()) {
            batch.push_time(read_time(unquoted(raw).as_bytes(), wanted)?);
        }
        if self.wanted.keys.is_empty() {
            return batch.push_fields(bytes, &[line.strip_suffix(b"\r").unwrap_or(line)]);
        }
        for (raw, compacted) in found.iter().flatten().zip(&mut self.compacted) {
            compact(raw, compacted);
        }
        let keys: Vec<&[u8]> = self.compacted.iter().map(Vec::as_slice).collect();
        batch.push_fields(bytes, &keys)
    }
}

/// One name on the way to wanted values.
#[derive(Debug)]
struct Node {
    name: String,
    /// The name as a place in an array, if it is one.
    place: Option<usize>,
    /// Which wanted fields end here.
    fields: Vec<usize>,
    children: Vec<Node>,
}

/// The names on the way to `field`: a JSON pointer (RFC 6901) or a top-level name.
fn path_of(field: &str) -> Vec<String> {
    match field.strip_prefix('/') {
        Some(pointer) => {
            pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
        }
        None => vec![field.to_owned()],
    }
}

fn insert(nodes: &mut Vec<Node>, path: &[String], field: usize) {
    let Some((name, rest)) = path.split_first() else { return };
    let at = nodes.iter().position(|node| node.name == *name).unwrap_or_else(|| {
        let canonical = name == "0" || !name.starts_with(['0', '+']);
        let place = name.parse().ok().filter(|_| canonical);
        nodes.push(Node { name: name.clone(), place, fields: Vec::new(), children: Vec::new() });
        nodes.len() - 1
    });
    if rest.is_empty() {
        nodes[at].fields.push(field);
    } else {
        insert(&mut nodes[at].children, rest, field);
    }
}

type Found<'a> = [Option<&'a str>];

/// The parser tells the line within the record, which is one line of a file.
fn not_json(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    Error::msg(format!("not valid JSON: {reason} at column {}", error.column()))
}

/// Checks that `text` is one JSON value and notes the raw texts of the wanted values in it.
fn walk<'a>(text: &'a str, nodes: &[Node], found: &mut Found<'a>) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Members { nodes, found }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Notes the wanted members of one object or array, and goes on below them.
struct Members<'n, 'f, 'a> {
    nodes: &'n [Node],
    found: &'f mut Found<'a>,
}

impl<'a> Members<'_, '_, 'a> {
    fn note<E: de::Error>(&mut self, node: &Node, value: &'a RawValue) -> Result<(), E> {
        // Of equal names the last counts, so what an earlier one held is taken back.
        forget(node, self.found);
        for &field in &node.fields {
            self.found[field] = Some(value.get());
        }
        if node.children.is_empty() || !value.get().starts_with(['{', '[']) {
            return Ok(());
        }
        walk(value.get(), &node.children, self.found).map_err(E::custom)
    }
}

fn forget(node: &Node, found: &mut Found<'_>) {
    for &field in &node.fields {
        found[field] = None;
    }
    for child in &node.children {
        forget(child, found);
    }
}

impl<'a> DeserializeSeed<'a> for Members<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Members<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        let nodes = self.nodes;
        while let Some(wanted) = map.next_key_seed(Name(nodes))? {
            match wanted {
                Some(node) => self.note(node, map.next_value()?)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        for place in 0.. {
            let more = match self.nodes.iter().find(|node| node.place == Some(place)) {
                Some(node) => match seq.next_element()? {
                    Some(value) => self.note(node, value).map(|()| true)?,
                    None => false,
                },
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    // Other values have no members.

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name, as the node that wants it.
struct Name<'n>(&'n [Node]);

impl<'n, 'a> DeserializeSeed<'a> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|node| node.name == name))
    }
}

/// Copies `raw` without the space that stands outside strings.
fn compact(raw: &str, out: &mut Vec<u8>) {
    out.clear();
    if !raw.starts_with(['{', '[']) {
        out.extend_from_slice(raw.as_bytes());
        return;
    }
    let mut in_string = false;
    let mut escaped = false;
    for byte in raw.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
}

/// A string's content, if `raw` is a string without escapes (no way to write a time has any).
fn unquoted(raw: &str) -> &str {
    raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(text: &'a str, fields: &[&str]) -> serde_json::Result<Vec<Option<&'a str>>> {
        let mut tree = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            insert(&mut tree, &path_of(field), index);
        }
        let mut found = vec![None; fields.len()];
        walk(text, &tree, &mut found).map(|()| found)
    }

    #[test]
    fn names_and_pointers_find_raw_texts() {
        let text = r#" {"a": {"b": [10, {"c": 1.0}]}, "x/y": "é", "~": null, "": 5 } "#;
        let fields = ["a", "/a/b/0", "/a/b/1/c", "/x~1y", "x/y", "/~0", "/", "/a/b/01", "/a/q"];
        let found = find(text, &fields).unwrap();
        assert_eq!(
            found,
            [
                Some(r#"{"b": [10, {"c": 1.0}]}"#),
                Some("10"),
                Some("1.0"),
                Some("\"é\""),
                Some("\"é\""),
                Some("null"),
                Some("5"),
                None,
                None
            ]
        );
    }

    #[test]
    fn of_equal_names_the_last_counts_as_in_serde_json() {
        assert_eq!(find(r#"{"id":1,"\u0069d":2}"#, &["id"]).unwrap(), [Some("2")]);
        assert_eq!(find(r#"{"a":{"b":1},"a":{}}"#, &["/a/b"]).unwrap(), [None]);
        assert_eq!(find(r#"{"a":{"b":1},"a":{"b":2}}"#, &["/a/b", "a"]).unwrap()[0], Some("2"));
    }

    #[test]
    fn what_is_not_one_json_value_is_an_error() {
        let wrong = [
            "",
            "{",
            r#"{"id":1"#,
            r#"{"id":1}}"#,
            r#"{"id":01}"#,
            r#"{"id":1} {"id":2}"#,
            r#"{"a":{"id":}}"#,
            r#"{id:1}"#,
            "nul",
            "[1,]",
        ];
        for text in wrong {
            assert!(find(text, &["id", "/a/id"]).is_err(), "{text}");
        }
        for text in ["1", "null", "true", "-1.5", "\"id\"", "[]", "{}", "123456789012345678901"] {
            assert_eq!(find(text, &["id"]).unwrap(), [None], "{text}");
        }
    }

    #[test]
    fn only_insignificant_space_is_left_out() {
        let mut out = Vec::new();
        compact(r#"{ "a b" : [ 1 , "c \" d \\" , { } ] }"#, &mut out);
        assert_eq!(out, br#"{"a b":[1,"c \" d \\",{}]}"#);
        compact(r#"" a ""#, &mut out);
        assert_eq!(out, br#"" a ""#);
    }
}
