//! Bytes → operations on a store and on the naive model: `tests/corpus/operations.rs`.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/corpus/decode.rs"]
mod decode;
#[path = "../../tests/corpus/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| operations::run(data));
