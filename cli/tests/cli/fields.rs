//! Keys that are fields: NDJSON, CSV and TSV.

use crate::support::Place;

#[test]
fn json_names_and_pointers() {
    let place = Place::new();
    let input = concat!(
        "{\"id\":1,\"at\":{\"x\":[5,6]}}\n",
        "{\"at\":{\"x\":[5,7]},\"id\":1}\n",
        "{ \"id\" : 1 }\r\n",
        "{\"id\":\"1\"}\n",
        "{\"id\":1.0}\n",
        "{\"id\":{\"a\": [1, 2]}}\n",
        "{\"id\":{\"a\":[1,2]}}\n",
    );
    let args = ["dedup", "--format", "ndjson", "--key", "id"];
    let lines: Vec<&str> = input.split_inclusive('\n').collect();
    place.pipe(&args, input).prints(&[lines[0], lines[3], lines[4], lines[5]].concat());
    let nested = "{\"a\":{\"b/c\":[{\"d\":1}]}}\n{\"a\":{\"b/c\":[{\"d\":1}],\"e\":2}}\n";
    let args = ["dedup", "--format", "ndjson", "--key", "/a/b~1c/0/d"];
    place.pipe(&args, nested).prints("{\"a\":{\"b/c\":[{\"d\":1}]}}\n");
}

#[test]
fn of_equal_json_names_the_last_counts() {
    let input = "{\"id\":1,\"id\":2}\n{\"id\":1}\n{\"id\":2}\n";
    let ran = Place::new().pipe(&["dedup", "--format", "ndjson", "--key", "id"], input);
    ran.prints("{\"id\":1,\"id\":2}\n{\"id\":1}\n");
}

#[test]
fn without_a_key_a_json_line_is_a_line() {
    let place = Place::new().with("x.jsonl", "{\"a\":1}\n{\"a\": 1}\n{\"a\":1}\n");
    place.run(&["dedup", "x.jsonl"]).prints("{\"a\":1}\n{\"a\": 1}\n");
}

#[test]
fn several_fields_make_one_key() {
    let csv = "a,b,n\na,bc,1\nab,c,2\na,bc,3\n";
    let place = Place::new().with("x.csv", csv);
    let expected = "a,b,n\na,bc,1\nab,c,2\n";
    place.run(&["dedup", "x.csv", "--key", "a,b"]).prints(expected);
    place.run(&["dedup", "x.csv", "--key", "a", "--key", "b"]).prints(expected);
    place.run(&["dedup", "x.csv", "--key", "1,2"]).prints(expected);
    let json =
        "{\"a\":\"a\",\"b\":\"bc\"}\n{\"a\":\"ab\",\"b\":\"c\"}\n{\"b\":\"bc\",\"a\":\"a\"}\n";
    let ran = place.pipe(&["dedup", "--format", "ndjson", "--key", "a,/b"], json);
    assert_eq!(ran.ok().lines().count(), 2);
}

#[test]
fn rows_are_printed_as_they_came() {
    let csv = "id,text\r\n1,\"two\nlines, \"\"quoted\"\"\"\r\n\"1\",again\r\n2,\"x\"";
    let place = Place::new().with("x.csv", csv);
    let expected = "id,text\r\n1,\"two\nlines, \"\"quoted\"\"\"\r\n2,\"x\"";
    place.run(&["dedup", "x.csv", "--key", "id"]).prints(expected);
    let same = "text\n\"a\nb\"\n\"a\nb\"\n";
    place.pipe(&["dedup", "--format", "csv", "--key", "text"], same).prints("text\n\"a\nb\"\n");
}

#[test]
fn a_header_is_printed_once() {
    let place = Place::new()
        .with("one.csv", "id,n\n1,a\n")
        .with("two.csv", "\"id\",n\n1,b\n2,c\n")
        .with("three.csv", "n,id\nd,3\n")
        .with("empty.csv", "");
    let args = ["dedup", "--key", "id", "empty.csv", "one.csv", "empty.csv", "two.csv"];
    place.run(&args).prints("id,n\n1,a\n2,c\n");
    let ran = place.run(&["dedup", "--key", "id", "one.csv", "three.csv"]);
    ran.fails(1, &["three.csv: line 1", "header"]);
    assert_eq!(ran.stdout, "id,n\n1,a\n");
    place
        .run(&["dedup", "--key", "id", "one.csv", "--count"])
        .prints("lines 1 new 1 duplicate 0 too_old 0 missing 0\n");
    place
        .run(&["dedup", "--key", "id", "one.csv", "two.csv", "--duplicates"])
        .prints("id,n\n1,b\n");
}

#[test]
fn without_a_header_columns_have_numbers() {
    let place = Place::new().with("x.tsv", "1\ta\n1\tb\n2\ta\n");
    place.run(&["dedup", "x.tsv", "--no-header", "--key", "1"]).prints("1\ta\n2\ta\n");
    place.run(&["dedup", "x.tsv", "--no-header", "--key", "2"]).prints("1\ta\n1\tb\n");
    place.run(&["dedup", "x.tsv", "--no-header"]).prints("1\ta\n1\tb\n2\ta\n");
    let ran = place.run(&["dedup", "x.tsv", "--no-header", "--key", "3"]);
    ran.fails(1, &["x.tsv: line 1", "no column 3"]);
}

#[test]
fn tsv_has_no_quotes() {
    let place = Place::new().with("x.tsv", "id\n\"a\na\n\"a\n");
    place.run(&["dedup", "x.tsv", "--key", "id"]).prints("id\n\"a\na\n");
}

#[test]
fn an_uneven_row_is_named_and_what_came_before_is_printed() {
    let place = Place::new().with("x.csv", "id,n\n1,\"a\nb\"\n2\n3,c\n");
    let ran = place.run(&["dedup", "x.csv", "--key", "id", "--state", "seen", "--window", "1h"]);
    ran.fails(1, &["onceonly: x.csv: line 4: uneven row: 1 fields", "has 2"]);
    assert_eq!(ran.stdout, "id,n\n1,\"a\nb\"\n");
    // It is remembered, too.
    let fixed = Place::with(place, "y.csv", "id,n\n1,a\n2,b\n");
    fixed.run(&["dedup", "y.csv", "--key", "id", "--state", "seen"]).prints("id,n\n2,b\n");
}

#[test]
fn an_open_quote_at_the_end_is_named() {
    let place = Place::new().with("x.csv", "id\n1\n\"2\n3\n");
    place.run(&["dedup", "x.csv"]).fails(1, &["x.csv: line 3: a quoted field is not closed"]);
}

#[test]
fn an_unknown_column_is_named_with_the_known_ones() {
    let place = Place::new().with("x.csv", "id,n\n1,a\n");
    let ran = place.run(&["dedup", "x.csv", "--key", "ID"]);
    ran.fails(1, &["x.csv: line 1", "no column `ID`", "id, n"]);
}

#[test]
fn a_truncated_json_line_is_named() {
    let place = Place::new().with("x.ndjson", "{\"id\":1}\n{\"id\":2}\n{\"id\":");
    let ran = place.run(&["dedup", "x.ndjson", "--key", "id"]);
    ran.fails(1, &["onceonly: x.ndjson: line 3: not valid JSON: EOF while parsing", "column 6"]);
    assert!(!ran.stderr.contains("line 1"), "two numbers of lines: {}", ran.stderr);
    assert_eq!(ran.stdout, "{\"id\":1}\n{\"id\":2}\n");
    // It is an error whatever becomes of a missing field.
    place
        .run(&["dedup", "x.ndjson", "--key", "id", "--missing-key", "pass"])
        .fails(1, &["x.ndjson: line 3"]);
    place
        .pipe(&["dedup", "--format", "ndjson", "--key", "id"], "nonsense\n")
        .fails(1, &["<stdin>: line 1: not valid JSON"]);
}

#[test]
fn invalid_utf_8_in_json_is_named() {
    let place = Place::new().with("x.ndjson", b"{\"id\":1}\n{\"id\":2,\"x\":\"\xff\"}\n");
    let ran = place.run(&["dedup", "x.ndjson", "--key", "id"]);
    ran.fails(1, &["x.ndjson: line 2: not valid UTF-8"]);
    assert_eq!(ran.stdout, "{\"id\":1}\n");
}

#[test]
fn a_missing_field_is_an_error_or_passes_or_is_dropped() {
    let input = "{\"id\":1}\n{}\n{\"id\":1}\n{}\n[1]\n";
    let place = Place::new().with("x.ndjson", input);
    let with =
        |more: &[&str]| place.run(&[&["dedup", "x.ndjson", "--key", "id"][..], more].concat());
    let ran = with(&[]);
    ran.fails(1, &["x.ndjson: line 2", "`id` is missing", "--missing-key"]);
    assert_eq!(ran.stdout, "{\"id\":1}\n");
    with(&["--missing-key", "error"]).fails(1, &["x.ndjson: line 2"]);
    with(&["--missing-key", "pass"]).prints("{\"id\":1}\n{}\n{}\n[1]\n");
    with(&["--missing-key", "drop"]).prints("{\"id\":1}\n");
    with(&["--missing-key", "pass", "--duplicates"]).prints("{\"id\":1}\n");
    with(&["--missing-key", "drop", "--count"])
        .prints("lines 5 new 1 duplicate 1 too_old 0 missing 3\n");
}

#[test]
fn an_empty_field_is_a_key() {
    let place = Place::new().with("x.csv", "id,n\n,1\n,2\n\"\",3\n");
    place.run(&["dedup", "x.csv", "--key", "id"]).prints("id,n\n,1\n");
    place
        .pipe(&["dedup", "--format", "ndjson", "--key", "id"], "{\"id\":\"\"}\n{\"id\":\"\"}\n")
        .prints("{\"id\":\"\"}\n");
}
