//! Redis as authority.
mod answer;
mod authority;
mod builder;
mod connection;
mod exchange;
mod failure;
mod fleet;
mod info;
mod keys;
mod node;
mod owner;
mod reply;
mod rows;
mod script;
mod topology;

pub use authority::RedisAuthority;
pub use builder::{Builder, UrlError};
