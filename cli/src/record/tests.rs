//! Every format cuts the same records out of an input, however the input arrives.

use super::*;

fn wanted(keys: &[&str]) -> Wanted {
    Wanted {
        keys: keys.iter().map(ToString::to_string).collect(),
        time: None,
        missing: MissingKey::Pass,
    }
}

/// What a record prints, and its key (`None` for a header or a missing key).
type Cut = (Vec<u8>, Option<Vec<u8>>);

/// Feeds `input` in pieces of `step` bytes, as slow reads would bring it.
fn cut(mut splitter: Splitter, input: &[u8], step: usize) -> Result<Vec<Cut>, (usize, String)> {
    let mut cuts = Vec::new();
    let mut batch = Batch::default();
    let (mut start, mut end) = (0, 0);
    splitter.start_source();
    loop {
        let at_end = end == input.len();
        loop {
            batch.clear();
            let block = &input[start..end];
            let split = splitter.split(block, at_end, &mut batch);
            for record in &batch.records {
                let key = record.key(block, &batch.arena).map(<[u8]>::to_vec);
                cuts.push((block[record.bytes()].to_vec(), key));
            }
            split.map_err(|fault| (start + fault.at, fault.error.to_string()))?;
            if batch.used == 0 {
                break;
            }
            start += batch.used;
        }
        if at_end {
            assert_eq!(start, input.len(), "bytes are left over");
            return Ok(cuts);
        }
        end = (end + step).min(input.len());
    }
}

fn at_every_step(make: impl Fn() -> Splitter, input: &[u8]) -> Vec<(String, Option<String>)> {
    let whole = cut(make(), input, usize::MAX / 2).unwrap();
    for step in 1..=input.len() {
        assert_eq!(cut(make(), input, step).unwrap(), whole, "in steps of {step}");
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    whole.into_iter().map(|(bytes, key)| (text(bytes), key.map(text))).collect()
}

fn pair(bytes: &str, key: &str) -> (String, Option<String>) {
    (bytes.into(), Some(key.into()))
}

fn header(bytes: &str) -> (String, Option<String>) {
    (bytes.into(), None)
}

#[test]
fn lines_end_with_lf_or_crlf_or_the_input() {
    let make = || Splitter::new(Format::Lines, wanted(&[]), true, b'\n');
    let cuts = at_every_step(make, b"a\nb\r\n\n\r\nc\rd\n\re\r");
    assert_eq!(
        cuts,
        [
            pair("a\n", "a"),
            pair("b\r\n", "b"),
            pair("\n", ""),
            pair("\r\n", ""),
            pair("c\rd\n", "c\rd"),
            pair("\re\r", "\re\r"),
        ]
    );
    let make = || Splitter::new(Format::Lines, wanted(&[]), true, 0);
    assert_eq!(at_every_step(make, b"a\n\0b\r\0"), [pair("a\n\0", "a\n"), pair("b\r\0", "b\r")]);
}

#[test]
fn rows_keep_their_bytes_and_lose_their_quotes() {
    let make = || Splitter::new(Format::Csv, wanted(&["id"]), true, b'\n');
    let input = "\u{feff}n,id\r\n1,\"a\r\n\"\"b\"\"\"\r\n\r\n\n2,\"c,\"\n3,d\r4,";
    let cuts = at_every_step(make, input.as_bytes());
    assert_eq!(
        cuts,
        [
            header("\u{feff}n,id\r\n"),
            pair("1,\"a\r\n\"\"b\"\"\"\r\n", "a\r\n\"b\""),
            pair("2,\"c,\"\n", "c,"),
            pair("3,d\r", "d"),
            pair("4,", ""),
        ]
    );
    let make = || Splitter::new(Format::Csv, wanted(&[]), false, b'\n');
    assert_eq!(
        at_every_step(make, b"\"a\"\r\na\n"),
        [pair("\"a\"\r\n", "\"a\""), pair("a\n", "a")]
    );
    let make = || Splitter::new(Format::Tsv, wanted(&["2"]), false, b'\n');
    assert_eq!(at_every_step(make, b"1\t\"a\n2\ta\"\n").len(), 2);
}

#[test]
fn the_mark_of_a_utf_8_file_is_no_part_of_a_name() {
    let make = || Splitter::new(Format::Csv, wanted(&["id"]), true, b'\n');
    let cuts = at_every_step(make, "\u{feff}id\n1\n".as_bytes());
    assert_eq!(cuts, [header("\u{feff}id\n"), pair("1\n", "1")]);
}

#[test]
fn rows_without_content_are_none() {
    for input in ["", "\n\n", "\r\n", "\u{feff}", "\u{feff}\r\n"] {
        let make = || Splitter::new(Format::Csv, wanted(&["1"]), true, b'\n');
        assert_eq!(at_every_step(make, input.as_bytes()), [], "{input:?}");
    }
}

#[test]
fn json_keys_are_raw_texts() {
    let make = || Splitter::new(Format::Ndjson, wanted(&["id"]), true, b'\n');
    let input = "\u{feff}{\"id\":1}\r\n\n{\"id\": \"1\"}\n{\"id\":{ \"a\": 1 }}\n{}\n 7 ";
    let cuts = at_every_step(make, input.as_bytes());
    assert_eq!(
        cuts,
        [
            pair("\u{feff}{\"id\":1}\r\n", "1"),
            pair("{\"id\": \"1\"}\n", "\"1\""),
            pair("{\"id\":{ \"a\": 1 }}\n", "{\"a\":1}"),
            header("{}\n"),
            header(" 7 "),
        ]
    );
}

#[test]
fn faults_tell_where_the_record_starts() {
    let csv = || Splitter::new(Format::Csv, wanted(&["1"]), true, b'\n');
    let json = || Splitter::new(Format::Ndjson, wanted(&["id"]), true, b'\n');
    for step in [1, 2, 3, 100] {
        let (at, error) = cut(csv(), b"a,b\n\n1,2,3\n", step).unwrap_err();
        assert_eq!((at, error.contains("uneven row: 3 fields")), (5, true), "{error}");
        let (at, error) = cut(csv(), b"a,b\n1,\"2\n3,4\n", step).unwrap_err();
        assert_eq!((at, error.contains("not closed")), (4, true), "{error}");
        let (at, _) = cut(json(), b"{\"id\":1}\n{\"id\":", step).unwrap_err();
        assert_eq!(at, 9);
        let (at, error) = cut(json(), b"{\"id\":1}\n{\"id\":\"\xff\"}\n", step).unwrap_err();
        assert_eq!((at, error.contains("UTF-8")), (9, true), "{error}");
    }
}
