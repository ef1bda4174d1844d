//! The scripts, and how commands are written.

use std::sync::LazyLock;

/// A script by its text and its hash, by which a server that has it is asked.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

macro_rules! script {
    ($($file:literal),+) => {
        LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $file, ".lua")), "\n"),+)))
    };
}

/// Steps of rows.
pub(crate) static STEP: LazyLock<Script> = script!("time", "row", "step");
pub(crate) static OPEN: LazyLock<Script> = script!("time", "open");
pub(crate) static FORGET: LazyLock<Script> = script!("time", "forget");
pub(crate) static FORGOTTEN: LazyLock<Script> = script!("time", "forgotten");
pub(crate) static ACQUIRE: LazyLock<Script> = script!("time", "acquire");
pub(crate) static APPEND: LazyLock<Script> = script!("time", "append");
pub(crate) static RELEASE: LazyLock<Script> = script!("time", "release");
pub(crate) static SLICES: LazyLock<Script> = script!("time", "slices");

impl Script {
    fn new(text: &'static str) -> Self {
        Script { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// Words of a command as the protocol has them.
#[derive(Default)]
pub(crate) struct Words {
    count: usize,
    bytes: Vec<u8>,
}

impl Words {
    pub(crate) fn push(&mut self, word: impl AsRef<[u8]>) {
        let word = word.as_ref();
        self.count += 1;
        push_length(&mut self.bytes, b'$', word.len());
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub(crate) fn push_number(&mut self, number: impl Into<u64>) {
        self.push(number.into().to_string());
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn push_length(bytes: &mut Vec<u8>, kind: u8, length: usize) {
    bytes.push(kind);
    bytes.extend_from_slice(length.to_string().as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

/// A command for the node that has a slot.
pub(crate) struct Call {
    pub(crate) slot: u16,
    script: Option<&'static Script>,
    words: Words,
}

/// How a script is named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// By its hash.
    Hash,
    /// By its text, for a server that does not have it yet.
    Text,
}

impl Call {
    /// Runs a script. All keys are in the slot.
    pub(crate) fn script<K: AsRef<[u8]>>(
        slot: u16,
        script: &'static Script,
        keys: impl ExactSizeIterator<Item = K>,
    ) -> Self {
        let mut words = Words::default();
        words.push_number(keys.len() as u64);
        keys.for_each(|key| words.push(key));
        Call { slot, script: Some(script), words }
    }

    /// A command of the server's own.
    pub(crate) fn plain(slot: u16, command: &[&str]) -> Self {
        let mut words = Words::default();
        command.iter().for_each(|word| words.push(word));
        Call { slot, script: None, words }
    }

    pub(crate) fn arg(&mut self, word: impl AsRef<[u8]>) -> &mut Self {
        self.words.push(word);
        self
    }

    pub(crate) fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.words.push_number(number);
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    pub(crate) fn write(&self, form: Form, bytes: &mut Vec<u8>) {
        let mut begin = Words::default();
        match (self.script, form) {
            (None, _) => {}
            (Some(script), Form::Hash) => {
                begin.push("EVALSHA");
                begin.push(&script.hash);
            }
            (Some(script), Form::Text) => {
                begin.push("EVAL");
                begin.push(script.text);
            }
        }
        push_length(bytes, b'*', begin.count + self.words.count);
        bytes.extend_from_slice(&begin.bytes);
        bytes.extend_from_slice(&self.words.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_client_writes_them() {
        let mut call = Call::script(0, &RELEASE, ["the key"].iter());
        call.arg(b"\0\r\n").number(12_u64);
        let mut bytes = Vec::new();
        call.write(Form::Text, &mut bytes);
        let mut command = redis::cmd("EVAL");
        command.arg(RELEASE.text).arg(1).arg("the key").arg(b"\0\r\n").arg(12);
        assert_eq!(bytes, command.get_packed_command());
        let mut bytes = Vec::new();
        call.write(Form::Hash, &mut bytes);
        let mut command = redis::cmd("EVALSHA");
        command.arg(&RELEASE.hash).arg(1).arg("the key").arg(b"\0\r\n").arg(12);
        assert_eq!(bytes, command.get_packed_command());
    }
}
