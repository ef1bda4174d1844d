//! Against real servers, which the tests start themselves.

mod asking;
mod cluster;
mod conforming;
mod differing;
mod hanging;
mod legacy;
mod owners;
mod proxy;
mod restarts;
mod server;
mod settings;
mod stores;
