//! Scopes: one store, many namespaces; and keys of several fields.
//!
//! `cargo run --example scopes`

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use onceonly::{Dedup, Key};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    let dedup = Dedup::builder().window(Duration::from_secs(3600)).in_memory()?;

    // Two consumer groups read the same topic: each has to see each message once.
    let billing = dedup.scope("billing");
    let shipping = dedup.scope("shipping");
    writeln!(out, "billing   order-1001: {:?}", billing.observe("order-1001")?)?;
    writeln!(out, "shipping  order-1001: {:?}", shipping.observe("order-1001")?)?;
    writeln!(out, "billing   order-1001: {:?}", billing.observe("order-1001")?)?;

    // The store itself is a scope too, and differs from all named ones.
    writeln!(out, "root      order-1001: {:?}", dedup.observe("order-1001")?)?;

    // Joining strings by hand makes these two equal; lengths in front keep them apart.
    let one = Key::from_fields(&[b"tenant-1", b"1-order"]);
    let two = Key::from_fields(&[b"tenant-11", b"-order"]);
    writeln!(out, "fields    {:?}, {:?}", billing.observe(one)?, billing.observe(two)?)?;

    // A purge: the next delivery counts as new again, in this scope alone.
    writeln!(out, "forgotten order-1001: {}", billing.forget("order-1001")?)?;
    writeln!(out, "billing   order-1001: {:?}", billing.observe("order-1001")?)?;
    writeln!(out, "shipping  order-1001: {:?}", shipping.observe("order-1001")?)?;
    Ok(())
}
