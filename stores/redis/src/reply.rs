//! Taking replies apart. One that is not as the scripts write it is an error, never a guess.

use onceonly::Timestamp;
use onceonly::authority::AuthorityError;
use redis::Value;

/// What a script returned, one after the other.
pub(crate) struct Reply(std::vec::IntoIter<Value>);

/// A reply that no script gives. It was applied, by whatever it was.
pub(crate) fn unexpected() -> AuthorityError {
    AuthorityError::undecided("the server's reply is not one that was asked for")
}

impl Reply {
    pub(crate) fn new(value: Value) -> Result<Self, AuthorityError> {
        match value {
            Value::Array(values) => Ok(Reply(values.into_iter())),
            Value::Nil => Ok(Reply(Vec::new().into_iter())),
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    pub(crate) fn value(&mut self) -> Result<Value, AuthorityError> {
        self.0.next().ok_or_else(unexpected)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, AuthorityError> {
        match self.value()? {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            _ => Err(unexpected()),
        }
    }

    /// A number, as such or as text.
    pub(crate) fn number<N: TryFrom<i64> + std::str::FromStr>(
        &mut self,
    ) -> Result<N, AuthorityError> {
        match self.value()? {
            Value::Int(number) => N::try_from(number).map_err(|_| unexpected()),
            Value::BulkString(text) => {
                let text = std::str::from_utf8(&text).map_err(|_| unexpected())?;
                text.parse().map_err(|_| unexpected())
            }
            _ => Err(unexpected()),
        }
    }

    /// A moment that the server counts in microseconds.
    pub(crate) fn moment(&mut self) -> Result<Timestamp, AuthorityError> {
        let micros: i64 = self.number()?;
        Ok(Timestamp::from_unix_nanos(micros.saturating_mul(1_000)))
    }
}
