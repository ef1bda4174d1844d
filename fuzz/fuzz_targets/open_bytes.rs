//! Bytes → changes of the files of a small valid store → open → operations: `tests/corpus/open_bytes.rs`.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/corpus/open_bytes.rs"]
mod open_bytes;

libfuzzer_sys::fuzz_target!(|data: &[u8]| open_bytes::run(data));
