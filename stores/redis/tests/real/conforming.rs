//! The suite of the library.

use onceonly::authority::conformance;
use onceonly_redis::RedisAuthority;

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

/// The rights that the documentation lists are enough.
#[test]
fn a_user_with_few_rights_conforms() {
    let rights = "on >secret ~few:* -@all +eval +evalsha +info +time +get +set +del +pttl \
                  +pexpireat +hget +hmget +hset +hsetnx +hgetall +hdel +xadd +xrange +xtrim \
                  +cluster|slots +asking";
    let rights: Vec<&str> = rights.split_whitespace().collect();
    let few = |server: &Server| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("few").arg(&rights).exec(&mut server.client()).unwrap();
        format!("redis://few:secret@127.0.0.1:{}", server.port)
    };
    let connect = |urls: &[String]| {
        let builder = RedisAuthority::builder(&urls[0]).key_prefix("few");
        urls.iter().skip(1).fold(builder, |builder, url| builder.or_at(url)).build().unwrap()
    };
    let server = Server::start(&[]);
    let urls = [few(&server)];
    conformance::run(|| connect(&urls)).unwrap();
    let cluster = Cluster::start(0);
    let urls: Vec<String> = cluster.nodes.iter().map(few).collect();
    conformance::run(|| connect(&urls)).unwrap();
}
