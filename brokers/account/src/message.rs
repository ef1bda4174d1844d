//! The message that all examples send.

use anyhow::{Context as _, Result};

/// An order to book: its id is what it is deduplicated on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub amount: u32,
}

impl Message {
    /// The `number`-th message of a campaign.
    #[must_use]
    pub fn numbered(number: u64) -> Self {
        Message { id: format!("order-{number}"), amount: (number % 97 + 1) as u32 }
    }

    #[must_use]
    pub fn body(&self) -> String {
        format!("{} {}", self.id, self.amount)
    }

    /// Reads what [`Message::body`] wrote.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(body)?;
        let (id, amount) = text.split_once(' ').context("a body is an id and an amount")?;
        Ok(Message { id: id.to_owned(), amount: amount.parse()? })
    }
}
