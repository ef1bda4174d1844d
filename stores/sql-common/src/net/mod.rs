//! Connections: how calls that block keep their deadlines, who has which connection, and what is
//! done between calls.

mod backoff;
mod pool;
mod reactor;
mod tidier;

pub use backoff::Backoff;
pub use pool::Pool;
pub use reactor::Reactor;
pub use tidier::Tidier;
