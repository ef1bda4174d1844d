//! The suite of the library.

use onceonly::authority::conformance;

use crate::server::{Cluster, Server};

#[test]
fn a_single_server_conforms() {
    let server = Server::start(&[]);
    conformance::run(|| server.authority()).unwrap();
}

#[test]
fn a_cluster_conforms() {
    let cluster = Cluster::start(0);
    conformance::run(|| cluster.authority()).unwrap();
}
