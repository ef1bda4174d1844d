//! Against real servers, which the tests start themselves.

mod conforming;
mod server;
